# SPDX-License-Identifier: Apache-2.0
"""Whether what was read from JSON is of the type that the code takes it for, and dataclasses made of it."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from mlm_jax.fields import BOUNDS, types_of

LARGEST = 2**63  # of a number without a point; one that is larger is no count
SHOWN = 40  # characters of a value in a message


def as_type(kind: Any, value: Any, default: Any = None, where: str = "") -> Any:
    """What JSON holds, as a type: dataclasses and tuples are made of it, all else is checked and stays as it is.

    Args:
      kind: a dataclass (a field that is neither stored nor has a default is missing, one that it lacks is too much), a TypedDict
        (which may have more), tuple, list or dict of types, a union, Literal, int (below 2**63), float, str, bool, None or Any.
        Bounds that are annotated hold.
      default: of the field that holds it, which has the values of options that were not stored: those of later versions.
      where: dotted name of the value, for messages.

    Raises:
      ValueError: it is of another type; the message names where.
    """
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Annotated:
        return _within(as_type(of[0], value, default, where), of[1:], where)
    if origin in (typing.Union, types.UnionType):
        return _one_of(of, value, default, where)
    if origin is typing.Literal:
        return (
            value if value in of and type(value) in map(type, of) else _refuse(value, where, " or ".join(map(repr, of)))
        )
    if dataclasses.is_dataclass(kind):
        return _as_dataclass(kind, value, default, where)
    if typing.is_typeddict(kind):
        _expect(dict, value, where, "an object")
        hints = _hints(kind)
        _refuse_missing([name for name, (_, required) in hints.items() if required and name not in value], where)
        found = {
            name: as_type(of, value[name], None, _inside(where, name))
            for name, (of, _) in hints.items()
            if name in value
        }
        return value | found
    if kind is tuple or origin is tuple:
        _expect(list | tuple, value, where, "a list")
        if not of or of[1:] == (Ellipsis,):
            return tuple(as_type(of[0] if of else Any, item, None, f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) != len(of):
            raise ValueError(f"{where or 'it'}: {len(value)} items, not {len(of)}")
        return tuple(as_type(k, item, None, f"{where}[{i}]") for i, (k, item) in enumerate(zip(of, value, strict=True)))
    if kind is list or origin is list:
        _expect(list, value, where, "a list")
        return [as_type(of[0], item, None, f"{where}[{i}]") for i, item in enumerate(value)] if of else value
    if kind is dict or origin in (dict, Mapping):
        _expect(dict, value, where, "an object")
        return {name: as_type(of[1], item, None, _inside(where, name)) for name, item in value.items()} if of else value
    return _plain(kind, value, where)


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind in (int, float):
        number = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
        if not number or (isinstance(value, int) and abs(value) >= LARGEST):
            _refuse(value, where, "a number" if kind is float else "a whole number below 2**63")
    elif kind is None or kind is type(None):
        _expect(type(None), value, where, "null")
    else:
        _expect(kind, value, where, {str: "a text", bool: "true or false"}.get(kind, kind.__name__))
    return value


def _as_dataclass(kind: Any, value: Any, default: Any, where: str) -> Any:
    _expect(dict, value, where, "an object")
    known = _fields(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [name for name in value if name not in known]
    if unknown:
        raise ValueError(f"{_inside(where, unknown[0])}: there is no such field")
    values = {}
    for name, item in value.items():
        of, notes = known[name]
        inside = _inside(where, name)
        values[name] = _within(as_type(of, item, fields[name].default, inside), notes, inside)
    if isinstance(default, kind):
        return dataclasses.replace(typing.cast(Any, default), **values)
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    _refuse_missing(
        [x for x, f in fields.items() if x not in value and (f.default, f.default_factory) == missing], where
    )
    return kind(**values)


def _one_of(kinds: tuple[Any, ...], value: Any, default: Any, where: str) -> Any:
    problems = []
    for kind in kinds:
        try:
            return as_type(kind, value, default, where)
        except ValueError as e:
            problems.append(e)
    # Of `X | None` what is wrong with the X.
    raise problems[0]


def _within(value: Any, notes: tuple[Any, ...], where: str) -> Any:
    for bound in notes:
        if isinstance(bound, BOUNDS):
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, int | float) and (reason := bound.refusal(item)):
                    raise ValueError(f"{where}: {item} {reason}")
    return value


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    return types_of(kind)


@functools.cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Field of a TypedDict → its type, and whether it has to be there."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        optional = typing.get_origin(hint) is typing.NotRequired
        found[name] = (typing.get_args(hint)[0] if optional else hint, kind.__total__ and not optional)
    return found


def _expect(kind: Any, value: Any, where: str, called: str) -> None:
    if not isinstance(value, kind):
        _refuse(value, where, called)


def _refuse(value: Any, where: str, called: str) -> None:
    shown = (
        f"{value!r:.{SHOWN}}"
        if isinstance(value, str | int | float | None)
        else "a list"
        if isinstance(value, list)
        else "an object"
    )
    raise ValueError(f"{where or 'it'}: {shown} is not {called}")


def _refuse_missing(names: list[str], where: str) -> None:
    if names:
        raise ValueError(f"{where or 'it'} lacks {', '.join(names)}")


def _inside(where: str, name: str) -> str:
    return f"{where}.{name:.{SHOWN}}" if where else f"{name:.{SHOWN}}"
