# SPDX-License-Identifier: Apache-2.0
"""Files that are read where they lie: on this machine, in gs://, or in whatever else fsspec opens (s3://, hf://, sftp://, …)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from etils import epath

from mlm_jax.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import fsspec

T = TypeVar("T")
BUFFER = 1 << 20  # bytes
# Named in messages; fsspec knows more.
COMMON = ("gs", "s3", "az", "hf", "http", "https", "sftp", "hdfs")


def protocol(path: str) -> str:
    """What stands before :// in a path; empty where it is one of this machine."""
    before, found, _ = path.partition("://")
    return before if found else ""


def opened(path: str) -> IO[bytes]:
    """A file to read bytes from, which can be sought in.

    Raises:
      UserError: nothing opens this kind of path here.
      OSError: there is no such file, or it cannot be opened.
    """
    file: Any = (
        _ask(path, lambda files, name: files.open(name, "rb")) if is_elsewhere(path) else epath.Path(path).open("rb")
    )
    whole = isinstance(file, io.BufferedReader | io.BytesIO)
    return cast(IO[bytes], file if whole else io.BufferedReader(_Raw(file), BUFFER))


class _Raw(io.RawIOBase):
    """A file of fsspec's, or TensorFlow's, by which gs:// is read where that is installed: with a buffer around, all that Python's can."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


def exists(path: str) -> bool:
    """Whether there is a file or a folder of this name; errors as of `opened`."""
    return _ask(path, lambda files, name: files.exists(name)) if is_elsewhere(path) else epath.Path(path).exists()


def is_folder(path: str) -> bool:
    """Whether there is a folder of this name; errors as of `opened`."""
    return _ask(path, lambda files, name: files.isdir(name)) if is_elsewhere(path) else epath.Path(path).is_dir()


def size(path: str) -> int:
    """Bytes of a file; errors as of `opened`."""
    return (
        _ask(path, lambda files, name: files.size(name) or 0) if is_elsewhere(path) else epath.Path(path).stat().length
    )


def stamp(path: str) -> tuple[Any, ...]:
    """What changes when a file does: its size, and its time or whatever tag its place gives; errors as of `opened`."""
    if is_elsewhere(path):
        return _ask(path, lambda files, name: (files.size(name), str(files.ukey(name))))
    found = epath.Path(path).stat()
    return found.length, found.mtime


def glob(pattern: str) -> list[str]:
    """Files elsewhere than on this machine and in gs:// that match a pattern, sorted; errors as of `opened`."""

    def find(files: fsspec.AbstractFileSystem, name: str) -> list[str]:
        # What it finds it names without what stands before the name in the pattern.
        begin = len(pattern) - len(name) if pattern.endswith(name) else len(pattern) - len(name.lstrip("/"))
        skipped = len(name) - (len(pattern) - begin)
        found = files.glob(name, detail=True)
        return [pattern[:begin] + x[skipped:] for x in sorted(found) if found[x].get("type") != "directory"]

    return _ask(pattern, find)


def is_elsewhere(path: str) -> bool:
    """Whether a path is neither of this machine nor of gs://, and fsspec reads it."""
    return protocol(path) not in ("", "gs")


def _ask(path: str, function: Callable[[fsspec.AbstractFileSystem, str], T]) -> T:
    """What a function of fsspec's file system and a name there gives, its errors in a line."""
    import fsspec  # which takes a tenth of a second, and is seldom needed

    kind = protocol(path)
    if kind not in fsspec.available_protocols():
        known = ", ".join(f"{name}://" for name in COMMON)
        raise UserError(f"{path}: nothing opens {kind}://{did_you_mean(kind, COMMON)}; there are {known}")
    try:
        return function(*fsspec.core.url_to_fs(path))
    except ImportError as e:
        raise UserError(f"{path}: {kind}:// needs a package that is not installed ({e})") from e
    except (UserError, OSError):
        raise
    except Exception as e:  # each file system has errors of its own
        said = str(e).strip().splitlines()
        raise OSError(None, f"cannot be read ({said[0][:200] if said else type(e).__name__})", os.fspath(path)) from e
