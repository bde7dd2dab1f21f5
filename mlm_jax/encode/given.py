# SPDX-License-Identifier: Apache-2.0
"""What Python code hands over, checked: a string is a sequence too, and would be read letter by letter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from mlm_jax.errors import UserError
from mlm_jax.lines import check_text


def as_list(given: Iterable[Any], name: str = "texts") -> list[Any]:
    """The items of a list, tuple, array or other iterable, in order.

    Raises:
      UserError: it is one text, or has no order, or is nothing to iterate over.
    """
    if isinstance(given, str | bytes | bytearray):
        raise UserError(f"{name}: one {type(given).__name__}, not a list; put it into one: [{given[:20]!r}]")
    if given is None or isinstance(given, Mapping | Set) or not isinstance(given, Iterable):
        raise UserError(f"{name}: {type(given).__name__}, not a list of them")
    return list(given)


def as_text(given: Any, where: str, what: str = "a text", or_blank: bool = False) -> str:
    """The text.

    Args:
      where, what: for messages.
      or_blank: whether it may be white space, if not empty.

    Raises:
      UserError: it is no string, is blank, or holds what no text does.
    """
    if isinstance(given, bytes | bytearray):
        raise UserError(f"{where}: {what} in bytes; decode it first")
    if not isinstance(given, str):
        raise UserError(f"{where}: {type(given).__name__}, not {what}")
    if not (given if or_blank else given.strip()):
        raise UserError(f"{where}: {what} that is empty; leave it out")
    return check_text(given, where)


def as_texts(given: Iterable[Any], name: str = "texts") -> list[str]:
    """The texts of an iterable.

    Raises:
      UserError: it is one text, or an item is none.
    """
    return [as_text(text, f"{name}[{i}]") for i, text in enumerate(as_list(given, name))]
