# SPDX-License-Identifier: Apache-2.0
"""Labelled files: what is read, and the one line that bad input gets."""

import gzip
import json

import numpy as np
import pytest

from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Labelled, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.finetune.tasks.span import without_misplaced
from mlm_jax.finetune.tasks.tag import tagged

PAIRS = Data(text="premise", pair="hypothesis")
CLASSIFY, TAG, SPAN, REGRESS = (TASKS[kind] for kind in ("classify", "tag", "span", "regress"))


def write(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return Labelled("en", str(tmp_path / name))


def test_columns_by_name_with_a_header_or_without(tmp_path):
    part = write(tmp_path, "a.tsv", "label\tpremise\thypothesis\nyes\tA cat.\tAn animal.\n")
    (example,) = CLASSIFY.read_examples(part, PAIRS)
    assert (example.first, example.second, example.label) == ("A cat.", "An animal.", "yes")
    assert example.where.endswith("a.tsv:2")
    part = write(tmp_path, "b.tsv", 'no\tA "cat.\tA dog.\n')
    named = Data(text="premise", pair="hypothesis", columns=("label", "premise", "hypothesis"))
    assert CLASSIFY.read_examples(part, named)[0].first == 'A "cat.'  # quotes are text


def test_json_lines_gz_and_globs(tmp_path):
    with gzip.open(tmp_path / "1.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": "नमस्ते", "label": 1}) + "\n")
    (tmp_path / "2.jsonl").write_text(json.dumps({"text": "hello", "label": 0}) + "\n\n")
    found = CLASSIFY.read_examples(Labelled("hi", str(tmp_path / "*.jsonl*")), Data())
    assert [(e.first, e.label) for e in found] == [("नमस्ते", "1"), ("hello", "0")]


def test_conll_and_slices(tmp_path):
    text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VB O\n\nPeter\tB-PER\n\n\nBonn\tB-LOC\n"
    part = write(tmp_path, "a.conll", text)
    found = TAG.read_examples(part, Data())
    assert [(e.first, e.label) for e in found][:2] == [(["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"])]
    second = TAG.read_examples(Labelled("en", part.path, first=2, last=2), Data())
    assert [e.first for e in second] == [["Peter"]]
    assert TAG.label_set(Task(), found) == ("O", "B-LOC", "B-ORG", "B-PER")


def test_what_tags_mark_is_said_and_metrics_follow(tmp_path, capsys):
    part = write(tmp_path, "a.conll", "Amara\tU-PER\nmet\tO\n\nOld\tB-LOC\nHarbour\tI-LOC\nStreet\tL-LOC\n")
    found = TAG.read_examples(part, Data())
    labels = TAG.label_set(Task(kind="tag"), found)
    assert "tags: BILOU (B-LOC, I-LOC, L-LOC, U-PER), entities of LOC, PER" in capsys.readouterr().out
    task = Task(kind="tag", labels=labels)
    assert TAG.main_metric(task, labels) == "entity_f1"
    right = [Prediction(e.label) for e in found]
    assert TAG.measure(found, right, task, "en")["entity_f1"] == 1
    # The word that is an entity by itself counts: it was in none, and F1 was 1 without it.
    missed = [Prediction(["O", "O"]), right[1]]
    assert TAG.measure(found, missed, task, "en")["entity_f1"] == pytest.approx(2 / 3)
    upos = TAG.read_examples(write(tmp_path, "b.conll", "EU\tPROPN\nrejects\tVERB\n"), Data())
    labels = TAG.label_set(Task(kind="tag"), upos)
    assert "tags: a class per word, none of them entities (task.scheme)" in capsys.readouterr().out
    assert TAG.main_metric(Task(kind="tag"), labels) == "accuracy"
    right = [Prediction(e.label) for e in upos]
    assert TAG.measure(upos, right, Task(kind="tag", labels=labels), "en") == {"accuracy": 1}
    with pytest.raises(UserError, match=r"task\.metric: entity_f1, but the tags mark no entities"):
        TAG.label_set(Task(kind="tag", metric="entity_f1"), upos)


@pytest.mark.parametrize("outside", ["O", "o", "OTHER"])
def test_words_that_were_cut_off_are_outside_entities(outside):
    labels = TAG.label_set(Task(kind="tag"), [Example("a:1", ["A"], None, [x], "1") for x in ("B-A", "I-A", outside)])
    assert labels == (outside, "B-A", "I-A")
    assert tagged(np.zeros((0, 3)), 2, labels, None).value == [outside] * 2
    assert tagged(np.asarray([[0, 9, 0]]), 3, ("B-A", "I-A", outside), None).value == ["I-A", outside, outside]


def squad(tmp_path, answers, context="Denver won in 2016."):
    question = {"id": "q1", "question": "Who?", "answers": answers}
    content = {"data": [{"paragraphs": [{"context": context, "qas": [question]}]}]}
    return write(tmp_path, "a.json", json.dumps(content))


def test_squad_and_answers_that_are_not_there(tmp_path):
    (example,) = SPAN.read_examples(squad(tmp_path, [{"text": "2016", "answer_start": 14}]), Data())
    assert example.label == (("2016", 14),) and example.key == "q1"
    assert without_misplaced([example], 0.0) == ([example], 0)
    (wrong,) = SPAN.read_examples(squad(tmp_path, [{"text": "2016", "answer_start": 13}]), Data())
    with pytest.raises(UserError, match=r"a.json:q1: answer '2016' is not at its offset 13, nor are those of 1 of 2"):
        without_misplaced([example, wrong], 0.4)
    assert without_misplaced([example, wrong], 0.5) == ([example], 1)


@pytest.mark.parametrize(
    ("name", "text", "data", "task", "message"),
    [
        ("a.tsv", "premise\thypothesis\tlabel\nA\tB\n", PAIRS, CLASSIFY, r"a.tsv:2: 2 columns, not 3"),
        ("a.tsv", "premis\thypothesis\tlabel\nA\tB\tx\n", PAIRS, CLASSIFY, "no column premise; did you mean premis"),
        ("a.tsv", "premise\thypothesis\tlabel\n \tB\tx\n", PAIRS, CLASSIFY, "a.tsv:2: premise is empty"),
        ("a.tsv", "premise\thypothesis\tlabel\n", PAIRS, CLASSIFY, "no example there"),
        ("a.tsv", "text\tlabel\nA\tmany\n", Data(), REGRESS, "a.tsv:2: label is 'many', not a number"),
        ("a.tsv", "text\tlabel\nA\tnan\n", Data(), REGRESS, "a.tsv:2: label is nan, not a finite number"),
        ("a.jsonl", '{"text": "A", "label": 0}\n{"text": \n', Data(), CLASSIFY, "a.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", Data(), CLASSIFY, "a.jsonl:1: not a JSON object"),
        ("a.jsonl", '{"text": ["A", "b"], "label": ["O"]}\n', Data(), TAG, "a.jsonl:1: 1 tags in label for 2 words"),
        ("a.jsonl", '{"text": "A", "label": null}\n', Data(), CLASSIFY, "a.jsonl:1: label is empty"),
        ("a.jsonl", '{"text": ["A"], "label": [1]}\n', Data(), TAG, "a.jsonl:1: label is not a list of tags"),
        ("a.tsv", "text\tlabel\nA\0\tx\n", Data(), CLASSIFY, "a.tsv:2: holds a NUL byte"),
        ("a.tsv.gz", "not packed", Data(), CLASSIFY, "a.tsv.gz: cannot be unpacked"),
        (
            "a.json",
            '{"data": [{"paragraphs": [{"context": null, "qas": [{"id": "q", "question": "?", "answers": []}]}]}]}',
            Data(),
            SPAN,
            "not a SQuAD file",
        ),
        ("a.conll", "EU\tB-ORG\nrejects\n", Data(), TAG, r"a.conll:2: 'rejects' has no tag"),
        ("a.conll", "EU\tB-ORG\n", Data(), CLASSIFY, "task.kind classify reads"),
        ("a.json", '{"paragraphs": []}', Data(), SPAN, "not a SQuAD file"),
        ("a.tsv", "text\tlabel\n", Data(), SPAN, "task.kind span reads SQuAD files"),
    ],
)
def test_bad_input_has_one_line(tmp_path, name, text, data, task, message):
    with pytest.raises(UserError, match=message) as e:
        task.read_examples(write(tmp_path, name, text), data)
    assert "\n" not in str(e.value)


def test_no_file_and_not_utf8(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        CLASSIFY.read_examples(Labelled("en", str(tmp_path / "*.tsv")), Data())
    (tmp_path / "a.tsv").write_bytes(b"text\tlabel\nab\xff\tx\n")
    with pytest.raises(UserError, match=r"a.tsv:2: not UTF-8 at byte 13"):
        CLASSIFY.read_examples(Labelled("en", str(tmp_path / "a.tsv")), Data())


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (example,) = CLASSIFY.read_examples(write(tmp_path, "a.tsv", "\ufefftext\tlabel\nA\tx\n"), Data())
    assert example.first == "A"


def test_a_label_that_training_never_saw_is_refused_with_its_line(tmp_path):
    train = CLASSIFY.read_examples(write(tmp_path, "a.tsv", "text\tlabel\nA\tyes\nB\tno\n"), Data())
    test = CLASSIFY.read_examples(write(tmp_path, "b.tsv", "text\tlabel\nA\tyes\nB\tperhaps\n"), Data())
    labels = CLASSIFY.label_set(Task(), train)
    assert labels == ("no", "yes")
    with pytest.raises(UserError, match=r"b.tsv:3: label 'perhaps' is not one of the training data's \(no, yes\)"):
        CLASSIFY.check_labels(test, labels)
    assert CLASSIFY.label_set(Task(labels=("yes", "no", "perhaps")), train) == ("yes", "no", "perhaps")
