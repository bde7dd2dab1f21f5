# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a workdir."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from mlm_jax import cli, lock
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.lock import locked
from tests.corpora import tiny_config, write_config


def leave(folder, **fields):
    record = {"host": socket.gethostname(), "pid": os.getppid(), "since": "2026-01-02 03:04:05", "beat": 3} | fields
    write_whole(folder / "running.json", json.dumps(record))


def test_held_and_released(tmp_path):
    with locked(str(tmp_path)):
        assert json.loads((tmp_path / "running.json").read_text())["pid"] == os.getpid()
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path)):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_the_second_run_is_refused_and_the_first_named(tmp_path, capsys):
    path = write_config(tmp_path / "c.py", tiny_config(str(tmp_path)))
    leave(tmp_path)
    assert cli.main(["pretrain", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"process {os.getppid()} on {socket.gethostname()} since 2026-01-02 03:04:05" in error
    # It has touched nothing.
    assert {p.name for p in tmp_path.iterdir()} == {"c.py", "running.json"}


def test_another_hosts_lock_is_respected_while_it_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 30.0)
    leave(tmp_path, host="elsewhere")
    beat = threading.Timer(0.5, leave, [tmp_path], {"host": "elsewhere", "beat": 4})
    beat.start()
    with pytest.raises(UserError, match=r"process \d+ on elsewhere since 2026-01-02 03:04:05; wait for it or stop it"):
        locked(str(tmp_path)).__enter__()
    beat.join()


def test_another_hosts_lock_is_taken_over_when_it_stands_still(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    leave(tmp_path, host="elsewhere")
    with locked(str(tmp_path)):
        assert json.loads((tmp_path / "running.json").read_text())["host"] == socket.gethostname()
    assert "no sign of life of process" in capsys.readouterr().err


def test_a_held_lock_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with locked(str(tmp_path)):
        deadline = time.monotonic() + 30
        while json.loads((tmp_path / "running.json").read_text())["beat"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not list(tmp_path.iterdir())


def test_a_dead_processs_lock_is_taken_over(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave(tmp_path, pid=dead.pid)
    with locked(str(tmp_path)):
        assert json.loads((tmp_path / "running.json").read_text())["pid"] == os.getpid()


def test_a_lock_that_is_no_lock_is_named(tmp_path):
    (tmp_path / "running.json").write_text("{")
    with pytest.raises(UserError, match=r"running.json: cannot be read .* delete it"):
        locked(str(tmp_path)).__enter__()


def test_a_killed_run_blocks_no_restart(tmp_path):
    program = (
        f"from mlm_jax.lock import locked\nwith locked({str(tmp_path)!r}):\n    print('in', flush=True)\n    input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=f"process {run.pid} on {socket.gethostname()} since "):
            locked(str(tmp_path)).__enter__()
        run.kill()
    assert (tmp_path / "running.json").exists()
    with locked(str(tmp_path)):
        assert json.loads((tmp_path / "running.json").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())
