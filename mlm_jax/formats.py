# SPDX-License-Identifier: Apache-2.0
"""The formats of files that text and labelled data come in, by the end of their names. Whatever reads files reads these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mlm_jax import arrow, rows, storage
from mlm_jax.errors import UserError, did_you_mean
from mlm_jax.lines import LARGEST_FILE, UNPACK, cut_lines, read_lines, uncompressed
from mlm_jax.patterns import matching_files
from mlm_jax.rows import Reading, Rows

Range = tuple[int, int | None]  # of a file, in the unit of its format; None: to its end


def _whole(path: str, size: int) -> list[Range]:
    return [(0, None)]


@dataclass(frozen=True)
class Format:
    """How files with one ending are read.

    Attributes:
      rows: what `Reading` asks for of a file, a part at a time; None: it has lines of text and no fields.
      cut: ranges of about a number of bytes that can be read on their own; none where there are no rows.
      unit: what ranges count.
      packed: whether files may be compressed (`lines.UNPACK`), or are so by themselves.
    """

    rows: Callable[[str, Reading], Iterator[Rows]] | None
    cut: Callable[[str, int], list[Range]] = _whole
    unit: str = "bytes"
    packed: bool = True


FORMATS = {
    ".txt": Format(None, cut_lines),
    ".jsonl": Format(rows.json_lines, cut_lines),
    ".json": Format(rows.json_file),
    ".csv": Format(rows.comma_table),  # a line end may be within a cell
    ".tsv": Format(rows.tab_table, cut_lines),
    ".parquet": Format(arrow.parquet_rows, arrow.cut_row_groups, "row groups", packed=False),
    ".arrow": Format(arrow.arrow_rows, packed=False),
}
WITH_FIELDS = [ending for ending, each in FORMATS.items() if each.rows]


def ending(path: str) -> str:
    """The end of a file's name that says its format, in lower case, without that of its compression; empty where it has none."""
    return PurePosixPath(uncompressed(path)).suffix.lower()


def known_format(path: str) -> Format | None:
    """The format of a file, by the end of its name; None: another than those of `FORMATS`."""
    return FORMATS.get(ending(path))


def has_fields(path: str) -> bool:
    """Whether a file has rows of fields, by the end of its name."""
    return ending(path) in WITH_FIELDS


def format_of(path: str) -> Format:
    """The format of a file, by the end of its name.

    Raises:
      UserError: it is none of those that are read.
    """
    found = known_format(path)
    if found is None:
        near = did_you_mean(ending(path), FORMATS)
        raise UserError(
            f"{path}: not a format that is read{near or '; rename it, or convert it'}; there are {listed()}"
        )
    if not found.packed and uncompressed(path) != path:
        raise UserError(f"{path}: {ending(path)} files are compressed within, and read so; unpack it")
    return found


def listed() -> str:
    """All formats, for a message."""
    packed = [name for name, each in FORMATS.items() if each.packed]
    others = [name for name, each in FORMATS.items() if not each.packed]
    return f"{', '.join(packed)}, each also {', '.join(UNPACK)}, and {', '.join(others)}"


def unpacked(path: str) -> int:
    """How many times as long as a file its text is, about."""
    found = known_format(path)
    return 1 if uncompressed(path) == path and (found is None or found.packed) else 4


def data_files(pattern: str) -> list[str]:
    """Files that match a pattern, sorted; in the place of a folder that Hugging Face's `datasets` saved, the files it has.

    Raises:
      UserError: what a saved folder says of its files is damaged, or it has several splits.
    """
    found = []
    for path in matching_files(pattern):
        found += (arrow.saved_files(path) if storage.is_folder(path) else None) or [path]
    return found


def read_rows(path: str, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file with fields, one by one: (FILE:LINE, field → value).

    Raises:
      UserError: it is of no such format, or what its reader refuses.
    """
    read = format_of(path).rows
    if read is None:
        raise UserError(f"{path}: has lines and no fields; give a file of {', '.join(WITH_FIELDS)}")
    for part in read(path, reading):
        for i, row in enumerate(part.rows):
            yield part.place(i), row


def read_texts(
    path: str, field: str, most: int = LARGEST_FILE, naming: str = "Source.field"
) -> Iterator[tuple[str, str]]:
    """Texts of a file: (FILE:LINE, text), of a field where it has any, else its lines.

    Args:
      most: bytes that it may have, unpacked.
      naming: the option that names the field, for messages.

    Raises:
      UserError: what its reader refuses; a row without text in the field.
    """
    if not has_fields(path):
        for number, line in read_lines(path, most):
            yield f"{path}:{number}", line
        return
    read = format_of(path).rows
    assert read is not None  # it has fields
    for part in read(path, Reading(fields=(field,), most=most, naming=naming)):
        for i in range(len(part.rows)):
            yield part.place(i), part.text(i, field, naming)
