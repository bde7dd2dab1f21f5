# SPDX-License-Identifier: Apache-2.0
"""Files of a folder that somebody else made, e.g. a downloaded one: no link out of it is followed, and no more is read than fits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.files import check_file, in_bucket
from mlm_jax.lines import at_line, parse_json

LARGEST_JSON = 10_000_000  # bytes of a file of settings


def given_file(folder: epath.PathLike, name: str, most: int | None = None) -> epath.Path | None:
    """A file of a folder, as something that can be read without harm; None: there is none.

    A link is followed to a file of the same folder, or of the `blobs` of the Hugging Face hub's cache that the folder is a
    snapshot of.

    Args:
      name: in the folder; may hold folders that are known to be ours.
      most: bytes that it may have.

    Raises:
      UserError: it is a link to elsewhere or to nothing, no regular file, or too large.
    """
    path = epath.Path(folder) / name
    if in_bucket(folder):
        return path if path.exists() else None
    if not os.path.lexists(path):
        return None
    home, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    if home not in real.parents and real.parent != blobs:
        raise UserError(
            f"{path}: a link out of the folder, to {str(real)!r}, which is not followed; put the file itself there if you trust it, "
            "or remove the link"
        )
    check_file(path, most)
    return path


def given_json(folder: epath.PathLike, name: str, most: int = LARGEST_JSON) -> dict[str, Any]:
    """The object of a folder's JSON file; empty where there is none.

    Raises:
      UserError: as `given_file`, and it is no JSON object.
    """
    path = given_file(folder, name, most)
    if path is None:
        return {}
    found = parse_json(given_text(path), partial(at_line, str(path)))
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no fields, but {type(found).__name__}; get the right file")
    return found


def given_text(path: epath.Path) -> str:
    """A file's text.

    Raises:
      UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 at byte {e.start}; get the right file") from e


@contextlib.contextmanager
def foreign(where: epath.PathLike, advice: str) -> Iterator[None]:
    """Report whatever a library says of malformed files as one line.

    Args:
      where: the folder or file.
      advice: what to do.

    Raises:
      UserError: in place of any error but those of the system, which name their file.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except BaseException as e:
        # A panic in a Rust library is no Exception.
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        why = (str(e).splitlines() or [""])[0][:200]
        raise UserError(f"{where} ({type(e).__name__}{': ' + why if why else ''}); {advice}") from e
