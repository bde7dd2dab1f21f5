# SPDX-License-Identifier: Apache-2.0
"""Text in files: which files, cut into which slices; their documents, and the sentence pairs of aligned files and TSVs."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import storage
from mlm_jax.errors import UserError
from mlm_jax.formats import Range, data_files, ending, format_of, has_fields
from mlm_jax.lines import LONGEST_LINE, Chunk, at_line, cut_lines, read_chunks, uncompressed
from mlm_jax.prepare.columns import (
    are_quoted,
    find_columns,
    heading,
    is_comma,
    one_line,
    read_cells,
    row_pairs,
    unquote,
)
from mlm_jax.prepare.slices import Pair, Slice, SourceKind
from mlm_jax.rows import Reading

LONGEST = "data.longest_document"
PAIRS = 10_000  # rows of a table at a time
# Names of what lies beside text in a folder: of a pattern's files that is hardly meant.
STRAY = re.compile(
    r"(readme|licen[cs]e|copying|copyright|notice|changes|changelog|authors|manifest|requirements)\b.*|copy of .*"
    r"|.*( \(\d+\)|[ ._-](copy|old|bak|backup|orig|tmp)\b).*",
    re.IGNORECASE,
)


def read_file_documents(
    file: str,
    documents: str,
    field: str | Sequence[str],
    start: int = 0,
    end: int | None = None,
    longest: int = LONGEST_LINE,
) -> Iterator[list[str]]:
    """The documents that begin in a range of a file, in batches, without those that are only white space.

    Args:
      file: of a format of `FORMATS`.
      documents: "line" or "paragraph", for .txt.
      field: that holds the text, elsewhere; several are joined by line ends.
      start, end: in the format's unit; the whole file unless given.
      longest: bytes of a document. A longer paragraph is cut at a line's end into several.

    Raises:
      UserError: with file and line: what the format's reader refuses, a line of over `longest` bytes among it, and a row that lacks a field.
    """
    read = format_of(file).rows
    if read is not None:
        fields = cfg.fields_of(field)
        reading = Reading(start, end, fields, longest=longest, option=LONGEST)
        for part in read(file, reading):
            found = ([part.text(i, name) for name in fields] for i in range(len(part.rows)))
            yield [text for texts in found if (text := tidy("\n".join(texts)))]
        return
    chunks = read_chunks(file, start, end, longest, option=LONGEST)
    if documents == "line":
        for chunk in chunks:
            yield [text for line in chunk.lines if (text := line.strip())]
    else:
        yield from _paragraphs(chunks, longest)


def tidy(text: str) -> str:
    """A document's lines without blank ones and without double spaces: lines may be sentences, so they stay."""
    return "\n".join(tidied for line in text.splitlines() if (tidied := " ".join(line.split())))


def _paragraphs(chunks: Iterator[Chunk], longest: int) -> Iterator[list[str]]:
    """Join lines up to blank ones, or as many as `longest` bytes have room for; a document may go on over several chunks."""
    current: list[str] = []
    size = 0
    for chunk in chunks:
        found = []
        for line in chunk.lines:
            text = line.strip()
            length = len(text.encode()) + 1
            if current and (not text or size + length > longest + 1):
                found.append("\n".join(current))
                current, size = [], 0
            if text:
                current.append(text)
                size += length
        yield found
    if current:
        yield ["\n".join(current)]


def cut_file(file: str, documents: str, size: int) -> list[Range]:
    """Ranges of about `size` bytes that a file can be read in, each beginning with a document; none where it has no rows."""
    found = format_of(file)
    return found.cut(file, size) if found.rows or documents == "line" else cut_lines(file, size, at_blank=True)


def _slices(source: cfg.Source, data: cfg.Data) -> list[Slice[cfg.Source]]:
    found = _file_slices(source, source.path, "train" if source.validation else "both", data)
    return found + (_file_slices(source, source.validation, "validation", data) if source.validation else [])


def _file_slices(
    source: cfg.Source, pattern: str, part: Literal["train", "validation", "both"], data: cfg.Data
) -> list[Slice[cfg.Source]]:
    files = data_files(pattern)
    if not files:
        raise UserError(f"data.sources: language {source.language}: no file matches {pattern}; check the path")
    found = []
    for file in files:
        if file != pattern and (STRAY.fullmatch(epath.Path(file).name) or uncompressed(file) in set(files) - {file}):
            twice = "" if STRAY.fullmatch(epath.Path(file).name) else f" beside {uncompressed(file)}"
            raise UserError(
                f"data.sources: language {source.language}: {pattern} takes {file}{twice} for text; move it away, or give a path that "
                "leaves it out"
            )
        format_of(file)
        ranges = cut_file(file, source.documents, data.shard_bytes) if storage.size(file) else []
        if not ranges:
            raise UserError(f"{file}: empty; remove it, or give the language some text")
        found += [Slice(source, part, (file,), start, end, longest=data.longest_document) for start, end in ranges]
    return found


def _documents(part: Slice[cfg.Source]) -> Iterator[list[str]]:
    source = part.source
    return read_file_documents(part.paths[0], source.documents, source.field, part.start, part.end, part.longest)


def _pair_slices(parallel: cfg.Parallel, data: cfg.Data) -> list[Slice[cfg.Parallel]]:
    if len(parallel.paths) == 2:
        for path in parallel.paths:
            if has_fields(path):
                raise UserError(
                    f"data.parallel: {path}: aligned files have a sentence a line; give a file with both sides alone"
                )
            if not storage.exists(path) or storage.size(path) == 0:
                raise UserError(f"data.parallel: {path}: no such file, or empty; check the path")
        return [Slice(parallel, "both", parallel.paths)]
    files = data_files(parallel.paths[0])
    if not files or not all(storage.size(file) for file in files):
        raise UserError(f"data.parallel: {parallel.paths[0]}: no such file, or empty; check the path")
    found: list[Slice[cfg.Parallel]] = []
    for file in files:
        if _is_table(file, parallel):
            columns = parallel.columns or find_columns(file, parallel.languages)
            if len(columns) < 2 or min(columns) < 1:
                raise UserError(f"data.parallel: {file}: columns {columns}; name two, counted from 1")
            found.append(Slice(dataclasses.replace(parallel, columns=columns), "both", (file,)))
        else:
            ranges = format_of(file).cut(file, data.shard_bytes)
            found += [Slice(parallel, "both", (file,), start, end) for start, end in ranges]
    if not found:
        raise UserError(f"data.parallel: {parallel.paths[0]}: no rows; give it some text")
    return found


def _is_table(file: str, parallel: cfg.Parallel) -> bool:
    """Whether the sentences of a file are in columns that go by number; elsewhere in fields, by name."""
    return not parallel.fields and (ending(file) in (".csv", ".tsv") or not has_fields(file))


def _pairs(part: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    if len(part.source.paths) == 2:
        yield from _aligned(part)
        return
    (file,) = part.paths
    if not _is_table(file, part.source):
        read = format_of(file).rows
        if read is None:
            raise UserError(f"data.parallel: {file}: has lines and no fields; leave Parallel.fields out")
        yield from row_pairs(read(file, Reading(part.start, part.end)), part)
        return
    columns = [column - 1 for column in part.source.columns]
    width, quoted = 0, None
    plain = one_line if is_comma(file) else str.strip
    rows = read_cells(file)
    while part_of_rows := list(itertools.islice(rows, PAIRS)):
        batch, places = [], []
        for place, cells in part_of_rows:
            if len(cells) != (width or len(cells)) or len(cells) <= max(columns):
                between = "comma" if is_comma(file) else "tab"
                found = f"{len(cells)} columns" if len(cells) > 1 else f"no {between}, so one column"
                raise UserError(
                    f"{place()}: {found}, not {width or max(columns) + 1}; mend the line, or set Parallel.columns"
                )
            if not width and heading([cells[i] for i in columns[:2]], part.source.languages):
                width = len(cells)
                continue
            width = len(cells)
            batch.append(tuple(plain(cells[i]) for i in columns))
            places.append(place)
        if not is_comma(file):  # whose reader takes the marks away
            quoted = quoted or [are_quoted([pair[i] for pair in batch]) for i in range(len(columns))]
            batch = [tuple(map(unquote, pair, quoted)) for pair in batch]
        yield [pair for pair, place in zip(batch, places, strict=True) if part.is_whole(pair, place)]


def _aligned(part: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    first, second = part.source.paths
    sides: list[list[str]] = [[], []]
    counts = [0, 0]
    readers = [(chunk.lines for chunk in read_chunks(path)) for path in (first, second)]
    line = 0  # of the pairs before
    while True:
        for i in (0, 1):
            while not sides[i]:
                lines = next(readers[i], None)
                if lines is None:
                    break
                sides[i] = lines
                counts[i] += len(lines)
        number = min(len(sides[0]), len(sides[1]))
        if number == 0:
            break
        batch = [(a.strip(), b.strip()) for a, b in zip(sides[0][:number], sides[1][:number], strict=True)]
        yield [
            pair
            for i, pair in enumerate(batch, line + 1)
            if part.is_whole(pair, partial(at_line, second if pair[0] else first, i))
        ]
        line += number
        sides = [side[number:] for side in sides]
    for i in (0, 1):
        counts[i] += sum(len(lines) for lines in readers[i])
    if counts[0] != counts[1]:
        raise UserError(
            f"{first} and {second}: {counts[0]:,} lines against {counts[1]:,}; aligned files need as many lines each"
        )


FILES = SourceKind(slices=_slices, documents=_documents, pair_slices=_pair_slices, pairs=_pairs)
