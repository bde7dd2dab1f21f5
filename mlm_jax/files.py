# SPDX-License-Identifier: Apache-2.0
"""Files that are never seen half-written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from etils import epath

from mlm_jax.errors import UserError

before_writing: list[Callable[[], None]] = []  # what `write_whole` does first: see `lock.check`


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is of an object store, where nothing is linked, mapped into memory or appended to."""
    return "://" in str(path)


def link(source: epath.PathLike, target: epath.PathLike) -> None:
    """Give a local file, which nobody writes into, a second name, which keeps it when the first goes; a copy on another disk."""
    epath.Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Write a file aside (`PATH.partial`) and then put it in place, over an older one if there is one."""
    for check in before_writing:
        check()
    path = epath.Path(path)
    aside = path.parent / f"{path.name}.partial"
    if isinstance(content, bytes):
        aside.write_bytes(content)
    else:
        aside.write_text(content)
    aside.replace(path)


def write_json(path: epath.PathLike, content: Any, indent: int | None = None) -> None:
    """Write a JSON file, whole, with letters of any script as they are."""
    write_whole(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads(epath.Path(path).read_text())
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}), so it is damaged; restore it from a copy, or start anew") from e
