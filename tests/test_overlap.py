# SPDX-License-Identifier: Apache-2.0
"""What tests is not what was learned: overlap of sets is found, said and refused, in every task and across languages."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from mlm_jax import cli
from mlm_jax.errors import UserError
from mlm_jax.evaluate import run as runs
from mlm_jax.evaluate.config import Corpora, Mining
from mlm_jax.finetune.config import validate_finetuning
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.sets import check_overlap, example_hash
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.overlap import text_hash
from tests.finetune.toys import make_config, write_config

SHARED = Path(__file__).parents[2] / "shared" / "data"


def examples(texts, language="en", second=None):
    return [Example(f"{language}:{i}", text, second, "x", str(i)) for i, text in enumerate(texts, 1)]


def sets(train=(), dev=(), test=()):
    return {"train": {"en": examples(train)}, "dev": {"en": examples(dev)}, "test": {"en": examples(test)}}


def test_a_text_is_the_same_however_it_is_composed_spaced_and_cased():
    same = ("naïve  Idee\u00a0", "nai\u0308ve Idee", "NAÏVE idee")
    assert len({text_hash(text) for text in same}) == 1
    assert text_hash("a", "b") != text_hash("a b") != text_hash("b", "a") and text_hash("a") != text_hash("á")
    words = Example("x", ["naïve", "Idee"], None, ["O", "O"], "1")
    assert example_hash(words) == text_hash("naïve Idee")


def test_every_pair_of_sets_is_compared_across_languages(capsys):
    found = sets([str(i) for i in range(100)], ["a", "b"], ["c", "7"] + [f"t{i}" for i in range(30)])
    found["test"]["de"] = examples(["7", "8", "a"] + [f"u{i}" for i in range(197)], "de")
    assert check_overlap(found, 0.05) == {"en": 1, "de": 2}
    err = capsys.readouterr().err
    assert "test: 1 of 32 of en, 2 of 200 of de stand in train too, e.g. en:2 is en:8" in err
    assert "test: 1 of 200 of de stand in dev too, e.g. de:3 is en:1" in err
    with pytest.raises(UserError, match=r"more than data.overlap 0.02 allows.*set --data.overlap 1"):
        check_overlap(found, 0.02)
    check_overlap(found, 1.0)


@pytest.mark.parametrize("pair", [("dev", "train"), ("test", "train"), ("test", "dev")])
def test_one_more_than_the_share_is_refused(pair):
    later, earlier = pair
    for count, refused in ((5, False), (6, True)):
        found = sets(**{later: [f"a{i}" for i in range(100)], earlier: [f"a{i}" for i in range(count)]})
        if refused:
            with pytest.raises(UserError, match=rf"{later}: 6 of 100 of en stand in {earlier} too, e.g. en:1 is en:1"):
                check_overlap(found, 0.05)
        else:
            check_overlap(found, 0.05)


@pytest.mark.parametrize("kind", [pytest.param("classify", marks=pytest.mark.slow), "tag", "span"])
def test_ranges_of_one_file_that_overlap_are_refused_and_the_advice_works(tmp_path, kind, capsys):
    config = make_config(tmp_path, kind)
    train, _ = config.data.train
    lines = Path(train.path).read_text()
    # Every example another, but for those of the ranges.
    if kind == "span":
        content = json.loads(lines)
        for i, paragraph in enumerate(content["data"][0]["paragraphs"]):
            paragraph["context"] += f" {i}"
        Path(train.path).write_text(json.dumps(content))
    elif kind == "tag":
        Path(train.path).write_text(
            "\n\n".join(f"{s}\n{i}\tO" for i, s in enumerate(lines.strip().split("\n\n"))) + "\n"
        )
    else:
        header, *rows = lines.strip().split("\n")
        Path(train.path).write_text("\n".join([header, *(f"{i} {row}" for i, row in enumerate(rows))]) + "\n")
    ranges = (
        dataclasses.replace(train, last=80),
        dataclasses.replace(train, first=71, last=100),
        dataclasses.replace(train, first=101),
    )
    data = dataclasses.replace(
        config.data,
        **{name: (part,) for name, part in zip(("train", "dev", "test"), ranges, strict=True)},
        overlap=0.05,
    )
    config = dataclasses.replace(config, data=data, source="en", train=dataclasses.replace(config.train, epochs=0.1))
    path = write_config(tmp_path / "toy.py", config)
    assert cli.main(["finetune", path]) == 2
    said = capsys.readouterr().err
    assert "dev: 10 of 30 of en stand in train too, e.g. " in said and said.count("\n") == 1
    option = re.search(r"set (--data.overlap) (1)", said)
    if kind != "classify":
        return
    assert cli.main(["finetune", path, *option.groups()]) == 0
    assert "dev: 10 of 30 of en stand in train too" in capsys.readouterr().err
    rows = json.loads((Path(config.workdir) / "results.json").read_text())
    assert [row["in_train"] for row in rows] == [0]


def test_corpora_that_are_mined_and_fit_the_threshold_are_refused(tmp_path):
    for split in ("dev", "test"):
        for language in ("de", "en"):
            texts = [f"{language}{i}\t{language} {split if i else 'both'} {i}" for i in range(10)]
            (tmp_path / f"{split}.{language}").write_text("\n".join(texts) + "\n")
    files = [tuple(str(tmp_path / f"{split}.{x}") for x in ("de", "en", "gold")) for split in ("dev", "test")]
    part = Mining("mined", (Corpora(("de", "en"), *files),))
    with pytest.raises(
        UserError,
        match=r"mined: 1 of 10 of de, 1 of 10 of en stand in dev too, e.g. .*test.de:1 is .*dev.de:1; .*overlap 0.05",
    ):
        runs.mine(part, lambda layer, pooling: None, None, 0.05)


@pytest.mark.skipif(not SHARED.exists(), reason="no real data here")
@pytest.mark.parametrize("name", ["small_ner", "small_xnli", "small_xquad"])
@pytest.mark.slow
def test_real_sets_do_not_overlap(name, monkeypatch, capsys):
    monkeypatch.setenv("MLM_JAX_DATA", str(SHARED))
    made = {}
    exec(compile((Path(__file__).parents[1] / f"configs/finetune/{name}.py").read_text(), name, "exec"), made)
    config = made["get_config"]()
    validate_finetuning(config)
    read = TASKS[config.task.kind].read_examples
    found = {
        split: {part.language: read(part, config.data) for part in getattr(config.data, split)}
        for split in ("train", "dev", "test")
    }
    assert check_overlap(found, config.data.overlap) == {} and "stand in" not in capsys.readouterr().err
