# SPDX-License-Identifier: Apache-2.0
"""The lines of a text file, plain or compressed: read a part at a time, checked, refused with file and line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import zstandard

from mlm_jax import storage
from mlm_jax.errors import UserError

CHUNK = 1 << 20  # bytes read at a time
LONGEST_LINE = 10_000_000  # bytes
LARGEST_FILE = 1_000_000_000  # bytes of a file that is read whole, unpacked
ZSTANDARD_BYTES = 512  # unpacked at a time: at most 16 MiB
BOM = b"\xef\xbb\xbf"
DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True)
class Chunk:
    """Consecutive lines of a file.

    Attributes:
      lines: without their newlines.
      start: the byte that the reading began at.
      number: of the first line, where the line at `start` is line 1.
    """

    path: str
    lines: list[str]
    start: int
    number: int

    def place(self, i: int) -> str:
        """The file and the number of `lines[i]`, as FILE:LINE."""
        return _place(self.path, self.start, self.number + i)


def read_lines(
    path: str, most: int = LARGEST_FILE, longest: int | None = LONGEST_LINE, option: str = ""
) -> Iterator[tuple[int, str]]:
    """Numbered lines of a whole file, without their line ends.

    Args:
      most: bytes that it may have, unpacked.
      longest: bytes that a line may have; None: as many as the file.
      option: that sets `most`, for the message.

    Raises:
      UserError: the file is empty or too large, a line is too long, it is not UTF-8, it has a NUL byte, or it cannot be unpacked; the
        message names the line.
    """
    number = 0
    for chunk in read_chunks(path, longest=longest, most=most, option=option):
        for number, line in enumerate(chunk.lines, chunk.number):
            yield number, line.rstrip("\r")
    if not number:
        raise UserError(f"{path}: empty; remove it, or give it some text")


def read_chunks(
    path: str,
    start: int = 0,
    end: int | None = None,
    longest: int | None = LONGEST_LINE,
    most: int | None = None,
    option: str = "",
    mend: bool = False,
) -> Iterator[Chunk]:
    """The lines of a range of bytes, about `CHUNK` bytes of them at a time. A byte order mark is left out.

    Args:
      path: a plain file, or one whose name ends in a suffix of `UNPACK`.
      start, end: bytes; the whole file unless given, which a compressed file needs.
      longest: bytes that a line may have.
      most: bytes that are read, unpacked; None: any number.
      option: that sets `most` or, where that is None, `longest`; for the message.
      mend: let through what is no text: bytes that are not UTF-8 become U+FFFD, NUL stays.

    Raises:
      UserError: it is too large, not UTF-8, has a NUL byte or a line that is too long, or cannot be unpacked; the message names the
        line.
    """
    read, raising = 0, f", or raise {option}" if option else ""
    number, byte = 1, start  # of the first line that is not returned yet
    unfinished: list[bytes] = []  # parts of the last line
    left = float("inf") if end is None else end - start
    with storage.opened(path) as file:
        if start:
            file.seek(start)
        blocks = UNPACK.get(path.removeprefix(uncompressed(path)), partial(_blocks, nullcontext))(file)
        while left > 0:
            try:
                data = next(blocks, b"")
            except DAMAGED as e:
                raise UserError(
                    f"{path}: cannot be unpacked: damaged or truncated after line {number - 1} ({e}); fetch or compress it again"
                ) from e
            if not data:
                break
            data = data[: int(min(len(data), left))]
            left -= len(data)
            read += len(data)
            if most is not None and read > most:
                raise UserError(
                    f"{path}: over {most:,} bytes{' unpacked' * (uncompressed(path) != path)}; cut it up{raising}"
                )
            head, newline, tail = data.rpartition(b"\n")
            if newline:
                whole = b"".join([*unfinished, head])
                lines = _decode(path, whole, start, byte, number, mend)
                yield Chunk(path, lines, start, number)
                number, byte, unfinished = number + len(lines), byte + len(whole) + 1, []
            unfinished.append(tail)
            if longest is not None and sum(map(len, unfinished)) > longest:
                raise UserError(
                    f"{_place(path, start, number)}: a line of over {longest:,} bytes; put a document on each line, or cut it up"
                    + (raising if most is None else "")
                )
    if last := b"".join(unfinished):
        yield Chunk(path, _decode(path, last, start, byte, number, mend), start, number)


def uncompressed(path: str) -> str:
    """A file's name without the suffix of its compression."""
    stem, dot, suffix = path.rpartition(".")
    return stem if dot + suffix in UNPACK else path


def split_words(line: str) -> list[str]:
    """Words with ASCII white space between. Other white space is a word or part of one: U+3000, a no-break space."""
    return [word for word in re.split(r"[ \t\n\r\v\f]+", line) if word]


def _decode(path: str, data: bytes, start: int, byte: int, number: int, mend: bool) -> list[str]:
    """Lines of a file from bytes that begin at `byte`, with line `number`."""
    if byte == 0 and data.startswith(BOM):
        data = data.removeprefix(BOM)
        byte = len(BOM)

    def refuse(what: str, at: int, advice: str) -> UserError:
        place = _place(path, start, number + data.count(b"\n", 0, at))
        return UserError(f"{place}: {what} at byte {byte + at}; {advice}")

    if mend:
        return data.decode(errors="replace").split("\n")
    nul = data.find(b"\0")
    if nul >= 0:
        raise refuse("holds a NUL byte", nul, "remove it, or convert the file if it is no text")
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise refuse("not UTF-8", e.start, "convert the file, e.g. with iconv") from e
    return text.split("\n")


def _place(path: str, start: int, number: int) -> str:
    """FILE:LINE of a line that is counted from the byte `start`; lines before it are counted now, for a message only."""
    if start:
        with storage.opened(path) as file:
            while file.tell() < start:
                number += file.read(min(CHUNK, start - file.tell())).count(b"\n")
    return f"{path}:{number}"


def at_line(path: str, number: int) -> str:
    """A line of a file, as messages name it: FILE:LINE."""
    return f"{path}:{number}"


def _blocks(unpack: Callable[[IO[Any]], Any], file: IO[Any]) -> Iterator[bytes]:
    with unpack(file) as stream:
        while data := stream.read(CHUNK):
            yield data


def _zstandard_blocks(file: IO[Any]) -> Iterator[bytes]:
    """Unpack frame by frame, because the library's own reader says nothing when the last frame is cut off.

    A few bytes at a time: a block of 128 KiB may be packed in four of them. Of a frame's window, which may be of 2 GiB (`--long=31`), as
    much takes memory as there is text.
    """
    decoder = None
    while packed := file.read(CHUNK // 4):
        for i in range(0, len(packed), ZSTANDARD_BYTES):
            data = packed[i : i + ZSTANDARD_BYTES]
            while data:
                if decoder is None or decoder.eof:
                    decoder = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
                out = decoder.decompress(data)
                for j in range(0, len(out), CHUNK):
                    yield out[j : j + CHUNK]
                data = decoder.unused_data
    if decoder is not None and not decoder.eof:
        raise EOFError("the last frame is not complete")


# How a compressed file's text is read, a block of bytes at a time, by the end of its name.
UNPACK: dict[str, Callable[[IO[Any]], Iterator[bytes]]] = {
    ".gz": partial(_blocks, gzip.open),
    ".bz2": partial(_blocks, bz2.open),
    ".xz": partial(_blocks, lzma.open),
    ".zst": _zstandard_blocks,
}


def cut_lines(path: str, size: int, at_blank: bool = False) -> list[tuple[int, int | None]]:
    """Ranges of about `size` bytes of a plain file, each beginning with a line; a compressed file is one, as it cannot be entered.

    Args:
      at_blank: begin after blank lines alone.
    """
    if uncompressed(path) != path:
        return [(0, None)]
    length = storage.size(path)
    starts = [0]
    with storage.opened(path) as stream:
        while starts[-1] + size < length:
            stream.seek(starts[-1] + size)
            # To the end of a line, or of a blank one after it.
            line = stream.readline(LONGEST_LINE + 1)
            while line and at_blank:
                line = stream.readline(LONGEST_LINE + 1)
                if not line.strip():
                    break
            if stream.tell() >= length:
                break
            starts.append(stream.tell())
    return list(zip(starts, [*starts[1:], length], strict=True))


# In JSON: an escaped NUL, or an escaped half of a surrogate pair without the other.
ESCAPED_NO_TEXT = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\\u0000|\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2})",
    re.IGNORECASE,
)


def parse_json(text: str, place: Callable[[int], str], number: int = 1) -> Any:
    """What a JSON text says, in which every string is text (`check_text`).

    Args:
      place: the number of a line → FILE:LINE, for messages.
      number: of the text's first line.

    Raises:
      UserError: it is not JSON, or an escape in it stands for what no text has; the message names the line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as e:
        raise UserError(f"{place(number + e.lineno - 1)}: not JSON ({e}); mend or remove the line") from e
    except (ValueError, RecursionError) as e:  # a number of thousands of digits; thousands of brackets
        raise UserError(f"{place(number)}: not JSON that can be read ({e}); mend or remove the line") from e
    waiting = [value] if "\\u" in text else []  # what is not escaped was checked as bytes
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if problem := _no_text(item):
                found = ESCAPED_NO_TEXT.search(text)
                before = text.count("\n", 0, found.start()) if found else 0
                raise UserError(f"{place(number + before)}: {problem}")
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
    return value


def check_text(text: str, where: str) -> str:
    """The text, refused where no file of text could hold it: JSON's escapes, parquet and Python allow what UTF-8 does not.

    Args:
      where: for the message, e.g. FILE:LINE.

    Raises:
      UserError: it holds half a surrogate pair or a NUL.
    """
    if problem := _no_text(text):
        raise UserError(f"{where}: {problem}")
    return text


def _no_text(text: str) -> str:
    """What is wrong with a string that is no text, and what to do; empty where nothing is."""
    at, what = text.find("\0"), "a NUL character"
    if at < 0 and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as e:
            at, what = e.start, "half a surrogate pair"
    if at < 0:
        return ""
    return f"{what} at character {at}, in {text[max(0, at - 20) : at + 20]!a}; remove it, or mend what wrote it"
