# SPDX-License-Identifier: Apache-2.0
"""Archives of the web and files of text → raw records, each with what is known of it, or why it went.

WARC (pages as they were sent) and WET (their text), HTML, plain text and JSON lines, packed with gzip or Zstandard, local or gs://. Records are
found in the unpacked bytes here and their HTTP is read by FastWARC: by itself FastWARC 2.0.1 is silent on an archive that is cut off, and
a header that lies about its length ends it. What is damaged is left out up to the next record that is whole.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import zstandard

from mlm_jax.curate.document import Dropped
from mlm_jax.curate.encodings import codec
from mlm_jax.errors import UserError
from mlm_jax.files import check_file, naming
from mlm_jax.storage import is_elsewhere, opened

LARGEST = 10_000_000  # bytes of a record; larger ones are counted
LONGEST_HEADER = 65_536  # bytes of a record's own header, its address included
CHUNK = 1 << 20  # bytes read at a time
# Bytes unpacked at a time, of which deflate makes at most 1,032 times as many, and Zstandard, of 512, 16 MiB.
GZIP_BYTES, ZSTANDARD_BYTES = 4096, 512

# Why a record goes, in the reading.
TRUNCATED = "truncated"  # a file that ends within a record; `url` is the file, `text` says how many records it gave
DAMAGED = "damaged"  # bytes that cannot be unpacked or are no record; `url` is the page, where it is known, or the file
TOO_LARGE = "too_large"
EMPTY = "empty"
STATUS = "status"  # not 200
MEDIA_TYPE = "media_type"  # neither HTML nor text, by its header
BINARY = "binary"  # neither, by its bytes
NO_FIELD = "no_field"  # a line of JSON without the text's field
READING = (TRUNCATED, DAMAGED, TOO_LARGE, EMPTY, STATUS, MEDIA_TYPE, BINARY, NO_FIELD)

HTML_TYPES = {"text/html", "application/xhtml+xml"}
TEXT_TYPES = {"text/plain"}
RECORD, BEGIN = re.compile(rb"WARC/1\.[01]\r?\n"), b"WARC/1.0\r\n"
PADDING = b"\0\r\n\t "  # between records
HEADER_END = re.compile(rb"\r?\n\r?\n")
DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
SLASHES = re.compile(r"^(\d{4})/(\d\d)/(\d\d) ?")
# Fields of rows, the first that is there: those of FineWeb-2, CulturaX and HPLT among them.
ADDRESSES, DATES = ("url", "u"), ("date", "timestamp", "ts")
NO_ADDRESS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CHARSET = re.compile(r"""charset\s*=\s*["']?([^"'\s;,]{1,40})""", re.IGNORECASE)
# Control characters that no text has; ESC begins ISO-2022's sequences, and NUL comes alone.
CONTROLS = bytes({*range(1, 9), 11, *range(14, 27), *range(28, 32), 127})
MOST_CONTROLS = 0.02  # of a text's first bytes
SIGNATURES = (
    b"%PDF-",
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x7fELF",
    b"RIFF",
    b"Rar!",
)
SNIFFED = 4096  # bytes


@dataclasses.dataclass(frozen=True)
class Raw:
    """A page or a text as it was found.

    Attributes:
      date: ISO 8601, or empty.
      media_type: the header's, in lower case; of a file, its kind's.
      charset: the label in the HTTP header, or empty.
      kind: how its text is had: "html", by `main_text`, or "text".
    """

    data: bytes
    kind: Literal["html", "text"]
    url: str = ""
    date: str = ""
    media_type: str = ""
    charset: str = ""


Kind = Literal["warc", "html", "text", "json"]
# Ends of names, without those of compression.
KINDS: dict[str, Kind] = {
    ".warc": "warc", ".wet": "warc", ".html": "html", ".htm": "html", ".xhtml": "html", ".txt": "text", ".text": "text",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
}  # fmt: skip
PACKED = (".gz", ".zst")
TABLES = (".parquet", ".arrow", ".csv", ".tsv")  # which `tables` reads
Apart = Literal["file", "blank", "line"]


def kind_of(path: str) -> Kind | None:
    """What a file is, by its name; None: none of those that are read here."""
    for suffix in PACKED:
        path = path.removesuffix(suffix)
    return next((kind for end, kind in KINDS.items() if path.lower().endswith(end)), None)


def read_archive(
    path: str,
    kind: Kind | None = None,
    fields: Sequence[str] = ("text",),
    apart: Apart = "file",
    most: int = LARGEST,
) -> Iterator[Raw | Dropped]:
    """The records of a file in their order, and one `Dropped` for each that is not given.

    Memory is a few times `most`, whatever the file holds. A file that ends too early gives the records before, and then
    `Dropped("truncated", url=path)`. Records of a crawl that are no pages (requests, metadata) are passed over without a count.

    Args:
      path: local or gs://; packed with gzip or Zstandard or not, by its first bytes.
      kind: what it is; by its name unless given.
      fields: of JSON lines, those that have the text; several are joined by line ends.
      apart: what parts the documents of plain text: none, empty lines (CC-100), or every line's end.
      most: bytes of a record.

    Raises:
      UserError: a name that says no kind, or no file there.
      OSError: it cannot be read; names the file.
    """
    chosen = kind or kind_of(path)
    if chosen is None:
        raise UserError(
            f"{path}: of a kind that is not known by its name; name it ({', '.join([*KINDS, *TABLES])}; {', '.join(PACKED)} after them)"
        )
    if not is_elsewhere(path):
        check_file(path)
    with naming(path), opened(path) as file:
        blocks = _unpacked(iter(lambda: file.read(CHUNK), b""))
        if chosen == "warc":
            yield from _warc(path, blocks, most)
        elif chosen == "html" or (chosen == "text" and apart == "file"):
            yield from _whole(path, blocks, chosen, most)
        elif chosen == "text":
            yield from _texts(path, blocks, apart, most)
        else:
            yield from _json(path, blocks, fields, most)


class _Damage(Exception):
    """What ends a run of whole bytes, or of records; more may follow it.

    Attributes:
      url: of the page that it cost, where that is known.
    """

    def __init__(self, reason: str, what: str, url: str = "") -> None:
        super().__init__(what)
        self.reason, self.url = reason, url


def _unpacked(packed: Iterator[bytes]) -> Iterator[bytes | _Damage]:
    """Unpacked blocks of at most 16 MiB, and what is wrong where something is. After damage it goes on with the next member or frame."""
    first = next(packed, b"")
    rest = _after(first, packed)
    if first.startswith(b"\x1f\x8b"):
        yield from _members(rest, lambda: zlib.decompressobj(31), b"\x1f\x8b\x08", GZIP_BYTES)
    elif first.startswith(b"\x28\xb5\x2f\xfd"):
        decoder = zstandard.ZstdDecompressor(max_window_size=2**31)
        yield from _members(rest, decoder.decompressobj, b"\x28\xb5\x2f\xfd", ZSTANDARD_BYTES)
    else:
        yield from rest


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _members(packed: Iterable[bytes], new: Callable[[], Any], magic: bytes, step: int) -> Iterator[bytes | _Damage]:
    """What the members of a gzip file, or the frames of a Zstandard one, unpack to.

    Args:
      new: makes a decoder of one of them.
      magic: that each begins with.
      step: bytes unpacked at a time.
    """
    decoder: Any = None
    seeking = False  # the next member, after damage
    tail = b""  # bytes before a step in which the magic may begin
    for block in packed:
        for i in range(0, len(block), step):
            data = tail + block[i : i + step]
            tail = b""
            while data:
                if seeking:
                    at = data.find(magic)
                    if at < 0:
                        tail, data = data[-len(magic) + 1 :], b""
                        continue
                    data, seeking = data[at:], False
                if decoder is None:
                    data = data.lstrip(b"\0")  # padding of tapes
                    decoder = new() if data else None
                    continue
                try:
                    out = decoder.decompress(data)
                except (zlib.error, zstandard.ZstdError) as e:
                    yield _Damage(DAMAGED, f"cannot be unpacked ({e})")
                    decoder, seeking, data = None, True, data[1:]
                    continue
                if out:
                    yield out
                data = decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    decoder = None
    if decoder is not None:
        yield _Damage(TRUNCATED, "ends within a packed part")


class _Bytes:
    """A window on unpacked bytes: `data`, which `more` makes longer at its end and the reader shorter at its begin."""

    def __init__(self, blocks: Iterator[bytes | _Damage]) -> None:
        self.blocks = blocks
        self.data = bytearray()
        self.damage: _Damage | None = None  # what comes after `data`
        self.ended = False

    def more(self) -> bool:
        """Whether there was a further block. Where there is damage instead, it is kept, until `past_damage`."""
        if self.damage or self.ended:
            return False
        block = next(self.blocks, None)
        if block is None:
            self.ended = True
        elif isinstance(block, _Damage):
            self.damage = block
        else:
            self.data += block
        return not (self.damage or self.ended)

    def past_damage(self) -> _Damage | None:
        """Forget what is left before the damage that was met, and return that; None at the end."""
        self.data.clear()
        damage, self.damage = self.damage, None
        return damage


def _whole(
    path: str, blocks: Iterator[bytes | _Damage], kind: Literal["html", "text"], most: int
) -> Iterator[Raw | Dropped]:
    """A file that is one document."""
    window = _Bytes(blocks)
    while len(window.data) <= most and window.more():
        pass
    if len(window.data) > most:
        yield Dropped(TOO_LARGE, path)
    elif window.damage:
        yield Dropped(window.damage.reason, path, str(window.damage))
    else:
        yield _checked(Raw(bytes(window.data), kind, path, media_type="text/html" if kind == "html" else "text/plain"))


def _lines(path: str, blocks: Iterator[bytes | _Damage], most: int) -> Iterator[bytes | Dropped]:
    """The lines of a file, without their ends; of one that is too long, that it is."""
    window, given, skipping = _Bytes(blocks), 0, False
    while True:
        *lines, rest = bytes(window.data).split(b"\n")
        window.data[:] = rest
        for line in lines:
            given += 1
            if not skipping:
                yield line.rstrip(b"\r") if len(line) <= most else Dropped(TOO_LARGE, path)
            skipping = False
        # What is left has no line end.
        while len(window.data) <= most and window.more():
            if b"\n" in window.data:
                break
        if len(window.data) > most and b"\n" not in window.data:
            if not skipping:
                yield Dropped(TOO_LARGE, path)
            skipping = True
            window.data.clear()
        if b"\n" in window.data or window.more():
            continue
        if window.ended:
            if window.data and not skipping:
                yield bytes(window.data)
            return
        damage = window.past_damage()
        skipping = False
        if damage:
            yield Dropped(damage.reason, path, f"after {given} lines: {damage}")


def _texts(path: str, blocks: Iterator[bytes | _Damage], apart: Apart, most: int) -> Iterator[Raw | Dropped]:
    """The documents of a file of plain text."""
    gathered: list[bytes] = []
    size = 0

    def document() -> Iterator[Raw | Dropped]:
        if gathered:
            yield (
                Dropped(TOO_LARGE, path)
                if size > most
                else _checked(Raw(b"\n".join(gathered), "text", media_type="text/plain"))
            )

    for line in _lines(path, blocks, most):
        if isinstance(line, Dropped):
            yield line
            continue
        if line.strip():
            size += len(line) + 1
            if size <= most or not gathered:
                gathered.append(line)
        if apart == "line" or not line.strip():
            yield from document()
            gathered, size = [], 0
    yield from document()


def _json(path: str, blocks: Iterator[bytes | _Damage], fields: Sequence[str], most: int) -> Iterator[Raw | Dropped]:
    """The texts of a file of JSON lines: by its own reader, since `rows.json_lines` refuses a file with a line that is damaged or too long."""
    for number, line in enumerate(_lines(path, blocks, most), 1):
        if isinstance(line, Dropped):
            yield line
            continue
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:  # UnicodeDecodeError too
            yield Dropped(DAMAGED, where, f"not JSON ({e})"[:300])
            continue
        if not isinstance(row, dict):
            yield Dropped(DAMAGED, where, "not a JSON object")
            continue
        texts = [text for field in fields if isinstance(text := row.get(field), str)]
        if len(texts) < len(fields):
            yield Dropped(NO_FIELD, where)
            continue
        yield record_of(texts, row, most)


def record_of(texts: Sequence[str], row: Mapping[str, Any], most: int) -> Raw | Dropped:
    """The record of a row: its texts joined by line ends, with its address and date, by their usual names, where it has them."""
    data = "\n".join(texts).encode(errors="replace")  # half a surrogate pair, which JSON's escapes allow
    url = next((said for name in ADDRESSES if (said := _address(row.get(name)))), "")
    date = next((said for name in DATES if (said := _date(row.get(name)))), "")
    if len(data) > most:
        return Dropped(TOO_LARGE, url)
    return _checked(Raw(data, "text", url, date, "text/plain", "utf-8"))


def _warc(path: str, blocks: Iterator[bytes | _Damage], most: int) -> Iterator[Raw | Dropped]:
    """The pages and texts of an archive."""
    window, given = _Bytes(blocks), 0
    while True:
        damaged = ""
        try:
            record = _next_record(window, most)
        except _Damage as e:  # of one record, which is behind us
            yield Dropped(e.reason, e.url or path, f"after {given} records: {e}")
            continue
        if record is None:
            damage = window.past_damage()
            if damage is None:
                return
            yield Dropped(damage.reason, path, f"after {given} records: {damage}")
            continue
        given += 1
        head, payload = record
        try:
            found = _page(head, payload, most)
        except Exception as e:  # whatever FastWARC makes of a message that is none
            damaged = f"{type(e).__name__}: {e}"[:300]
            found = Dropped(DAMAGED, _address(_headers(head).get("warc-target-uri")) or path, damaged)
        if found is not None:
            yield found


def _next_record(window: _Bytes, most: int) -> tuple[bytes, bytes] | None:
    """The header and the payload of the next whole record; None at the end, or where damage is met.

    Raises:
      _Damage: what is there is no record, or too large; it has been skipped.
    """
    if _seek_record(window):
        raise _Damage(DAMAGED, "bytes that are no record")
    if not window.data:
        return None
    while (found := HEADER_END.search(window.data, 0, LONGEST_HEADER)) is None:
        if len(window.data) >= LONGEST_HEADER:
            _leave(window, 8)
            raise _Damage(DAMAGED, "a header that is too long")
        if not window.more():
            _cut(window)
            return None
    head = bytes(window.data[: found.end()])
    fields = _headers(head)
    length, url = fields.get("content-length", ""), _address(fields.get("warc-target-uri"))
    if not (length.isascii() and length.isdigit()):
        _leave(window, len(head))
        raise _Damage(DAMAGED, "a header that says no length", url)
    if len(length) > 18 or int(length) > most:
        _leave(window, len(head))
        raise _Damage(TOO_LARGE, f"a record of {length[:40]} bytes", url)
    end = len(head) + int(length)
    # The bytes after it tell whether its length is true.
    while len(window.data) < end + 64 and window.more():
        pass
    after = bytes(window.data[end : end + 64])
    if len(window.data) >= end and (after.startswith(b"\r\n\r\n") or after.lstrip(b"\r\n")[:5] in (b"", b"WARC/")):
        payload = bytes(window.data[len(head) : end])
        del window.data[:end]
        return head, payload
    if RECORD.search(window.data, len(head)) or len(window.data) >= end:
        _leave(window, len(head))
        raise _Damage(DAMAGED, "a header that lies about its length", url)
    _cut(window)
    return None


def _cut(window: _Bytes) -> None:
    """A record that ends with the bytes there are: the file is cut off, unless damage follows, which is told of by itself."""
    window.data.clear()
    if not window.damage:
        window.damage = _Damage(TRUNCATED, "ends within a record")


def _leave(window: _Bytes, size: int) -> None:
    """Pass over bytes, and what follows them up to a record."""
    del window.data[:size]
    _seek_record(window)


def _seek_record(window: _Bytes) -> bool:
    """Go on to where a record begins, or to the end; whether more was skipped than line ends and padding."""
    skipped = False
    while (found := RECORD.search(window.data)) is None:
        skipped |= bool(window.data[:-16].strip(PADDING))
        del window.data[:-16]  # in the last bytes one may begin
        if not window.more():
            left = window.data.strip(PADDING)
            if left and BEGIN.startswith(left):
                _cut(window)
            else:
                skipped |= bool(left)
                window.data.clear()
            return skipped
    skipped |= bool(window.data[: found.start()].strip(PADDING))
    del window.data[: found.start()]
    return skipped


def _headers(head: bytes) -> dict[str, str]:
    """The fields of a record's header, by their names in lower case; the first of those that come twice."""
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _page(head: bytes, payload: bytes, most: int) -> Raw | Dropped | None:
    """What a record holds; None if it is neither a page nor a text."""
    fields = _headers(head)
    url, date = _address(fields.get("warc-target-uri")), _date(fields.get("warc-date"))
    kind = fields.get("warc-type", "").lower()
    said = fields.get("content-type", "")
    if kind == "conversion":
        return _checked(Raw(payload, "text", url, date, _media_type(said) or "text/plain", "utf-8"))
    if kind == "response" and said.lower().startswith("application/http"):
        return _response(head, payload, url, date, fields.get("warc-identified-payload-type", ""), most)
    if kind == "response" and not url.startswith("http"):  # of DNS
        return None
    if kind in ("resource", "response"):
        return _typed(Raw(payload, "html", url, date, _media_type(said), _charset(said)))
    return None


def _response(head: bytes, payload: bytes, url: str, date: str, identified: str, most: int) -> Raw | Dropped:
    """A page in the HTTP message that it came in."""
    if not payload:
        return Dropped(EMPTY, url)
    message = _message(head + payload, "all", most) or _message(head + payload, "none", most)
    if message is None:
        return Dropped(DAMAGED, url, "no HTTP message")
    status, said, body = message
    if status != 200:
        return Dropped(STATUS, url, str(status))
    if len(body) > most:
        return Dropped(TOO_LARGE, url)
    return _typed(Raw(body, "html", url, date, _media_type(said) or _media_type(identified), _charset(said)))


def _message(record: bytes, decode: Literal["all", "none"], most: int) -> tuple[int | None, str, bytes] | None:
    """Status, content type and body of an HTTP response; None where it is none, or is not coded as it says.

    Args:
      decode: "all": undo chunks and compression; archives that have undone them often keep the header, and are read with "none".
    """
    from fastwarc.warc import ArchiveIterator

    try:
        for found in ArchiveIterator(
            BytesIO(record), auto_decode=decode, stream_detect=False, max_header_len=LONGEST_HEADER
        ):
            headers = found.http_headers
            if headers is None:
                return None
            body = found.reader.read(most + 1)
            return headers.status_code, headers.get("Content-Type") or "", body
    except (OSError, ValueError):
        pass
    except BaseException as e:  # a panic of Rust is no Exception
        if type(e).__name__ != "PanicException":
            raise
    return None


def _typed(raw: Raw) -> Raw | Dropped:
    """A record by its media type, or by its bytes where it has none."""
    html = raw.media_type in HTML_TYPES or (not raw.media_type and raw.data[:SNIFFED].lstrip().startswith(b"<"))
    if not html and raw.media_type and raw.media_type not in TEXT_TYPES:
        return Dropped(MEDIA_TYPE, raw.url, raw.media_type)
    return _checked(dataclasses.replace(raw, kind="html" if html else "text"))


def _checked(raw: Raw) -> Raw | Dropped:
    """A record, unless it is empty or no text."""
    if not raw.data.strip(b" \t\r\n\f\0\xef\xbb\xbf"):
        return Dropped(EMPTY, raw.url)
    return Dropped(BINARY, raw.url) if _is_binary(raw.data, raw.charset) else raw


def _is_binary(data: bytes, charset: str) -> bool:
    head = data[:SNIFFED]
    if head.startswith(SIGNATURES):
        return True
    if head.startswith((b"\xfe\xff", b"\xff\xfe")) or codec(charset).startswith("utf-16"):
        return False
    return len(head) - len(head.translate(None, CONTROLS)) > MOST_CONTROLS * len(head) or head.count(0) > len(head) / 4


def _media_type(said: str) -> str:
    return said.partition(";")[0].partition(",")[0].strip().lower()[:100]


def _charset(said: str) -> str:
    found = CHARSET.search(said[:1000])
    return found[1] if found else ""


def _address(said: object) -> str:
    """Without what no address has: control characters, and marks that turn the text around it."""
    if not isinstance(said, str):
        return ""
    return NO_ADDRESS.sub("", said[:LONGEST_HEADER].strip("<> ")).encode(errors="replace").decode()


def _date(said: object) -> str:
    """ISO 8601; of a row, whose date may be one of Arrow's, or written with slashes and a space, too."""
    if isinstance(said, datetime.date):
        said = said.isoformat()
    if not isinstance(said, str):
        return ""
    said = SLASHES.sub(r"\1-\2-\3T", said[:40]).rstrip("T").replace(" ", "T")
    return said if DATE.fullmatch(said) else ""
