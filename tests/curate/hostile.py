# SPDX-License-Identifier: Apache-2.0
"""Files that mean harm, or that somebody's broken program wrote."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from tests.curate.web import record, response

MB = 1 << 20


def sentences(number: int, name: str) -> str:
    """English that passes every rule, different for each name."""
    words = f"the of and to in that {name} was for with his they this have which one you were all her she there would their we been has when".split()
    lines = []
    for i in range(number):
        cut = words[i % 11 :] + words[: i % 11]
        lines.append(" ".join([*cut[: 12 + i % 7], f"{name}{i}"]).capitalize() + ".")
    return "\n".join(lines)


def page(text: str) -> bytes:
    paragraphs = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    return f"<html><head><title>t</title></head><body><main>{paragraphs}</main></body></html>".encode()


def packed(parts: Iterator[bytes] | list[bytes], kind: str) -> Iterator[bytes]:
    """Parts as one gzip member or Zstandard frame, so that bombs are made in little memory."""
    if kind == "gz":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        yield from (packer.compress(part) for part in parts)
    else:
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        yield from (packer.compress(part) for part in parts)
    yield packer.flush()


def repeated(begin: bytes, part: bytes, times: int, end: bytes = b"") -> Iterator[bytes]:
    yield begin
    for _ in range(times):
        yield part
    yield end


def parquet(path: Path, columns: dict[str, list[object]], **types: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path)


def fasttext_model(path: Path, labels: list[str]) -> None:
    """A fastText model of one word and some labels, in the form of version 12."""
    entries = [("</s>", 0), *((f"__label__{label}", 1) for label in labels)]
    arguments = (2, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100)  # dimensions, …, softmax, supervised, no buckets
    data = struct.pack("<ii12id", 793712314, 12, *arguments, 1e-4)
    data += struct.pack("<iiiqq", len(entries), 1, len(labels), len(entries), -1)
    data += b"".join(name.encode() + b"\0" + struct.pack("<qb", 1, kind) for name, kind in entries)
    for rows in (1, len(labels)):
        data += struct.pack("<?qq", False, rows, 2) + struct.pack(f"<{2 * rows}f", *[0.1] * (2 * rows))
    path.write_bytes(data)


def write_small(folder: Path) -> dict[str, set[str]]:
    """Hostile files of at most some MB.

    Returns:
      Name of what is in them (a word that is in no other text, or an address) → what may become of it: reasons, or "kept".
    """
    outcomes: dict[str, set[str]] = {}

    def write(name: str, data: bytes, word: str, *may: str) -> None:
        (folder / name).write_bytes(data)
        if may:
            outcomes[word] = set(may)

    def text(word: str) -> str:
        return sentences(14, word)

    write("deep.html", b"<div>" * 100_000 + page(text("deepest")), "deepest", "kept", "no_main_text")
    write("closing.html", b"</div>" * 100_000 + page(text("closing")), "closing", "kept", "no_main_text")
    write(
        "attributes.html",
        b"<p " + b"a=b " * 200_000 + b">" + page(text("attributed")),
        "attributed",
        "kept",
        "no_main_text",
    )
    write("unclosed.html", b"<!--" + page(text("unclosed")), "unclosed.html", "no_main_text", "empty")
    write("tables.html", b"<table><tr><td>" * 20_000 + page(text("tabled")), "tabled", "kept", "no_main_text")
    write("entities.html", page(text("entities").replace(" ", "&nbsp;&#0;&#xD800;&#x110000;", 3)), "entities", "kept")
    write("invalid.html", page(text("corrupt")).replace(b" ", b" \xff\xfe\xc0 ", 4), "corrupt0", "kept", "binary")
    write("utf16.html", b"\xff\xfe" + page(text("little")).decode().encode("utf-16-le"), "little0", "kept")
    write("utf16be.html", b"\xfe\xff" + page(text("bigger")).decode().encode("utf-16-be"), "bigger0", "kept")
    write("pdf.html", b"%PDF-1.7\n" + page(text("pdf")), "pdf.html", "binary")
    write("zip.txt", b"PK\x03\x04" + bytes(2000), "zip.txt", "binary")
    write("nul.txt", text("nully").replace(" ", " \0", 5).encode(), "nully", "kept")
    write("controls.txt", text("controlled").replace(" ", " \x1b[31m\x07", 3).encode(), "controlled", "kept")
    write("bidi.txt", text("bidirectional").replace(" ", " \u202e\u2066", 6).encode(), "bidirectional", "kept")
    write(
        "combining.txt", (text("combined") + "\n" + "a" + "\u0301" * 100_000).encode(), "combined", "kept", "long_words"
    )
    for name in ("empty.html", "empty.csv", "empty.tsv", "empty.txt"):
        write(name, b"", name, "empty")
    for name in ("empty.warc", "empty.jsonl", "empty.warc.gz"):
        write(name, b"", name)
    write("new\nline.txt", text("newlined").encode(), "newlined", "kept")
    write("\u202etxt.txt", text("reversed").encode(), "reversed", "kept")
    write("quote'\"<b>.txt", text("quoted").encode(), "quoted", "kept")
    write("gz.warc", gzip.compress(record(text("hidden").encode(), "http://hidden.org/")), "hidden", "kept")
    write("lies.warc", record(text("lying").encode(), "http://lying.org/", 10**7), "lies.warc", "truncated")
    write("short.warc", record(text("short").encode(), "http://short.org/", 20), "http://short.org/", "damaged")
    write(
        "negative.warc",
        record(text("negative").encode(), "http://negative.org/", -5),
        "http://negative.org/",
        "damaged",
    )
    write("long.warc", record(b"x", "http://" + "u" * MB), "long.warc", "damaged")
    write("huge.warc", record(text("huge").encode(), "http://huge.org/", 2**62), "http://huge.org/", "too_large")
    write(
        "type.warc",
        response(text("typed").encode(), b"Content-Type: text/html" + b"; x=y" * 9000, url="http://typed.org/"),
        "http://typed.org/",
        "damaged",
        "no_main_text",
        "kept",
    )
    write(
        "chunked.warc",
        response(
            b"ffffffffffffffff\r\n" + page(text("chunked")),
            b"Content-Type: text/html\r\nTransfer-Encoding: chunked",
            url="http://chunked.org/",
        ),
        "http://chunked.org/",
        "damaged",
        "kept",
        "empty",
        "unfinished_lines",
        "copied paragraphs",
    )
    rows: list[object] = [
        {"text": text("surrogate") + " \ud800 half", "url": "http://surrogate.org/"},
        {"text": text("urlless"), "url": ["no", {"address": 1}], "date": {"a": 1}},
        {"text": text("bidiurl"), "url": "http://\u202eevil\u2066.org/\x00\x1b"},
        {"text": text("longurl"), "url": "http://" + "u" * MB},
        {"text": {"nested": "text"}, "url": "http://nested.org/"},
        {"text": None},
        [1, 2],
        7,
        {"text": text("infinite"), "score": float("inf"), "url": "http://infinite.org/"},
    ]  # fmt: skip
    lines = [json.dumps(row).encode() for row in rows]
    lines += [
        b"[" * 100_000,
        b"{" * 50_000,
        b'{"text": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": "cut',
    ]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    outcomes |= {word: {"kept"} for word in ("surrogate", "urlless", "bidiurl", "longurl", "infinite")}
    write(
        "ragged.csv", b'text,url\n"' + text("uneven").encode() + b'",http://r.org/\none,two,three\n', "uneven", "kept"
    )
    write("open.csv", b'text,url\n"' + text("opened").encode(), "open.csv", "damaged")
    write("nul.csv", b"text\n\0\n" + b"\xff\n", "nul.csv")
    try:
        import pyarrow as pa
    except ImportError:
        return outcomes
    parquet(folder / "nulls.parquet", {"text": [None] * 9}, text=pa.string())
    parquet(folder / "none.parquet", {"text": [None] * 9})
    parquet(
        folder / "strings.parquet",
        {"text": [text("columned"), "x" * (20 * MB)], "url": ["http://c.org/", "http://large.org/"]},
    )
    outcomes |= {"columned": {"kept"}, "http://large.org/": {"too_large"}}
    parquet(folder / "bytes.parquet", {"text": [text("bytewise").encode() + b"\xff"]}, text=pa.binary())
    parquet(folder / "urls.parquet", {"text": [text("numbered")], "url": [{"a": 1}], "date": [7]})
    outcomes |= {"bytewise": {"kept"}, "numbered": {"kept"}}
    write("empty.parquet", b"", "empty.parquet", "empty")
    parquet(folder / "long.parquet", {"text": ["x" * (30 * MB), "y" * (30 * MB)]})
    outcomes["long.parquet"] = {"damaged"}
    whole = (folder / "strings.parquet").read_bytes()
    write("cut.parquet", whole[: len(whole) // 2], "cut.parquet", "damaged")
    write("no.parquet", b"PAR1" + bytes(1000) + b"PAR1", "no.parquet", "damaged")
    return outcomes


def write_large(folder: Path) -> dict[str, str]:
    """Files that unpack to a gigabyte or hundreds of megabytes, few of which lie on the disk.

    Returns:
      Name of the file, or an address in it → the reason that is counted.
    """
    zeros, letters, digits = bytes(MB), b"x" * MB, b"1 " * (MB // 2)
    head = record(b"", "http://gigabyte.org/", 1 << 30)[:-4]
    bomb = b"".join(packed(repeated(b"<p>", zeros, 1 << 10), "gz"))  # of the HTTP body
    coded = response(bomb, b"Content-Type: text/html\r\nContent-Encoding: gzip", url="http://bomb.org/")
    files: dict[str, tuple[Iterator[bytes], str]] = {
        "record.warc.gz": (packed(repeated(head, letters, 1 << 10), "gz"), "too_large"),
        "bomb.warc.zst": (packed(repeated(b"WARC/1.0\r\n", zeros, 1 << 10), "zst"), "damaged"),
        "body.warc": (iter([coded]), "too_large"),
        "line.jsonl": (repeated(b'{"text": "', letters, 100, b'"}\n'), "too_large"),
        "bomb.jsonl.gz": (packed(repeated(b"", zeros, 1 << 10), "gz"), "too_large"),
        "line.csv": (repeated(b"text\n", digits, 100), "damaged"),
        "bomb.csv.gz": (packed(repeated(b'text\n"', b"\n" * MB, 300), "gz"), "damaged"),
        "line.txt": (repeated(b"", letters, 100), "too_large"),
        "bomb.html.gz": (packed(repeated(b"<p>", b"<p>" * (MB // 3), 1 << 10), "gz"), "too_large"),
    }
    for name, (parts, _) in files.items():
        with (folder / name).open("wb") as file:
            file.writelines(parts)
    reasons = {name: reason for name, (_, reason) in files.items()}
    for name, url in {"record.warc.gz": "http://gigabyte.org/", "body.warc": "http://bomb.org/"}.items():
        reasons[url] = reasons.pop(name)
    return reasons
