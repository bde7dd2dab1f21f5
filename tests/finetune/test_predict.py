# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuned model is given: split as a file's lines are, or refused with one line."""

import dataclasses
import json

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.predict import Predictor
from tests.finetune.toys import MODEL, make_finetuned, make_start

PAIRS = Data(max_length=32, pair="second")
SENTENCE = "Anna was so great"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A predictor of each kind, with random heads; `xlm` has language embeddings."""
    folder = tmp_path_factory.mktemp("models")
    start = make_start(folder / "start")
    xlm = make_start(folder / "start-xlm", dataclasses.replace(MODEL, language_embedding=True))
    made = {
        "tag": make_finetuned(start, folder / "tag", "tag"),
        "classify": make_finetuned(start, folder / "classify", "classify"),
        "pairs": make_finetuned(start, folder / "pairs", "classify", PAIRS),
        "span": make_finetuned(start, folder / "span", "span"),
        "xlm": make_finetuned(xlm, folder / "xlm", "classify"),
    }
    return {name: Predictor.load(path) for name, path in made.items()} | {"folder": folder}


def test_a_tagger_splits_a_text_as_predict_does(models, tmp_path, capsys):
    (tmp_path / "in.txt").write_text(f"{SENTENCE}\n")
    assert cli.main(["predict", str(models["folder"] / "tag"), str(tmp_path / "in.txt"), str(tmp_path / "out")]) == 0
    of_file = json.loads((tmp_path / "out").read_text())["predicted"]
    assert len(of_file) == 4
    for given in (
        [SENTENCE],
        [SENTENCE.split()],
        (tuple(SENTENCE.split()),),
        np.array([SENTENCE.split()]),
        iter([SENTENCE]),
    ):
        (found,) = models["tag"].texts(given)
        assert found.value == of_file


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("classify", ("so",), r"texts: one str, not a list; put it into one: \['so'\]"),
        ("tag", (SENTENCE,), "texts: one str, not a list"),
        ("classify", (b"so",), "texts: one bytes"),
        ("classify", (None,), "texts: NoneType, not a list"),
        ("classify", ({"a": "so"},), "texts: dict, not a list"),
        ("classify", (7,), "texts: int, not a list"),
        ("classify", ([7],), r"texts\[0\]: int, not a text"),
        ("classify", (["so", None],), r"texts\[1\]: NoneType, not a text"),
        ("classify", (["so", ["the", "film"]],), r"texts\[1\]: list, not a text"),
        ("classify", ([b"so"],), r"texts\[0\]: a text in bytes; decode it"),
        ("classify", (["so", "\n"],), r"texts\[1\]: a text that is empty"),
        ("classify", (["so \ud83d"],), r"texts\[0\]: half a surrogate pair"),
        ("classify", (["so"], ["so"]), r"texts\[0\]: a pair; the model reads single texts"),
        ("pairs", (["so"],), r"texts\[0\]: one text; the model reads pairs \(text, second\)"),
        ("pairs", ([("so", "the")],), r"texts\[0\]: one text; the model reads pairs"),
        ("pairs", (["so", "the"], ["so"]), "second: 1 texts for 2"),
        ("pairs", (["so"], "so"), "second: one str, not a list"),
        ("pairs", (["so"], [4]), r"texts\[0\]: int, not a second text"),
        ("pairs", (["so"], [""]), r"texts\[0\]: a second text that is empty"),
        ("tag", ([["Anna", ""]],), r"texts\[0\]: a word that is empty"),
        ("tag", ([["Anna", 3]],), r"texts\[0\]: int, not a word"),
        ("tag", ([[["Anna"]]],), r"texts\[0\]: list, not a word"),
        ("tag", ([[]],), r"texts\[0\]: no words"),
        ("tag", ([" "],), r"texts\[0\]: a text that is empty"),
        ("tag", ([3],), r"texts\[0\]: int, not a list"),
        ("tag", ([SENTENCE], ["so"]), r"texts\[0\]: a pair; a tagger reads"),
        ("span", (["so"],), r"texts\[0\]: a question without its paragraph"),
        ("span", (["so"], [" "]), r"texts\[0\]: a paragraph that is empty"),
        ("span", ([3], ["so"]), r"texts\[0\]: int, not a question"),
        ("xlm", (["so"], None, "fr"), "no language embedding for fr; it has de, en"),
        ("xlm", (["so"],), "no language embedding for a text of no language; it has de, en"),
        ("classify", (["so"], None, None), "language: None, not a language's code"),
    ],
)
def test_what_a_model_does_not_read_is_refused(models, model, given, message):
    with pytest.raises(UserError, match=message) as caught:
        models[model].texts(*given)
    assert "\n" not in str(caught.value)


def test_nothing_and_what_is_no_example(models):
    assert models["tag"].texts([]) == [] == models["span"].texts([], [])
    with pytest.raises(UserError, match="examples: str, not Example; `texts` takes plain texts"):
        models["classify"].predict(["so"])
    (split,) = models["tag"].predict([Example("here", SENTENCE, None, None, "1")])
    assert len(split.value) == 4
    (found,) = models["xlm"].texts(["so"], language="de")
    assert found.value in "Oab"
