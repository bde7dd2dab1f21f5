# SPDX-License-Identifier: Apache-2.0
"""Labelled files: what is read, and the one line that bad input gets."""

import csv
import dataclasses
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


def test_the_same_examples_in_every_format(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"text": 'said, "no"', "label": "a"}, {"text": "two\nlines", "label": "b"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *(row.values() for row in rows)])
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        csv.writer(file).writerows(row.values() for row in rows)
    for name, columns in (
        ("a.parquet", ()),
        ("a.json", ()),
        ("a.jsonl", ()),
        ("a.csv", ()),
        ("b.csv.gz", ("text", "label")),
    ):
        found = CLASSIFY.read_examples(Labelled("en", str(tmp_path / name)), Data(columns=columns))
        assert [(e.first, e.label) for e in found] == [(row["text"], row["label"]) for row in rows], name
        assert found[0].where.startswith(f"{tmp_path / name}:") and found[0].key.isdecimal()
    tagged_rows = {"text": [["A", "b"]], "label": [["B-X", "O"]]}
    pq.write_table(pa.table(tagged_rows), tmp_path / "t.parquet")
    (example,) = TAG.read_examples(Labelled("en", str(tmp_path / "t.parquet")), Data())
    assert (example.first, example.label) == (["A", "b"], ["B-X", "O"])
    pq.write_table(pa.table({"text": ["a"], "label": [0.5]}), tmp_path / "r.parquet")
    assert REGRESS.read_examples(Labelled("en", str(tmp_path / "r.parquet")), Data())[0].label == 0.5


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_squad_of_a_row_per_question(tmp_path, name):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "id": f"q{i}",
            "context": context,
            "question": f"Where {i}?",
            "answers": {"text": [text], "answer_start": [start]},
        }
        for i, (context, text, start) in enumerate(
            [("In Oulu.", "Oulu", 3), ("In Oulu.", "In", 0), ("At sea.", "sea", 3)]
        )
    ]
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = list(SPAN.read_file(str(tmp_path / name), Data()))
    assert [[(e.key, e.first, e.label) for e in group] for group in groups] == [
        [("q0", "Where 0?", (("Oulu", 3),)), ("q1", "Where 1?", (("In", 0),))],
        [("q2", "Where 2?", (("sea", 3),))],
    ]
    (tmp_path / "b.jsonl").write_text('{"id": "q", "context": "c"}\n')
    with pytest.raises(UserError, match=r"b.jsonl: not a SQuAD file"):
        SPAN.read_examples(Labelled("en", str(tmp_path / "b.jsonl")), Data())


def test_conll_and_slices(tmp_path):
    text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VB O\n\nPeter NNP B-PER\n\n\nBonn\tNNP\tB-LOC\n"
    part = write(tmp_path, "a.conll", text)
    found = TAG.read_examples(part, Data())
    assert [(e.first, e.label) for e in found][:2] == [(["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"])]
    second = TAG.read_examples(Labelled("en", part.path, first=2, last=2), Data())
    assert [e.first for e in second] == [["Peter"]]
    assert TAG.label_set(Task(), found) == ("O", "B-LOC", "B-ORG", "B-PER")


UNER = "# sent_id = 0\n# text = Amara in Bergen\n1\tAmara\tB-PER\t-\t-\n2\tin\tO\t-\t-\n3\tBergen\tB-LOC\t-\t-\n\n"
CONLL_U = (
    "# newdoc\n# text = Al fin\n1-2\tAl\t_\t_\t_\t_\t_\t_\t_\t_\n1\ta\ta\tADP\t_\t_\t3\tcase\t_\t_\n"
    "2\tel\tel\tDET\t_\tGender=Masc\t3\tdet\t_\t_\n3\tfin\tfin\tNOUN\tX\t_\t0\troot\t_\t_\n3.1\tes\tser\tAUX\t_\t_\t_\t_\t3:cop\t_\n\n"
)
LAYOUTS = {  # name: text, words, tags, what is said
    "two columns": ("EU\tB-ORG\nrejects\tO\n", ["EU", "rejects"], ["B-ORG", "O"], "word in column 1, tag in column 2 of 2 ("),
    "spaces": ("EU B-ORG\nrejects  O \n", ["EU", "rejects"], ["B-ORG", "O"], "tag in column 2 of 2"),
    "conll2003": (
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\nit PRP B-NP O\n",
        ["EU", "rejects", "it"], ["B-ORG", "O", "O"], "word in column 1, tag in column 4 of 4",
    ),
    "conll2003 without entities": ("We PRP B-NP O\nsee VBP B-VP O\n", ["We", "see"], ["O", "O"], "tag in column 4 of 4"),
    "conll2000": ("We PRP B-NP\nsee VBP B-VP\n", ["We", "see"], ["B-NP", "B-VP"], "tag in column 3 of 3"),
    "uner": (UNER, ["Amara", "in", "Bergen"], ["B-PER", "O", "B-LOC"], "word in column 2, tag in column 3 of 5, index in column 1; 2 comments left out"),
    "wikineural": ("0\tThe\tO\n1\tHague\tB-LOC\n2\t.\tO\n", ["The", "Hague", "."], ["O", "B-LOC", "O"], "word in column 2, tag in column 3 of 3, index in column 1"),
    "an index that goes on": ("0 The O\n1 Hague B-LOC\n\n2 Go O\n3 on O\n", ["The", "Hague"], ["O", "B-LOC"], "index in column 1"),
    "multiconer": (
        "# id 1a-b domain=en\nAmara _ _ B-PER\nin _ _ O\n", ["Amara", "in"], ["B-PER", "O"], "tag in column 4 of 4; 1 comment left out",
    ),
    "multiconer with a tab": ("# id 1a\tdomain=en\nAmara _ _ B-PER\nin _ _ O\n", ["Amara", "in"], ["B-PER", "O"], "tag in column 4 of 4"),
    "conllu": (CONLL_U, ["a", "el", "fin"], ["ADP", "DET", "NOUN"], "word in column 2, tag in column 4 of 10, index in column 1; 2 comments and 2 multiword or empty tokens left out"),
    "germeval": (
        "#\thttp://de.wikipedia.org/wiki/X [2010-01-01]\n1\tNord\tB-ORG\tB-LOC\n2\tBank\tI-ORG\tO\n3\tda\tO\tO\n",
        ["Nord", "Bank", "da"], ["B-ORG", "I-ORG", "O"], "word in column 2, tag in column 3 of 4, index in column 1; 1 comment left out",
    ),
    "pan-x": ("en:The\tO\nen:Hague\tB-LOC\nen::\tO\n", ["The", "Hague", ":"], ["O", "B-LOC", "O"], "'en:' before each word left out"),
    "pan-x of a long code": ("be-x-old:A\tO\nbe-x-old:B\tO\n", ["A", "B"], ["O", "O"], "'be-x-old:' before each word"),
    "a word in a language's clothes": ("de:A\tO\nB\tO\n", ["de:A", "B"], ["O", "O"], "column 1, tag in column 2 of 2 ("),
    "mit: tag first": ("O\twho\nB-ACTOR\tTom\nI-ACTOR\tHanks\n", ["who", "Tom", "Hanks"], ["O", "B-ACTOR", "I-ACTOR"], "word in column 2, tag in column 1 of 2"),
    "bare kinds": ("Amara NNP PER\nlives VB O\nhere RB O\n", ["Amara", "lives", "here"], ["PER", "O", "O"], "tag in column 3 of 3"),
    "parts of speech": ("EU\tPROPN\nrejects\tVERB\n", ["EU", "rejects"], ["PROPN", "VERB"], "tag in column 2 of 2"),
    "tags of noughts and ones": ("a\t0\nb\t1\nc\t1\n\nd\t0\n", ["a", "b", "c"], ["0", "1", "1"], "tag in column 2 of 2"),
    "languages": ("# sent_enum = 1\nhola\tlang2\tO\nBergen\tlang1\tB-LOC\n", ["hola", "Bergen"], ["O", "B-LOC"], "column 1, tag in column 3 of 3"),
    "suffixes": ("Amara\tPER-B\nlives\tO\n", ["Amara", "lives"], ["PER-B", "O"], "tag in column 2 of 2"),
    "a hash": ("#\tO\nwin\tO\n#\tO\n", ["#", "win", "#"], ["O", "O", "O"], "tag in column 2 of 2 ("),
    "a hash between spaces": ("# O\nwin O\n#1 O\n", ["#", "win", "#1"], ["O", "O", "O"], "tag in column 2 of 2 ("),
    "a hash among words and comments": ("# id 3 domain=en\n# _ _ O\nwin _ _ O\n", ["#", "win"], ["O", "O"], "; 1 comment left out"),
    "a tag that only hashes have": ("#win\tB-X\nnow\tO\n", ["#win", "now"], ["B-X", "O"], "of 2 ("),
    "a hash after an index": ("# text = # 1\n1\t#\tO\n2\t1\tO\n", ["#", "1"], ["O", "O"], "; 1 comment left out"),
    "no-break and ideographic space": (
        "10\u00a0000\tO\n\u3000\tO\n\u00a0\tO\nBergen\tB-LOC\n", ["10\u00a0000", "\u3000", "\u00a0", "Bergen"], ["O", "O", "O", "B-LOC"], "column 1",
    ),
    "the same between spaces": ("10\u00a0000 O\n\u3000 O\nA\u3000B B-LOC\n", ["10\u00a0000", "\u3000", "A\u3000B"], ["O", "O", "B-LOC"], "column 1"),
    "a word with a space": ("New York\tB-LOC\nis\tO\n", ["New York", "is"], ["B-LOC", "O"], "column 1"),
    "carriage returns": ("EU\tB-ORG\r\nis\tO\r\n\r\n", ["EU", "is"], ["B-ORG", "O"], "tag in column 2 of 2"),
    "numbers before the words": ("17\tEU\tB-ORG\n18\tis\tO\n", ["EU", "is"], ["B-ORG", "O"], "word in column 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_recognised_and_said(tmp_path, capsys, name):
    text, words, tags, said = LAYOUTS[name]
    found = TAG.read_examples(write(tmp_path, "a.conll", text), Data())
    assert (found[0].first, found[0].label) == (words, tags)
    printed = capsys.readouterr().out
    assert said in printed and printed.count("\n") == 1
    # A file without tags is read alike by predict, words and all.
    (again,) = next(iter(TAG.read_file(str(tmp_path / "a.conll"), Data(), labels=False)))
    assert again.first == words


@pytest.mark.parametrize(
    ("text", "data", "words", "tags"),
    [
        ("Amara PROPN x\nlives VERB y\n", Data(tag_column=2), ["Amara", "lives"], ["PROPN", "VERB"]),
        ("Amara PROPN x\nlives VERB y\n", Data(tag_column=-1), ["Amara", "lives"], ["x", "y"]),
        ("x Amara PROPN\ny lives VERB\n", Data(word_column=2, tag_column=3), ["Amara", "lives"], ["PROPN", "VERB"]),
        ("We PRP B-NP O\nsee VBP B-VP O\n", Data(tag_column=3), ["We", "see"], ["B-NP", "B-VP"]),
        (CONLL_U, Data(word_column=3, tag_column=8), ["a", "el", "fin"], ["case", "det", "root"]),
    ],
)
def test_columns_may_be_named(tmp_path, text, data, words, tags):
    (example, *_) = TAG.read_examples(write(tmp_path, "a.conll", text), data)
    assert (example.first, example.label) == (words, tags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Amara amara PROPN\nlives live VERB\n",
            r"a.conll:1: columns 2 and 3: which is the tag cannot be told \(1: Amara, 2",
        ),
        ("d1 Amara PROPN B-PER\nd1 in ADP O\n", "columns 1 and 2 and 3: which is the word cannot be told"),
        ("Amara B-PER B-verb\nsaw O I-verb\n", "columns 2 and 3 all look like tags"),
        ("DT The\nDT the\nDT A\nDT a\nDT an\n", "column 1 has fewer values than column 2, so that it may be the tag"),
    ],
)
def test_columns_that_cannot_be_told_are_refused_and_the_advice_works(tmp_path, text, message):
    part = write(tmp_path, "a.conll", text)
    with pytest.raises(UserError, match=message) as e:
        TAG.read_examples(part, Data())
    assert "set data.word_column and data.tag_column" in str(e.value)
    assert TAG.read_examples(part, Data(word_column=1, tag_column=2))[0].first[0] == text.split()[0]


def test_a_sentence_as_it_was_written_is_kept(tmp_path):
    text = "# text = A.\n1\tA\tX\n2\t.\tPUNCT\n\n1\tB\tX\n2\tC\tX\n\n\n# text = D e\n1\tD\tX\n2\te\tX\n"
    found = TAG.read_examples(write(tmp_path, "a.conllu", text), Data())
    assert [e.text for e in found] == ["A.", None, "D e"]


def test_a_tsv_may_be_a_table_or_have_a_word_a_line(tmp_path):
    (example,) = TAG.read_examples(write(tmp_path, "a.tsv", "#\tnews\n1\tBonn\tB-LOC\tO\n2\t.\tO\tO\n"), Data())
    assert (example.first, example.label) == (["Bonn", "."], ["B-LOC", "O"])
    (example,) = TAG.read_examples(write(tmp_path, "b.tsv", "text\tlabel\n\nBonn .\tB-LOC O\n"), Data())
    assert (example.first, example.label) == (["Bonn", "."], ["B-LOC", "O"])


def test_words_alone_are_read_for_prediction(tmp_path):
    def words(text):
        groups = TAG.read_file(write(tmp_path, "a.conll", text).path, Data(), labels=False)
        return [(e.first, e.label) for group in groups for e in group]

    assert words("#\nwin\n\n# text = a\na\n") == [(["#", "win"], None), (["a"], None)]
    assert words("1\tEU\n2\tis\n") == [(["EU", "is"], None)]


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


def test_questions_without_an_answer_are_recognised(tmp_path):
    (none,) = SPAN.read_examples(squad(tmp_path, []), Data())
    (answered,) = SPAN.read_examples(squad(tmp_path, [{"text": "2016", "answer_start": 14}]), Data())
    found = [none, answered]
    with pytest.raises(
        UserError, match=r"a.json:q1: has no answer, nor have 1 of 2 questions there .*set --task.unanswerable"
    ):
        SPAN.check_examples(found, (), Task(kind="span"))
    SPAN.check_examples(found, (), Task(kind="span", unanswerable=True))
    SPAN.check_examples([answered], (), Task(kind="span"))
    empty = dataclasses.replace(found[0], label=(("", 0),))
    with pytest.raises(UserError, match="has no answer"):
        SPAN.check_examples([empty], (), Task(kind="span"))
    path = tmp_path / "b.json"
    question = {"id": "q", "question": "When?", "is_impossible": True, "answers": [{"text": "2016", "answer_start": 0}]}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "2016", "qas": [question]}]}]}))
    with pytest.raises(UserError, match=r"b.json:q: is_impossible, and has answers"):
        SPAN.read_examples(Labelled("en", str(path)), Data())


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
        ("a.jsonl", '{"text": "A", "label": null}\n', Data(), REGRESS, "a.jsonl:1: label is empty"),
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
        ("a.conll", "EU\tB-ORG\n\tO\n", Data(), TAG, r"a.conll:2: an empty word in column 1"),
        ("a.conll", "EU B-ORG\n O\n", Data(), TAG, r"a.conll:2: an empty word"),
        ("a.conll", "en:EU\tB-ORG\nen:\tO\n", Data(), TAG, r"a.conll:2: an empty word in column 1"),
        ("a.conll", "EU\tB-ORG\nis\t\n", Data(), TAG, r"a.conll:2: 'is' has an empty tag in column 2"),
        ("a.conll", "EU NNP B-ORG\nis O\nit O\n", Data(), TAG, r"a.conll:1: 3 columns with spaces between, 2 in other"),
        ("a.conll", "EU\tB-ORG\n", Data(tag_column=3), TAG, r"data.tag_column: 3, but .*a.conll:1 has 2 columns"),
        ("a.conll", "EU\tB-ORG\n", Data(word_column=2, tag_column=2), TAG, "both 2; name two columns"),
        ("a.conll", "\n\n", Data(), TAG, "a.conll: no word there"),
        ("a.jsonl", '{"text": ["A", ""], "label": ["O", "O"]}\n', Data(), TAG, "a.jsonl:1: word 2 in text is empty"),
        ("a.tsv", "text\tlabel\nA  b\tO O\n", Data(), TAG, "a.tsv:2: word 2 in text is empty"),
        ("a.conll", "EU\tB-ORG\n", Data(), CLASSIFY, "task.kind classify reads"),
        ("a.json", '{"paragraphs": []}', Data(), SPAN, "not a SQuAD file"),
        (
            "a.tsv",
            "text\tlabel\n",
            Data(),
            SPAN,
            "task.kind span reads SQuAD .json, and .jsonl, .parquet, .arrow of its rows files",
        ),
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
