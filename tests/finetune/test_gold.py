# SPDX-License-Identifier: Apache-2.0
"""Labels that are none are left out by name, and those that may be mistakes are named."""

import json

import pytest

from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import join
from mlm_jax.finetune.config import Data, Labelled, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.gold import describe_labels, keep_labelled
from mlm_jax.finetune.run import run_finetuning
from mlm_jax.finetune.sets import read_parts
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train.initial import read_initial
from mlm_jax.workdir import own_workdir
from tests.finetune.toys import make_config

CLASSIFY, MULTILABEL, TAG = (TASKS[name] for name in ("classify", "multilabel", "tag"))


def texts(*labels):
    """An example per label."""
    return [Example(f"x:{i}", "A text", None, label, str(i)) for i, label in enumerate(labels)]


def sentence(*tags):
    return [Example("x:1", ["a"] * len(tags), None, list(tags), "1")]


def labels_kept(kind, *labels, data=Data(), task=Task()):  # noqa: B008
    kept = keep_labelled(kind, data, task, {"train": {"en": texts(*labels)}, "test": {}})
    return [e.label for e in kept["train"]["en"]]


@pytest.mark.parametrize("none", ["-", "", "-1", "-1.0", "null", "NULL", "nan", "N/A", " - ", None])
def test_values_that_mean_no_gold_label_are_left_out_by_name(capsys, none):
    assert labels_kept(CLASSIFY, "0", none, "2", none) == ["0", "2"]
    said = "null" if none is None else none
    assert (
        f"train en: 2 of 4 examples have no gold label ({said!r} 2); left out (data.no_label)"
        in capsys.readouterr().err
    )
    assert labels_kept(CLASSIFY, "0", "none", "2") == ["0", "none", "2"]  # the name of a class in many sets


def test_they_are_classes_where_they_are_named(capsys):
    assert labels_kept(CLASSIFY, "a", "-", data=Data(no_label=())) == ["a", "-"]
    assert labels_kept(CLASSIFY, "a", "-", task=Task(labels=("a", "-"))) == ["a", "-"]
    assert labels_kept(CLASSIFY, "a", "?", data=Data(no_label=("?",))) == ["a"]
    capsys.readouterr()
    # Of opinions -1 is one, of SNLI's numbers none.
    assert labels_kept(CLASSIFY, "-1", "0", "1") == ["-1", "0", "1"]
    assert "-1 is taken for a class" in capsys.readouterr().err
    assert labels_kept(CLASSIFY, "-2", "-1", "0", "1", "2") == ["-2", "-1", "0", "1", "2"]
    assert labels_kept(CLASSIFY, "-1", "0", "1", "2") == ["0", "1", "2"]
    assert labels_kept(CLASSIFY, "-1", "1") == ["-1", "1"]
    assert labels_kept(CLASSIFY, "-1", *["0", "1"] * 20) == ["0", "1"] * 20
    assert labels_kept(CLASSIFY, "-1.0", "0.0", "1.0") == ["-1.0", "0.0", "1.0"]


def test_a_set_without_any_gold_label_is_refused_and_the_advice_works():
    with pytest.raises(
        UserError, match=r"train en: 2 of 2 examples have no gold label \('-' 2\): none is left; label them, or"
    ):
        labels_kept(CLASSIFY, "-", "-")
    assert labels_kept(CLASSIFY, "-", "-", data=Data(no_label=())) == ["-", "-"]


def test_several_labels_may_be_none_too():
    assert labels_kept(MULTILABEL, ("a", "b"), (), ("-",), None, ("-", "a")) == [("a", "b"), ()]


def test_words_without_a_tag_are_neither_trained_on_nor_measured(tmp_path, capsys):
    given = {"train": {"en": sentence("B-A", "-", "I-A", "O", None)}, "test": {"en": sentence("B-A", "-", "O")}}
    kept = keep_labelled(TAG, Data(), Task(kind="tag"), given)
    assert "train en: 2 of 5 words have no gold label ('-' 1, 'null' 1)" in capsys.readouterr().err
    (example,) = kept["train"]["en"]
    assert example.label == ["B-A", None, "I-A", "O", None]
    labels = TAG.label_set(Task(kind="tag"), [example])
    assert labels == ("O", "B-A", "I-A")
    config = make_config(tmp_path, "tag")
    start, tokenizer = read_initial(config.workdir, None), load_tokenizer(f"{config.workdir}/vocabulary")
    encoded = TAG.encode([example], "en", tokenizer, start.vocabulary, labels, Data())
    assert encoded.targets[0][encoded.starts[0]].tolist() == [1, -1, 2, 0, -1]
    assert len(join([encoded], start.languages).ids) == 1
    # What was found for them does not count, and no entity goes across them.
    task = Task(kind="tag", labels=labels)
    right = [Prediction(["B-A", "I-A", "I-A", "O", "B-A"])]
    assert TAG.measure([example], right, task, "en") == {
        "accuracy": 1, "precision": 1, "recall": 1, "entity_f1": 1, "strict_f1": 1,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"3 of 4 words have no gold label \('-' 3\): is it the label of words outside"):
        keep_labelled(TAG, Data(), Task(kind="tag"), {"train": {"en": sentence("-", "-", "-", "B-A")}})


def warnings_of(capsys, kind=CLASSIFY, task=Task(), **labels):  # noqa: B008
    """What is warned of, given each language's training labels."""
    examples = {"train": {x: texts(*found) if kind is CLASSIFY else sentence(*found) for x, found in labels.items()}}
    every = [e for found in examples["train"].values() for e in found]
    describe_labels(kind, task, examples, kind.label_set(task, every))
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_labels_are_printed_with_their_counts_in_each_language(capsys):
    out, err = warnings_of(capsys, en=["yes"] * 20 + ["no"] * 15, de=["yes"] * 10 + ["no"] * 12)
    assert "labels, train en: yes 20, no 15\n" in out and "labels, train de: no 12, yes 10\n" in out
    assert not err


def test_spellings_of_one_label_are_named(capsys):
    nli = ["entailment"] * 40 + ["neutral"] * 40
    _, err = warnings_of(capsys, en=[*nli, *["contradiction"] * 40], de=[*nli, *["contradictory"] * 40])
    assert "labels: only en has contradiction 40" in err and "labels: only de has contradictory 40" in err
    assert "spelt two ways? 'contradiction' (40) and 'contradictory' (40); they are taken for different" in err
    for a, b in (
        ("Sport", "sport"),
        ("not_toxic", "not toxic"),
        ("1", "1.0"),
        ("caf\u00e9", "cafe\u0301"),
        ("True", "true"),
    ):
        _, err = warnings_of(capsys, en=[a] * 30 + [b] * 30)
        assert f"spelt two ways? {min(a, b)!r} (30) and {max(a, b)!r} (30)" in err, (a, b)
    _, err = warnings_of(capsys, en=["entailment"] * 400 + ["entailmnt"] * 3)
    assert "'entailment' (400) and 'entailmnt' (3)" in err and "labels: rare in the training data: entailmnt 3" in err


def test_labels_that_only_look_alike_are_not(capsys):
    for a, b in (
        ("entailment", "not_entailment"),
        ("LABEL_1", "LABEL_2"),
        ("positive", "negative"),
        ("1", "10"),
        ("1", "-1"),
    ):
        _, err = warnings_of(capsys, en=[a] * 30 + [b] * 30, de=[a] * 9 + [b] * 9)
        assert not err, (a, b)
    _, err = warnings_of(capsys, en=["a"] * 8 + ["b"] * 8)  # few of each are not rare ones
    assert not err


def test_of_tags_the_kinds_are_compared(capsys):
    tags = ["O"] * 60 + ["B-PERSON", "I-PERSON"] * 20
    assert not warnings_of(capsys, TAG, Task(kind="tag"), en=tags)[1]
    _, err = warnings_of(capsys, TAG, Task(kind="tag"), en=tags, de=["O"] * 60 + ["B-Person", "I-Person"] * 20)
    assert "only en has PERSON 40" in err and "'PERSON' (40) and 'Person' (40)" in err


def test_a_label_that_only_a_test_set_has_is_named_before_it_is_refused(tmp_path, capsys):
    config = make_config(tmp_path, "classify")
    path = tmp_path / "data" / "de.test.tsv"
    path.write_text(path.read_text().replace("\tgood", "\tGood"))
    own_workdir(config)
    with pytest.raises(UserError, match="label 'Good' is not one of the training data's"):
        run_finetuning(config)
    printed = capsys.readouterr()
    assert "'Good' (" in printed.err and "labels, test de: " in printed.out


def test_examples_without_a_label_are_in_no_set(tmp_path, capsys):
    config = make_config(tmp_path, "classify")
    path = tmp_path / "data" / "en.train.tsv"
    path.write_text(path.read_text() + "the film\t-\n")
    start, tokenizer = read_initial(config.workdir, None), load_tokenizer(f"{config.workdir}/vocabulary")
    train, _, _, labels = read_parts(config, {"en", "de"}, start, tokenizer)
    assert labels == ("bad", "good") and len(train["en"].examples) == 120
    assert "train en: 1 of 121 examples have no gold label ('-' 1)" in capsys.readouterr().err


def test_several_labels_in_a_list_are_not_one(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "A", "label": ["a", "b"]}) + "\n")
    with pytest.raises(UserError, match=r"a.jsonl:1: label is \['a', 'b'\], not one label; another task.kind"):
        CLASSIFY.read_examples(Labelled("en", str(tmp_path / "a.jsonl")), Data())
    assert MULTILABEL.read_examples(Labelled("en", str(tmp_path / "a.jsonl")), Data())[0].label == ("a", "b")
