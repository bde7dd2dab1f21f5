# SPDX-License-Identifier: Apache-2.0
"""Several real processes train together: the same losses, one writer, all stop and go on together, on any number."""

import dataclasses
import signal
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from mlm_jax import hosts
from mlm_jax.train.clock import catch_stop
from mlm_jax.train.metrics import read_metrics
from mlm_jax.train.pretraining import train
from tests.corpora import make_workdir
from tests.processes import Processes

SIZES = {"de": 40, "en": 90, "sw": 7}
MODEL = {"layers": 1, "width": 16, "mlp_width": 32}


def of_training(workdir, name):
    return [r[name] for r in read_metrics(workdir) if r["kind"] == "train"]


def assert_same_run(found, expected, rtol):
    assert of_training(found, "step") == of_training(expected, "step")
    assert of_training(found, "blocks") == of_training(expected, "blocks")
    np.testing.assert_allclose(of_training(found, "loss"), of_training(expected, "loss"), rtol=rtol)
    validations = [[r["macro_loss"] for r in read_metrics(w) if r["kind"] == "validation"] for w in (found, expected)]
    np.testing.assert_allclose(*validations, rtol=rtol)


def test_all_ask_whether_to_stop_by_the_runs_number_of_the_step(monkeypatch):
    # Orbax asks by it too, while it saves; numbers that differ would put the stop off by the difference.
    asked = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    with catch_stop(0) as stop_reason:
        assert [stop_reason(step) for step in (101, 102)] == [None, None]
    assert asked == [101, 102]


@pytest.mark.parametrize("start", [0, 1, 2, 100])
@pytest.mark.parametrize("asked_before", [0, None])
def test_a_notice_before_the_first_step_stops_a_continued_run_too(monkeypatch, start, asked_before):
    # As JAX does it: a notice makes the step after the last asked about the only one that is said yes to.
    asked = [0]
    agreed = asked_before if asked_before is None else asked_before + 1

    def reached(number):
        asked.append(number)
        return number == agreed

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "allgather", lambda value: [value])
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    with catch_stop(0, start) as stop_reason:
        if agreed is None:  # it comes now, while the step is compiled
            agreed = asked[-1] + 1
        assert stop_reason(start + 1) is signal.SIGTERM


@pytest.mark.slow
def test_sigterm_while_compiling_saving_and_validating(tmp_path):
    options = {"steps": 300, "log_every": 1, "validate_every": 50, "save_every": 1, "keep_last": 1}
    whole, stopped = (make_workdir(tmp_path / n, SIZES, train=options, model=MODEL) for n in ("whole", "stopped"))

    def to_the_end(config):
        return train(dataclasses.replace(config, train=dataclasses.replace(config.train, save_every=300)), one).step

    one = jax.devices()[:1]
    to_the_end(whole)
    briefly = dataclasses.replace(stopped, train=dataclasses.replace(stopped.train, max_seconds=3.0))
    reached = train(briefly, one).step
    checkpoints = tmp_path / "stopped" / "checkpoints"
    moments = {
        "compiling": ("50", lambda said: "continuing at step" in said),
        "saving": ("50", lambda said: any("tmp" in path.name for path in checkpoints.iterdir())),
        "validating": ("1", lambda said: "validation loss" in said),
    }
    for number, (moment, (every, is_now)) in enumerate(moments.items()):
        processes = Processes(tmp_path / moment, stopped, 2, 1, "--train.validate_every", every)
        processes.wait_until(is_now)
        processes.started[number % 2].send_signal(signal.SIGTERM)
        assert processes.wait() == [143, 143], processes.said("err")
        line = processes.said("out")[0].strip().splitlines()[-1]
        step = int(line.split("stopped by SIGTERM at step ")[1].split(",")[0])
        assert step > reached and (checkpoints / str(step)).is_dir()
        assert step == reached + 1 or moment != "compiling"
        reached = step
    assert to_the_end(stopped) == 300
    np.testing.assert_allclose(of_training(stopped.workdir, "loss"), of_training(whole.workdir, "loss"), rtol=2e-5)


@pytest.mark.slow
def test_a_process_that_does_not_come_ends_the_others(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, model=MODEL)
    processes = Processes(tmp_path / "said", config, 2, 1, timeout=5)
    processes.started[1].kill()
    assert processes.wait(120)[0] in (2, 75, -signal.SIGABRT)
    assert processes.errors()[0].startswith("error: process 0 of 2 on ")
    assert processes.errors()[0].count("\n") == 0


@pytest.mark.slow
def test_sigint_stops_all_and_a_half_deleted_checkpoint_gives_way(tmp_path):
    options = {"steps": 3_000, "log_every": 1, "validate_every": 1_000, "save_every": 10, "keep_last": 2}
    config = make_workdir(tmp_path / "run", SIZES, train=options, model=MODEL)
    processes = Processes(tmp_path / "stopped", config, 2, 1)
    processes.wait_for_step(15)
    processes.started[1].send_signal(signal.SIGINT)
    assert processes.wait() == [130, 130]
    assert "stopped by SIGINT at step" in processes.said("out")[0]

    before, newest = sorted((int(path.name), path) for path in (tmp_path / "run" / "checkpoints").iterdir())
    for file in sorted(path for path in (newest[1] / "state").rglob("*") if path.is_file())[::2]:
        file.unlink()
    shorter = dataclasses.replace(config, train=dataclasses.replace(config.train, max_seconds=1.0))
    processes = Processes(tmp_path / "continued", shorter, 2, 1)
    assert processes.wait() == [0, 0]
    for said in processes.said("err"):
        assert f"{newest[1]}: checkpoint cannot be read" in said and "trying the one before" in said
    assert f"continuing at step {before[0]:,} of" in processes.said("out")[0]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    alone, two = (make_workdir(tmp_path / n, SIZES, train={"log_every": 1}, model=MODEL) for n in ("alone", "two"))
    train(alone, jax.devices()[:1])
    processes = Processes(tmp_path / "said", two, 2, 2)
    assert processes.wait() == [0, 0], processes.said("err")
    assert_same_run(two.workdir, alone.workdir, rtol=2e-6)
    # Each reads its own rows and no others.
    rows = [set(map(int, text.split())) for text in processes.said("rows")]
    assert rows == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    # One writes logs and the report; every step is there once.
    first, _ = processes.said("out")
    assert "training: 12 of 12 steps" in first and "report: " in first
    assert processes.own_lines()[1] == []
    assert processes.errors() == ["", ""]
    # Both wrote their part of the checkpoint.
    written = {p.name for p in (tmp_path / "two" / "checkpoints" / "12" / "state").glob("ocdbt.process_*")}
    assert written == {"ocdbt.process_0", "ocdbt.process_1"}
    assert not (tmp_path / "two" / "running.json").exists()


@pytest.mark.slow
def test_a_run_is_killed_stopped_and_moved_between_meshes(tmp_path):
    options = {"steps": 300, "log_every": 1, "validate_every": 100, "save_every": 20}
    whole, moved = (make_workdir(tmp_path / n, SIZES, train=options, model=MODEL) for n in ("whole", "moved"))
    train(whole, jax.devices()[:1])

    # 4 processes x 2 devices; one is killed.
    processes = Processes(tmp_path / "killed", moved, 4, 2)
    processes.wait_for_step(30)
    killed = time.monotonic()
    processes.started[2].kill()
    statuses = processes.wait(180)
    assert time.monotonic() - killed < 90  # hosts.timeout is 30 here; the rest is for a busy machine
    assert statuses[2] == -signal.SIGKILL and all(s in (75, -signal.SIGABRT) for s in statuses[:2] + statuses[3:])
    for i, said in enumerate(processes.errors()):
        assert said.count("\n") == 0 and said.startswith(f"error: process {i} of 4 on ")
        assert said.endswith("start all of them again to continue from the last checkpoint")

    # 2 x 1 go on from the last checkpoint; one gets SIGTERM, and both save at the same step.
    processes = Processes(tmp_path / "stopped", moved, 2, 1)
    processes.wait_for_step(40)
    processes.started[1].send_signal(signal.SIGTERM)
    assert processes.wait() == [143, 143], processes.said("err")
    said = processes.said("out")[0]
    assert ", from step 0 of" not in said and "continuing at step " in said
    line = said.strip().splitlines()[-1]
    assert line.startswith("stopped by SIGTERM at step ") and "to continue: mlm-jax pretrain " in line
    step = int(line.split("step ")[1].split(",")[0])
    assert (tmp_path / "moved" / "checkpoints" / str(step)).is_dir()

    # 1 x 8 and 1 x 1, a step each.
    briefly = dataclasses.replace(moved, train=dataclasses.replace(moved.train, max_seconds=1e-9))
    for more, devices in enumerate((8, 1), 1):
        assert train(briefly, jax.devices()[:devices]).step == step + more

    # 4 x 2 again, until their time is over, and to the end; all but one process split the parameters too.
    processes = Processes(tmp_path / "timed", moved, 4, 2, "--train.max_seconds", "0.01", "--mesh.fsdp", "2")
    assert processes.wait() == [0] * 4, processes.said("err")
    assert "stopped by max_seconds at step " in processes.said("out")[0]
    assert train(moved, jax.devices()[:2]).step == 300
    assert_same_run(moved.workdir, whole.workdir, rtol=2e-5)
