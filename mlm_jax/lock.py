# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a workdir."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, write_whole

BEAT = 15.0  # seconds between heartbeats
PATIENCE = 60.0  # seconds without one after which a run on another host counts as gone

_held: set[epath.Path] = set()  # this process's locks


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """Lock a workdir by a file in it, `running.json`, that names the host, the process, its start and a heartbeat counter.

    The lock of a process of this host that is gone is taken over at once; that of another host, when its counter has not
    changed for `PATIENCE` seconds (a counter, because hosts' clocks differ). Object stores cannot create a file exclusively:
    there two runs that start within the same second may both get the lock.

    Raises:
      UserError: another run is in the workdir, or it cannot be written.
    """
    path = epath.Path(workdir) / "running.json"
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
        "beat": 0,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _create(path, mine):
            _refuse_if_running(path, mine)
            path.unlink(missing_ok=True)
            if not _create(path, mine):
                _refuse_if_running(path, mine)
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror or e}); choose another --workdir") from e
    _held.add(path)
    ended = threading.Event()
    beats = threading.Thread(target=_heartbeat, args=(path, mine, ended), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        _release(path)


def release_all() -> None:
    """Release every lock of this process."""
    for path in tuple(_held):
        _release(path)


def _release(path: epath.Path) -> None:
    _held.discard(path)
    with contextlib.suppress(OSError):
        path.unlink()


def _heartbeat(path: epath.Path, mine: dict[str, Any], ended: threading.Event) -> None:
    """Increment the heartbeat counter until the lock is released."""
    while not ended.wait(BEAT):
        mine["beat"] += 1
        with contextlib.suppress(OSError):  # a disk that is full now
            write_whole(path, json.dumps(mine))


def _create(path: epath.Path, mine: dict[str, Any]) -> bool:
    """Create the file with all its content at once; False if it exists."""
    if in_bucket(path):
        if path.exists():
            return False
        path.write_text(json.dumps(mine))
        return True
    aside = path.parent / f"running.{mine['host']}.{mine['pid']}"
    aside.write_text(json.dumps(mine))
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    return True


def _refuse_if_running(path: epath.Path, mine: dict[str, Any]) -> None:
    other = _read(path)
    if other is None:
        return
    host, pid = other["host"], other["pid"]
    if host == mine["host"]:
        if pid == mine["pid"] or not _is_alive(pid):
            return
    else:
        console.say(f"{path.parent}: a run was begun here by process {pid} on {host}; seeing whether it is alive ...")
        waited_since = time.monotonic()
        while (now := _read(path)) == other and time.monotonic() - waited_since < PATIENCE:
            time.sleep(min(1.0, PATIENCE / 10))
        if now is None:
            return
        if now == other:
            console.warn(
                f"{path.parent}: no sign of life of process {pid} on {host} for {PATIENCE:.0f} s; going on from it"
            )
            return
    raise UserError(
        f"{path.parent}: a run is in this workdir, process {pid} on {host} since {other['since']}; wait for it or stop it, "
        "or use another --workdir"
    )


def _read(path: epath.Path) -> dict[str, Any] | None:
    """The lock file's content; None if there is no file."""
    try:
        found = json.loads(path.read_text())
        return {"host": found["host"], "pid": int(found["pid"]), "since": found["since"], "beat": found["beat"]}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: cannot be read ({e}); if no run is in this workdir, delete it") from e


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
