# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, whole: every task learns, every regime has its models, a killed run goes on bit for bit, frozen is frozen."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from mlm_jax import cli
from mlm_jax.config import Config, config_to_json
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Labelled, Task, Train
from mlm_jax.finetune.learner import refuse_passed
from mlm_jax.finetune.predict import Predictor
from mlm_jax.finetune.run import regime_models, run_finetuning, table
from mlm_jax.tensor_files import read_tensors
from mlm_jax.train import fit
from mlm_jax.train.metrics import read_metrics
from mlm_jax.workdir import own_workdir
from tests.corpora import logged
from tests.finetune.toys import make_config, make_start, write_config

KINDS = ("classify", "regress", "tag", "span")


def stored(workdir):
    """The parameters of an encoder that is stored, by their paths."""
    return dict(read_tensors(Path(workdir) / "initial.safetensors"))


def run(config):
    own_workdir(config)
    return run_finetuning(config)


@pytest.mark.parametrize("kind", ["classify", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_every_task_learns_and_leaves_its_results(tmp_path, kind, capsys):
    config = make_config(tmp_path, kind)
    path = write_config(tmp_path / "toy.py", config)
    assert cli.main(["finetune", path]) == 0
    said = capsys.readouterr().out
    metric = {"classify": "accuracy", "regress": "pearson", "tag": "entity_f1", "span": "f1"}[kind]
    assert metric in said and "best mean over the dev sets" in said and "joint: 1 model × 1 seed" in said
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [r["language"] for r in rows] == ["en", "de"] and all(r["examples"] == 40 for r in rows)
    assert all(r["test"][metric] > 0.85 for r in rows), rows
    csv = (tmp_path / "run" / "results.csv").read_text().splitlines()
    assert len(csv) == 1 + sum(len(r["test"]) for r in rows)
    predicted = (tmp_path / "run/models/all-seed0/predictions/de.jsonl").read_text().splitlines()
    assert len(predicted) == 40 and {"key", "gold", "predicted", "probability"} == set(json.loads(predicted[0]))
    # Called again it has nothing to do but to say so.
    assert cli.main(["finetune", path]) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == said.splitlines()[-5:]


@pytest.mark.slow
def test_a_crf_learns_too(tmp_path):
    rows, _ = run(make_config(tmp_path, "tag", task=Task(kind="tag", crf=True, dropout=0.0)))
    assert all(r["test"]["entity_f1"] > 0.85 for r in rows), rows


def test_regimes_and_their_models(tmp_path):
    config = make_config(tmp_path, "classify")
    found = {
        regime: [(p.name, p.train, p.tested) for p in regime_models(dataclasses.replace(config, regime=regime))]
        for regime in ("zero_shot", "translate_test", "translate_train", "in_language", "translate_train_all", "joint")
    }
    both = ("en", "de")
    assert found["zero_shot"] == found["translate_test"] == [("en", ("en",), both)]
    assert found["translate_train"] == found["in_language"] == [("en", ("en",), ("en",)), ("de", ("de",), ("de",))]
    assert found["translate_train_all"] == found["joint"] == [("all", both, both)]


@pytest.mark.slow
def test_zero_shot_tests_what_it_was_not_trained_on(tmp_path):
    config = make_config(tmp_path, "classify", regime="zero_shot", seeds=(0, 1), train=Train(epochs=14, batch_size=16))
    rows, _ = run(config)
    score = {(r["language"], r["seed"]): r["test"]["accuracy"] for r in rows}
    assert min(score["en", 0], score["en", 1]) > 0.9 and max(score["de", 0], score["de", 1]) < 0.9
    assert {tuple(r["trained_on"]) for r in rows} == {("en",)} and {r["select"] for r in rows} == {"source"}
    said = table(rows, "en").splitlines()
    gap = 50 * (score["en", 0] - score["de", 0] + score["en", 1] - score["de", 1])
    (line,) = [x for x in said if x.startswith("en - mean of others")]
    assert float(line.split()[5]) == pytest.approx(gap, abs=0.06)
    assert "± seeds" in said[0]


@pytest.mark.slow
def test_each_language_its_own_model_and_its_own_best(tmp_path):
    rows, _ = run(make_config(tmp_path, "classify", regime="in_language", train=Train(epochs=14, batch_size=16)))
    assert {(r["model"], r["language"]) for r in rows} == {("en", "en"), ("de", "de")}
    assert all(r["test"]["accuracy"] > 0.8 for r in rows), rows


@pytest.mark.slow
def test_the_best_on_dev_is_what_is_tested(tmp_path):
    config = make_config(tmp_path, "classify", train=Train(epochs=3, batch_size=16, evaluate_every=3))
    config = dataclasses.replace(config, select="per_language")
    rows, _ = run(config)
    dev = [r for r in read_metrics(tmp_path / "run/models/all-seed0") if r["kind"] == "dev"]
    for row in rows:
        best = max(r["languages"][row["language"]]["accuracy"] for r in dev)
        first = min(r["step"] for r in dev if r["languages"][row["language"]]["accuracy"] == best)
        chosen = {r["step"]: r["languages"][row["language"]]["accuracy"] for r in dev}[row["step"]]
        assert chosen == best and row["step"] >= first
        assert row["dev"]["accuracy"] == best


def start_process(tmp_path, path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    code = (
        "import sys, jax; jax.config.update('jax_num_cpu_devices', 8); from mlm_jax.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "finetune", path]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_continued_is_bit_for_bit_the_unbroken_run(tmp_path, how):
    train = Train(epochs=60, batch_size=16, log_every=4, save_every=5, evaluate_every=20)
    config = make_config(tmp_path, "tag", train=train)
    whole = dataclasses.replace(config, workdir=str(make_start(tmp_path / "whole")))
    run(whole)
    path = write_config(tmp_path / "toy.py", config)
    process = start_process(tmp_path, path)
    metrics = tmp_path / "run/models/all-seed0/metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not metrics.exists() or metrics.read_text().count("\n") < 20):
        time.sleep(0.02)
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    if how == signal.SIGTERM:
        assert process.returncode == 143 and "stopped by SIGTERM, saved; to continue: mlm-jax finetune" in said
    assert not (tmp_path / "run/results.json").exists()
    assert (tmp_path / "run/models/all-seed0/checkpoints").exists()
    run(config)
    name = "models/all-seed0/initial.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert logged(tmp_path / "run/models/all-seed0") == logged(tmp_path / "whole/models/all-seed0")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_any_number_of_devices_gives_the_same_losses(tmp_path, devices):
    found = {}
    for count in (1, devices):
        config = make_config(
            tmp_path, "classify", workdir=f"on{count}", devices=count, train=Train(epochs=2, batch_size=32)
        )
        run(config)
        found[count] = [
            r["loss"] for r in read_metrics(tmp_path / f"on{count}/models/all-seed0") if r["kind"] == "train"
        ]
    np.testing.assert_allclose(found[1], found[devices], rtol=2e-4)


@pytest.mark.parametrize(
    "freeze",
    [
        pytest.param(-1, marks=pytest.mark.slow),
        pytest.param(0, marks=pytest.mark.slow),
        1,
        pytest.param(2, marks=pytest.mark.slow),
    ],
)
def test_what_is_frozen_is_bit_identical_and_has_no_optimizer_state(tmp_path, freeze, monkeypatch):
    states = []
    real = fit.make_train_step

    def spy(objective, optimizer, schedule, abstract_state, *rest):
        states.append(abstract_state)
        return real(objective, optimizer, schedule, abstract_state, *rest)

    monkeypatch.setattr(fit, "make_train_step", spy)
    optimizer = dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=3e-3, freeze=freeze)
    config = make_config(tmp_path, "tag", optimizer=optimizer, train=Train(epochs=1, batch_size=16))
    run(config)
    before = stored(config.workdir)
    after = stored(tmp_path / "run/models/all-seed0")
    for name, old in before.items():
        new = after[f"encoder/{name}"]
        if name.startswith("embedding/"):
            changed = np.abs(new - old).max() > 0
            assert changed == (freeze < 0), name
        else:
            moved = [float(np.abs(new[i] - old[i]).max()) > 0 for i in range(2)]
            assert moved == [i >= freeze for i in range(2)] or "bias" in name, (name, moved)
            assert not any(moved[: max(freeze, 0)]), name
    if freeze < 0:
        old, new = before["embedding/token_embedding"], after["encoder/embedding/token_embedding"]
        assert 0 < np.count_nonzero((old != new).any(axis=1)) < len(old)  # rows of pieces not in the data stay
    # Adam has two moments per trained parameter, and no array in the shape of what is frozen.
    (state,) = states
    trained = [leaf.size for leaf in jax.tree.leaves(state.params)]
    assert sorted(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim) == sorted(2 * trained)
    assert ("embedding" in state.params) == (freeze < 0) and ("layers" in state.params) == (freeze < 2)
    if freeze < 0:
        assert state.params["embedding"]["token_embedding"].shape == (128, 32)
    if freeze < 2:
        assert {len(leaf) for leaf in jax.tree.leaves(state.params["layers"])} == {2 - max(freeze, 0)}


@pytest.mark.slow
def test_predictions_from_files_and_in_python(tmp_path, capsys):
    config = make_config(tmp_path, "classify")
    run(config)
    capsys.readouterr()
    (tmp_path / "in.txt").write_text("the film was great so\n\nthe film was awful\n")
    assert cli.main(["predict", config.workdir, str(tmp_path / "in.txt"), str(tmp_path / "out" / "found.jsonl")]) == 0
    assert "2 predictions in" in capsys.readouterr().out
    found = [json.loads(line) for line in (tmp_path / "out/found.jsonl").read_text().splitlines()]
    assert [(f["key"], f["predicted"]) for f in found] == [("1", "good"), ("3", "bad")]
    assert all(sum(f["probabilities"].values()) == pytest.approx(1, abs=1e-3) and f["probability"] > 0.5 for f in found)
    predictor = Predictor.load(config.workdir)
    again = predictor.texts(["the film was great so", "the film was awful"])
    assert [p.probability for p in again] == pytest.approx([f["probability"] for f in found], abs=1e-4)
    (tmp_path / "bare.tsv").write_text("the film was great so\n")
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "config.json").write_text(config_to_json(Config()))
    for arguments, message in (
        (["predict", config.workdir, "no.txt", "out"], "no.txt: no such file"),
        (["predict", config.workdir, "in.txt"], "cannot be read"),
        (["predict", config.workdir, str(tmp_path / "in.txt"), "out", "--model", "xx"], "no model xx"),
        (["predict", str(tmp_path), str(tmp_path / "in.txt"), "out"], "error:"),
        (
            ["predict", str(tmp_path / "pretrained"), str(tmp_path / "in.txt"), "out"],
            "not a workdir of finetune; run: mlm",
        ),
        (["predict", config.workdir, str(tmp_path / "bare.tsv"), "out"], "its first line names the columns"),
        (["export", str(tmp_path / "pretrained"), "out", "--model", "a"], "nothing was fine-tuned there"),
        (["predict", config.workdir, str(tmp_path / "in.txt"), "out", "--languag", "de"], "did you mean --language"),
    ):
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_tuned_models_go_out_come_back_and_are_started_from(tmp_path, capsys):
    config = make_config(tmp_path, "classify")
    run(config)
    assert cli.main(["export", config.workdir, str(tmp_path / "hf")]) == 0
    assert "XLMRobertaForSequenceClassification" in capsys.readouterr().out
    assert cli.main(["import", str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    texts = ["the film was great so", "der Film war mies", "so so"]
    one, two = (Predictor.load(folder).texts(texts) for folder in (config.workdir, tmp_path / "back"))
    assert [p.value for p in one] == [p.value for p in two]
    assert [p.probability for p in one] == pytest.approx([p.probability for p in two], abs=1e-5)
    # The SentencePiece model alone says as much as tokenizer.json.
    (tmp_path / "hf" / "tokenizer.json").unlink()
    assert cli.main(["import", str(tmp_path / "hf"), str(tmp_path / "bare")]) == 0
    assert [p.value for p in Predictor.load(tmp_path / "bare").texts(texts)] == [p.value for p in one]
    # Another experiment may start from it: from the tuned encoder, not from what that one started from.
    assert cli.main(["import", config.workdir, str(tmp_path / "next")]) == 0
    tuned = stored(tmp_path / "run/models/all-seed0")
    for name, tensor in stored(tmp_path / "next").items():
        np.testing.assert_array_equal(tensor, tuned[f"encoder/{name}"])
    assert cli.main(["import", str(tmp_path / "next"), str(tmp_path / "after")]) == 0
    assert stored(tmp_path / "after").keys() == stored(tmp_path / "next").keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data.max_length": "65"}, "beyond the encoder's 64 positions"),
        ({"--optimizer.freeze": "3"}, "optimizer.freeze: 3 layers, the encoder has 2"),
        ({"--task.metric": "pearson"}, "task.metric: pearson is not of classify"),
        ({"--task.kind": "tags"}, "task.kind: there is no tags; use classify, regress, tag, span, multilabel"),
        ({"--task.max_answer": "5"}, "task.max_answer: only of task.kind span, not of classify"),
        ({"--source": "fr", "--regime": "zero_shot"}, "source: fr has no training data"),
        ({"--data.txt": "x"}, "no such option; did you mean --data.text"),
        ({"--train.epochs": "0"}, "train.epochs: 0.0 is not above 0"),
        ({"--data.text": "txt"}, "no column txt; did you mean text"),
    ],
)
def test_bad_options_have_one_line(tmp_path, capsys, change, message):
    config = make_config(tmp_path, "classify")
    path = write_config(tmp_path / "toy.py", config)
    assert cli.main(["finetune", path, *[x for pair in change.items() for x in pair]]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and said.count("\n") == 0


@pytest.mark.slow
def test_epochs_may_be_raised_in_the_same_workdir_and_updates_have_a_cap(tmp_path, capsys):
    """As if it had been so from the first: the model is the one of a fresh workdir."""
    config = make_config(tmp_path, "classify")
    path = write_config(tmp_path / "toy.py", config)
    cap = ["--train.max_updates", "5"]
    assert cli.main(["finetune", path, "--train.epochs", "1", *cap]) == 0
    (row, _) = json.loads((tmp_path / "run/results.json").read_text())
    assert (row["step"], row["epochs"], row["max_updates"]) == (5, 1, 5)
    steps = [r["step"] for r in read_metrics(tmp_path / "run/models/all-seed0")]
    assert max(steps) == 5
    # What an earlier version left does not say how long it was trained; the stored config does.
    kept = tmp_path / "run/models/all-seed0/results.json"
    kept.write_text(
        json.dumps(
            [{k: v for k, v in r.items() if k not in ("epochs", "max_updates")} for r in json.loads(kept.read_text())]
        )
    )
    assert cli.main(["finetune", path, "--train.epochs", "1", *cap]) == 0  # nothing to do
    assert json.loads(kept.read_text())[0]["epochs"] == 1
    assert cli.main(["finetune", path, "--train.epochs", "2"]) == 0
    assert "all-seed0: was trained for less" in capsys.readouterr().out
    fresh = make_config(tmp_path, "classify", workdir="fresh")
    assert cli.main(["finetune", write_config(tmp_path / "fresh.py", fresh), "--train.epochs", "2"]) == 0
    for name, tensor in stored(tmp_path / "run/models/all-seed0").items():
        np.testing.assert_array_equal(tensor, stored(tmp_path / "fresh/models/all-seed0")[name])
    for less in (["--train.epochs", "1"], ["--train.epochs", "2", *cap]):
        capsys.readouterr()
        assert cli.main(["finetune", path, *less]) == 2
        assert "was trained for train.epochs 2, train.max_updates 0, which is more" in capsys.readouterr().err
    # One that was stopped goes on.
    stopped = make_config(tmp_path, "classify", workdir="stopped")
    path = write_config(tmp_path / "stopped.py", stopped)
    assert cli.main(["finetune", path, "--train.epochs", "2", "--train.max_seconds", "0.001"]) == 0
    assert "saved; to continue" in capsys.readouterr().out
    assert cli.main(["finetune", path, "--train.epochs", "1", "--train.max_updates", "9"]) == 0
    assert "continuing at update" in capsys.readouterr().out
    assert json.loads((tmp_path / "stopped/results.json").read_text())[0]["max_updates"] == 9


def test_fewer_updates_than_were_made_are_refused(tmp_path):
    (tmp_path / "checkpoints/12").mkdir(parents=True)
    with pytest.raises(UserError, match=r"toy: has had 12 updates, train.epochs and train.max_updates allow 9"):
        refuse_passed(epath.Path(tmp_path), "toy", 9)
    refuse_passed(epath.Path(tmp_path), "toy", 12)
    refuse_passed(epath.Path(tmp_path / "none"), "toy", 1)


def test_other_bad_input(tmp_path, capsys):
    config = make_config(tmp_path, "classify")
    elsewhere = dataclasses.replace(config.data, dev=(Labelled("de", "a.tsv"),))
    path = write_config(tmp_path / "toy.py", dataclasses.replace(config, data=elsewhere, select="source"))
    assert cli.main(["finetune", path]) == 2
    assert "data.dev: no en, which select source chooses by (there is de)" in capsys.readouterr().err
    twice = dataclasses.replace(config.data, train=(Labelled("en", "a.tsv"), Labelled("en", "b.tsv")))
    path = write_config(tmp_path / "toy.py", dataclasses.replace(config, data=twice))
    assert cli.main(["finetune", path]) == 2
    assert "data.train: en twice" in capsys.readouterr().err
    bare = dataclasses.replace(config, workdir=str(tmp_path / "new"))
    assert cli.main(["finetune", write_config(tmp_path / "toy.py", bare)]) == 2
    assert "init: empty" in capsys.readouterr().err
    # A workdir of another config, and one whose vocabulary was changed.
    path = write_config(tmp_path / "toy.py", config)
    assert cli.main(["finetune", path, "--train.epochs", "1"]) == 0
    assert cli.main(["finetune", path, "--train.epochs", "1", "--train.batch_size", "8"]) == 2
    assert "train.batch_size: 16 there, 8 here" in capsys.readouterr().err
    with open(tmp_path / "run/vocabulary/sentencepiece.model", "ab") as file:
        file.write(b"x")
    assert cli.main(["finetune", path, "--train.epochs", "1"]) == 2
    assert "not the one that" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_is_heard_within_a_few_updates(tmp_path, monkeypatch):
    """However rarely metrics are fetched, which is when the loop would wait for the devices anyway."""
    config = make_config(
        tmp_path, "classify", train=Train(epochs=60, batch_size=16, log_every=10_000, evaluate_every=10_000)
    )
    handed: list[bool] = []
    real = fit.to_global

    def watched(arrays, *rest):
        handed.append(all(x.is_ready() for x in waiting[: -fit.AHEAD]))
        return real(arrays, *rest)

    waiting: list = []

    class Watched(deque):
        def append(self, x):
            waiting.append(x)
            super().append(x)

    monkeypatch.setattr(fit, "to_global", watched)
    monkeypatch.setattr(fit, "deque", Watched)
    run(config)
    assert len(waiting) == len(handed) > 100 and all(handed)
