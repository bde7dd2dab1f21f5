# SPDX-License-Identifier: Apache-2.0
"""Hostile input through the whole command: each file is a count or a line, never a crash, never memory."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import zstandard

pytest.importorskip("py3langid")
pytest.importorskip("fastwarc")

from mlm_jax import cli
from tests.curate.hostile import (
    MB,
    fasttext_model,
    page,
    parquet,
    sentences,
    write_large,
    write_small,
)
from tests.curate.peak import run_measured

CONFIG = """from mlm_jax.curate.config import *

def get_config():
    return Curate(inputs=("in/*",), workdir="run", dropped=1000, workers=1, memory=0.1, filters=Filters(quality=False, repetition=False, fineweb=False))
"""


def arguments(folder):
    (folder / "curate.py").write_text(CONFIG)
    return ["curate", str(folder / "curate.py"), "--workdir", str(folder / "run"), "--inputs", str(folder / "in" / "*")]


def became(folder):
    """(kept, or why it went; text and address) of each document."""
    found = []
    for path in (folder / "run" / "corpus").glob("*/*.zst"):
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).decode().split("\n")
        found += [("kept", json.loads(line)) for line in lines if line]
    for path in (folder / "run" / "dropped").iterdir():
        found += [(path.name.split(".")[1], json.loads(line)) for line in path.read_text().split("\n") if line]
    return [(reason, row["text"].lower() + " " + row["url"]) for reason, row in found]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "in").mkdir()
    outcomes = write_small(folder / "in")
    assert cli.main(arguments(folder)) == 0
    return folder, outcomes, became(folder)


def test_each_file_is_kept_or_a_count(small):
    _, outcomes, found = small
    wrong = []
    for word, may in outcomes.items():
        reasons = {reason for reason, text in found if word in text}
        if not reasons or not reasons <= may:
            wrong.append(f"{word}: {reasons}, not one of {may}")
    assert not wrong, "\n".join(wrong)


def test_the_page_holds_no_control_characters_and_nothing_that_runs(small):
    folder, _, found = small
    html = (folder / "run" / "report" / "index.html").read_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066\u2067]", html)
    assert "<b>.txt" not in html
    kept = [text for reason, text in found if reason == "kept"]
    assert not any(re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff]", text) for text in kept)


def no_column(folder):
    parquet(folder / "in" / "a.parquet", {"id": [1], "content": ["a"]})
    return [], r"a\.parquet: no text in field 'text' \(there are id, content\).*; set field"


def nested_column(folder):
    parquet(folder / "in" / "a.parquet", {"text": [{"a": "b"}]})
    return [], r"a\.parquet:1: no text in field 'text', but fields; set field"


def labels_that_are_paths(folder):
    pytest.importorskip("fasttext")
    (folder / "in" / "a.txt").write_text(sentences(20, "good"))
    fasttext_model(folder / "lid.bin", ["en", "../../etc/passwd"])
    return ["--identify.model", str(folder / "lid.bin")], r"__label__\.\./\.\./etc/passwd: not a language's code"


def wanted_that_is_a_path(folder):
    (folder / "in" / "a.txt").write_text(sentences(20, "good"))
    return ["--identify.languages", "../de"], r"languages.*\.\./de"


def all_damaged(folder):
    (folder / "in" / "a.warc.gz").write_bytes(os.urandom(2000))
    return [], "no document is left; 1 went as damaged"


def unknown_kind(folder):
    (folder / "in" / "new\nline.exe").write_bytes(b"MZ")
    return [], r"new\\nline\.exe: of a kind that is not known by its name; name it \(\.warc.*\.parquet"


@pytest.mark.parametrize(
    "make", [no_column, nested_column, labels_that_are_paths, wanted_that_is_a_path, all_damaged, unknown_kind]
)
def test_what_cannot_be_read_is_one_line(tmp_path, capsys, make):
    if make in (no_column, nested_column):
        pytest.importorskip("pyarrow")
    (tmp_path / "in").mkdir()
    options, said = make(tmp_path)
    assert cli.main([*arguments(tmp_path), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert re.search(said, lines[-1]) and lines[-1].startswith("error: ")
    assert not (tmp_path / "run" / "corpus").exists()


def test_a_fasttext_model_made_here_is_read(tmp_path):
    pytest.importorskip("fasttext")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.html").write_bytes(page(sentences(20, "good")))
    fasttext_model(tmp_path / "lid.bin", ["en", "de"])
    assert cli.main([*arguments(tmp_path), "--identify.model", str(tmp_path / "lid.bin")]) == 0


@pytest.mark.slow
def test_gigabytes_are_a_count_and_no_memory(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.txt").write_text(sentences(20, "goodness"))
    command = [sys.executable, "-m", "mlm_jax", *arguments(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    usual = run_measured([*command, "--workdir", str(tmp_path / "usual")], environment)
    assert usual.status == 0
    expected = write_large(tmp_path / "in")
    ran = run_measured(command, environment)
    assert ran.status == 0, ran.said
    assert ran.peak < usual.peak + 100, f"{ran.peak} MB, {usual.peak} MB of a small file"
    found = became(tmp_path)
    for word, reason in expected.items():
        assert {said for said, text in found if word in text} == {reason}, word
    assert MB * 100 < sum(path.stat().st_size for path in (tmp_path / "in").iterdir()) < MB * 500
