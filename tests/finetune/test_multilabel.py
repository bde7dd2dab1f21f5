# SPDX-License-Identifier: Apache-2.0
"""Several labels per text: what is read, how it is measured, and a model from training to Hugging Face and back."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from mlm_jax import cli
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded
from mlm_jax.finetune.config import Data, Labelled, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.predict import Predictor
from mlm_jax.finetune.tasks import TASKS
from tests.finetune.toys import NAMES, WORDS, make_config, make_start, write_config

KIND, TASK = TASKS["multilabel"], Task(kind="multilabel")
LABELS = ("bad", "good", "person")


def read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return KIND.read_examples(Labelled("en", str(tmp_path / name)), Data())


def test_labels_are_lists_or_text_with_marks_between(tmp_path):
    lines = ['["a", "b, c"]', "[]", '"a, b"', '"a, b|c"', '""', "[1, 2]"]
    found = read(tmp_path, "a.jsonl", "\n".join(f'{{"text": "x", "label": {label}}}' for label in lines))
    assert [e.label for e in found] == [("a", "b, c"), (), ("a", "b"), ("a, b", "c"), (), ("1", "2")]
    found = read(tmp_path, "a.tsv", "text\tlabel\nx\tb,a\ny\t\nz\tb|c\n")
    assert [e.label for e in found] == [("b", "a"), (), ("b", "c")]
    assert KIND.label_set(TASK, found) == ("a", "b", "c")
    with pytest.raises(UserError, match=r"a.tsv:2: label 'a' is not one of the training data's \(b, c\)"):
        KIND.check_labels(found, ("b", "c"))
    with pytest.raises(UserError, match="no example has a label"):
        KIND.label_set(TASK, found[1:2])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("[0, 1, 0]", "a.jsonl:1: '0' twice in label"),
        ("3", "a.jsonl:1: label is 3, not a list of labels"),
        ('["a", ""]', "not a list of labels"),
        ('"a,,b"', "not a list of labels"),
        ('[["a"]]', "not a list of labels"),
    ],
)
def test_labels_that_are_none_have_one_line(tmp_path, label, message):
    with pytest.raises(UserError, match=message) as e:
        read(tmp_path, "a.jsonl", f'{{"text": "x", "label": {label}}}\n')
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("labels", [1, 4])
@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_predictions_and_f1_equal_scikit_learns(labels, threshold):
    rng = np.random.default_rng(labels)
    names = tuple("abcd"[:labels])
    gold = [tuple(name for name in names if name != "d" and rng.random() < 0.4) for _ in range(60)]
    examples = [Example(f"x:{i}", "x", None, label, str(i)) for i, label in enumerate(gold)]
    scores = rng.normal(-1, 2, (60, labels)).astype(np.float32)
    scores[:, 3:] = -9  # a label that is neither there nor found
    found = KIND.decode(
        examples, Encoded("en"), list(scores), names, {}, dataclasses.replace(TASK, threshold=threshold)
    )
    chances = 1 / (1 + np.exp(-scores))
    for row, prediction in zip(chances, found, strict=True):
        assert list(prediction.every.values()) == pytest.approx(row, abs=1e-6)
        assert prediction.value == [name for name, p in zip(names, row, strict=True) if p >= threshold]
        assert prediction.probability == [prediction.every[name] for name in prediction.value]
    binary = MultiLabelBinarizer(classes=names)
    a, b = binary.fit_transform(gold), binary.fit_transform([p.value for p in found])
    # scikit-learn takes one column for two classes.
    a, b = (np.hstack([x, np.zeros_like(x)]) if labels == 1 else x for x in (a, b))
    expected = {how: f1_score(a, b, average=how, zero_division=0) for how in ("micro", "macro")}
    expected["macro"] *= 2 if labels == 1 else 1
    measured = KIND.measure(examples, found, TASK, "en")
    assert measured == {f"{how}_f1": pytest.approx(value, abs=1e-6) for how, value in expected.items()}
    assert KIND.main_metric(TASK, names) == "micro_f1"


def write_toys(folder):
    """Texts that have a good word, a bad one, a name, all or none of them."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for language, words in WORDS.items():
        for split, count in (("train", 240), ("test", 40)):
            lines = []
            for _ in range(count):
                text = [str(w) for w in rng.choice(words["other"], rng.integers(2, 5))]
                chosen = [label for label in LABELS if rng.random() < 0.4]
                for label in chosen:
                    text.insert(int(rng.integers(0, len(text))), str(rng.choice(words.get(label, NAMES))))
                lines.append(f"{' '.join(text)}\t{','.join(chosen)}")
            (folder / f"{language}.{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")


@pytest.mark.slow
def test_it_learns_predicts_and_goes_to_hugging_face_and_back(tmp_path, capsys):
    make_start(tmp_path / "run")
    write_toys(tmp_path / "data")
    config = make_config(tmp_path, "multilabel")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=8))
    assert cli.main(["finetune", write_config(tmp_path / "toy.py", config)]) == 0
    assert "of multilabel with 3 labels" in capsys.readouterr().out
    rows = json.loads((tmp_path / "run/results.json").read_text())
    assert all(r["metric"] == "micro_f1" and min(r["test"].values()) > 0.85 for r in rows), rows
    line = json.loads((tmp_path / "run/models/all-seed0/predictions/de.jsonl").read_text().splitlines()[0])
    assert len(line["predicted"]) == len(line["probability"]) and isinstance(line["gold"], list)

    texts = ["the film was great so", "the film Anna was awful", "so the film was so"]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    assert cli.main(["predict", config.workdir, str(tmp_path / "in.txt"), str(tmp_path / "out.jsonl")]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [f["predicted"] for f in found] == [["good"], ["bad", "person"], []]
    assert all(tuple(f["probabilities"]) == LABELS for f in found)

    assert cli.main(["export", config.workdir, str(tmp_path / "hf")]) == 0
    settings = json.loads((tmp_path / "hf/config.json").read_text())
    assert settings["problem_type"] == "multi_label_classification" and tuple(settings["label2id"]) == LABELS
    assert cli.main(["import", str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    again = Predictor.load(tmp_path / "back").texts(texts)
    assert [p.value for p in again] == [f["predicted"] for f in found]
    for one, two in zip(again, found, strict=True):
        assert one.every == pytest.approx(two["probabilities"], abs=1e-4)


def test_a_kind_of_task_is_one_file():
    """Its name stands in its file and in the options' docstrings; nothing outside asks which kind a task is."""
    package = Path(__file__).parents[2] / "mlm_jax"
    named = {str(p.relative_to(package)) for p in package.rglob("*.py") if "multilabel" in p.read_text()}
    assert named == {"finetune/config.py", "finetune/tasks/__init__.py", "finetune/tasks/multilabel.py"}
    quoted = re.compile(rf"[\"']({'|'.join(TASKS)})[\"']")
    configs = ("config.py", "standard.py")  # of fine-tuning: the default, and the standard sets
    outside = [p for folder in ("finetune", "interchange", "model") for p in (package / folder).glob("*.py")]
    assert [p.name for p in outside if p.name not in configs and quoted.search(p.read_text())] == []
