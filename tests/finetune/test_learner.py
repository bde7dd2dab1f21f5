# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on the one trainer: what pretraining is promised, fine-tuning is promised too."""

import contextlib
import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Train
from mlm_jax.finetune.run import run_finetuning
from mlm_jax.train import fit as loop
from mlm_jax.train.metrics import read_metrics
from mlm_jax.workdir import own_workdir
from tests.corpora import logged
from tests.finetune.toys import make_config, make_start, write_config

MODEL = "models/all-seed0"
TRAIN = Train(epochs=2, batch_size=16, log_every=4, save_every=5)


def run(config):
    own_workdir(config)
    return run_finetuning(config)


def losses(workdir):
    return [r["loss"] for r in read_metrics(workdir / MODEL) if r["kind"] == "train"]


def checkpoints(workdir):
    return {p.name for p in (workdir / MODEL / "checkpoints").iterdir()}


def stop_at(monkeypatch, update):
    """A SIGTERM that is heard after an update."""

    @contextlib.contextmanager
    def catch_stop(max_seconds, start=0):
        yield lambda step: signal.SIGTERM if step == update else None

    monkeypatch.setattr(loop, "catch_stop", catch_stop)


@pytest.mark.slow
def test_a_state_that_is_not_finite_is_not_saved_and_the_advice_works(tmp_path, capsys):
    train = Train(epochs=6, batch_size=16, log_every=20, save_every=5)
    optimizer = dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=1e30)
    path = write_config(tmp_path / "toy.py", make_config(tmp_path, "classify", train=train, optimizer=optimizer))
    assert cli.main(["finetune", path]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "all-seed0, update 1: the loss or its gradient is not finite" in said and "no checkpoint was saved" in said
    assert "lower optimizer.learning_rate" in said
    assert not any(name.isdigit() for name in checkpoints(tmp_path / "run"))
    assert cli.main(["finetune", path, "--optimizer.learning_rate", "3e-3"]) == 0
    # What is finished is of the rate it had.
    stored = (tmp_path / "run" / "config.json").read_text()
    assert cli.main(["finetune", path, "--optimizer.learning_rate", "2e-3"]) == 2
    assert "optimizer.learning_rate: 0.003 there, 0.002 here" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").read_text() == stored


@pytest.mark.slow
def test_other_examples_are_not_gone_on_with(tmp_path, monkeypatch):
    config = make_config(tmp_path, "classify", train=TRAIN)
    stop_at(monkeypatch, 8)
    assert run(config)[1] is signal.SIGTERM
    for path in (tmp_path / "data").glob("*.train.tsv"):
        # As many distinct pieces as before, of which one is another.
        path.write_text(path.read_text().replace("fine", "Anna").replace("toll", "Otto"))
    with pytest.raises(UserError, match="trained with other examples") as error:
        run(config)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("update", [8, 16])
def test_a_stop_at_an_evaluated_update_keeps_the_evaluation(tmp_path, monkeypatch, update):
    config = make_config(tmp_path, "classify", train=dataclasses.replace(TRAIN, evaluate_every=8))
    whole = dataclasses.replace(config, workdir=str(make_start(tmp_path / "whole")))
    expected, _ = run(whole)
    with monkeypatch.context() as patched:
        stop_at(patched, update)
        assert run(config)[1] is signal.SIGTERM
    assert run(config)[0] == expected
    assert logged(tmp_path / "run" / MODEL) == logged(tmp_path / "whole" / MODEL)


@pytest.mark.slow
def test_a_time_limit_saves_stops_and_is_gone_on_from_bit_for_bit(tmp_path, capsys):
    config = make_config(tmp_path, "tag", train=TRAIN)
    whole = dataclasses.replace(config, workdir=str(make_start(tmp_path / "whole")))
    run(whole)
    path = write_config(tmp_path / "toy.py", config)
    assert cli.main(["finetune", path, "--train.max_seconds", "1e-9"]) == 0
    assert "stopped by max_seconds, saved; to continue: mlm-jax finetune" in capsys.readouterr().out
    assert cli.main(["finetune", path]) == 0
    name = f"{MODEL}/initial.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_microbatches_change_nothing_but_rounding(tmp_path):
    found = []
    for accumulate in (1, 2, 3):
        train = dataclasses.replace(TRAIN, accumulate=accumulate)
        run(make_config(tmp_path, "classify", workdir=f"by{accumulate}", train=train))
        found.append(losses(tmp_path / f"by{accumulate}"))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [-1, 1])
def test_every_mesh_fine_tunes_as_one_device(tmp_path, freeze):
    optimizer = dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=3e-3, freeze=freeze)
    found = {}
    for name, mesh, devices in (
        ("one", cfg.Mesh(), 1),
        ("data8", cfg.Mesh(), 8),
        ("fsdp8", cfg.Mesh(data=1, fsdp=8), 8),
        ("fsdp4tensor2", cfg.Mesh(data=1, fsdp=4, tensor=2), 8),
    ):
        config = make_config(
            tmp_path, "tag", workdir=name, devices=devices, mesh=mesh, optimizer=optimizer, train=TRAIN
        )
        rows, _ = run(config)
        found[name] = losses(tmp_path / name), [row["test"] for row in rows]
    for name in ("data8", "fsdp8", "fsdp4tensor2"):
        np.testing.assert_allclose(found[name][0], found["one"][0], rtol=5e-4)
        for got, expected in zip(found[name][1], found["one"][1], strict=True):
            assert got == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
def test_parameters_and_moments_lie_split_over_the_devices(tmp_path, monkeypatch):
    """Nothing of the train state is copied to every device where the mesh splits it."""
    seen = []
    real = loop.make_train_step

    def spy(objective, optimizer, schedule, abstract_state, *rest):
        seen.append(abstract_state)
        return real(objective, optimizer, schedule, abstract_state, *rest)

    monkeypatch.setattr(loop, "make_train_step", spy)
    mesh = cfg.Mesh(data=1, fsdp=8)
    run(make_config(tmp_path, "classify", devices=8, mesh=mesh, train=dataclasses.replace(TRAIN, epochs=0.1)))
    (state,) = seen
    for tree in (state.params, state.opt_state):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path)
            if leaf.ndim >= 2 and "kernel" in name and "output_kernel" not in name:
                assert np.prod(leaf.sharding.shard_shape(leaf.shape)) * 8 == leaf.size, name


@pytest.mark.slow
def test_two_processes_fine_tune_as_one(tmp_path):
    from tests.processes import Processes

    config = make_config(tmp_path, "classify", train=TRAIN, devices=0)
    alone = dataclasses.replace(config, workdir=str(make_start(tmp_path / "alone")), devices=1)
    expected, _ = run(alone)
    processes = Processes(
        tmp_path / "said", config, 2, 1, command="finetune", path=write_config(tmp_path / "toy.py", config)
    )
    assert processes.wait() == [0, 0], processes.said("err")
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "alone"), rtol=1e-4)
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [(r["language"], r["step"]) for r in rows] == [(r["language"], r["step"]) for r in expected]
    first, _ = processes.said("out")
    assert "results: " in first
    assert processes.own_lines()[1] == []
