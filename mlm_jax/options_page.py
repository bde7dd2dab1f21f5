# SPDX-License-Identifier: Apache-2.0
"""docs/options.md, the page of all options, from their fields: `python -m mlm_jax.options_page > docs/options.md`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import docstring_parser
import tyro

from mlm_jax.commands import COMMANDS, command_of
from mlm_jax.fields import BOUNDS, FixedBy, MayChange, Option, options, types_of

PAGE = """\
# Options

Printed by `python -m mlm_jax.options_page`; a test holds that this is what it prints. On the command line an option is `--section.name VALUE`;
one that is on or off, `--section.name` or `--section.no_name`. Those "in config files" are Python values there, and not on the command line.

An option that may change may differ from the one a workdir was made with. "yes": nothing that is learned changes by it, but that
`train.steps` moves the end of the run and with it a schedule that decays towards it. "from then on": a run uses it from the checkpoint on
that it continues from, and a warning says so. Until something is saved (a checkpoint, a result) all may change but, from when they are there,
what the vocabulary and the corpus were made by: "until the vocabulary", "until the corpus".
"""


def options_page() -> str:
    """docs/options.md: of each command its options, and of each type that stands in its config file the fields."""
    parts = [PAGE]
    for command in COMMANDS:
        parts.append(f"## {command.name}\n\n`{command.usage}`\n\n{inspect.getdoc(command.run)}\n")
        if command.config is None:
            continue
        kind = type(command.widen(command.config()))
        owners = [command_of(each()) for each in dict.fromkeys((kind, *command.also))]
        if owners == [command]:
            parts += _tables(kind, list(options(kind())))
            continue
        parts.append(
            f"Options: those of {', '.join(owner.name for owner in owners)}{', and:' if kind is not command.config else '.'}\n"
        )
        own = set(kind.__annotations__) if kind is not command.config else set()
        parts += _tables(kind, [option for option in options(kind()) if option.name in own])
    return "\n".join(parts)


def _tables(kind: type, found: list[Option]) -> Iterator[str]:
    """A table of the options on the command line, the options in config files, and a table of each type in those."""
    if shown := [option for option in found if tyro.conf.Suppress not in option.notes]:
        yield _table(kind, shown)
    waiting: list[Any] = []
    for option in (option for option in found if tyro.conf.Suppress in option.notes):
        yield f"`{option.name}`, in config files: {_type(option.kind)}. {_doc(kind, option.name)}".rstrip() + "\n"
        waiting += typing.get_args(option.kind)
    seen: set[Any] = {command.config for command in COMMANDS}
    while waiting:
        item = waiting.pop(0)
        if not dataclasses.is_dataclass(item) or item in seen:
            continue
        seen.add(item)
        fields = [Option(field.name, *types_of(item)[field.name], field.default) for field in dataclasses.fields(item)]
        text = docstring_parser.parse(item.__doc__ or "").short_description
        yield f"`{typing.cast(type, item).__name__}`: {text}\n\n{_table(item, fields)}"
        waiting += [argument for field in fields for argument in typing.get_args(field.kind)]


def _table(kind: Any, found: list[Option]) -> str:
    rows = ["| option | type | default | bounds | may change | what it is |", "| --- | --- | --- | --- | --- | --- |"]
    for option in found:
        bounds = "; ".join(str(note) for note in option.notes if isinstance(note, BOUNDS))
        default = (
            "required" if option.value is dataclasses.MISSING else f"`{option.value}`" if option.value != "" else ""
        )
        cells = [f"`{option.name}`", _type(option.kind), default, bounds, _may_change(option), _doc(kind, option.name)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _may_change(option: Option) -> str:
    for note in option.notes[::-1]:  # what stands at the field before what stands at its section
        if isinstance(note, MayChange):
            unless = f", but where {note.unless[0]} is {note.unless[1]}" if note.unless[0] else ""
            return ("from then on" if note.onwards else "yes") + unless
        if isinstance(note, FixedBy):
            return f"until the {note.file.split('/')[0]}"
    return ""


def _doc(kind: Any, name: str) -> str:
    """The text under a field, or of it in its class's docstring, on one line."""
    section, _, rest = name.partition(".")
    if rest:
        return _doc(types_of(kind)[section][0], rest)
    for each in kind.__mro__[:-1]:
        for found in docstring_parser.parse_from_object(each).params:
            if name in found.arg_name.split(", ") and found.description:
                return " ".join(found.description.replace("<", "&lt;").split())
    return ""


def _type(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(kind))
    name = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    return f"`{re.sub(r'mlm_jax[.][a-z_.]*[.]', '', name)}`"


if __name__ == "__main__":
    print(options_page(), end="")
