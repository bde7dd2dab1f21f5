# SPDX-License-Identifier: Apache-2.0
"""One command at a time writes a folder, or several that share its work; and of the jobs of those, each is one process's."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from mlm_jax import console, files
from mlm_jax.errors import UserError, end_at_once
from mlm_jax.files import in_bucket

NAME = "running.json"
BEAT = 15.0  # seconds between heartbeats
PATIENCE = 60.0  # seconds without one after which a run elsewhere counts as gone
SETTLE = 1.0  # seconds after which two that began at once in a bucket see each other
INHERITED = "MLM_JAX_LOCKS"  # tokens of the process that started this one, whose locks hold for both
SIZE = 1_024  # bytes of the file at least
LONGEST = 65_536  # bytes of the file that are looked at


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock. What an earlier version did not write, or the system does not tell, is empty.

    Attributes:
      host, pid: where it runs.
      since: when it took the lock, for people.
      command: of mlm-jax.
      token: of this very lock.
      started: when the process started, in ticks since the machine did; a pid may be in use again.
      boot, namespace: ids of the machine's last start and of the PID namespace (a container's own) that the pid is of.
      group: of several processes that hold the lock together, the same of all.
    """

    host: str
    pid: int
    since: str
    command: str = ""
    token: str = ""
    started: str = ""
    boot: str = ""
    namespace: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def holds_with(self, other: Holder) -> bool:
        """Whether a lock of the other's is this one's too."""
        return self.token == other.token or (bool(self.group) and self.group == other.group)

    @property
    def what(self) -> str:
        return f"mlm-jax {self.command}" if self.command else "a run"


TEXTS = [field.name for field in dataclasses.fields(Holder) if field.name != "pid"]


@dataclasses.dataclass(frozen=True)
class Found:
    """A lock file: whatever changes with a heartbeat, and the holder if it names one."""

    content: tuple[bytes, int]
    holder: Holder | None


before_end: list[Callable[[], Any]] = []  # what else is to be done before `check` ends the process
ends_process = (
    True  # whether `check` ends it, which the commands' is; a Python program that calls functions gets an error instead
)
_held: dict[epath.Path, Holder] = {}  # the locks that this process works under


@contextlib.contextmanager
def locked(
    folder: epath.PathLike,
    command: str = "",
    another: str = "use another --workdir",
    beside: bool = False,
    group: str = "",
) -> Iterator[bool]:
    """Lock a folder by a file in it, `running.json`, that names the host, the process, its start, a token and a heartbeat counter.

    A lock whose process is known to be gone is taken over at once: the process is of the same PID namespace of the same
    start of this machine, and no process has its pid, or one that started at another time. Of any other (another host or container,
    an earlier version, a file that names nobody) the heartbeat decides: it is taken over when the file has not changed
    for `PATIENCE` seconds (a counter, because hosts' clocks differ). A process that a holder starts
    (`environment_of_children`) works under its lock. A process that finds that its lock is another's, because it stood still
    for so long, ends with one line, at the next heartbeat or before it writes (`check`), whichever comes first.

    Object stores cannot create a file exclusively: there it is read again after `SETTLE` seconds.

    Args:
      folder: made where it is not there.
      command: that locks it, for the message of one that is refused.
      another: what else one that is refused may do, for its message.
      beside: the file is beside the folder, `.FOLDER.running.json`: of a folder that is put in place when it is whole.
      group: an id of several processes, on any host, that hold the lock together: one that comes later joins them. It is theirs as long as one
        of them writes its heartbeat.

    Yields:
      Whether the lock is new, and not one that was joined or is a parent's.

    Raises:
      UserError: the folder is another's, or cannot be written.
    """
    path = epath.Path(folder) / NAME
    if beside:
        whole = Path(os.path.realpath(folder))
        path = epath.Path(whole.parent) / f".{files.shortened(whole.name)}.{NAME}"
    mine = this_process(command)
    if group:  # the heartbeat alone tells whether one of them lives
        mine = dataclasses.replace(mine, group=group, boot="", namespace="", started="")
    is_new, joined = not path.parent.exists(), False
    try:
        found = _read(path)
        inherited = os.environ.get(INHERITED, "").split()
        parents = found.holder if found and found.holder and found.holder.token in inherited else None
        if parents is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not (joined := _is_of(path, mine)) and not _create(path, mine):
                if not _is_of(path, mine):
                    _take_away(path, mine, str(folder), another)
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror or e}); {another}") from e
    _held[path] = parents or mine
    if check not in files.before_writing:
        files.before_writing.append(check)
    ended = threading.Event()
    beats = threading.Thread(target=_heartbeat, args=(path, mine, ended), daemon=True)
    if parents is None:
        beats.start()
    try:
        yield parents is None and not joined
    finally:
        ended.set()
        if parents is None:
            beats.join()
        _release(path)
        if is_new and not in_bucket(path):
            with contextlib.suppress(OSError):
                os.rmdir(path.parent)  # nothing came of it


@contextlib.contextmanager
def claimed(path: epath.PathLike) -> Iterator[bool]:
    """Claim a job, by a file that names this process and whose time is set again as long as it works; yields whether it was free.

    An error of the job's takes the claim away, as nothing came of it; else it stays.
    """
    path, mine = epath.Path(path), this_process()
    try:
        with open(path, "x") as file:
            file.write(json.dumps(dataclasses.asdict(mine)))
    except FileExistsError:
        yield False
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    beats = threading.Thread(target=beat, daemon=True)
    beats.start()
    try:
        yield True
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        ended.set()
        beats.join()


class Claims:
    """Claims of others, as one that waits for them sees them."""

    def __init__(self) -> None:
        self._seen: dict[epath.Path, tuple[tuple[bytes, int] | None, float]] = {}

    def is_free(self, path: epath.Path) -> bool:
        """Whether a job may be claimed. A claim is taken away whose process is known to be gone, or that has not changed for `PATIENCE` seconds."""
        found = _read(path)
        if found is None:
            return True
        content, since = self._seen.get(path, (None, 0.0))
        if content != found.content:
            since = time.monotonic()
            self._seen[path] = (found.content, since)
        lives = _lives(found.holder, this_process()) if found.holder else None
        if lives or (lives is None and time.monotonic() - since < PATIENCE):
            return False
        path.unlink(missing_ok=True)  # two that do the same job do no harm
        del self._seen[path]
        return True


def this_process(command: str = "") -> Holder:
    """A lock's holder: this process, now, by a token of its own."""
    return Holder(
        socket.gethostname(), os.getpid(), f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}", command, secrets.token_hex(8),
        **_identity(),
    )  # fmt: skip


def release_all() -> None:
    """Release every lock of this process."""
    for path in tuple(_held):
        _release(path)


def environment_of_children() -> dict[str, str]:
    """The environment in which a process works under the locks of this one."""
    return {INHERITED: " ".join(holder.token for holder in _held.values())}


def check() -> None:
    """End this process, with one line, if the lock that it works under is another's: it stood still, and that one took over.

    Called before what it writes. A lock file that is gone or names nobody is no one else's.

    Raises:
      UserError: in place of ending a process that is not a command's (`ends_process`).
    """
    for path, mine in tuple(_held.items()):
        found = None
        with contextlib.suppress(Exception):  # of whatever kind a store's library has; the next time it is read again
            found = _read(path)
        if found and found.holder and not found.holder.holds_with(mine):
            line = (
                f"{path.parent}: {found.holder.what} has taken over, {found.holder}, because this one, {mine}, had stood "
                "still; it ends and leaves the folder to that one"
            )
            if not ends_process:
                raise UserError(line)
            for tell in before_end:
                tell()
            files.remove_asides()
            end_at_once(f"error: {line}", 2)


def _release(path: epath.Path) -> None:
    mine = _held.pop(path, None)
    # Neither a parent's, nor another's that took it over.
    if mine is not None and mine.pid == os.getpid():
        with contextlib.suppress(Exception):
            found = _read(path)
            # That of a group any of it removes: the others' next heartbeat writes it again.
            if found and (found.holder == mine or (mine.group and found.holder and found.holder.group == mine.group)):
                path.unlink()


def _heartbeat(path: epath.Path, mine: Holder, ended: threading.Event) -> None:
    """Increment the heartbeat counter until the lock is released."""
    beat = 0
    while not ended.wait(BEAT):
        beat += 1
        try:
            check()
        except UserError:
            return  # the run itself meets it before it writes
        try:
            if in_bucket(path):
                path.write_text(_text(mine, beat))
            else:
                with _aside(path, mine, beat) as aside:
                    aside.replace(path)
        except Exception:
            # A disk that is full now, say. The time of a file that is there can still be set.
            with contextlib.suppress(OSError):
                os.utime(path)


def _is_of(path: epath.Path, mine: Holder) -> bool:
    """Whether a lock is of this process's group."""
    found = _read(path)
    return bool(found and found.holder and found.holder.holds_with(mine))


def _text(mine: Holder, beat: int) -> str:
    # Of one length, because a store's library may know the length from before another wrote the file.
    return json.dumps(dataclasses.asdict(mine) | {"beat": beat}).ljust(SIZE)


def _aside_path(path: epath.Path, holder: Holder) -> epath.Path:
    return path.parent / f".{path.name}.{holder.token}.partial"


@contextlib.contextmanager
def _aside(path: epath.Path, mine: Holder, beat: int) -> Iterator[epath.Path]:
    """A file beside the lock with what is to be in it."""
    aside = _aside_path(path, mine)
    try:
        aside.write_text(_text(mine, beat))
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _create(path: epath.Path, mine: Holder) -> bool:
    """Create the file with all its content at once; False if it exists."""
    if in_bucket(path):
        if path.exists():
            return False
        path.write_text(_text(mine, 0))
        time.sleep(SETTLE)
        found = _read(path)
        return found is not None and found.holder == mine
    with _aside(path, mine, 0) as aside:
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without links: what another reads before it is written names nobody, and changes.
            with contextlib.suppress(FileExistsError), open(path, "x") as file:
                file.write(_text(mine, 0))
                return True
            return False
    return True


def _take_away(path: epath.Path, mine: Holder, folder: str, another: str) -> None:
    """Take a lock away whose holder is gone, after a while where only its heartbeat can tell.

    Raises:
      UserError: it lives.
    """
    found = _read(path)
    if found is None:
        path.unlink(missing_ok=True)  # a link to nothing
        return
    other = found.holder
    lives = _lives(other, mine) if other else None
    who = f"process {other.pid} on {other.host}" if other else "someone"
    if lives is None:
        console.say(
            f"{folder}: {other.what if other else 'a run'} was begun here by {who}; seeing whether it is alive ..."
        )
        waited_since = time.monotonic()
        while (now := _read(path)) == found and time.monotonic() - waited_since < PATIENCE:
            time.sleep(min(1.0, PATIENCE / 10))
        if now is None:
            return
        lives = now != found
        other = now.holder or other
        if not lives:
            console.warn(f"{folder}: no sign of life of {who} for {PATIENCE:.0f} s; going on from it")
    if lives:
        what = f"{other.what} is at work here, {other}" if other else f"{path.name} changes, so a run is at work here"
        raise UserError(f"{folder}: {what}; wait for it or stop it, or {another}")
    if in_bucket(path):
        path.unlink(missing_ok=True)
        return
    # By rename, because another that waits may have done the same, and begun: then its lock is put back.
    if other and other.token.isalnum():
        _aside_path(path, other).unlink(missing_ok=True)  # what it was writing when it was killed
    aside = _aside_path(path, mine)
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        try:
            taken = _read(aside)
            if taken and taken.content[0] != found.content[0]:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, path)
        finally:
            aside.unlink()


def _read(path: epath.Path) -> Found | None:
    """What a lock file says; None if there is none.

    Raises:
      UserError: it is no file.
    """
    changed = 0
    try:
        if not in_bucket(path):
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: is no regular file; remove it")
            changed = status.st_mtime_ns
        with path.open("rb") as file:
            content = file.read(LONGEST)
    except FileNotFoundError:
        return None
    holder = None
    # It may hold anything.
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        said = json.loads(content)
        pid, texts = said["pid"], {name: _shown(said[name]) for name in TEXTS if name in said}
        if type(pid) is int and 0 < pid < 2**31:
            holder = Holder(pid=pid, **texts)
    return Found((content, changed), holder)


def _shown(value: Any) -> str:
    """A value of the file as it may be printed."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return "".join(x if x.isprintable() else "?" for x in value[:100])


def _lives(other: Holder, mine: Holder) -> bool | None:
    """Whether the holder of a lock is alive, as its pid tells; None where that cannot be known here."""
    here = (mine.host, mine.boot, mine.namespace)
    if (other.host, other.boot, other.namespace) != here or (sys.platform == "linux" and not mine.namespace):
        return None
    if other.pid == mine.pid:
        return any(holder.token == other.token for holder in _held.values())
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _started(str(other.pid))
    return None if started is None or not other.started else started == other.started


def _identity() -> dict[str, str]:
    """`started`, `boot` and `namespace` of this process; empty where the system does not tell, or of other processes than these."""
    try:
        # Where /proc is of another PID namespace, its numbers are not ours.
        if os.readlink("/proc/self") != str(os.getpid()):
            return {}
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return {"started": _started("self") or "", "boot": boot, "namespace": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {}


def _started(process: str) -> str | None:
    """When a process started, by Linux's /proc; empty of one that has ended and was not waited for, None where it cannot be read."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # proc_pid_stat(5): the second field is a name in brackets, which may hold any; state is the third, starttime the 22nd.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
