# SPDX-License-Identifier: Apache-2.0
"""Files → documents: read in chunks, checked, and refused with file and place."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import zstandard
from etils import epath

from mlm_jax.errors import UserError

CHUNK = 1 << 20  # bytes read at a time
LONGEST_LINE = 10_000_000  # bytes
COMPRESSED = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a file, and where the first begins: byte (of the uncompressed text)."""

    lines: list[str]
    byte: int


def read_documents(
    file: str, documents: str, field: str, start: int = 0, end: int | None = None
) -> Iterator[list[str]]:
    """The documents that begin in a range of a file, in batches, without those that are only white space.

    Args:
      file: .txt or .jsonl, plain or with .gz or .zst.
      documents: "line" or "paragraph", for .txt.
      field: of JSON lines, that holds the text.
      start, end: bytes; the whole file unless given.

    Raises:
      UserError: with file and place: not UTF-8, NUL bytes, a line of over `LONGEST_LINE` bytes, a
        damaged compressed file, a line that is not JSON or lacks the field.
    """
    chunks = _lines(file, start, end)
    name = file.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".jsonl"):
        for chunk in chunks:
            yield _json_documents(file, field, chunk)
    elif documents == "line":
        for chunk in chunks:
            yield [text for line in chunk.lines if (text := line.strip())]
    else:
        yield from _paragraphs(chunks)


def tidy(text: str) -> str:
    """A document's lines without blank ones and without double spaces: lines may be sentences, so they stay."""
    return "\n".join(tidied for line in text.splitlines() if (tidied := " ".join(line.split())))


def _json_documents(file: str, field: str, chunk: Lines) -> list[str]:
    found = []
    byte = chunk.byte
    for line in chunk.lines:
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as e:
                raise UserError(f"{file}: byte {byte}: not JSON ({e}); mend or remove the line") from e
            text = value.get(field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                has = ", ".join(value) if isinstance(value, dict) else type(value).__name__
                raise UserError(
                    f"{file}: byte {byte}: no text in field {field!r} (the line has {has}); set Source.field"
                )
            if text := tidy(text):
                found.append(text)
        byte += len(line.encode()) + 1
    return found


def _paragraphs(chunks: Iterator[Lines]) -> Iterator[list[str]]:
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
    if file.endswith(COMPRESSED):
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


def _lines(file: str, start: int, end: int | None) -> Iterator[Lines]:
    """The lines of a range, a chunk's at a time."""
    byte, rest = start, b""
    left = float("inf") if end is None else end - start
    with _open(file) as stream:
        if start:
            stream.seek(start)
        while True:
            try:
                data = stream.read(int(min(CHUNK, left)))
            except (EOFError, OSError, zlib.error, zstandard.ZstdError) as e:
                raise UserError(f"{file}: damaged or truncated after byte {byte + len(rest)} of its text ({e})") from e
            left -= len(data)
            if not data:
                break
            whole, newline, tail = (rest + data).rpartition(b"\n")
            rest = tail
            if newline:
                yield Lines(_decode(file, whole, byte), byte)
                byte += len(whole) + 1
            if len(rest) > LONGEST_LINE:
                raise _too_long(file, byte)
    if rest:
        yield Lines(_decode(file, rest, byte), byte)


def _too_long(file: str, byte: int) -> UserError:
    return UserError(
        f"{file}: byte {byte}: a line of over {LONGEST_LINE:,} bytes; put a document on each line, or cut it up"
    )


def _decode(file: str, data: bytes, byte: int) -> list[str]:
    if byte == 0 and data.startswith(BOM):
        data = data.removeprefix(BOM)
        byte = len(BOM)
    nul = data.find(b"\0")
    if nul >= 0:
        raise UserError(f"{file}: byte {byte + nul}: a NUL byte, so this is no text; convert or remove the file")
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: byte {byte + e.start}: not UTF-8; convert the file, e.g. with iconv") from e
    return text.split("\n")


def _open(file: str) -> IO[bytes]:
    path = epath.Path(file)
    if file.endswith(".gz"):
        return gzip.open(path.open("rb"))  # type: ignore[return-value]
    if file.endswith(".zst"):
        return _Zstandard(path)  # type: ignore[return-value]
    return path.open("rb")


class _Zstandard:
    """Reads a .zst file, and knows when its last frame is cut off, which the library's reader does not say."""

    def __init__(self, path: epath.Path):
        self._file = path.open("rb")
        self._decoder = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
        self._started = False

    def __enter__(self) -> _Zstandard:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        while True:
            data = self._decoder.unused_data or self._file.read(size // 4)
            if not data:
                if self._started and not self._decoder.eof:
                    raise EOFError("the last frame is not complete")
                return b""
            if self._decoder.eof:
                self._decoder = zstandard.ZstdDecompressor().decompressobj(read_across_frames=False)
            self._started = True
            if out := self._decoder.decompress(data):
                return out


def read_lines(file: str) -> Iterator[list[str]]:
    """All lines of a file, empty ones too, in batches (aligned files need them)."""
    for chunk in _lines(file, 0, None):
        yield chunk.lines
