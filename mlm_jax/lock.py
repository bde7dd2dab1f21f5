# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a workdir."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator

from etils import epath

from mlm_jax.errors import UserError


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """Keep other runs out of a workdir by a file there, `running.json`, that names the host, the process and its start.

    What a killed run of this host left is taken over. A bucket has no way to create a file exclusively: there two runs
    that start within the same second may both get in.

    Raises:
      UserError: another run is in the workdir, or it cannot be written.
    """
    path = epath.Path(workdir) / "running.json"
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _create(path, mine):
            _refuse_if_running(path, mine)
            path.unlink(missing_ok=True)
            if not _create(path, mine):
                _refuse_if_running(path, mine)
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror or e}); choose another --workdir") from e
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _create(path: epath.Path, mine: dict[str, object]) -> bool:
    """Write the file with all its content at once; False where there is one."""
    if str(path).startswith("gs://"):
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


def _refuse_if_running(path: epath.Path, mine: dict[str, object]) -> None:
    try:
        other = json.loads(path.read_text())
        host, pid, since = other["host"], int(other["pid"]), other["since"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: cannot be read ({e}); if no run is in this workdir, delete it") from e
    if host == mine["host"] and (pid == mine["pid"] or not _is_alive(pid)):
        return
    raise UserError(
        f"{path.parent}: a run is in this workdir, process {pid} on {host} since {since}; wait for it or stop it, or use "
        f"another --workdir. If it is gone, delete {path}"
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
