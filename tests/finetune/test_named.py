# SPDX-License-Identifier: Apache-2.0
"""Labelled data by its name in TensorFlow Datasets, and the configs that name it: against TFDS itself, and its mocked data."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate, Pairs, validate_evaluation
from mlm_jax.evaluate.run import read_aligned
from mlm_jax.finetune import named
from mlm_jax.finetune.config import Data, Finetune, Labelled, validate_finetuning
from mlm_jax.finetune.tasks import TASKS

tf = pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")
labelled = pytest.importorskip("mlm_jax.prepare.labelled")

CHECKOUT = Path(__file__).parents[2]
CONFIGS = sorted(CHECKOUT.glob("configs/finetune/*.py")) + sorted(CHECKOUT.glob("configs/evaluate/*.py"))


def load(path):
    config = cfg.load_config(str(path), (Finetune, Evaluate))
    (validate_finetuning if isinstance(config, Finetune) else validate_evaluation)(config)
    return config


def experiments(config):
    return [config] if isinstance(config, Finetune) else [part.config for part in config.tuned]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_names_fields_that_tfds_has(path):
    config = load(path)
    builders = {}
    for made in experiments(config):
        for part in (*made.data.train, *made.data.dev, *made.data.test):
            if not part.path.startswith("tfds:"):
                continue
            name = part.path.removeprefix("tfds:").partition(":")[0]
            # Data sets of a configuration a language all have the same fields.
            family = name.partition("/")[0] if not name.startswith("glue") else name
            features = builders.setdefault(family, tfds.builder(name).info.features if family not in builders else None)
            if made.task.kind == "span":
                assert {"question", "context", "answers", "id"} <= set(features)
            else:
                assert {made.data.text, made.data.label, made.data.pair or made.data.text} <= set(features), name
            if made.task.positive:
                assert made.task.positive in features[made.data.label].names


@pytest.mark.slow
def test_every_language_of_the_standard_sets_is_there():
    names = {
        part.path.removeprefix("tfds:").partition(":")[0]
        for path in CONFIGS
        for made in experiments(load(path))
        for part in (*made.data.train, *made.data.dev, *made.data.test)
        if part.path.startswith("tfds:")
    }
    assert len(names) > 100
    for name in sorted(names):
        tfds.builder(name)


@pytest.fixture
def mocked(monkeypatch):
    """TFDS's mocked data of these splits, which TFDS knows only of what it has downloaded."""

    def write(path, language, out, count=6):
        with tfds.testing.mock_data(num_examples=count):
            builder = tfds.builder(path.removeprefix("tfds:").partition(":")[0])
            split = path[5:].partition(":")[2].split("[")[0]
            info = SimpleNamespace(splits={split: None}, features=builder.info.features)
            mock = SimpleNamespace(info=info, as_dataset=builder.as_dataset)
            monkeypatch.setattr(labelled, "builder_of", lambda _: mock)
            labelled.write_examples(path, language, str(out))

    return write


@pytest.mark.parametrize(
    ("path", "language", "data", "kind"),
    [
        ("tfds:multi_nli:train", "en", Data(text="premise", pair="hypothesis"), "classify"),
        ("tfds:paws_x_wiki/de:train", "de", Data(text="sentence1", pair="sentence2"), "classify"),
        ("tfds:glue/stsb:train", "en", Data(text="sentence1", pair="sentence2"), "regress"),
        ("tfds:wikiann/sw:train", "sw", Data(text="tokens", label="tags"), "tag"),
        ("tfds:conll2003:dev", "en", Data(text="tokens", label="ner"), "tag"),
        ("tfds:xtreme_pos/xtreme_pos_hi:test", "hi", Data(text="tokens", label="upos"), "tag"),
    ],
)  # fmt: skip
def test_mocked_examples_are_read(tmp_path, mocked, path, language, data, kind):
    mocked(path, language, tmp_path / "out")
    (file,) = tmp_path.glob("out.json*")
    assert file.suffix == ".jsonl"
    part = Labelled(language, str(file))
    if kind == "tag":  # TFDS mocks words and tags in lists of different lengths
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        names = tfds.builder(path[5:].partition(":")[0]).info.features[data.label].feature.names
        assert len(rows) == 6 and all(isinstance(word, str) for row in rows for word in row[data.text])
        assert {tag for row in rows for tag in row[data.label]} <= set(names)
        return
    examples = TASKS[kind].read_examples(part, data)
    assert len(examples) == 6
    if kind == "classify":
        names = tfds.builder(path[5:].partition(":")[0]).info.features["label"].names
        assert {e.label for e in examples} <= set(names)
    if kind == "regress":
        assert all(isinstance(e.label, float) for e in examples)


QUESTION = {
    "id": "finnish-1", "title": "t", "question": "Missä?", "context": "Täällä on Oulu.",
    "answers": {"text": ["Oulu"], "answer_start": [10]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "language", "rows", "kept"),
    [
        ("tfds:squad/v1.1:train", "en", [QUESTION], 1),
        ("tfds:squad/v2.0:train", "en", [QUESTION | {"is_impossible": True, "answers": {"text": [], "answer_start": []}}], 1),
        ("tfds:mlqa/zh:test[:10%]", "zh", [QUESTION, QUESTION | {"id": "2"}], 2),
        ("tfds:tydi_qa/goldp:train", "fi", [QUESTION, QUESTION | {"id": "english-2"}], 1),
        ("tfds:tydi_qa/goldp:validation-fi", "fi", [QUESTION], 1),
    ],
)  # fmt: skip
def test_questions_are_read(tmp_path, monkeypatch, path, language, rows, kept):
    features = tfds.builder(path[5:].partition(":")[0]).info.features
    signature = {name: spec for name, spec in features.get_tensor_spec().items() if name in rows[0]}
    data = tf.data.Dataset.from_generator(lambda: rows, output_signature=signature)
    info = SimpleNamespace(splits={path[5:].partition(":")[2].split("[")[0]: None}, features=features)
    mock = SimpleNamespace(info=info, as_dataset=lambda split, shuffle_files: data)
    monkeypatch.setattr(labelled, "builder_of", lambda _: mock)
    labelled.write_examples(path, language, str(tmp_path / "out"))
    examples = TASKS["span"].read_examples(Labelled(language, str(tmp_path / "out.json")), Data())
    assert len(examples) == kept
    for e in examples:
        assert all(e.second[start : start + len(text)] == text for text, start in e.label)
        assert e.first == "Missä?"


def test_translations_in_the_language_asked_for():
    feature = tfds.features.TranslationVariableLanguages(languages=["en", "sw"])
    value = {"language": [b"en", b"sw"], "translation": [b"cat", b"paka"]}
    assert labelled.readable(value, feature, "sw", "x") == "paka"
    fixed = tfds.features.Translation(languages=["en", "sw"])
    assert labelled.readable({"en": b"cat", "sw": b"paka"}, fixed, "en", "x") == "cat"
    with pytest.raises(UserError, match="x: premise: not in de; there are en, sw"):
        labelled.readable({"en": b"cat", "sw": b"paka"}, fixed, "de", "x: premise")


def test_questions_come_under_their_contexts():
    rows = [
        {"id": str(i), "question": f"q{i}", "context": c, "answers": {"text": ["a"], "answer_start": [i]}}
        for i, c in enumerate(["one", "one", "two"])
    ]
    found = labelled.paragraphs(iter(rows))
    assert [(p["context"], [q["id"] for q in p["qas"]]) for p in found] == [("one", ["0", "1"]), ("two", ["2"])]
    assert found[1]["qas"][0]["answers"] == [{"text": "a", "answer_start": 2}]


def test_a_named_split_is_written_once_by_a_process_of_its_own(tmp_path, monkeypatch):
    calls = []

    def run(command, **_):
        calls.append(command)
        Path(command[-1] + ".jsonl").write_text('{"source_sentence": "Hallo", "target_sentence": "Hello"}\n')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(named.subprocess, "run", run)
    name = "tfds:tatoeba/tatoeba_de:train"
    pairs = Pairs(("de", "en"), (f"{name}#source_sentence", f"{name}#target_sentence"))
    assert read_aligned(pairs, str(tmp_path)) == (["Hallo"], ["Hello"])
    assert read_aligned(pairs, str(tmp_path)) == (["Hallo"], ["Hello"])
    assert [c[:5] for c in calls] == [[sys.executable, "-m", "mlm_jax.prepare.labelled", name, x] for x in ("de", "en")]
    with pytest.raises(
        UserError,
        match=r"no text in field 'text' \(there are source_sentence, target_sentence\).*; set it in the path: PATH#FIELD",
    ):
        read_aligned(dataclasses.replace(pairs, paths=(f"{name}#text", f"{name}#text")), str(tmp_path))
    assert named.local_file("data/x.tsv", "de", tmp_path) == "data/x.tsv"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tfds:no_such_set:train", "no_such_set"),
        ("tfds:wikiann/en", "no split; write tfds:NAME/CONFIG:SPLIT"),
    ],
)
def test_a_name_that_is_not_to_be_had_is_one_line(tmp_path, path, message, capfd):
    with pytest.raises(UserError) as error:
        named.local_file(path, "en", tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert "error: " not in capfd.readouterr().err


def test_a_process_that_fails_does_not_end_the_callers(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 2, stdout="tfds:x/y:train: no such data set; it was looked for\n")
    monkeypatch.setattr(named.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match=r"^tfds:x/y:train: no such data set; it was looked for$"):
        named.local_file("tfds:x/y:train", "en", tmp_path)
    monkeypatch.setattr(done, "stdout", "")
    with pytest.raises(UserError, match=r"^tfds:x/y:train: cannot be had; what was printed above says why$"):
        named.local_file("tfds:x/y:train", "en", tmp_path)
