# SPDX-License-Identifier: Apache-2.0
"""Reading text: every document once, whatever the file is cut into; bad text refused with its place."""

import gzip
import json

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.errors import UserError
from mlm_jax.prepare import text

line = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


def read(path, documents="line", field="text", **range_):
    return [d for batch in text.read_documents(str(path), documents, field, **range_) for d in batch]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(line, min_size=1, max_size=60), st.integers(1, 200), st.sampled_from(["line", "paragraph"]), st.booleans()
)
def test_a_file_in_ranges_gives_what_the_whole_file_gives(tmp_path_factory, lines, size, documents, crlf):
    path = tmp_path_factory.mktemp("t") / "a.txt"
    path.write_bytes(("\r\n" if crlf else "\n").join(lines).encode())
    whole = read(path, documents)
    ranges = text.cut_file(str(path), documents, size)
    parts = [d for start, end in ranges for d in read(path, documents, start=start, end=end)]
    assert parts == whole
    if documents == "line":
        assert whole == [stripped for entry in lines if (stripped := entry.strip())]
    assert all(d.strip() == d and d for d in whole)


def test_paragraphs(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n \nthree\n\nfour\nfive")
    assert read(tmp_path / "a.txt", "paragraph") == ["one\ntwo", "three", "four\nfive"]


def test_compressed_files_and_a_byte_order_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "CHUNK", 64)
    lines = [f"line {i} é中" for i in range(500)]
    content = b"\xef\xbb\xbf" + "\n".join(lines).encode()
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    # Two frames one after the other, as zstd writes them when files are joined.
    packed = zstandard.ZstdCompressor().compress
    (tmp_path / "a.txt.zst").write_bytes(packed(content[:1000]) + packed(content[1000:]))
    for name in ("a.txt", "a.txt.gz", "a.txt.zst"):
        assert read(tmp_path / name) == lines
        assert name == "a.txt" or text.cut_file(str(tmp_path / name), "line", 10) == [(0, None)]


def test_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"body": f"text {i}\nmore", "n": i}) for i in range(3)))
    assert read(tmp_path / "a.jsonl", field="body") == [f"text {i}\nmore" for i in range(3)]
    with pytest.raises(UserError, match=r"a.jsonl: byte 0: no text in field 'text' \(the line has body, n\)"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"text": "fine"}\n{"text": ')
    with pytest.raises(UserError, match=r"b.jsonl: byte 17: not JSON"):
        read(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nb\xe9d\n", "a.txt: byte 6: not UTF-8; convert the file"),
        (b"x" * 3_000_000 + b"\n" + b"y\n" * 9 + b"\xff", "a.txt: byte 3000019: not UTF-8"),
        (b"fine\nb\0d\n", "a.txt: byte 6: a NUL byte"),
        (b"fine\n" + b"x" * 20_000_000, "a.txt: byte 5: a line of over 10,000,000 bytes"),
    ],
)
def test_bad_text_is_refused_with_its_place(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_cut_off_and_damaged_archives_are_refused(tmp_path, name):
    content = "\n".join(f"line {i}" for i in range(5000)).encode()
    pack = gzip.compress if name.endswith("gz") else zstandard.ZstdCompressor().compress
    packed = pack(content)
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match="damaged or truncated"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(UserError, match="damaged or truncated"):
        read(tmp_path / name)
