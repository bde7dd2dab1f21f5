# SPDX-License-Identifier: Apache-2.0
"""Files that are never seen half-written, neither after a kill nor after a power cut, and errors that name their file.

A file is written aside, under a random name beside its own, brought to disk (fsync), and renamed; then its folder is brought to disk.
So what is found later is the old file or the new one, whole, and of two files that were written one after the other never the second alone.
An aside is locked (flock) while it is written: what a kill left is told by that, and the next write of the same file removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from etils import epath

from mlm_jax.errors import UserError

# What `writing` does first, and again before a file takes its place: see `lock.check`.
before_writing: list[Callable[[], None]] = []
ASIDE = re.compile(r"\..*\.[0-9a-f]{16}\.partial")
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # of file systems that cannot
CHUNK = 1 << 20

_asides: set[str] = set()  # this process's own, for `remove_asides`

# What to do about an error of the operating system that may pass, after which a command goes on ...
PASSING = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "your quota is used up: free space or have it raised",
    errno.EFBIG: "files may not grow so large there (ulimit -f, or the file system): have the limit raised",
    errno.EIO: "the disk or its connection fails: see to it",
    errno.EROFS: "mount it writable, or choose another place",
    errno.EMFILE: "let a process open more files (ulimit -n 65536)",
    errno.ENFILE: "this machine has too many files open: end what holds them",
    errno.EACCES: "mend its permissions, or choose another place",
    errno.EPERM: "mend its permissions, or choose another place",
    errno.ESTALE: "the network file system lost it: mount it again",
    errno.ENOTCONN: "the file system is gone: mount it again",
    errno.ENOMEM: "memory is short: end other programs",
}
# ... and about others.
STANDING = {
    errno.ENOTDIR: "a part of this path is a file: choose another place",
    errno.EISDIR: "it is a folder where a file belongs: move it away, or choose another place",
    errno.ENOTEMPTY: "something else is there: move it away, or choose another place",
    errno.EEXIST: "something else is there: move it away, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: mend them",
    errno.EPIPE: "its reader has gone: see to it, and run again",
}


def said(error: OSError, place: epath.PathLike = "", again: str = "then run again") -> str:
    """An error of the operating system in a line: what file, what is wrong, what to do.

    Args:
      place: named where the error names none.
      again: what follows on the advice where the error may pass.
    """
    named = place if error.filename is None else error.filename
    where = named if isinstance(named, int) else os.fsdecode(named)
    why, number = error.strerror or str(error) or type(error).__name__, error.errno or 0
    if number in PASSING:
        return f"{where}: {why}; {PASSING[number]}, {again}"
    return f"{where}: {why}; {STANDING.get(number, 'mend it, or choose another place')}"


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Let errors of the operating system name this file or folder, unless they name one: those of a write or a read name none."""
    try:
        yield
    except OSError as e:
        if e.filename is None or (isinstance(e.filename, str) and is_aside(e.filename)):
            e.filename, e.filename2 = os.fspath(path), None
        raise


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is of an object store, where nothing is linked, mapped into memory or appended to."""
    return "://" in str(path)


def is_aside(path: epath.PathLike) -> bool:
    """Whether a file or folder is one that is being written, or that a kill left, by its name."""
    return ASIDE.fullmatch(Path(path).name) is not None


def listed(folder: epath.PathLike) -> list[epath.Path]:
    """What a folder holds; nothing where there is none. No glob, for which brackets in its own path would be part of the pattern."""
    folder = epath.Path(folder)
    return list(folder.iterdir()) if folder.is_dir() else []


def make_folder(path: epath.PathLike) -> None:
    """Make a folder and those above it, as far as they are missing, so that they outlive a power cut."""
    path = epath.Path(path)
    if in_bucket(path):
        path.mkdir(parents=True, exist_ok=True)
        return
    made = [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]
    Path(path).mkdir(parents=True, exist_ok=True)
    for folder in reversed(made):
        sync(folder.parent)


def sync(path: epath.PathLike) -> None:
    """Bring a file, or what a folder lists, to disk; nothing in a bucket, or where the file system or its rights do not let us."""
    if in_bucket(path):
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        with naming(path):
            _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in NO_SYNC:
            raise


def sync_tree(folder: epath.PathLike) -> None:
    """Bring all files and folders below a local folder, and itself, to disk."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(os.path.join(where, name))
        sync(where)


def _check() -> None:
    for check in before_writing:
        check()


@contextlib.contextmanager
def aside(path: epath.PathLike, listed: bool = True) -> Iterator[epath.Path]:
    """Yield a new, empty file beside a path, which takes its place at the end of the block, or is removed where that fails.

    The file gets the permissions of the one that is there, or of any new one. A link stays, and what it leads to is replaced.

    Args:
      listed: bring the folder to disk too, in which it is found after a power cut; False for the caller to do so (`sync`), of many at once.
    """
    path = epath.Path(path)
    if in_bucket(path):
        beside = path.parent / _aside_name(path.name)
        try:
            yield beside
            _check()
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(Exception):
                beside.unlink(missing_ok=True)
            raise
        return
    target = resolve(path)
    with naming(path), _new_aside(target) as (made, handle):
        mode = _take_owner(target, handle)
        yield epath.Path(made)
        if mode is not None:
            os.fchmod(handle, mode)
        _sync(handle)
        _check()
        try:
            os.replace(made, target)
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
            # A file that is a mount point, as containers have them.
            with open(made, "rb") as file, open(target, "wb") as into:
                shutil.copyfileobj(file, into, CHUNK)
                into.flush()
                _sync(into.fileno())
    if listed:
        sync(os.path.dirname(target) or ".")


@contextlib.contextmanager
def aside_folder(path: epath.PathLike, within: bool = False) -> Iterator[Path]:
    """Yield a new, empty folder beside a local path, for the block to rename; it is removed if it is still there at the end.

    Args:
      within: the path is a folder, in which the new one is made.
    """
    target = os.fspath(path)
    with _new_aside(os.path.join(target, "whole") if within else target, folder=True) as (made, _):
        try:
            yield Path(made)
        except OSError as e:
            if isinstance(e.filename, str) and e.filename.startswith(made):
                e.filename, e.filename2 = target + e.filename.removeprefix(made), None
            raise


def resolve(path: epath.PathLike) -> str:
    """What a local path leads to where it is a link, which may be nothing yet; else the path itself."""
    if not os.path.islink(path):
        return os.fspath(path)
    target = os.path.realpath(path)
    if os.path.islink(target):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    return target


def shortened(name: str) -> str:
    """A file's name, cut so that another may be made of it, which has 255 bytes at most."""
    return name.encode(errors="surrogateescape")[:200].decode(errors="ignore")


def _aside_name(name: str) -> str:
    return f".{shortened(name)}.{secrets.token_hex(8)}.partial"


@contextlib.contextmanager
def _new_aside(target: str, folder: bool = False) -> Iterator[tuple[str, int]]:
    """A locked file or folder beside a path, and its handle; removed at the end of the block if it is still there."""
    parent, name = os.path.split(target)
    _sweep(parent or ".", name)
    while True:
        beside = os.path.join(parent, _aside_name(name))
        if folder:
            os.mkdir(beside)
        handle = os.open(beside, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # of a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(beside):  # or it was swept before it was locked
            break
        os.close(handle)
    _asides.add(beside)
    try:
        yield beside, handle
    finally:
        _asides.discard(beside)
        _remove(beside)
        os.close(handle)


def _sweep(parent: str, name: str) -> None:
    """Remove what a kill left of earlier asides of a file or folder: those that nobody holds locked."""
    begin = _aside_name(name)[: -len("0123456789abcdef.partial")]
    try:
        found = [entry.path for entry in os.scandir(parent) if entry.name.startswith(begin) and is_aside(entry.name)]
    except OSError:  # what it is comes with the write
        return
    for path in found:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(handle)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def remove_asides() -> None:
    """Remove what this process is writing aside; for a process that ends at once."""
    for path in tuple(_asides):
        _remove(path)


def _take_owner(target: str, handle: int) -> int | None:
    """Give a new file the owner of the one that it takes the place of; returns the permissions that are to follow, if any."""
    try:
        there = os.stat(target)
    except OSError:
        return None
    if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):
            os.fchown(handle, there.st_uid, there.st_gid)
    mode = stat.S_IMODE(there.st_mode)
    os.fchmod(handle, mode | stat.S_IRUSR | stat.S_IWUSR)
    return mode


def _keeps_place(path: epath.Path) -> bool:
    """Whether what is there can only be written to: a device, a pipe, or a file in a folder that takes no new ones."""
    if not os.path.exists(path):
        return False
    folder = os.path.dirname(os.path.realpath(path))
    return not os.path.isfile(path) or (os.access(path, os.W_OK) and not os.access(folder, os.W_OK))


@contextlib.contextmanager
def writing(path: epath.PathLike, mode: str = "w", listed: bool = True) -> Iterator[IO[Any]]:
    """Open a file to write it, whole or not at all; a device or a pipe is written to and stays what it is.

    Args:
      mode: "w", text in UTF-8, or "wb".
      listed: as in `aside`.
    """
    _check()
    encoding = None if "b" in mode else "utf-8"
    path = epath.Path(path)
    if in_bucket(path):
        with aside(path) as beside, beside.open(mode) as file:
            yield file
    elif _keeps_place(path):
        with naming(path), open(path, mode, encoding=encoding) as file:
            yield file
    else:
        with aside(path, listed) as beside, naming(path), open(beside, mode, encoding=encoding) as file:
            yield file


def write_whole(path: epath.PathLike, content: str | bytes, listed: bool = True) -> None:
    """Write a file, whole or not at all, over an older one if there is one.

    Args:
      listed: as in `aside`.

    Raises:
      UserError: the text has half a character (a lone surrogate), which no file can hold.
      OSError: it cannot be written; names the file.
    """
    data = content if isinstance(content, bytes) else b""
    if isinstance(content, str):
        try:
            data = content.encode()
        except UnicodeEncodeError as e:
            near = content[max(0, e.start - 20) : e.end].encode("ascii", "backslashreplace").decode()
            raise UserError(
                f"{path}: cannot hold '{near}', which is not Unicode text (half a character, or the name of a file in "
                "another encoding); rename or mend what it comes from"
            ) from e
    with writing(path, "wb", listed) as file:
        file.write(data)


def create_whole(path: epath.PathLike, content: str) -> bool:
    """Write a local file, whole, unless there is one; returns whether it was written."""
    with aside_folder(path) as folder:
        beside = folder / "new"
        write_whole(beside, content)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: between the two another may be written, which this one replaces
            if os.path.exists(path):
                return False
            os.replace(beside, path)
    sync(os.path.dirname(path) or ".")
    return True


def copy_whole(source: epath.PathLike, target: epath.PathLike) -> None:
    """Copy a file, whole or not at all, over an older one if there is one."""
    with naming(source), epath.Path(source).open("rb") as file, writing(target, "wb") as into:
        shutil.copyfileobj(file, into, CHUNK)


def link(source: epath.PathLike, target: epath.PathLike) -> None:
    """Give a local file, which nobody writes into, a second name, which keeps it when the first goes; a copy on another disk.

    `sync` its folder before anything is written that says it is there.
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        copy_whole(source, target)


def write_json(path: epath.PathLike, content: Any, indent: int | None = None) -> None:
    """Write a JSON file, whole, with letters of any script as they are."""
    write_whole(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_file(path: epath.PathLike, most: int | None = None) -> None:
    """Refuse what cannot be read as a file, or would not fit, before it is opened.

    Args:
      most: bytes that it may have.

    Raises:
      UserError: it is a folder, a pipe, a device or a socket, or too large.
      FileNotFoundError: there is none.
    """
    if in_bucket(path):
        return
    try:
        found = os.stat(path)
    except OSError as e:
        if os.path.islink(path):
            raise UserError(f"{path}: a link to nothing ({e.strerror}); get the file again") from e
        raise
    if not stat.S_ISREG(found.st_mode):
        what = next((said for is_kind, said in KINDS.items() if is_kind(found.st_mode)), "something else")
        raise UserError(f"{path}: {what}, where a file is needed; put the file there")
    if most is not None and found.st_size > most:
        raise UserError(
            f"{path}: {found.st_size:,} bytes, where {most:,} are the most that belong there; get the right file"
        )
