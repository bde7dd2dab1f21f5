# SPDX-License-Identifier: Apache-2.0
"""What stands at an option beside its type: the bounds of its value, and whether it may change in a workdir.

    learning_rate: Annotated[float, Above(0), MAY_CHANGE] = 7e-4

One walk over a config's options, `options`, serves the check of the bounds, a workdir's comparison and the page of options.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlm_jax.errors import UserError


@dataclass(frozen=True)
class AtLeast:
    """A number of `low` or more; `note` ends the message that refuses another."""

    low: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.low:g} or more"

    def refusal(self, value: float) -> str:
        """Why a value is refused; empty where it is not."""
        return "" if value >= self.low else f"is less than {self.low:g}{self.note}"


@dataclass(frozen=True)
class Above:
    """A number above `low`."""

    low: float

    def __str__(self) -> str:
        return f"above {self.low:g}"

    def refusal(self, value: float) -> str:
        """Why a value is refused; empty where it is not."""
        return "" if value > self.low else f"is not above {self.low:g}"


@dataclass(frozen=True)
class Within:
    """A number from `low` to `high`, but for those in `excluded`; `note` ends the message that refuses another."""

    low: float
    high: float
    excluded: tuple[float, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        but = " or ".join(f"{x:g}" for x in self.excluded)
        return f"{self.low:g} to {self.high:g}" + (f", not {but}" if but else "")

    def refusal(self, value: float) -> str:
        """Why a value is refused; empty where it is not."""
        if self.low <= value <= self.high and value not in self.excluded:
            return ""
        return f"is outside {self.low:g} to {self.high:g}{self.note}"


@dataclass(frozen=True)
class MayChange:
    """The option may differ from the one that a workdir was made with.

    Attributes:
      onwards: it changes what is learned from the checkpoint on, which a warning says.
      unless: an option of the same section and its value with which this one may not change.
    """

    onwards: bool = False
    unless: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Formerly:
    """The option's default was `value` in earlier versions: a workdir that has it counts as having the default."""

    value: Any


@dataclass(frozen=True)
class FixedBy:
    """The option may not change once a workdir has this file, which is made by it; others may until something is saved."""

    file: str


OF_VOCABULARY = FixedBy("vocabulary/vocabulary.json")
OF_CORPUS = FixedBy("corpus/manifest.json")
MAY_CHANGE = MayChange()
MAY_CHANGE_ONWARDS = MayChange(onwards=True)
BELOW_ONE = Within(0, 1, excluded=(1,))
BOUNDS = (AtLeast, Above, Within)
LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True)
class Option:
    """One option of a config.

    Attributes:
      name: dotted, as on the command line and in messages; `data.sources[0].path` within a tuple of dataclasses, and
        `xnli: config.seeds` where those have names.
      kind: its type, without what is annotated.
      notes: what is annotated: bounds, `MayChange`, tyro's markers.
      value: what the config has.
    """

    name: str
    kind: Any
    notes: tuple[Any, ...]
    value: Any


def types_of(section: Any) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Field of a dataclass → its type and what is annotated."""
    hints = typing.get_type_hints(section, include_extras=True)
    found = {}
    for field in dataclasses.fields(section):
        kind = hints[field.name]
        annotated = typing.get_origin(kind) is typing.Annotated
        found[field.name] = (kind.__origin__, kind.__metadata__) if annotated else (kind, ())
    return found


def options(config: Any, prefix: str = "", inherited: tuple[Any, ...] = ()) -> Iterator[Option]:
    """Every option of a config dataclass, and of the dataclasses in it; a tuple of those is an option too.

    What is annotated at a section is annotated at its options.
    """
    for name, (kind, own) in types_of(type(config)).items():
        value, notes = getattr(config, name), (*inherited, *own)
        if dataclasses.is_dataclass(value):
            yield from options(value, f"{prefix}{name}.", notes)
            continue
        yield Option(f"{prefix}{name}", kind, notes, value)
        for i, item in enumerate(value) if isinstance(value, tuple) else ():
            if dataclasses.is_dataclass(item):
                yield from options(item, f"{item.name}: " if hasattr(item, "name") else f"{prefix}{name}[{i}].")


def check_bounds(config: Any) -> None:
    """Refuse a value that is outside the bounds at its field; of a tuple, each item has to be within.

    Raises:
      UserError: naming the option, its value and the bounds.
    """
    for option in options(config):
        for bound in (note for note in option.notes if isinstance(note, BOUNDS)):
            for value in option.value if isinstance(option.value, tuple) else (option.value,):
                if value is not None and (reason := bound.refusal(value)):
                    raise UserError(f"{option.name}{'' if ': ' in option.name else ':'} {value} {reason}")


@dataclass(frozen=True)
class Difference:
    """An option, or an item of one, in which a config differs from a stored one; None where either has none."""

    name: str
    stored: Any
    given: Any
    notes: tuple[Any, ...]

    def __str__(self) -> str:
        there, here = (json.dumps(value, ensure_ascii=False) for value in (self.stored, self.given))
        return f"{self.name}: {_excerpt(there, here)} there, {_excerpt(here, there)} here"

    @property
    def may_change(self) -> MayChange | None:
        """Whether the option may differ, and how."""
        return next((note for note in self.notes if isinstance(note, MayChange)), None)


def differences(stored: dict[str, Any], config: Any) -> list[Difference]:
    """Where a config differs from the stored JSON of one, by name; an option that is not stored has its default there."""
    return sorted(_compare("", type(config), (), stored, _as_json(config)), key=lambda difference: difference.name)


def _compare(
    name: str, kind: Any, notes: tuple[Any, ...], stored: Any, given: Any, default: Any = None
) -> Iterator[Difference]:
    """default: the JSON of what the field that holds `kind` has, where it is a dataclass: a section's own defaults."""
    if isinstance(stored, dict) and isinstance(given, dict):
        types, defaults = {}, {}
        if dataclasses.is_dataclass(kind):
            types = types_of(kind)
            defaults = {field.name: _as_json(field.default) for field in dataclasses.fields(kind)} | (default or {})
        for key in stored.keys() | given.keys():
            of_key, own = types.get(key, (None, ()))
            own = tuple(n for n in own if not (isinstance(n, MayChange) and given.get(n.unless[0]) == n.unless[1]))
            was, now = stored.get(key, defaults.get(key)), given.get(key)
            yield from _compare(f"{name}.{key}" if name else key, of_key, (*notes, *own), was, now, defaults.get(key))
    elif isinstance(stored, list) and isinstance(given, list) and len(json.dumps([stored, given])) > LONGEST:
        kinds = typing.get_args(kind)
        for i, (was, now) in enumerate(itertools.zip_longest(stored, given)):
            # tuple[X, ...] has items of one kind; of tuple[X, Y] none is a dataclass.
            yield from _compare(f"{name}[{i}]", kinds[0] if kinds else None, notes, was, now)
    elif not (
        stored == given
        or (isinstance(stored, float) and isinstance(given, float) and math.isclose(stored, given))
        or (given == default and any(isinstance(note, Formerly) and note.value == stored for note in notes))
    ):
        yield Difference(name, stored, given, notes)


def _as_json(value: Any) -> Any:
    """A default, or a config, as it is read back from JSON."""
    if value is dataclasses.MISSING:
        return None
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(plain))


def _excerpt(text: str, other: str) -> str:
    """A value for a message: where it is long, the part in which it begins to differ from the other."""
    if len(text) < LONGEST:
        return text
    same = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(other))
    start = max(0, same - 15)
    cut = text[start : start + LONGEST - 6]
    return ("..." if start else "") + cut + ("..." if start + len(cut) < len(text) else "")
