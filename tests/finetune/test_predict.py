# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuned model is given, and gives: split as a file's lines are, or refused with one line."""

import concurrent.futures
import dataclasses
import io
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate, Pairs, Retrieval
from mlm_jax.finetune.config import Data
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.output import Summary
from mlm_jax.finetune.predict import Predictor
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.finetune.words import SPACES, learn, write_splitter
from tests.finetune.toys import MODEL, make_config, make_finetuned, make_start, write_config

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
        ("pairs", (["so", "so"], ["so", None]), r"second\[1\]: NoneType, not a text"),
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


LINES = (
    'The " Old Town " ( Anna \'s ) , in the U.S. of 1999 .',
    "Otto 's Mia said : so , so ... !",
    "Dr. Mia lives in St. John 's .",
    "yes . no - one e-mail ?",
)
TRAINING = [line.split() for line in LINES]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('Anna\'s Mia lives in the U.S., so... ("Otto").', 'Anna \'s Mia lives in the U.S. , so ... ( " Otto " ) .'),
        ("Anna 's Mia lives in the U.S. , so ... .", "Anna 's Mia lives in the U.S. , so ... ."),  # apart already
        ("Otto?! e-mail - yes.", "Otto ? ! e-mail - yes ."),
        ("no\tno  no", "no no no"),
        ("???", "???"),
        ("\u3000 a\u00a0b", "\u3000|a\u00a0b"),
    ],
)
def test_a_text_is_cut_as_the_training_data_was(text, words):
    splitter = learn(TRAINING)
    places = splitter.places(text)
    assert [text[begin:end] for begin, end in places] == words.split("|" if "|" in words else " ")
    assert SPACES.places("Otto. (Mia)") == [(0, 5), (6, 11)]


def test_punctuation_that_stood_with_words_stays_there_and_characters_are_told_apart():
    attached = learn([["Otto,", "so", "-"], ["Mia.", "so."], ["."]])
    assert [(b, e) for b, e in attached.places("Anna, Otto. so")] == [(0, 5), (6, 11), (12, 14)]
    han = learn([list("北京是首都。"), list("東京の人")] * 20)
    text = "Anna在北京。"
    assert [text[b:e] for b, e in han.places(text)] == ["Anna", "在", "北", "京", "。"]
    words = learn([["北京", "是", "首都", "。"]] * 60)
    assert [(b, e) for b, e in words.places("北京是首都。")] == [(0, 5), (5, 6)]  # where words end no rule can tell


@pytest.mark.slow
def test_a_tagger_learns_how_words_are_apart_and_predict_gives_offsets_and_entities(tmp_path, capsys, monkeypatch):
    config = make_config(tmp_path, "tag")
    for path in Path(config.data.train[0].path).parent.glob("*.conll"):
        path.write_text("\n\n".join(f"{s}\n.\tO" for s in path.read_text().strip().split("\n\n")) + "\n")
    assert cli.main(["finetune", write_config(tmp_path / "toy.py", config)]) == 0
    text = "the film was Anna. Otto"
    predictor = Predictor.load(config.workdir)
    (found,) = predictor.texts([text])
    assert found.words == [(0, 3), (4, 8), (9, 12), (13, 17), (17, 18), (19, 23)]
    assert [(e["entity"], e["text"], e["begin"], e["end"]) for e in found.entities] == [
        ("PER", "Anna", 13, 17),
        ("PER", "Otto", 19, 23),
    ]
    assert found.entities[0]["probability"] == pytest.approx(found.probability[3])
    (of_words,) = predictor.texts([["Anna", ".", "Otto"]])
    assert of_words.words == [(0, 4), (5, 6), (7, 11)] and of_words.entities[1]["begin"] == 7
    capsys.readouterr()
    # From standard input to standard output, and what is said of all to standard error.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n\nso\n".encode())))
    assert cli.main(["predict", config.workdir, "-", "-"]) == 0
    said = capsys.readouterr()
    first, second = map(json.loads, said.out.splitlines())
    assert (first["key"], first["text"], second["key"]) == ("1", text, "3")
    assert first["words"] == ["the", "film", "was", "Anna", ".", "Otto"] and first["offsets"][3] == [13, 17]
    assert first["entities"][0] == {
        "entity": "PER",
        "text": "Anna",
        "begin": 13,
        "end": 17,
        "probability": round(found.probability[3], 4),
    }
    assert all(len(str(p)) <= 6 for p in first["probability"])
    assert "2 examples of 7 words, 2 entities: PER 2" in said.err
    for content, message in ((b"so\nb\xe9d\n", "standard input:2: not UTF-8"), (b"", "standard input: empty")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert cli.main(["predict", config.workdir, "-", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "in.txt").write_text(text + "\n")
    assert (
        cli.main(["predict", config.workdir, str(tmp_path / "in.txt"), str(tmp_path / "out"), "--words", "spaces"]) == 0
    )
    assert json.loads((tmp_path / "out").read_text())["words"] == text.split()
    assert "1 examples of 5 words" in capsys.readouterr().out
    assert cli.main(["predict", config.workdir, str(tmp_path / "in.txt"), str(tmp_path / "out"), "--words", "x"]) == 2


def test_what_is_said_of_all_predictions():
    summary = Summary()
    summary.add(
        [
            Prediction("good", 0.9, {"good": 0.9}),
            Prediction("bad", 0.55, {"bad": 0.55}),
            Prediction("good", 0.8, {"good": 0.8}),
        ]
    )
    assert str(summary) == "3 examples: good 2, bad 1; 1 with a probability below 0.6"
    numbers, questions, several, tags = Summary(), Summary(), Summary(), Summary()
    numbers.add([Prediction(1.0), Prediction(2.0)])
    assert str(numbers) == "2 examples: mean 1.5, from 1 to 2"
    questions.add([Prediction("Denver", 0.9, place=(0, 6)), Prediction("", 0.9)])
    assert str(questions) == "2 examples: answered 1, without an answer 1"
    several.add([Prediction(["a", "b"], [0.9, 0.8], {"a": 0.9}), Prediction([], [], {"a": 0.1})])
    assert str(several) == "2 examples: a 1, b 1, no label 1"
    tags.add([Prediction(["O"], [0.9], words=[(0, 1)], entities=[])])
    assert str(tags) == "1 examples of 1 words: no entity was found"


def test_a_pipe_is_written_to_and_what_else_is_there_stays(models, tmp_path):
    (tmp_path / "in.txt").write_text("so\n")
    (tmp_path / "out.partial").write_text("mine")
    arguments = ["predict", str(models["folder"] / "classify"), str(tmp_path / "in.txt")]
    assert cli.main([*arguments, str(tmp_path / "out")]) == 0
    assert (tmp_path / "out.partial").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out", "out.partial"]
    os.mkfifo(tmp_path / "pipe")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        assert cli.main([*arguments, str(tmp_path / "pipe")]) == 0
        assert json.loads(read.result())["predicted"] in "Oab"
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.slow
def test_a_folder_that_export_wrote_predicts_the_same(models, tmp_path, capsys):
    workdir = models["folder"] / "tag"
    write_splitter(workdir, learn(TRAINING))
    (tmp_path / "in.txt").write_text("Anna's film, so.\n")
    assert cli.main(["export", str(workdir), str(tmp_path / "hf")]) == 0
    for folder in (workdir, tmp_path / "hf"):
        assert cli.main(["predict", str(folder), str(tmp_path / "in.txt"), str(tmp_path / f"{folder.name}.jsonl")]) == 0
    one, two = (json.loads((tmp_path / f"{name}.jsonl").read_text()) for name in ("tag", "hf"))
    assert one["words"] == ["Anna", "'s", "film", ",", "so", "."] and one["predicted"] == two["predicted"]
    assert two["probability"] == pytest.approx(one["probability"], abs=2e-4) and two["words"] == one["words"]
    assert cli.main(["export", str(models["folder"] / "start"), str(tmp_path / "bare")]) == 0
    assert cli.main(["predict", str(tmp_path / "bare"), str(tmp_path / "in.txt"), str(tmp_path / "out")]) == 2
    assert "without a fine-tuned head; run: mlm-jax finetune CONFIG --init" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"hf: a Hugging Face folder; run: mlm-jax import .*hf RUN, and give RUN"):
        Predictor.load(tmp_path / "hf")
    # What that advises works, and an evaluation starts from the folder.
    assert cli.main(["import", str(tmp_path / "hf"), str(tmp_path / "RUN")]) == 0
    assert Predictor.load(tmp_path / "RUN").texts(["Anna's film, so."])[0].value == one["predicted"]
    (tmp_path / "same.en").write_text("so\nthe\nfilm\n")
    same = Pairs(("en", "en"), (str(tmp_path / "same.en"),) * 2)
    config = Evaluate(
        retrieval=(Retrieval("same", (same,)),), workdir=str(tmp_path / "ev"), init=str(tmp_path / "hf"), max_length=16
    )
    imports = "from mlm_jax.config import Mesh\nfrom mlm_jax.evaluate.config import *\n"
    (tmp_path / "suite.py").write_text(f"{imports}\n\ndef get_config():\n    return {config!r}\n")
    assert cli.main(["evaluate", str(tmp_path / "suite.py")]) == 0
    assert "100.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "place", ["link", "dangling", "device", "null", "private", "full", "folder", "standard output"]
)
def test_where_predictions_go(models, tmp_path, place, capsys):
    (tmp_path / "in.txt").write_text("so\n")
    (tmp_path / "real").write_text("old")
    out = tmp_path / "out"
    if place == "device":
        try:
            os.mknod(out, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            out.write_text("")
        except OSError:
            pytest.skip("needs the right to make devices")
    elif place == "private":
        out.write_text("old")
        out.chmod(0o600)
    else:
        out.symlink_to(
            {
                "null": "/dev/null",
                "full": "/dev/full",
                "folder": tmp_path,
                "link": "real",
                "standard output": "/dev/stdout",
            }.get(place, "new")
        )
    before = out.lstat()
    status = cli.main(["predict", str(models["folder"] / "classify"), str(tmp_path / "in.txt"), str(out)])
    said = capsys.readouterr()
    assert (out.lstat().st_mode, out.lstat().st_rdev) == (before.st_mode, before.st_rdev)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]
    if place in ("full", "folder"):
        message = {"full": f"{out}: No space left on device; free space there, then run", "folder": "is a folder"}[
            place
        ]
        assert status == 2 and message in said.err and said.err.count("\n") == 1
        return
    assert status == 0
    if place == "standard output":
        assert json.loads(said.out)["text"] == "so" and "1 examples" in said.err  # nothing else among the lines
    elif place not in ("device", "null"):
        assert json.loads(out.read_text())["text"] == "so"


def test_standard_output_that_is_full_is_one_line(models, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.txt").write_text("so – ü\n")
    arguments = ["predict", str(models["folder"] / "classify"), str(tmp_path / "in.txt"), "-"]
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", shown)
    assert cli.main(arguments) == 0
    assert json.loads(shown.buffer.getvalue().decode())["text"] == "so – ü"
    capsys.readouterr()
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert cli.main(arguments) == 2
        monkeypatch.undo()
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert errors == [
        "error: standard output: No space left on device; free space there, then run the same command again"
    ]
