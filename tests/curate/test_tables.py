# SPDX-License-Identifier: Apache-2.0
"""Rows of every format that has fields are the same records; what is wrong with one is a count, what is wrong with an option a line."""

from __future__ import annotations

import contextlib
import datetime
import json
import random

import pytest

from mlm_jax.curate import archives
from mlm_jax.curate.archives import Raw, read_archive
from mlm_jax.curate.document import Dropped
from mlm_jax.curate.rules import texts_of
from mlm_jax.curate.tables import is_table, read_table
from mlm_jax.errors import UserError
from mlm_jax.rows import WrongField
from tests.curate.tables import WRITERS, parquet

pytest.importorskip("resiliparse")  # of the extra curate, as the others here
pa = pytest.importorskip("pyarrow")

ROWS = [
    {"id": 1, "title": "T", "text": 'ä, "b"\nc', "url": "http://a.org/", "date": "2026-01-02T03:04:05Z"},
    {"id": 2, "title": "", "text": "中文", "url": "", "date": "no date"},
    {"id": 3, "title": "x", "text": "end", "url": "http://c.org/", "date": "2026-01-02"},
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def of_json(tmp_path, rows, **options):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows))
    return list(read_archive(str(path), **options))


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("fields", [("text",), ("title", "text")])
def test_every_format_gives_what_json_lines_give(tmp_path, ending, fields):
    path = tmp_path / f"a{ending}"
    path.write_bytes(WRITERS[ending](ROWS))
    rows = [row | {"text": row["text"].replace("\n", " ")} for row in ROWS] if ending == ".tsv" else ROWS
    found = list(read_table(str(path), fields))
    assert found == of_json(tmp_path, rows, fields=fields)
    assert [(one.url, one.date) for one in found if isinstance(one, Raw)] == [
        ("http://a.org/", "2026-01-02T03:04:05Z"), ("", ""), ("http://c.org/", "2026-01-02"),
    ]  # fmt: skip


def test_a_data_set_saved_or_loaded_gives_the_same(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.parquet").write_bytes(parquet(ROWS))
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    expected = of_json(tmp_path, ROWS, fields=("text",))
    assert list(read_table(f"hf:{tmp_path}/folder:train", ("text",))) == expected
    (file,) = (tmp_path / "saved").glob("*.arrow")
    assert is_table(str(file)) and list(read_table(str(file), ("text",))) == expected


def test_dates_as_arrow_and_corpora_have_them(tmp_path):
    rows = [
        {"text": "a", "timestamp": "2019/10/24 02:01:12"},
        {"text": "a", "ts": "2017-05-26T14:00:37Z", "u": "http://u.org/"},
        {"text": "a", "timestamp": "2019/10/24"},
        {"text": "a", "timestamp": 17, "date": None},
        {"text": "a", "date": "2019-10-24 and more"},
    ]
    found = of_json(tmp_path, rows)
    assert [one.date for one in found] == ["2019-10-24T02:01:12", "2017-05-26T14:00:37Z", "2019-10-24", "", ""]
    assert found[1].url == "http://u.org/"
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet([{"text": "a", "date": datetime.datetime(2026, 1, 2, 3, 4, 5)}]))
    (one,) = read_table(str(path), ("text",))
    assert one.date == "2026-01-02T03:04:05"


@pytest.mark.parametrize("ending", WRITERS)
def test_a_column_that_is_not_there_is_a_line_with_those_there_are(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(WRITERS[ending]([{"id": 1, "txet": "a"}]))
    with pytest.raises(
        UserError, match=r"no text in field 'text' \(there are id, txet\); did you mean txet\?; set field"
    ):
        list(read_table(str(path), ("text",)))


@pytest.mark.parametrize("value", [{"a": "b"}, ["a"], 7, True])
def test_a_column_that_is_no_text_is_a_line(tmp_path, value):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet([{"text": value}]))
    with pytest.raises(UserError, match=r"a\.parquet:1: no text in field 'text', but .*; set field"):
        list(read_table(str(path), ("text",)))


def test_what_is_wrong_with_a_row_is_a_count(tmp_path):
    texts = [b"a", None, b"\xff\xfe\xfd bytes", b"x" * 3000, b"nul \0 in it", b"", b"end"]
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(pa.table({"text": pa.array(texts, pa.binary())})))
    found = list(read_table(str(path), ("text",), most=2000))
    assert [one.reason if isinstance(one, Dropped) else one.data.decode() for one in found] == [
        "a", archives.EMPTY, "\ufffd\ufffd\ufffd bytes", archives.TOO_LARGE, "nul \0 in it", archives.EMPTY, "end",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", WRITERS)
def test_damage_ends_a_file_which_gives_what_it_has(tmp_path, ending):
    draw = random.Random(1)
    rows = [{"text": draw.randbytes(400).hex(), "url": f"http://{i}.org/"} for i in range(300)]
    write = WRITERS[ending]
    data = parquet(rows, row_group_size=50) if ending == ".parquet" else write(rows)
    hit = bytearray(data)
    at = len(data) * 3 // 4
    hit[at : at + 50] = b'"\t\0\xff\n,' * 8 + b'""'
    path = tmp_path / f"a{ending}"
    path.write_bytes(hit)
    found = list(read_table(str(path), ("text",)))
    given = [one for one in found if isinstance(one, Raw)]
    assert [one.url for one in given[:10]] == [row["url"] for row in rows[:10]] or ending == ".arrow"
    assert all(one.reason == archives.DAMAGED and one.url == str(path) for one in found if isinstance(one, Dropped))
    path.write_bytes(data[: at + 1])
    list(read_table(str(path), ("text",)))  # Parquet's list of what is where is at its end


def test_what_a_parquet_file_says_of_itself_may_be_anything(tmp_path):
    """Arrow 26 ends the process on some damaged descriptions of columns; those are not asked for."""
    draw = random.Random(2)
    data = parquet([{"text": f"text {i}", "url": f"http://{i}.org/", "date": "2026-01-01"} for i in range(100)])
    path = tmp_path / "a.parquet"
    reasons = set()
    for _ in range(600):
        hit = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 8])):
            at = max(0, len(hit) - draw.randrange(1200) - 1)
            hit[at : at + draw.choice([1, 4])] = draw.randbytes(draw.choice([0, 1, 4]))
        path.write_bytes(hit)
        found: list[Raw | Dropped] = []
        with contextlib.suppress(WrongField):  # of names that are damaged
            found = list(read_table(str(path), ("text",)))
        reasons |= {one.reason if isinstance(one, Dropped) else "given" for one in found}
    assert reasons <= {"given", archives.DAMAGED, archives.EMPTY, archives.TOO_LARGE} and len(reasons) > 1


def test_evaluation_sets_in_every_format(tmp_path):
    rows = [{"context": "one text", "answers": {"text": ["a", "b"]}}, {"context": "two", "answers": {"text": ["c"]}}]
    expected = ["one text", "a", "b", "two", "c"]
    written = {
        "a.jsonl": lines(rows),
        "a.json": json.dumps({"data": rows}, indent=1).encode(),
        "b.json": json.dumps(rows).encode(),
        "c.json": lines(rows),
        "a.parquet": parquet(rows),
        "a.csv": b"context,answers\none text,a\nb,two\nc,d\n",
        "a.tsv": b"one text\ta\tb\ntwo\tc\n",
        "a.txt": b"one text\na\nb\ntwo\nc\n",
    }
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
        assert list(texts_of(str(tmp_path / name)))[:5] == expected, name
