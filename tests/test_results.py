# SPDX-License-Identifier: Apache-2.0
"""Files of results: byte for byte what they were when each kind wrote its own."""

import pytest

from mlm_jax import results
from mlm_jax.errors import UserError
from mlm_jax.evaluate.run import from_experiment
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.run import table
from mlm_jax.finetune.sets import same_predictions
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.neutrality.run import matrices_as_csv
from mlm_jax.results import BenchmarkRow, FinetunedRow, benchmark_row, probe_rows

FINETUNED_ROW = FinetunedRow(
    regime="joint", model="all", seed=0, trained_on=["en", "नी"], language="नी", examples=1234, truncated=3, select="joint",
    step=16, dev=None, metric="accuracy", test={"accuracy": 0.5, "f1": 1 / 3, "exact": 1},
)  # fmt: skip
BENCHMARK_ROW = BenchmarkRow(
    task="xnli", language="de", metric="accuracy", value=0.123456789, every={"accuracy": 0.123456789, "loss": 7},
    examples=10, protocol={"layer": 7},
)  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "settings", "json", "csv"),
    [
        (
            [FINETUNED_ROW],
            {"columns": results.FINETUNED, "scores": "test"},
            '[\n {\n  "regime": "joint",\n  "model": "all",\n  "seed": 0,\n  "trained_on": [\n   "en",\n   "नी"\n  ],\n'
            '  "language": "नी",\n  "examples": 1234,\n  "truncated": 3,\n  "select": "joint",\n  "step": 16,\n  "dev": null,\n'
            '  "metric": "accuracy",\n  "test": {\n   "accuracy": 0.5,\n   "f1": 0.3333333333333333,\n   "exact": 1\n  }\n }\n]\n',
            "regime,model,seed,language,select,step,examples,metric,value\njoint,all,0,नी,joint,16,1234,accuracy,0.500000\n"
            "joint,all,0,नी,joint,16,1234,f1,0.333333\njoint,all,0,नी,joint,16,1234,exact,1.000000\n",
        ),
        (
            [BENCHMARK_ROW],
            {"columns": results.BENCHMARK, "scores": "every"},
            '[\n {\n  "task": "xnli",\n  "language": "de",\n  "metric": "accuracy",\n  "value": 0.123456789,\n'
            '  "every": {\n   "accuracy": 0.123456789,\n   "loss": 7\n  },\n  "examples": 10,\n  "protocol": {\n   "layer": 7\n  }\n }\n]\n',
            "task,language,metric,value,examples\nxnli,de,accuracy,0.123457,10\nxnli,de,loss,7.000000,10\n",
        ),
        (
            [
                *probe_rows("quality, cosine", "s", 0, "mean", "plain", "en-de", {"pearson": 0.25}),
                probe_rows("retrieval", "s", 0, "mean", "plain", "en-de", {"accuracy": 0.25})[0] | {"step": 8},
            ],
            {"columns": results.PROBE, "indent": 0},
            '[\n{\n"probe": "quality, cosine",\n"set": "s",\n"layer": 0,\n"pooling": "mean",\n"transformation": "plain",\n'
            '"languages": "en-de",\n"metric": "pearson",\n"value": 0.25\n},\n{\n"probe": "retrieval",\n"set": "s",\n"layer": 0,\n'
            '"pooling": "mean",\n"transformation": "plain",\n"languages": "en-de",\n"metric": "accuracy",\n"value": 0.25,\n"step": 8\n}\n]\n',
            "probe,set,step,layer,pooling,transformation,languages,metric,value\n"
            '"quality, cosine",s,,0,mean,plain,en-de,pearson,0.250000\nretrieval,s,8,0,mean,plain,en-de,accuracy,0.250000\n',
        ),
    ],
)
def test_the_files_of_each_kind(tmp_path, rows, settings, json, csv):
    results.write_results(tmp_path, rows, **settings)
    assert (tmp_path / "results.json").read_text() == json
    assert (tmp_path / "results.csv").read_text() == csv
    assert results.read_results(tmp_path) == rows


def test_matrices():
    figures = {
        "s": {
            "languages": ["a", "b"],
            "retrieval_plain": [[1.0, 0.5], [1 / 3, 1.0]],
            "confusion_plain": [[3, 0], [1, 2]],
        }
    }
    assert matrices_as_csv(figures) == (
        "set,matrix,row,column,value\ns,retrieval_plain,a,a,1\ns,retrieval_plain,a,b,0.5\ns,retrieval_plain,b,a,0.333333\n"
        "s,retrieval_plain,b,b,1\ns,confusion_plain,a,a,3\ns,confusion_plain,a,b,0\ns,confusion_plain,b,a,1\ns,confusion_plain,b,b,2\n"
    )


def test_names_with_commas_and_quotes_stay_one_cell():
    assert results.as_csv(("a", "value"), [{"a": 'x, "y"', "value": 2}]) == 'a,value\n"x, ""y""",2.000000\n'


def test_what_is_done_is_not_computed_again(tmp_path):
    calls = []

    def make(value):
        calls.append(value)
        return [value]

    path = tmp_path / "done" / "a.b.json"
    assert results.compute_once(path, make, 1) == results.compute_once(path, make, 2) == [1]
    assert calls == [1]
    with pytest.raises(UserError, match=r"results.json: no such file; run: mlm-jax finetune, evaluate or analyze"):
        results.read_results(tmp_path)


def finetuned(language, seed, value, **more):
    return {
        "regime": "joint", "model": "all", "trained_on": ["en"], "select": "joint", "seed": seed, "language": language, "examples": 150, "step": 5, "metric": "accuracy",
        "test": {"accuracy": value}, **more,
    }  # fmt: skip


def test_what_is_to_be_known_of_results_is_said_below_them():
    rows = [finetuned("de", 0, 0.612), finetuned("de", 1, 0.704), finetuned("de", 2, 0.68), finetuned("en", 0, 0.7)]
    (said,) = results.finetuned_cautions(rows)
    assert said.startswith("de: seeds 0, 1, 2 differ by 9.2 points (61.2, 70.4, 68.0); their mean says little")
    assert results.finetuned_cautions(rows[2:]) == []
    assert results.finetuned_cautions([finetuned("de", 0, 0.6), finetuned("de", 1, 0.659)]) == []
    assert results.finetuned_cautions([finetuned("de", 0, 0.6), finetuned("de", 1, 0.66)]) != []
    few = [finetuned("de", 0, 0.6, examples=40, dev_examples=12), finetuned("en", 0, 0.6, examples=100, dev_examples=0)]
    found = results.finetuned_cautions(few)
    assert [x.partition(";")[0] for x in found] == ["test: few examples (40 of de)", "dev: few examples (12 of de)"]
    shown = table([*rows[:3], *few[1:]], "en")
    assert "range" in shown and "61.2 to 70.4" in shown and "differ by 9.2 points" in shown
    assert "range" not in table(few, "en")
    benchmarks = from_experiment("ner", [*rows[:3], few[0]])
    assert benchmarks[0]["protocol"]["range over seeds"] == "60.0 to 70.4"
    own = benchmark_row("tatoeba", "sw", "accuracy", {"accuracy": 0.5}, 39, {})
    said = results.benchmark_cautions([*benchmarks, own])
    assert any(x.startswith("ner: de: seeds") for x in said) and any(
        x.startswith("tatoeba: few examples (39 of sw)") for x in said
    )


@pytest.mark.parametrize(
    ("gold", "found", "said"),
    [
        ([["O", "B-PER"], ["O"]], [["O", "O"], ["O"]], "nothing but 'O' was predicted, for all 3 words"),
        ([["O", "B-PER"], ["O"]], [["O", "B-LOC"], ["O"]], ""),
        ([["O", "O"], ["O"]], [["O", "O"], ["O"]], ""),
        (["yes", "no"], ["no", "no"], "nothing but 'no' was predicted, for all 2 examples"),
        (["no", "no"], ["no", "no"], ""),
        ([["a"], []], [[], []], "nothing was predicted, for all 2 examples"),
        ([(("Denver", 0),), ()], ["", ""], "nothing was predicted, for all 2 examples"),
        ([(("Denver", 0),), ()], ["", "Denver"], ""),
    ],
)
def test_a_model_that_says_the_same_of_everything_is_named(gold, found, said):
    words = gold[0][:1] == ["O"]
    examples = [Example("x", ["w"] * len(label) if words else "text", None, label, "1") for label in gold]
    caution = same_predictions(examples, [Prediction(value) for value in found])
    assert caution == [] if not said else caution[0].startswith(said)
