# SPDX-License-Identifier: Apache-2.0
"""Names of languages and of sets: taken as they are, or refused before any work."""

import dataclasses

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate, LanguageModel, Text, validate_evaluation
from mlm_jax.finetune.config import Data, Finetune, Labelled, validate_finetuning
from mlm_jax.neutrality.config import Aligned, Analyze, validate_analysis
from mlm_jax.prepare.run import task_name

TAKEN = (
    "en",
    "zh-Hant-TW",
    "$x$",
    "<script>",
    "中文",
    "فارسی\u200cنو",
    "C++",
    "a'b\"c",
    "&amp;",
    "e\u0301",
    "..",
    "x" * 100,
    "語" * 33,
    "con",
    "{x}",
)
REFUSED = (
    "", " ", "\u200b", "\u202eab", "a\u2066b", "a\nb", "a\0b", "\x1b[2Jx", "a\u2028b", "\ud800", "x" * 101, "x" * 300, "語" * 34, "語" * 300, "a\x7f",
)  # fmt: skip
AS_FILES = ("a/b", "..", ".", "../x", "a\\b", "$\\frac{$", "a[b]", " en", "en ", ".hidden")
ALIKE = (
    ("a/b", "a_b"),
    ("en", "EN"),
    ("é", "e\u0301"),
    ("ﬁ", "fi"),
    ("en", "e\u200bn"),
    ("zh-tw", "zh_tw"),
    ("$x", "€x"),
)


def pretraining(*languages):
    return cfg.Config(
        data=cfg.Data(sources=tuple(cfg.Source(x, "a.txt") for x in languages)), model=cfg.Model(positions=512)
    )


def parallel(*languages):
    config = pretraining("en")
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, parallel=(cfg.Parallel(("en", languages[0]), ("a.tsv",)),))
    )


def finetuning(*languages):
    parts = tuple(Labelled(x, "a.tsv") for x in languages)
    return Finetune(source=languages[0], data=Data(train=parts[:1], test=parts))


def evaluation(*names):
    return Evaluate(language_model=tuple(LanguageModel(x, (Text("en", "a.txt"),)) for x in names))


def of_language(*names):
    return Evaluate(language_model=tuple(LanguageModel(f"lm{i}", (Text(x, "a.txt"),)) for i, x in enumerate(names)))


def analysis(*names):
    return Analyze(aligned=tuple(Aligned(x, (("en", "a"), ("de", "b"))) for x in names))


def of_files(*names):
    return Analyze(aligned=(Aligned("set", tuple((x, "a") for x in (*names, "other"))),))


SHOWN = (
    (pretraining, cfg.validate_pretraining),
    (parallel, cfg.validate_pretraining),
    (of_language, validate_evaluation),
    (of_files, validate_analysis),
)
FILES = ((finetuning, validate_finetuning), (evaluation, validate_evaluation), (analysis, validate_analysis))


@pytest.mark.parametrize(("make", "validate"), [*SHOWN, *FILES])
@pytest.mark.parametrize("name", TAKEN)
def test_names_that_are_taken(make, validate, name):
    if (make, validate) not in FILES or name != "..":
        validate(make(name))
    assert len(f"{task_name((name, name))}".encode()) <= 255


@pytest.mark.parametrize(("make", "validate"), [*SHOWN, *FILES])
@pytest.mark.parametrize("name", REFUSED)
def test_names_that_are_refused_at_once(make, validate, name):
    with pytest.raises(UserError, match="rename it") as caught:
        validate(make(name))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize(("make", "validate"), FILES)
@pytest.mark.parametrize("name", AS_FILES)
def test_names_that_no_file_can_have_are_refused(make, validate, name):
    with pytest.raises(UserError, match="rename it"):
        validate(make(name))


@pytest.mark.parametrize("name", ["done", "vocabulary", "config.json", "Checkpoints"])
def test_benchmarks_are_not_called_like_the_workdirs_own_files(name):
    with pytest.raises(UserError, match="for a file of its own; rename it"):
        validate_evaluation(evaluation(name))


@pytest.mark.parametrize(("make", "validate"), [SHOWN[0], *FILES])
@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_two_that_would_share_a_folder_are_refused(make, validate, one, other):
    with pytest.raises(UserError, match=r"would share a folder|rename it"):
        validate(make(one, other))
