# SPDX-License-Identifier: Apache-2.0
"""JSON and arrays that this program stored, read back: of the type that they are taken for, or refused in one line."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.files import check_file, naming
from mlm_jax.typed import as_type

ADVICE = "restore it from a copy, or start anew"


def read_json(path: epath.PathLike, kind: Any = Any, advice: str = ADVICE) -> Any:
    """What a JSON file holds.

    Args:
      kind: the type that it is of (`typed.as_type`).
      advice: what to do about a file that is damaged, for the message.

    Raises:
      UserError: it is not JSON, or of another type.
    """
    check_file(path)
    with naming(path):
        content = epath.Path(path).read_bytes()
    return parse_stored(content, str(path), kind, advice)


def parse_stored(content: str | bytes, where: str, kind: Any, advice: str = ADVICE) -> Any:
    """What JSON that this program wrote holds; arguments and errors as `read_json`'s, with the place for messages.

    Raises:
      UserError: it is not JSON, or of another type.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        value = json.loads(text)
        if "\\u" in text:  # an escape of half a character, or of a NUL, is in no text
            written = json.dumps(value, ensure_ascii=False)
            written.encode()
            if "\\u0000" in written:
                raise ValueError("a NUL in a text")
    except (ValueError, RecursionError) as e:
        raise UserError(f"{where}: not JSON ({e}), so it is damaged; {advice}") from e
    return checked(kind, value, where, advice)


def checked(kind: Any, value: Any, where: str, advice: str = ADVICE) -> Any:
    """What stored JSON holds, as a type (`typed.as_type`); arguments as `parse_stored`'s.

    Raises:
      UserError: it is of another type.
    """
    try:
        return as_type(kind, value)
    except ValueError as e:
        raise UserError(f"{where}: damaged ({e}); {advice}") from e


def read_arrays(path: epath.PathLike, advice: str = ADVICE, **kinds: tuple[str, int]) -> dict[str, np.ndarray]:
    """The arrays [...] of an .npz file, by name.

    Args:
      advice: what to do about a file that is damaged, for the message.
      kinds: name → dtype and number of dimensions, which each of them has to have.

    Raises:
      UserError: it is damaged.
    """
    with reading_arrays(path, advice):
        with naming(path):
            content = epath.Path(path).read_bytes()
        stored = np.load(io.BytesIO(content))
        found = {name: stored[name] for name in kinds}
        for name, kind in kinds.items():
            if (found[name].dtype, found[name].ndim) != kind:
                raise ValueError(f"{name} is {found[name].dtype}, of {found[name].ndim} dimensions")
    return found


@contextlib.contextmanager
def reading_arrays(path: epath.PathLike, advice: str = ADVICE) -> Iterator[None]:
    """While a file of NumPy's is read: whatever goes wrong with its content is its damage.

    Raises:
      UserError: it is damaged.
    """
    try:
        yield
    except OSError as e:
        if e.errno is not None:
            raise
        raise UserError(f"{path}: damaged ({e}); {advice}") from e
    except Exception as e:  # of zipfile, zlib, struct, tokenize and NumPy
        raise UserError(f"{path}: damaged ({e}); {advice}") from e


@contextlib.contextmanager
def fitting(what: str, advice: str = ADVICE) -> Iterator[None]:
    """While stored files are used together: where one lacks what another has, or holds numbers that cannot be, they are damaged.

    Args:
      what: the files, for the message.

    Raises:
      UserError: they do not fit.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
        raise UserError(f"{what}: damaged, or of different runs ({type(e).__name__}: {e}); {advice}") from e
