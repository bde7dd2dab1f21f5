# SPDX-License-Identifier: Apache-2.0
"""Files → documents: read in chunks, checked, and refused with file and place."""

from __future__ import annotations

import json
from collections.abc import Iterator

from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.lines import LONGEST_LINE, Chunk, read_chunks, uncompressed


def read_documents(
    file: str, documents: str, field: str, start: int = 0, end: int | None = None
) -> Iterator[list[str]]:
    """The documents that begin in a range of a file, in batches, without those that are only white space.

    Args:
      file: .txt or .jsonl, plain or compressed.
      documents: "line" or "paragraph", for .txt.
      field: of JSON lines, that holds the text.
      start, end: bytes; the whole file unless given.

    Raises:
      UserError: with file and line: what `read_chunks` refuses, and a line that is not JSON or lacks the field.
    """
    chunks = read_chunks(file, start, end)
    if uncompressed(file).endswith(".jsonl"):
        for chunk in chunks:
            yield _json_documents(field, chunk)
    elif documents == "line":
        for chunk in chunks:
            yield [text for line in chunk.lines if (text := line.strip())]
    else:
        yield from _paragraphs(chunks)


def tidy(text: str) -> str:
    """A document's lines without blank ones and without double spaces: lines may be sentences, so they stay."""
    return "\n".join(tidied for line in text.splitlines() if (tidied := " ".join(line.split())))


def _json_documents(field: str, chunk: Chunk) -> list[str]:
    found = []
    for i, line in enumerate(chunk.lines):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as e:
                raise UserError(f"{chunk.place(i)}: not JSON ({e}); mend or remove the line") from e
            text = value.get(field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                has = ", ".join(value) if isinstance(value, dict) else type(value).__name__
                raise UserError(f"{chunk.place(i)}: no text in field {field!r} (the line has {has}); set Source.field")
            if text := tidy(text):
                found.append(text)
    return found


def _paragraphs(chunks: Iterator[Chunk]) -> Iterator[list[str]]:
    """Join lines up to blank ones; a document may go on over several chunks."""
    current: list[str] = []
    for chunk in chunks:
        found = []
        for line in chunk.lines:
            if text := line.strip():
                current.append(text)
            elif current:
                found.append("\n".join(current))
                current = []
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
