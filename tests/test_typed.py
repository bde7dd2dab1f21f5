# SPDX-License-Identifier: Apache-2.0
"""What JSON holds, as a type, or where it is of another."""

import json
import pickle
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from mlm_jax.errors import UserError
from mlm_jax.fields import AtLeast
from mlm_jax.stored import parse_stored, read_arrays, read_json
from mlm_jax.typed import as_type


class Row(TypedDict):
    name: str
    value: float | None
    more: NotRequired[int]


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, AtLeast(1)] = 3
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[str, int] = ("x", 1)
    many: tuple[Inner, ...] = ()
    rows: Any = None
    note: str = ""


def test_dataclasses_are_made_and_all_else_stays():
    stored = json.loads('{"inner": {"size": 5}, "pair": ["y", 2], "many": [{}, {"kind": "b"}], "rows": {"z": [1]}}')
    assert as_type(Outer, stored) == Outer(Inner(5), ("y", 2), (Inner(), Inner(kind="b")), {"z": [1]})
    rows = [{"name": "x", "value": 1, "other": {}}]
    assert as_type(list[Row], rows) == rows
    assert as_type(Inner, {"kind": "b"}, Inner(7)) == Inner(7, "b")


@pytest.mark.parametrize(
    ("kind", "stored", "message"),
    [
        (Outer, "[]", "it: a list is not an object"),
        (Outer, "null", "it: None is not an object"),
        (Outer, "{}", "it lacks inner"),
        (Outer, '{"inner": 1}', "inner: 1 is not an object"),
        (Outer, '{"inner": {"size": "5"}}', "inner.size: '5' is not a whole number"),
        (Outer, '{"inner": {"size": true}}', "inner.size: True is not a whole number"),
        (Outer, '{"inner": {"size": 0}}', "inner.size: 0 is less than 1"),
        (Outer, '{"inner": {"size": 1e5}}', "inner.size: 100000.0 is not a whole number"),
        (Outer, f'{{"inner": {{"size": {10**30}}}}}', "below 2..63"),
        (Outer, '{"inner": {"kind": "c"}}', "inner.kind: 'c' is not 'a' or 'b'"),
        (Outer, '{"inner": {"kind": ["a"]}}', "inner.kind: a list is not"),
        (Outer, '{"inner": {}, "many": [{}, 7]}', r"many\[1\]: 7 is not an object"),
        (Outer, '{"inner": {}, "many": {}}', "many: an object is not a list"),
        (Outer, '{"inner": {}, "pair": ["x"]}', "pair: 1 items, not 2"),
        (Outer, '{"inner": {}, "new": 1}', "new: there is no such field"),
        (list[Row], '[{"name": "x"}]', r"\[0\] lacks value"),
        (list[Row], '[{"name": "x", "value": "1"}]', r"\[0\].value: '1' is not a number"),
        (list[Row], '[{"name": "x", "value": 1, "more": null}]', r"\[0\].more: None is not a whole"),
        (dict[str, int], '{"a": []}', "a: a list is not a whole"),
        (Any, "{", "not JSON"),
        (Any, "[" * 100_000, "not JSON"),
        (Any, '"\\ud800"', "not JSON"),
        (Any, '"\\u0000"', "not JSON .a NUL"),
        (Any, "9" * 5_000, "not JSON"),
    ],
)
def test_another_type_is_refused_by_the_name_of_its_place(tmp_path, kind, stored, message):
    path = tmp_path / "stored.json"
    path.write_text(stored)
    with pytest.raises(UserError, match=message) as caught:
        read_json(path, kind, "do this")
    assert (
        str(caught.value).startswith(f"{path}: ")
        and str(caught.value).endswith("; do this")
        and "\n" not in str(caught.value)
    )


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(UserError, match=r"a.json: not JSON .*utf-8"):
        parse_stored(b"\xff\xfe{}", "a.json", Any)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + b"\0" * 18, b"\x93NUMPY\x01\0\xff\xff", b"\x80\x04N.", b"{}"])
def test_damaged_arrays_are_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.npz: damaged .*; restore it"):
        read_arrays(path, ids=("int64", 1))


def test_what_a_refusal_cites_stays_in_its_line():
    told = str(UserError("a\nb\r\x1b[2J\u2028c: no such file; é 中 \\n"))
    assert told == "a\\nb\\r\\x1b[2J\\u2028c: no such file; é 中 \\n"
    assert str(UserError(told)) == told and str(pickle.loads(pickle.dumps(UserError("a\nb")))) == "a\\nb"
