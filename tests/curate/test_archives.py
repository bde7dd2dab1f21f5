# SPDX-License-Identifier: Apache-2.0
"""Archives: what is whole is given, what is not is a count, and nothing takes memory or ends the reading."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlm_jax.curate import archives
from mlm_jax.curate.archives import Raw, kind_of, read_archive
from mlm_jax.curate.document import Dropped
from mlm_jax.errors import UserError
from tests.curate.web import DATA, read, reasons, record, response, shown, truth

pytest.importorskip("fastwarc")
pytest.importorskip("resiliparse")

A, B, C = (record(letter * 50, f"http://{letter.decode()}.org/") for letter in (b"a", b"b", b"c"))
ABC = ["http://a.org/", "http://b.org/", "http://c.org/"]
zip_ = gzip.compress
zstd = zstandard.ZstdCompressor(write_checksum=True).compress


@pytest.mark.parametrize("pack", [bytes, zip_, zstd])
def test_packed_or_not_by_record_or_whole(tmp_path, pack):
    apart = b"".join(map(pack, (A, B, C)))
    for data in (apart, pack(A + B + C)):
        found = read(tmp_path / "x.warc", data)
        assert shown(found) == ABC
        assert found[0] == Raw(b"a" * 50, "text", ABC[0], "2026-01-02T03:04:05Z", "text/plain", "utf-8")


@pytest.mark.parametrize("pack", [bytes, zip_, zstd])
@pytest.mark.parametrize("cut", [1, 6, 10, 60, 200])
def test_a_truncated_archive_gives_what_it_has_and_is_named(tmp_path, pack, cut):
    path = tmp_path / "x.warc.gz"
    data = pack(A) + pack(B) + pack(record(os.urandom(300).hex().encode(), ABC[2]))
    found = read(path, data[:-cut])
    assert shown(found)[:2] == ABC[:2]
    if pack is bytes and cut <= 4:
        assert shown(found) == ABC  # its text was whole
    else:
        last = found[-1]
        assert isinstance(last, Dropped) and last.reason == archives.TRUNCATED and last.url == str(path)
        assert "records" in last.text


@pytest.mark.parametrize("length", [10, 49, 80, 170, 10**7, 10**15, 2**64 + 50, -5, "x", "9" * 60_000])
@pytest.mark.parametrize("pack", [bytes, zip_])
def test_a_header_that_lies_about_its_length_costs_its_record(tmp_path, pack, length):
    lying = record(b"x" * 50, "http://lie.org/", length)
    found = read(tmp_path / "x.warc", pack(A) + pack(lying) + pack(B) + pack(C))
    assert shown(found) in ([ABC[0], reason, *ABC[1:]] for reason in (archives.DAMAGED, archives.TOO_LARGE))
    assert found[1].url == "http://lie.org/"


def test_damage_costs_what_it_hits(tmp_path):
    letters = random.Random(1).randbytes
    whole = [record(letters(500).hex().encode(), f"http://{i}.org/") for i in range(40)]
    for pack in (zip_, zstd):
        packed = [pack(one) for one in whole]
        hit = bytearray(packed[20])
        hit[100:200] = letters(100)
        found = read(tmp_path / "x.warc", b"".join([*packed[:20], hit, *packed[21:]]))
        given_ = [one for one in shown(found) if one != archives.DAMAGED]
        assert len(given_) >= 39 and archives.DAMAGED in shown(found)


def test_what_is_no_archive_is_a_count(tmp_path):
    assert shown(read(tmp_path / "x.warc", b"hello\n" * 100)) == [archives.DAMAGED]
    assert shown(read(tmp_path / "x.warc", os.urandom(100_000))) in ([archives.DAMAGED], [archives.DAMAGED] * 2)
    assert read(tmp_path / "x.warc", b"") == []
    assert shown(read(tmp_path / "x.warc", A + b"junk" * 1000 + b"\r\n" + B)) == [ABC[0], archives.DAMAGED, ABC[1]]


def test_an_address_of_a_megabyte_is_a_count(tmp_path):
    found = read(tmp_path / "x.warc", A + record(b"z", "http://" + "u" * 1_000_000) + C)
    assert shown(found) == [ABC[0], archives.DAMAGED, ABC[2]]


def bombs() -> Iterator[tuple[str, list[str], Iterator[bytes]]]:
    def zipped(*parts: bytes) -> Iterator[bytes]:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        for part in parts:
            yield packer.compress(part)
        yield packer.flush()

    zeros, line = [b"\0" * 1_000_000] * 150, [b"x" * 1_000_000] * 150
    huge = record(b"", "http://huge.org/", 150_000_000)[:-4]
    yield "x.warc", [ABC[0], archives.TOO_LARGE, ABC[1]], iter([A, huge, *line, b"\r\n\r\n", B])
    yield "x.warc.gz", [ABC[0], archives.TOO_LARGE, ABC[1]], iter([*zipped(A), *zipped(huge, *zeros), *zipped(B)])
    yield "x.warc.gz", [ABC[0], ABC[1]], iter([*zipped(A), *zipped(*zeros), *zipped(B)])
    yield (
        "x.warc.gz",
        [ABC[0], archives.DAMAGED, ABC[1]],
        iter([*zipped(A), *zipped(b"WARC/1.0\r\n", *line), *zipped(B)]),
    )
    yield "x.jsonl", [archives.TOO_LARGE, "u"], iter([b'{"text": "', *line, b'"}\n{"text": "b", "url": "u"}'])
    yield "x.txt", [archives.TOO_LARGE], iter(line)
    yield "x.html.gz", [archives.TOO_LARGE], zipped(*line)
    message = response(b"".join(zipped(*zeros)), b"Content-Type: text/html\r\nContent-Encoding: gzip")
    yield "x.warc", [archives.TOO_LARGE, ABC[0]], iter([message, A])


def test_what_is_large_is_a_count_and_no_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, expected, data in bombs():
        with open(tmp_path / name, "wb") as file:
            file.writelines(data)
        assert shown(list(read_archive(str(tmp_path / name), most=5_000_000))) == expected, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000  # KiB, of 150 MB unpacked


def test_pages_by_status_type_and_bytes(tmp_path):
    html = b"<p>text of a page</p>"
    cases = [
        (response(html), "http://a.org/"),
        (response(html, status=b"404 Not Found"), archives.STATUS),
        (response(html, status=b"xx"), archives.STATUS),
        (response(b""), archives.EMPTY),
        (response(b" \r\n"), archives.EMPTY),
        (response(os.urandom(3000)), archives.BINARY),
        (response(b"%PDF-1.7 " + html), archives.BINARY),
        (response(html, b"Content-Type: image/png"), archives.MEDIA_TYPE),
        (response(html, b"Content-Type: application/xhtml+xml"), "http://a.org/"),
        (response(html, b"X: y"), "http://a.org/"),
        (response("Ж".encode("utf-16"), b"Content-Type: text/html; charset=utf-16"), "http://a.org/"),
        (record(b"no message", kind="response", media="application/http"), archives.STATUS),
        (record(html, kind="resource", media="text/html"), "http://a.org/"),
    ]
    found = read(tmp_path / "x.warc", b"".join(one for one, _ in cases))
    assert shown(found) == [expected for _, expected in cases]
    passed = b"".join(record(b"x", kind=kind) for kind in ("warcinfo", "request", "metadata", "revisit"))
    assert read(tmp_path / "x.warc", passed) == []


def test_bodies_are_decoded_where_they_are_coded(tmp_path):
    for head, body in (
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"hello"),  # undone by the archive, the header kept
        (b"Content-Encoding: gzip", gzip.compress(b"hello")),
        (b"Content-Encoding: gzip", b"hello"),
    ):
        (found,) = read(tmp_path / "x.warc", response(body, b"Content-Type: text/html; charset=x-y\r\n" + head))
        assert isinstance(found, Raw) and found.data == b"hello" and found.charset == "x-y" and found.kind == "html", (
            head
        )


def test_json_lines(tmp_path):
    lines = [
        json.dumps({"text": "ä", "title": "T", "url": "u", "date": "2026-01-01"}).encode(),
        b'{"text": "half \\ud800 pair", "title": "T"}',
        b"not json",
        b"[1]",
        b'{"text": 3}',
        b'{"title": "T"}',
        b"\xff",
        b"[" * 100_000,
        b"",
        b'{"text": "end", "title": "T"}',
    ]
    path = tmp_path / "x.jsonl.zst"
    found = read(path, zstd(b"\n".join(lines)), fields=("title", "text"))
    assert found[0] == Raw("T\nä".encode(), "text", "u", "2026-01-01", "text/plain", "utf-8")
    assert isinstance(found[1], Raw) and found[1].data.decode() == "T\nhalf ? pair" and found[1].url == ""
    D, F = archives.DAMAGED, archives.NO_FIELD
    assert shown(found)[2:] == [D, D, F, F, D, D, ""]


def test_text_files_are_parted_as_said(tmp_path):
    data = b"a\nb\r\n\n\nc\n\nd"
    for apart, expected in (("file", [data]), ("blank", [b"a\nb", b"c", b"d"]), ("line", [b"a", b"b", b"c", b"d"])):
        found = read(tmp_path / "x.txt", data, apart=apart)
        assert [one.data for one in found if isinstance(one, Raw)] == expected
    (page,) = read(tmp_path / "x.html", b"<p>x")
    assert isinstance(page, Raw) and page.kind == "html"


def test_kinds_by_name(tmp_path):
    assert [kind_of(name) for name in ("a.warc.gz", "a.warc.wet.gz", "a.HTML", "a.jsonl.zst", "a.txt", "a.bin")] == [
        "warc", "warc", "html", "json", "text", None,
    ]  # fmt: skip
    with pytest.raises(UserError, match="kind"):
        list(read_archive(str(tmp_path / "a.bin")))
    with pytest.raises(FileNotFoundError):
        list(read_archive(str(tmp_path / "a.warc")))


PIECES = st.sampled_from(
    [
        A,
        B[:60],
        C,
        b"WARC/1.0\r\n",
        b"Content-Length: 7\r\n",
        b"\r\n\r\n",
        zip_(A),
        zip_(B)[:50],
        zstd(C),
        zstd(A)[:30],
        b"HTTP/1.1 200 OK\r\n",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(PIECES | st.binary(max_size=300), max_size=8), st.sampled_from(["x.warc", "x.jsonl", "x.txt", "x.html"])
)
@example([response(b"x" * 9)[:-20], A], "x.warc")
def test_any_bytes_end_in_records_and_counts(tmp_path, parts, name):
    found = read(tmp_path / name, b"".join(parts), most=2_000)
    assert all(isinstance(one, Raw | Dropped) for one in found)
    assert all(len(one.data) <= 2_000 for one in found if isinstance(one, Raw))
    assert set(reasons(found)) <= set(archives.READING)
    assert found == list(read_archive(str(tmp_path / name), most=2_000))


def test_shared_pages():
    known = truth()
    found = [one for path in sorted((DATA / "web").glob("*[0-9].warc.gz")) for one in read_archive(str(path))]
    assert len(found) == len(known)
    wrong = {"error": archives.STATUS, "empty": archives.EMPTY}
    for one in found:
        kind = known[one.url]["kind"]
        if kind == "binary":
            assert isinstance(one, Dropped) and one.reason in (archives.BINARY, archives.MEDIA_TYPE)
        else:
            assert (one.reason if isinstance(one, Dropped) else None) == wrong.get(kind)
