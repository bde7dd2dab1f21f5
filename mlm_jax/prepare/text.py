# SPDX-License-Identifier: Apache-2.0
"""Text in files: which files, cut into which slices; their documents, and the sentence pairs of aligned files and TSVs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Literal

from etils import epath

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.lines import LONGEST_LINE, UNPACK, Chunk, parse_json, read_chunks, uncompressed
from mlm_jax.patterns import matching_files
from mlm_jax.prepare.columns import are_quoted, find_columns, heading, unquote
from mlm_jax.prepare.slices import Pair, Slice, SourceKind

FORMATS = (".txt", ".jsonl")
# Names of what lies beside text in a folder: of a pattern's files that is hardly meant.
STRAY = re.compile(
    r"(readme|licen[cs]e|copying|copyright|notice|changes|changelog|authors|manifest|requirements)\b.*|copy of .*"
    r"|.*( \(\d+\)|[ ._-](copy|old|bak|backup|orig|tmp)\b).*",
    re.IGNORECASE,
)


def read_file_documents(
    file: str, documents: str, field: str, start: int = 0, end: int | None = None, longest: int = LONGEST_LINE
) -> Iterator[list[str]]:
    """The documents that begin in a range of a file, in batches, without those that are only white space.

    Args:
      file: .txt or .jsonl, plain or compressed.
      documents: "line" or "paragraph", for .txt.
      field: of JSON lines, that holds the text.
      start, end: bytes; the whole file unless given.
      longest: bytes of a document. A longer paragraph is cut at a line's end into several.

    Raises:
      UserError: with file and line: what `read_chunks` refuses, a line of over `longest` bytes among them, and a line that is not JSON or lacks the field.
    """
    chunks = read_chunks(file, start, end, longest, option="data.longest_document")
    if uncompressed(file).endswith(".jsonl"):
        for chunk in chunks:
            yield _json_documents(field, chunk)
    elif documents == "line":
        for chunk in chunks:
            yield [text for line in chunk.lines if (text := line.strip())]
    else:
        yield from _paragraphs(chunks, longest)


def tidy(text: str) -> str:
    """A document's lines without blank ones and without double spaces: lines may be sentences, so they stay."""
    return "\n".join(tidied for line in text.splitlines() if (tidied := " ".join(line.split())))


def _json_documents(field: str, chunk: Chunk) -> list[str]:
    found = []
    for i, line in enumerate(chunk.lines):
        if line.strip():
            value = parse_json(line, chunk.place, i)
            text = value.get(field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                has = ", ".join(value) if isinstance(value, dict) else type(value).__name__
                raise UserError(f"{chunk.place(i)}: no text in field {field!r} (the line has {has}); set Source.field")
            if text := tidy(text):
                found.append(text)
    return found


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


def cut_file(file: str, documents: str, size: int) -> list[tuple[int, int | None]]:
    """Ranges of about `size` bytes that a plain file can be read in, each beginning with a document.

    A compressed file is one range, as it cannot be entered in the middle.
    """
    if uncompressed(file) != file:
        return [(0, None)]
    path = epath.Path(file)
    length = path.stat().length
    starts = [0]
    with path.open("rb") as stream:
        while starts[-1] + size < length:
            stream.seek(starts[-1] + size)
            # To the end of a line, or of a blank one after it.
            line = stream.readline(LONGEST_LINE + 1)
            while line and documents == "paragraph":
                line = stream.readline(LONGEST_LINE + 1)
                if not line.strip():
                    break
            if stream.tell() >= length:
                break
            starts.append(stream.tell())
    return list(zip(starts, [*starts[1:], length], strict=True))


def _slices(source: cfg.Source, data: cfg.Data) -> list[Slice[cfg.Source]]:
    found = _file_slices(source, source.path, "train" if source.validation else "both", data)
    return found + (_file_slices(source, source.validation, "validation", data) if source.validation else [])


def _file_slices(
    source: cfg.Source, pattern: str, part: Literal["train", "validation", "both"], data: cfg.Data
) -> list[Slice[cfg.Source]]:
    files = matching_files(pattern)
    if not files:
        raise UserError(f"data.sources: language {source.language}: no file matches {pattern}; check the path")
    for file in files:
        if file != pattern and (STRAY.fullmatch(epath.Path(file).name) or uncompressed(file) in set(files) - {file}):
            twice = "" if STRAY.fullmatch(epath.Path(file).name) else f" beside {uncompressed(file)}"
            raise UserError(
                f"data.sources: language {source.language}: {pattern} takes {file}{twice} for text; move it away, or give a path that "
                "leaves it out"
            )
        if not uncompressed(file).endswith(FORMATS):
            packed = ", ".join(UNPACK)
            raise UserError(
                f"{file}: not a format that is read; name it .txt or .jsonl, and then {packed} if compressed"
            )
        if epath.Path(file).stat().length == 0:
            raise UserError(f"{file}: empty; remove it, or give the language some text")
    return [
        Slice(source, part, (file,), start, end, longest=data.longest_document)
        for file in files
        for start, end in cut_file(file, source.documents, data.shard_bytes)
    ]


def _documents(part: Slice[cfg.Source]) -> Iterator[list[str]]:
    source = part.source
    return read_file_documents(part.paths[0], source.documents, source.field, part.start, part.end, part.longest)


def _pair_slices(parallel: cfg.Parallel) -> list[Slice[cfg.Parallel]]:
    for path in parallel.paths:
        if not epath.Path(path).exists() or epath.Path(path).stat().length == 0:
            raise UserError(f"data.parallel: {path}: no such file, or empty; check the path")
    if len(parallel.paths) == 1:
        columns = parallel.columns or find_columns(parallel.paths[0], parallel.languages)
        if len(columns) != 2 or min(columns) < 1:
            raise UserError(f"data.parallel: {parallel.paths[0]}: columns {columns}; name two, counted from 1")
        parallel = dataclasses.replace(parallel, columns=columns)
    return [Slice(parallel, "both", parallel.paths)]


def _pairs(part: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    if len(part.source.paths) == 2:
        yield from _aligned(*part.source.paths)
        return
    first, second = (column - 1 for column in part.source.columns)
    width, quoted = 0, None
    for chunk in read_chunks(part.source.paths[0]):
        batch = []
        for i, line in enumerate(chunk.lines):
            cells = line.split("\t")
            if not line.strip():
                continue
            if len(cells) != (width or len(cells)) or len(cells) <= max(first, second):
                found = f"{len(cells)} columns" if len(cells) > 1 else "no tab, so one column"
                raise UserError(
                    f"{chunk.place(i)}: {found}, not {width or max(first, second) + 1}; mend the line, or set "
                    "Parallel.columns"
                )
            if not width and heading((cells[first], cells[second]), part.source.languages):
                width = len(cells)
                continue
            width = len(cells)
            batch.append((cells[first].strip(), cells[second].strip()))
        if quoted is None:
            quoted = [are_quoted([pair[i] for pair in batch]) for i in (0, 1)]
        batch = [(unquote(a, quoted[0]), unquote(b, quoted[1])) for a, b in batch]
        yield [pair for pair in batch if all(pair)]


def _aligned(first: str, second: str) -> Iterator[list[Pair]]:
    sides: list[list[str]] = [[], []]
    counts = [0, 0]
    readers = [(chunk.lines for chunk in read_chunks(path)) for path in (first, second)]
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
        yield [pair for pair in batch if all(pair)]
        sides = [side[number:] for side in sides]
    for i in (0, 1):
        counts[i] += sum(len(lines) for lines in readers[i])
    if counts[0] != counts[1]:
        raise UserError(
            f"{first} and {second}: {counts[0]:,} lines against {counts[1]:,}; aligned files need as many lines each"
        )


FILES = SourceKind(slices=_slices, documents=_documents, pair_slices=_pair_slices, pairs=_pairs)
