# SPDX-License-Identifier: Apache-2.0
"""Documents: every one once, whatever the file is cut into; a bad line refused with its number."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.errors import UserError
from mlm_jax.prepare import text

line = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


def read(path, documents="line", field="text", **range_):
    return [d for batch in text.read_file_documents(str(path), documents, field, **range_) for d in batch]


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


def test_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"body": f"text {i}\nmore", "n": i}) for i in range(3)))
    assert read(tmp_path / "a.jsonl", field="body") == [f"text {i}\nmore" for i in range(3)]
    with pytest.raises(UserError, match=r"a.jsonl:1: no text in field 'text' \(there are body, n\); set Source.field"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"text": "fine"}\n{"text": ')
    with pytest.raises(UserError, match=r"b.jsonl:2: not JSON"):
        read(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match=r"b.jsonl:2: not JSON"):  # the line of the file, not of the range
        read(tmp_path / "b.jsonl", start=17)
