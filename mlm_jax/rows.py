# SPDX-License-Identifier: Apache-2.0
"""Rows of text files, in which fields have names: JSON lines, JSON, CSV, TSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from mlm_jax.errors import UserError, did_you_mean
from mlm_jax.lines import LARGEST_FILE, LONGEST_LINE, Chunk, at_line, parse_json, read_chunks

BATCH = 256  # rows
_ABSENT = object()


@dataclass(frozen=True)
class Reading:
    """What is read of a file, and how much there may be of it.

    Attributes:
      start, end: a range of the file, in the unit of its format (`formats.Format.unit`); the whole file unless given.
      fields: that are read, and must be there; (): all.
      also: that are read with those where they are there.
      names: of the columns of a .tsv or .csv file; (): its first line has them.
      longest: bytes of a line or of a text; None: as many as the file.
      most: bytes of the file, unpacked; None: any number.
      option: that sets `most` or, where that is None, `longest`; for messages.
      naming: the option that names `fields`, for messages.
      mend: let through what is no text: bytes that are not UTF-8 become U+FFFD, NUL stays; of Parquet and Arrow, texts that are too long, cut to
        a byte more than `longest`. Else they are refused.
    """

    start: int = 0
    end: int | None = None
    fields: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    longest: int | None = LONGEST_LINE
    most: int | None = None
    option: str = ""
    naming: str = "Source.field"
    mend: bool = False


class WrongField(UserError):
    """An option names a field that is not there, or has something else than text: not the file is wrong, but the option."""


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a file.

    Attributes:
      rows: field → value; of tables all text, else what JSON or Arrow has.
      place: number in `rows` → FILE:LINE, or FILE:ROW where a file has no lines.
    """

    rows: list[dict[str, Any]]
    place: Callable[[int], str]

    def text(self, i: int, field: str, naming: str = Reading.naming) -> str:
        """The text in a field of a row; empty where there is nothing in it (null).

        Args:
          naming: the option that names the field, for messages.

        Raises:
          WrongField: there is no such field, or something else than text in it.
        """
        value = self.rows[i].get(field, _ABSENT)
        if isinstance(value, str):
            return value
        if value is None:
            return ""
        if value is _ABSENT:
            refuse_missing(self.place(i), [field], list(self.rows[i]), naming)
        what = {dict: "fields", list: "a list", bool: "true or false"}.get(type(value), type(value).__name__)
        raise WrongField(f"{self.place(i)}: no text in field {field!r}, but {what}; set {naming}")


def counted_from(path: str, first: int, i: int) -> str:
    """FILE:ROW of the `i`th row after one, from 0."""
    return at_line(path, first + i)


def refuse_missing(where: str, fields: Sequence[str], there: Sequence[str], naming: str) -> None:
    """Refuse fields that a row or a table does not have.

    Args:
      where: FILE:LINE, or the file.
      there: those it has.
      naming: the option that names fields.

    Raises:
      WrongField: with those there are.
    """
    for field in fields:
        if field not in there:
            has = ", ".join(map(str, there)) or "none"
            raise WrongField(
                f"{where}: no text in field {field!r} (there are {has}){did_you_mean(field, there)}; set {naming}"
            )


def chunks(path: str, reading: Reading) -> Iterator[Chunk]:
    """The lines of what is read, refused where the whole file has none.

    Raises:
      UserError: what `read_chunks` refuses; or it is empty.
    """
    empty = not reading.start
    for chunk in read_chunks(
        path, reading.start, reading.end, reading.longest, reading.most, reading.option, reading.mend
    ):
        empty = False
        yield chunk
    if empty:
        raise UserError(f"{path}: empty; remove it, or give it some text")


def json_lines(path: str, reading: Reading) -> Iterator[Rows]:
    """Objects of a file of JSON lines; blank ones are left out.

    Raises:
      UserError: what `chunks` refuses; a line is no JSON object.
    """
    for chunk in chunks(path, reading):
        rows, numbers = [], []
        for i, line in enumerate(chunk.lines):
            if line.strip():
                rows.append(_object(parse_json(line, chunk.place, i), partial(chunk.place, i)))
                numbers.append(i)
        yield Rows(rows, partial(_numbered, chunk.place, numbers))


def json_file(path: str, reading: Reading) -> Iterator[Rows]:
    """Objects of a JSON file: of an array that is all of the file, which is read whole, or one a line.

    Raises:
      UserError: what `chunks` refuses; there is something else than objects.
    """
    begins = (line.lstrip()[:1] for chunk in chunks(path, reading) for line in chunk.lines if line.strip())
    if next(begins, "") != "[":
        yield from json_lines(path, reading)
        return
    whole = Reading(longest=None, most=reading.most or LARGEST_FILE, option=reading.option)
    lines = [line for chunk in chunks(path, whole) for line in chunk.lines]
    found = parse_json("\n".join(lines), partial(at_line, path))
    for begin in range(0, len(found), BATCH):
        place = partial(counted_from, path, begin + 1)
        part = found[begin : begin + BATCH]
        yield Rows([_object(row, partial(place, i)) for i, row in enumerate(part)], place)


def tab_table(path: str, reading: Reading) -> Iterator[Rows]:
    """Rows of a file of columns with tabs between, in which quotes are text; blank lines are left out.

    Raises:
      UserError: what `chunks` refuses; a row of another number of columns.
    """
    names = list(reading.names)
    if not names and reading.start:
        first = next(chunks(path, Reading(longest=reading.longest)))
        names = _cells(first.lines[0])
    if names:
        refuse_missing(path, reading.fields, names, reading.naming)
    for chunk in chunks(path, reading):
        found = []
        for i, line in enumerate(chunk.lines):
            if not names:
                names = _cells(line)
                refuse_missing(chunk.place(i), reading.fields, names, reading.naming)
            elif line.rstrip("\r"):
                found.append((i, _cells(line)))
        yield from _table(found, names, chunk.place)


def comma_table(path: str, reading: Reading) -> Iterator[Rows]:
    """Rows of a CSV file (RFC 4180): commas, and quotation marks around cells with commas, line ends or quotation marks.

    Raises:
      UserError: what `comma_cells` refuses; a row of another number of columns.
    """
    cells = comma_cells(path, reading)
    names = list(reading.names)
    if not names:
        number, names = next(cells, (1, []))
        refuse_missing(at_line(path, number), reading.fields, names, reading.naming)
    wrong: UserError | None = None
    while wrong is None:
        part: list[tuple[int, list[str]]] = []
        try:
            part.extend(islice(cells, BATCH))  # what came before an error is in it
        except UserError as e:
            wrong = e
        if not part and wrong is None:
            return
        yield from _table(part, names, partial(at_line, path))
    raise wrong


def comma_cells(path: str, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row of a CSV file, and the line that it begins in; blank lines are left out.

    Raises:
      UserError: what `chunks` refuses; a row of over `longest` bytes, or quotation marks that do not fit.
    """
    csv.field_size_limit(2**31 - 1)  # what is too long is refused here, with its place
    size = 0  # characters of the row that is read

    def lines() -> Iterator[str]:
        nonlocal size
        for chunk in chunks(path, reading):
            for line in chunk.lines:
                size += len(line) + 1
                if reading.longest is not None and size > reading.longest + 1:
                    raise UserError(
                        f"{at_line(path, begin)}: a row of over {reading.longest:,} bytes; close its quotation mark, or cut it up"
                    )
                yield line + "\n"

    reader = csv.reader(lines(), strict=True)
    while True:
        begin, size = reader.line_num + 1, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            raise UserError(
                f"{at_line(path, begin)}: not CSV ({e}); double the quotation marks within a cell, and put it in quotation marks"
            ) from e
        if cells:
            yield begin, cells


def _table(found: Sequence[tuple[int, list[str]]], names: list[str], place: Callable[[int], str]) -> Iterator[Rows]:
    """Rows of (number, cells); those before one of another number of columns, and then the error."""
    wrong = next((i for i, (_, cells) in enumerate(found) if len(cells) != len(names)), len(found))
    rows = [dict(zip(names, cells, strict=True)) for _, cells in found[:wrong]]
    yield Rows(rows, partial(_numbered, place, [number for number, _ in found[:wrong]]))
    if wrong < len(found):
        number, cells = found[wrong]
        raise UserError(
            f"{place(number)}: {len(cells)} columns, not {len(names)} ({', '.join(names)}); mend the line, or the names of the columns"
        )


def _cells(line: str) -> list[str]:
    return line.rstrip("\r").split("\t")


def _object(value: Any, place: Callable[[], str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{place()}: not a JSON object")
    return value


def _numbered(place: Callable[[int], str], numbers: Sequence[int], i: int) -> str:
    return place(numbers[i])
