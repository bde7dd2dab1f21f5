# SPDX-License-Identifier: Apache-2.0
"""Formats of files: the same documents in each are the same documents, in ranges too; and the one line that bad files get."""

import bz2
import csv
import gzip
import io
import json
import lzma
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax import formats, storage
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Labelled
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.prepare.text import cut_file, read_file_documents, tidy
from mlm_jax.rows import Reading

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
texts = st.lists(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40), max_size=40
)


def comma(rows):
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def parquet(table, group=10):
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=group)
    return out.getvalue()


def arrow(table, new=pa.ipc.new_stream):
    out = io.BytesIO()
    with new(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return out.getvalue()


def table(documents):
    return pa.table({"n": list(range(len(documents))), "text": pa.array(documents, pa.string())})


WRITERS = {
    ".jsonl": lambda d: "".join(json.dumps({"n": i, "text": x}) + "\n" for i, x in enumerate(d)).encode(),
    ".json": lambda d: json.dumps(
        [{"n": i, "text": x} for i, x in enumerate(d)], ensure_ascii=False, indent=1
    ).encode(),
    ".csv": lambda d: comma([("n", "text"), *enumerate(d)]),
    ".parquet": lambda d: parquet(table(d)),
    ".arrow": lambda d: arrow(table(d)),
}
MORE = {
    ".json": lambda d: WRITERS[".jsonl"](d),
    ".csv": lambda d: b"\xef\xbb\xbf" + WRITERS[".csv"](d).replace(b"\r\n", b"\n"),
    ".arrow": lambda d: arrow(table(d), pa.ipc.new_file),
    ".parquet": lambda d: parquet(pa.table({"text": pa.array([x.encode() for x in d], pa.large_binary())})),
}


def read(path, **options):
    return [d for batch in read_file_documents(str(path), "line", "text", **options) for d in batch]


@settings(max_examples=40, deadline=None)
@given(texts, st.sampled_from(list(PACK)), st.integers(1, 300))
def test_every_format_gives_the_documents_that_were_written_in_ranges_too(tmp_path_factory, documents, packing, size):
    documents = ["first", *documents]  # a file without rows is refused
    folder = tmp_path_factory.mktemp("f")
    wanted = [tidied for document in documents if (tidied := tidy(document))]
    for writers in (WRITERS, MORE):
        for ending, write in writers.items():
            packed = packing if formats.FORMATS[ending].packed else ""
            path = folder / f"a{ending}{packed}"
            path.write_bytes(PACK[packed](write(documents)))
            assert read(path) == wanted, ending
            ranges = cut_file(str(path), "line", size)
            assert [d for begin, end in ranges for d in read(path, start=begin, end=end)] == wanted
            if ending == ".parquet" and size < 100:
                assert len(ranges) == -(-len(documents) // 10)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=30), max_size=40),
    st.integers(1, 300),
)
def test_a_tsv_with_a_header_in_ranges_too(tmp_path_factory, documents, size):
    path = tmp_path_factory.mktemp("f") / "a.tsv"
    path.write_text("n\ttext\n" + "".join(f"{i}\t{x}\n" for i, x in enumerate(documents)))
    wanted = [tidied for document in documents if (tidied := tidy(document))]
    assert read(path) == wanted
    assert [d for begin, end in cut_file(str(path), "line", size) for d in read(path, start=begin, end=end)] == wanted


@pytest.mark.parametrize("ending", WRITERS)
def test_several_fields_are_joined_and_nothing_in_one_is_no_text(tmp_path, ending):
    rows = [("A", "b c"), ("", "d"), ("E", "")]
    path = tmp_path / f"a{ending}"
    content = {
        ".jsonl": "".join(json.dumps({"title": a or None, "text": b}) + "\n" for a, b in rows).encode(),
        ".json": json.dumps([{"title": a or None, "text": b} for a, b in rows]).encode(),
        ".csv": comma([("title", "text"), *rows]),
    }
    made = pa.table({"title": [a or None for a, _ in rows], "text": [b for _, b in rows]})
    content |= {".parquet": parquet(made), ".arrow": arrow(made)}
    path.write_bytes(content[ending])
    found = [d for batch in read_file_documents(str(path), "line", ("title", "text")) for d in batch]
    assert found == ["A\nb c", "d", "E"]


def bad_utf8():
    # What says of itself that it is UTF-8, and is not.
    column = pa.array([b"fine", b"caf\xe9"], pa.binary())
    return pa.Array.from_buffers(pa.string(), 2, column.buffers())


HOSTILE = {
    "no column": ("a.parquet", lambda: parquet(pa.table({"Text": ["a"], "n": [1]})), r"a.parquet: no text in field 'text' \(there are Text, n\); did you mean Text\?; set Source.field"),
    "numbers": ("a.parquet", lambda: parquet(pa.table({"text": [1]})), "a.parquet:1: no text in field 'text', but int; set Source.field"),
    "a list": ("a.parquet", lambda: parquet(pa.table({"text": [["a"]]})), "a.parquet:1: no text in field 'text', but a list"),
    "nested": ("a.parquet", lambda: parquet(pa.table({"text": [{"body": "a"}]})), "a.parquet:1: no text in field 'text', but fields"),
    "truncated": ("a.parquet", lambda: parquet(pa.table({"text": ["a" * 1000] * 100}))[:-20], r"a.parquet: cannot be read: damaged or truncated, or another format \(.*\); fetch or write it again"),
    "no parquet": ("a.parquet", lambda: b"hello world, this is text", "a.parquet: cannot be read: damaged or truncated"),
    "page damaged": ("a.parquet", lambda: (d := parquet(pa.table({"text": [str(i) for i in range(999)]})))[:40] + bytes(300) + d[340:], "a.parquet: cannot be read: damaged"),
    "binary that is no text": ("a.parquet", lambda: parquet(pa.table({"text": [b"a", b"\xff"]})), "a.parquet:2: text: not UTF-8 at byte 0"),
    "NUL": ("a.parquet", lambda: parquet(pa.table({"text": ["a", "b\0c"]})), "a.parquet:2: text: a NUL character at character 1"),
    "too long": ("a.parquet", lambda: parquet(pa.table({"text": ["a", "b" * 3_000]})), "a.parquet:2: 3,000 bytes in 'text', 2,000 are the most; cut it up, or raise data.longest_document"),
    "two of a name": ("a.parquet", lambda: parquet(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])), "a.parquet: two columns 'text'"),
    "packed again": ("a.parquet.gz", lambda: gzip.compress(b""), "a.parquet.gz: .parquet files are compressed within, and read so; unpack it"),
    "not UTF-8": ("a.arrow", lambda: arrow(pa.table({"text": bad_utf8()})), "a.arrow: cannot be read: damaged .*UTF"),
    "cut off": ("a.arrow", lambda: arrow(pa.table({"text": ["a" * 100] * 50}))[:900], "a.arrow: cannot be read: damaged or truncated"),
    "nothing": ("a.arrow", lambda: b"", "a.arrow: cannot be read: damaged or truncated"),
    "no header": ("a.csv", lambda: b"1,hello\n2,world\n", r"a.csv:1: no text in field 'text' \(there are 1, hello\)"),
    "other mark": ("a.csv", lambda: b"n;text\n1;a\n", r"a.csv:1: no text in field 'text' \(there are n;text\)"),
    "a cell too many": ("a.csv", lambda: b'n,text\n1,"a\nb"\n2,b,c\n', r"a.csv:4: 3 columns, not 2 \(n, text\); mend the line"),
    "quotation mark": ("a.csv", lambda: b'n,text\n1,"a" b\n', r"a.csv:2: not CSV \(.*\); double the quotation marks"),
    "open to the end": ("a.csv", lambda: b'n,text\n1,a\n2,"b\nc\n', r"a.csv:3: not CSV \(unexpected end of data\)"),
    "open for long": ("a.csv", lambda: b'n,text\n1,a\n2,"b\n' + b"more\n" * 1_000, "a.csv:3: a row of over 2,000 bytes; close its quotation mark"),
    "Latin-1": ("a.csv", lambda: b"n,text\n1,caf\xe9\n", "a.csv:2: not UTF-8 at byte 12"),
    "NUL in CSV": ("a.csv", lambda: b"n,text\n1,a\0b\n", "a.csv:2: holds a NUL byte"),
    "empty": ("a.csv", lambda: b"", "a.csv: empty; remove it"),
    "empty, packed": ("a.jsonl.gz", lambda: gzip.compress(b""), "a.jsonl.gz: empty; remove it"),
    "TSV": ("a.tsv", lambda: b"n\ttxt\n1\ta\n", r"a.tsv:1: no text in field 'text' \(there are n, txt\); did you mean txt\?"),
    "no objects": ("a.json", lambda: b'[{"text": "a"}, 5]', "a.json:2: not a JSON object"),
    "cut JSON": ("a.json", lambda: b'[{"text": "a"},\n {"text', "a.json:2: not JSON"),
    "true": ("a.jsonl", lambda: b'{"text": true}', "a.jsonl:1: no text in field 'text', but true or false"),
    "another ending": ("a.parqet", lambda: b"", r"a.parqet: not a format that is read; did you mean .parquet\?; there are .txt, .jsonl, .json, .csv, .tsv, each also .gz, .bz2, .xz, .zst, and .parquet, .arrow"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_file_gets_one_line(tmp_path, name):
    file, content, message = HOSTILE[name]
    (tmp_path / file).write_bytes(content())
    with pytest.raises(UserError, match=message) as e:
        read(tmp_path / file, longest=2_000)
    assert "\n" not in str(e.value)


def test_a_parquet_file_is_read_piece_by_piece(tmp_path):
    """One row group of 200 MB as text: neither it nor its column is in memory at once."""
    size, count = 20_000, 10_000
    schema = pa.schema([("text", pa.string()), ("other", pa.string())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema, use_dictionary=False, compression="zstd") as writer:
        rows = [f"{i} " + "word " * (size // 5) for i in range(count)]
        writer.write_table(pa.table({"text": rows, "other": rows}, schema), row_group_size=count)
    del rows
    held, before = 0, pa.total_allocated_bytes()
    for i, part in enumerate(
        formats.format_of("a.parquet").rows(str(tmp_path / "a.parquet"), Reading(fields=("text",)))
    ):
        held = max(held, pa.total_allocated_bytes() - before)
        assert len(part.rows) <= 64 and part.rows[0]["text"].startswith(f"{64 * i} ")
    assert held < size * count / 5


def test_folders_that_datasets_saved_are_read_without_it(tmp_path):
    folder = tmp_path / "saved" / "sw"
    folder.mkdir(parents=True)
    about = {
        "info": {
            "features": {
                "text": {"dtype": "string", "_type": "Value"},
                "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
            }
        }
    }
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps(about)})
    for i in range(2):
        rows = pa.table({"text": [f"{i} a", f"{i} b"], "label": [1, -1]}, schema)
        (folder / f"data-0000{i}-of-00002.arrow").write_bytes(arrow(rows))
    files = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    for pattern in (folder, f"{tmp_path}/saved/*", f"{folder}/"):
        found = formats.data_files(str(pattern))
        assert [x.split("/")[-1] for x in found] == [f["filename"] for f in files]
    rows = [row for file in found for _, row in formats.read_rows(file, Reading())]
    assert [(row["text"], row["label"]) for row in rows] == [
        ("0 a", "yes"),
        ("0 b", None),
        ("1 a", "yes"),
        ("1 b", None),
    ]
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../../other.arrow"}]}))
    with pytest.raises(UserError, match=r"state.json: names no files of the folder in _data_files"):
        formats.data_files(str(folder))
    (folder / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state.json:1: not JSON"):
        formats.data_files(str(folder))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(
        UserError, match=r"a data set of several splits; name one of them: .*/saved/train, .*/saved/test"
    ):
        formats.data_files(f"{tmp_path}/saved")


def test_without_pyarrow_the_line_says_how_to_get_it(tmp_path, monkeypatch):
    from mlm_jax import arrow as reader

    reader.library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    try:
        with pytest.raises(UserError, match=r"needs pyarrow; run: pip install 'mlm_jax\[parquet\]'"):
            read(tmp_path / "a.parquet")
    finally:
        monkeypatch.undo()
        reader.library.cache_clear()


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_labelled_data_ends_at_the_largest_file(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    made = pa.table({"text": ["a" * 100] * 100, "label": ["b"] * 100})
    path.write_bytes((parquet if ending == ".parquet" else arrow)(made))
    assert len(TASKS["classify"].read_examples(Labelled("en", str(path)), Data(largest_file=20_000))) == 100
    with pytest.raises(UserError, match=f"a{ending}: over 5,000 bytes unpacked; cut it up, or raise data.largest_file"):
        TASKS["classify"].read_examples(Labelled("en", str(path)), Data(largest_file=5_000))


def test_the_files_of_tensorflow_are_as_good_as_pythons(tmp_path, monkeypatch):
    """By which epath reads gs:// where TensorFlow is installed."""
    tf = pytest.importorskip("tensorflow")

    class InBucket:
        def __init__(self, path):
            self.path = path

        def open(self, mode):
            return tf.io.gfile.GFile(self.path, mode)

        def stat(self):
            return SimpleNamespace(length=tf.io.gfile.stat(self.path).length)

    monkeypatch.setattr(storage, "epath", SimpleNamespace(Path=InBucket))
    monkeypatch.setattr("mlm_jax.arrow.in_bucket", lambda _: True)
    documents = [f"text {i}" for i in range(100)]
    for ending, write in WRITERS.items():
        (tmp_path / f"a{ending}").write_bytes(write(documents))
        ranges = cut_file(str(tmp_path / f"a{ending}"), "line", 100)
        assert [d for begin, end in ranges for d in read(tmp_path / f"a{ending}", start=begin, end=end)] == documents
