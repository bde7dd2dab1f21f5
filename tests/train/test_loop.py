# SPDX-License-Identifier: Apache-2.0
"""The training program's promises: reproducible, resumable, the same on any number of devices."""

import contextlib
import dataclasses
import itertools
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mlm_jax.errors import UserError
from mlm_jax.train import clock, fit
from mlm_jax.train.checkpoints import _cause as cause
from mlm_jax.train.metrics import read_metrics
from mlm_jax.train.pretraining import train
from tests.corpora import logged, make_workdir, tiny_config, write_config

SIZES = {"de": 40, "en": 90, "sw": 7}
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}


def losses(workdir):
    return np.array([r["loss"] for r in read_metrics(workdir) if r["kind"] == "train"])


def checkpoint(workdir, step):
    with ocp.CheckpointManager(Path(workdir) / "checkpoints") as manager:
        return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]


def assert_same_tree(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def command(config, tmp_path, name="config.py"):
    return [sys.executable, "-m", "mlm_jax", "pretrain", str(write_config(tmp_path / name, config))]


def test_a_run_learns_and_logs(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, train={"steps": 60}, optimizer={"learning_rate": 3e-3})
    assert train(config).step == 60
    records = read_metrics(config.workdir)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(2, 61, 2))
    assert [r["step"] for r in records if r["kind"] == "validation"] == list(range(6, 61, 6))
    assert losses(config.workdir)[-5:].mean() < losses(config.workdir)[:5].mean() - 0.2
    last = records[-2]
    assert last["tokens_per_second"] > 0 and 0 <= last["input_wait"] <= 1 and last["mfu"] is None
    assert last["perplexity"] == pytest.approx(np.exp(last["loss"]))
    assert sum(last["blocks"].values()) == 60 * 8
    validation = records[-1]
    assert set(validation["languages"]) == set(SIZES)
    by_hand = np.mean([v["loss"] for v in validation["languages"].values()])
    assert validation["macro_loss"] == pytest.approx(by_hand)
    en = validation["languages"]["en"]
    # The made corpus has 3 bytes a token.
    assert en["bits_per_byte"] == pytest.approx(en["loss"] / np.log(2) / 3)
    # Best by validation, and the last two.
    best = min((r["macro_loss"], r["step"]) for r in records if r["kind"] == "validation" and r["step"] % 12 == 0)[1]
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {56, 60, best}
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.slow
def test_killed_and_continued_is_bit_for_bit_the_unbroken_run(tmp_path):
    options = {"steps": 200, "log_every": 3, "validate_every": 40, "save_every": 20, "keep_last": 100}
    whole = make_workdir(tmp_path / "whole", SIZES, train=options)
    broken = make_workdir(tmp_path / "broken", SIZES, train=options)
    assert subprocess.run(command(whole, tmp_path), env=ENVIRONMENT, check=False).returncode == 0
    process = subprocess.Popen([*command(broken, tmp_path, "broken.py"), "--train.readers", "2"], env=ENVIRONMENT)
    wait_for_step(broken.workdir, 50)
    readers = [pid for f in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in f.read_text().split()]
    assert len(readers) >= 2 or sys.platform != "linux"
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in readers), "the readers outlive the run")
    reached = read_metrics(broken.workdir)[-1]["step"]
    assert reached < 200
    with (Path(broken.workdir) / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 2')  # as a kill in the middle of a write leaves it
    assert subprocess.run(command(broken, tmp_path, "broken.py"), env=ENVIRONMENT, check=False).returncode == 0
    assert logged(broken.workdir) == logged(whole.workdir)
    for step in (180, 200):
        assert_same_tree(checkpoint(broken.workdir, step), checkpoint(whole.workdir, step))


def wait_for_step(workdir, step, seconds=600):
    wait_until(
        lambda: any(r["step"] >= step for r in read_metrics(workdir)), "the run did not get there", seconds, 0.02
    )


def wait_until(done, why, seconds=60, pause=0.1):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, why
        time.sleep(pause)


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z" not in stat.read_text()


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_continue(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, train={"steps": 100_000, "save_every": 90_000, "log_every": 10})
    process = subprocess.Popen(command(config, tmp_path), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    wait_for_step(config.workdir, 20)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    line = out.strip().splitlines()[-1]
    assert line.startswith("stopped by SIGTERM at step ") and "to continue: mlm-jax pretrain " in line
    step = int(line.split("step ")[1].split(",")[0])
    assert int(checkpoint(config.workdir, step)["step"]) == step


@contextlib.contextmanager
def stopped_at(monkeypatch, step):
    """A SIGTERM that is heard after a step; and each look at the clock takes a second."""

    @contextlib.contextmanager
    def catch_stop(max_seconds, start=0):
        yield lambda done: signal.SIGTERM if done == step else None

    with monkeypatch.context() as patched:
        ticks = itertools.count()
        patched.setattr(fit, "catch_stop", catch_stop)
        patched.setattr(
            clock, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=time.monotonic)
        )
        yield


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["nothing", "all", "a line"])
def test_rates_and_history_after_a_stop_between_two_lines(tmp_path, monkeypatch, capsys, lost):
    options = {"steps": 30, "log_every": 10, "validate_every": 15, "save_every": 100}
    config = make_workdir(tmp_path / "run", SIZES, train=options)
    with stopped_at(monkeypatch, 19):
        assert train(config).step == 19
    file = tmp_path / "run" / "metrics.jsonl"
    if lost == "all":
        file.unlink()
    if lost == "a line":
        file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    capsys.readouterr()
    with stopped_at(monkeypatch, 99):
        assert train(config).step == 30
    said = capsys.readouterr().err
    if lost != "nothing":
        assert (
            "/run/metrics.jsonl: " in said
            and "up to step 19 are gone; the run goes on" in said
            and said.count("\n") == 1
        )
        return
    assert said == ""
    lines = {r["step"]: r for r in read_metrics(config.workdir) if r["kind"] == "train"}
    # The line of step 20 is of one step of this process: two looks at the clock for each step, and a few besides.
    for name in ("tokens_per_second", "model_flops_per_second"):
        assert lines[20][name] < 1.2 * lines[10][name]
    assert lines[20]["seconds"] - lines[10]["seconds"] >= 18  # of the nine steps before the stop too


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_gives_the_same_losses(tmp_path, devices):
    one, many = (make_workdir(tmp_path / str(n), SIZES, train={"log_every": 1}) for n in (1, devices))
    train(one, jax.devices()[:1])
    train(many, jax.devices()[:devices])
    np.testing.assert_allclose(losses(many.workdir), losses(one.workdir), rtol=2e-6)


@pytest.mark.slow
def test_accumulation_gives_the_same_losses(tmp_path):
    whole, pieces = (
        make_workdir(tmp_path / str(n), SIZES, train={"log_every": 1, "accumulate": n, "batch_size": 16})
        for n in (1, 4)
    )
    train(whole, jax.devices()[:2])
    train(pieces, jax.devices()[:2])
    np.testing.assert_allclose(losses(pieces.workdir), losses(whole.workdir), rtol=2e-6)


@pytest.mark.slow
def test_parameters_split_over_devices_give_the_same_losses(tmp_path):
    copied = make_workdir(tmp_path / "copied", SIZES, train={"log_every": 1})
    split = make_workdir(tmp_path / "split", SIZES, train={"log_every": 1}, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    train(copied, jax.devices()[:1])
    train(split)
    np.testing.assert_allclose(losses(split.workdir), losses(copied.workdir), rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_on_another_number_of_devices(tmp_path):
    whole = make_workdir(tmp_path / "whole", SIZES, train={"log_every": 1})
    moved = make_workdir(tmp_path / "moved", SIZES, train={"log_every": 1})
    train(whole, jax.devices()[:1])
    stopped = dataclasses.replace(moved, train=dataclasses.replace(moved.train, max_seconds=1e-9))
    first = train(stopped, jax.devices()[:8])
    assert first.step == 1 and first.stopped_by is signal.SIGALRM
    assert train(moved, jax.devices()[:2]).step == 12
    np.testing.assert_allclose(losses(moved.workdir), losses(whole.workdir), rtol=2e-6)


def test_a_finished_run_is_left_alone(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES)
    train(config)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert train(config).step == 12
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_whole_words_schedules_and_bfloat16_train(tmp_path):
    config = make_workdir(
        tmp_path / "run",
        SIZES,
        objective={"whole_words": True, "mask_rate_schedule": ((0, 0.3), (6, 0.1))},
        model={"dtype": "bfloat16", "remat": "full"},
        optimizer={"schedule": "wsd", "decay_steps": 4},
    )
    assert train(config).step == 12
    assert np.isfinite(losses(config.workdir)).all()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = make_workdir(
        tmp_path / "run", SIZES, optimizer={"learning_rate": 1e30, "clip_norm": 0.0, "warmup_steps": 0}
    )
    with pytest.raises(
        UserError, match=r"step \d+: the loss or its gradient is not finite \(languages in the batch: de"
    ):
        train(config)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        assert (
            not path.name.isdigit()
            or np.isfinite(
                np.concatenate(
                    [np.ravel(x) for x in jax.tree.leaves(checkpoint(config.workdir, int(path.name))["params"])]
                )
            ).all()
        )


@pytest.mark.slow
def test_a_corrupt_newest_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    config = make_workdir(tmp_path / "run", SIZES)
    train(config)
    unbroken = checkpoint(config.workdir, 12)
    kept = sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit())
    assert kept[-1] == 12
    for path in (tmp_path / "run" / "checkpoints" / "12" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    assert train(config).step == 12
    said = capsys.readouterr()
    assert "12: checkpoint cannot be read" in said.err and "trying the one before" in said.err
    assert f"continuing at step {kept[-2]}" in said.out
    assert_same_tree(checkpoint(config.workdir, 12), unbroken)


def test_checkpoints_of_another_vocabulary_are_refused(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES)
    train(config)
    for name in ("vocabulary/vocabulary.json", "corpus/manifest.json"):
        path = tmp_path / "run" / name
        stored = json.loads(path.read_text())
        key = "sha256" if name.startswith("vocabulary") else "vocabulary_sha256"
        path.write_text(json.dumps(stored | {key: "f" * 64}))
    with pytest.raises(UserError, match=r"not the one that .* describes"):
        train(config)
    model = tmp_path / "run" / "vocabulary" / "sentencepiece.model"
    import hashlib

    described = tmp_path / "run" / "vocabulary" / "vocabulary.json"
    stored = json.loads(described.read_text())
    described.write_text(json.dumps(stored | {"sha256": hashlib.sha256(model.read_bytes()).hexdigest()}))
    with pytest.raises(UserError, match="prepared with another vocabulary"):
        train(config)
    manifest_path = tmp_path / "run" / "corpus" / "manifest.json"
    manifest_path.write_text(
        json.dumps(
            json.loads(manifest_path.read_text())
            | {"vocabulary_sha256": json.loads(described.read_text())["sha256"], "sequence_length": 15}
        )
    )
    with pytest.raises(UserError, match="trained with another corpus"):
        train(config)
    described.write_text(described.read_text()[:40])
    with pytest.raises(UserError, match=r"vocabulary.json: not JSON"):
        train(config)


@pytest.mark.slow
def test_a_full_disk_while_saving_is_one_line(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, model={"width": 256, "mlp_width": 1024})
    limit = 2**20  # a file of more than this cannot be written, as on a full disk

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        command(config, tmp_path), env=ENVIRONMENT, preexec_fn=small_files, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    # TensorStore may print of its own, at the same moment, that writes under way found their event loop closed.
    error = re.findall("error: .*", done.stderr)
    assert len(error) == 1 and "checkpoint could not be written" in error[0] and "File too large" in error[0], (
        done.stderr
    )
    assert "run the same command to continue" in error[0]
    # With room again, the same command gets there.
    assert subprocess.run(command(config, tmp_path), env=ENVIRONMENT, check=False).returncode == 0


def test_the_cause_is_told_from_what_tensorstore_writes_around_it():
    # Which of the writes under way fails first, data or metadata, differs from run to run.
    data = 'OUT_OF_RANGE: Error writing "a/0" in OCDBT database at local file "/x: y/": Failed writing: "/x: y/d/31": '
    failed = "Failed to write 6799360 bytes to file 16: File too large [os_error_code='27']"
    spec = ' [source locations=\'a.cc:10\'] [tensorstore_spec=\'{\\"driver\\": \\"cast\\", \\"fill_value\\":true}\']'
    assert cause(ValueError(data + failed)) == "File too large"
    assert cause(ValueError(data + failed + spec)) == "File too large"
    assert (
        cause(ValueError('DATA_LOSS: Error reading "b": Checksum mismatch' + spec))
        == 'Error reading "b": Checksum mismatch'
    )
    assert cause(ValueError()) == "ValueError"


@pytest.mark.slow
def test_neither_tensorflow_nor_pytorch_in_the_training_process(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, train={"steps": 2, "validate_every": 2})
    path = write_config(tmp_path / "config.py", config)
    program = (
        "import sys\n"
        "from mlm_jax.cli import main\n"
        f"assert main(['pretrain', {str(path)!r}]) == 0\n"
        "found = sorted(m for m in ('tensorflow', 'seqio', 'tensorflow_datasets', 'torch') if m in sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, train={"batch_size": 12})
    with pytest.raises(UserError, match="12"):
        train(config)


def test_tiny_config_is_what_the_workdir_is_made_for(tmp_path):
    assert tiny_config("x").model.positions == tiny_config("x").data.sequence_length


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("setsid"), reason="needs setsid")
def test_a_terminal_that_goes_away_stops_a_run_that_is_saved(tmp_path):
    config = make_workdir(tmp_path / "run", SIZES, train={"steps": 100_000, "save_every": 90_000, "log_every": 10})
    shell, terminal = pty.openpty()
    # Of a session of its own, whose terminal this is: the kernel signals it as it does what is started from a shell.
    process = subprocess.Popen(
        ["setsid", "-c", "-w", *command(config, tmp_path)],
        env=ENVIRONMENT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    reader = threading.Thread(target=drain, args=(shell, ended := threading.Event()))
    reader.start()
    wait_for_step(config.workdir, 20)
    ended.set()
    reader.join()
    os.close(shell)
    try:
        assert process.wait(300) == 128 + signal.SIGHUP
    finally:
        process.kill()
    [saved] = (tmp_path / "run" / "checkpoints").iterdir()
    assert int(saved.name) >= 20
    assert not (tmp_path / "run" / "running.json").exists()


def drain(shell, ended):
    while not ended.is_set():
        if select.select([shell], [], [], 0.05)[0]:
            os.read(shell, 65_536)
