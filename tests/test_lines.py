# SPDX-License-Identifier: Apache-2.0
"""Lines: the same whatever the file is packed in; bad text refused with its line."""

import bz2
import gzip
import itertools
import json
import lzma

import pytest
import zstandard

from mlm_jax import lines
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Finetune, Labelled
from mlm_jax.finetune.predict import read_unlabelled
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.formats import Reading, read_rows
from mlm_jax.prepare.text import cut_file, read_file_documents

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


def texts(path):
    return [text for _, text in lines.read_lines(str(path))]


@pytest.mark.parametrize("suffix", PACK)
def test_what_is_text_for_pretraining_is_labelled_data_too(tmp_path, suffix):
    rows = [{"text": f"नमस्ते {i}", "label": i % 2} for i in range(3)]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix]("".join(json.dumps(row) + "\n" for row in rows).encode()))
    found = TASKS["classify"].read_examples(Labelled("hi", str(path)), Data())
    assert [(e.first, e.label) for e in found] == [(row["text"], str(row["label"])) for row in rows]
    assert found[1].where == f"{path}:2"
    assert [d for batch in read_file_documents(str(path), "line", "text") for d in batch] == [
        row["text"] for row in rows
    ]


def test_compressed_files_and_a_byte_order_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", 64)
    every = [f"line {i} é中" for i in range(500)]
    content = b"\xef\xbb\xbf" + "\r\n".join(every).encode()
    for suffix, pack in PACK.items():
        # Two parts one after the other, as files are when they are joined.
        (tmp_path / f"a.txt{suffix}").write_bytes(pack(content[:1000]) + pack(content[1000:]))
        assert cut_file(str(tmp_path / f"a.txt{suffix}"), "line", 10) == [(0, None)]
    (tmp_path / "a.txt").write_bytes(content)
    for suffix in ("", *PACK):
        assert list(lines.read_lines(str(tmp_path / f"a.txt{suffix}"))) == list(enumerate(every, 1))


def test_a_long_line_of_json_is_read_whole(tmp_path):
    (tmp_path / "a.json").write_bytes(b"x" * 12_000_000 + b"\n\nlast")
    found = [text for _, text in lines.read_lines(str(tmp_path / "a.json"), longest=None)]
    assert [len(text) for text in found] == [12_000_000, 0, 4]


def zstandard_frame(*blocks, window=17):
    """A frame of raw blocks (bytes) and of repeated ones (byte, times), whose window is of 2**window bytes."""
    made = b"\x28\xb5\x2f\xfd\x00" + bytes([(window - 10) << 3])
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        if isinstance(block, bytes):
            made += (len(block) << 3 | last).to_bytes(3, "little") + block
        else:
            made += (block[1] << 3 | 2 | last).to_bytes(3, "little") + block[0]
    return made


@pytest.mark.parametrize("window", [27, 28, 30, 31])
def test_zst_of_a_long_window_is_read(tmp_path, window):
    (tmp_path / "a.txt.zst").write_bytes(zstandard_frame(b"a\n", (b"b", 5), b"\nc", window=window) * 2)
    assert texts(tmp_path / "a.txt.zst") == ["a", "bbbbb", "ca", "bbbbb", "c"]


def test_a_bomb_is_unpacked_a_part_at_a_time(tmp_path, monkeypatch):
    # 60 KB that are 2 GB of zeros; and of empty lines.
    (tmp_path / "a.txt.zst").write_bytes(zstandard_frame(*[(b"\0", 131_072)] * 15_000))
    (tmp_path / "b.txt.zst").write_bytes(zstandard_frame(*[(b"\n", 131_072)] * 15_000, window=31))
    unpacked = []
    with (tmp_path / "a.txt.zst").open("rb") as file:
        for block, _ in zip(lines.UNPACK[".zst"](file), range(100), strict=False):
            unpacked.append(len(block))
    assert max(unpacked) <= lines.CHUNK
    with pytest.raises(UserError, match=r"a.txt.zst:1: (a line of over|holds a NUL)"):
        texts(tmp_path / "a.txt.zst")
    with pytest.raises(
        UserError, match=r"b.txt.zst: over 5,000,000 bytes unpacked; cut it up, or raise data.largest_file"
    ):
        list(lines.read_lines(str(tmp_path / "b.txt.zst"), 5_000_000, option="data.largest_file"))
    documents = read_file_documents(str(tmp_path / "b.txt.zst"), "paragraph", "text")
    assert [next(documents) for _ in range(3)] == [[], [], []]


READERS = {
    ".tsv": lambda path, data: TASKS["classify"].read_examples(Labelled("en", path), data),
    ".csv": lambda path, data: TASKS["classify"].read_examples(Labelled("en", path), data),
    ".jsonl": lambda path, data: TASKS["classify"].read_examples(Labelled("en", path), data),
    ".conll": lambda path, data: TASKS["tag"].read_examples(Labelled("en", path), data),
    ".json": lambda path, data: TASKS["span"].read_examples(Labelled("en", path), data),
    ".txt": lambda path, data: read_unlabelled(path, Finetune(data=data)),
}


@pytest.mark.parametrize("packed", ["", *PACK])
@pytest.mark.parametrize("suffix", READERS)
def test_every_reader_ends_at_the_largest_file(tmp_path, suffix, packed):
    path = tmp_path / f"a{suffix}{packed}"
    table = {".tsv": b"text\tlabel\n" + b"a\tb\n" * 1_000, ".csv": b"text,label\n" + b"a,b\n" * 1_000}
    content = table.get(suffix, b"{}\n" * 1_000)
    path.write_bytes(PACK.get(packed, bytes)(content))
    what = " unpacked" if packed else ""
    with pytest.raises(UserError, match=rf"a{suffix}{packed}: over 900 bytes{what}; .* raise data.largest_file"):
        READERS[suffix](str(path), Data(largest_file=900))


@pytest.mark.parametrize("packed", ["", *PACK])
@pytest.mark.parametrize("suffix", [suffix for suffix in READERS if suffix != ".json"])
def test_every_reader_ends_at_the_longest_line(tmp_path, suffix, packed):
    path = tmp_path / f"a{suffix}{packed}"
    first = {".jsonl": b'{"text": "a", "label": "b"}', ".csv": b"text,label"}.get(suffix, b"text\tlabel")
    path.write_bytes(PACK.get(packed, bytes)(first + b"\n" + b"x" * 13_000_000))
    with pytest.raises(UserError, match=rf"a{suffix}{packed}:2: a line of over 10,000,000 bytes"):
        READERS[suffix](str(path), Data())


@pytest.mark.parametrize("longest", [1_000, 1_001, 5_000, 10_000_000])
def test_long_paragraphs_are_cut_at_lines_and_nothing_is_lost(tmp_path, longest):
    every = [f"line {i} é中" * (1 + i % 3) for i in range(400)]
    text = "\n".join(every[:200]) + "\n\nshort\none\n\n" + "\n".join(every[200:])
    (tmp_path / "a.txt").write_text(text)
    found = [
        d for batch in read_file_documents(str(tmp_path / "a.txt"), "paragraph", "", longest=longest) for d in batch
    ]
    assert "\n".join(found).split("\n") == [*every[:200], "short", "one", *every[200:]]
    assert max(len(document.encode()) for document in found) <= longest
    assert "short\none" in found
    if longest == 10_000_000:
        assert len(found) == 3
    # As long as can be.
    assert all(len(f"{a}\n{b}".encode()) > longest for a, b in itertools.pairwise(found) if "short" not in a + b)


def test_the_option_for_documents_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("short\n" + "x" * 3_000_000 + "\n")
    with pytest.raises(UserError, match=r"a.txt:2: a line of over 2,000 bytes; .*, or raise data.longest_document"):
        list(read_file_documents(str(tmp_path / "a.txt"), "line", "", longest=2_000))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nb\xe9d\n", "a.txt:2: not UTF-8 at byte 6; convert the file"),
        (b"x" * 3_000_000 + b"\n" + b"y\n" * 9 + b"\xff", "a.txt:11: not UTF-8 at byte 3000019"),
        (b"fine\nb\0d\n", "a.txt:2: holds a NUL byte at byte 6"),
        (b"\xef\xbb\xbffine\n\0", "a.txt:2: holds a NUL byte at byte 8"),
        (b"fine\n" + b"x" * 20_000_000, "a.txt:2: a line of over 10,000,000 bytes"),
    ],
)
def test_bad_text_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(lines.read_chunks(str(tmp_path / "a.txt")))
    assert "\n" not in str(caught.value)
    # In a range that begins in the middle the line is still the file's.
    with pytest.raises(UserError, match=message):
        list(lines.read_chunks(str(tmp_path / "a.txt"), content.index(b"\n") + 1))


@pytest.mark.parametrize("suffix", PACK)
def test_cut_off_and_damaged_archives_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    packed = PACK[suffix]("\n".join(f"line {i}" for i in range(5000)).encode())
    for damaged in (packed[: len(packed) // 2], b"no archive at all"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{path.name}: cannot be unpacked: damaged or truncated after line \d+"):
            texts(path)
    path.write_bytes(PACK[suffix](b""))
    with pytest.raises(UserError, match="empty; remove it"):
        texts(path)


ESCAPES = {
    "high": ("\\ud83d here", r"half a surrogate pair at character 2"),
    "low": ("\\uDE00", "half a surrogate pair"),
    "the wrong way round": ("\\ude00\\ud83d", "half a surrogate pair"),
    "NUL": ("\\u0000", "a NUL character"),
    "after a backslash": ("\\\\\\ud83d", "half a surrogate pair"),
}
WHOLE = r"\ud83d\ude00 \\ud83d \u00e9 \u4e2d"


@pytest.mark.parametrize(("escape", "message"), ESCAPES.values(), ids=ESCAPES)
def test_json_whose_escapes_are_no_text_is_refused_with_its_line(tmp_path, escape, message):
    rows = tmp_path / "a.jsonl"
    rows.write_text(f'{{"text": "{WHOLE}"}}\n{{"text": "a {escape}"}}\n')
    with pytest.raises(UserError, match=rf"a.jsonl:2: {message}") as caught:
        list(read_rows(str(rows), Reading()))
    assert str(caught.value).isprintable()
    for row in (f'{{"a {escape}": 1}}', f'{{"text": ["a", {{"b": "a {escape}"}}]}}'):
        rows.write_text(f"{{}}\n{row}\n")
        with pytest.raises(UserError, match=rf"a.jsonl:2: {message}"):
            list(read_rows(str(rows), Reading()))
    questions = tmp_path / "a.json"
    questions.write_text(f'{{"version": "{WHOLE}",\n"data": [{{"paragraphs":\n [{{"context": "a {escape}"}}]}}]}}')
    with pytest.raises(UserError, match=rf"a.json:3: {message}"):
        TASKS["span"].read_examples(Labelled("en", str(questions)), Data())


def test_escapes_that_are_text_are_read_and_deep_json_is_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{WHOLE}"}}\n')
    assert [row["text"] for _, row in read_rows(str(tmp_path / "a.jsonl"), Reading())] == ["😀 \\ud83d é 中"]
    for deep in ("[" * 100_000, '{"a": ' + "9" * 10_000 + "}"):
        (tmp_path / "a.jsonl").write_text("{}\n" + deep + "\n")
        with pytest.raises(UserError, match=r"a.jsonl:2: not JSON that can be read"):
            list(read_rows(str(tmp_path / "a.jsonl"), Reading()))


def test_what_python_holds_is_checked_as_bytes_are():
    assert lines.check_text("é 😀 \u200b", "text 1") == "é 😀 \u200b"
    for text in ("a\0", "\ud83d", "é\udc80"):
        with pytest.raises(UserError, match="text 1: "):
            lines.check_text(text, "text 1")
