# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a workdir."""

import json
import os
import socket
import subprocess
import sys

import pytest

from mlm_jax import cli
from mlm_jax.errors import UserError
from mlm_jax.lock import locked
from tests.corpora import tiny_config, write_config


def leave(folder, **fields):
    record = {"host": socket.gethostname(), "pid": os.getppid(), "since": "2026-01-02 03:04:05"} | fields
    (folder / "running.json").write_text(json.dumps(record))


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


def test_another_hosts_lock_says_how_to_remove_it(tmp_path):
    leave(tmp_path, host="elsewhere")
    with pytest.raises(UserError, match=r"process \d+ on elsewhere .* If it is gone, delete .*running.json"):
        locked(str(tmp_path)).__enter__()


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
