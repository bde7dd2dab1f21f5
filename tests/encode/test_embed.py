# SPDX-License-Identifier: Apache-2.0
"""`embed`: vectors are the encoder's in every format; a run that was killed anywhere makes the same bytes; bad input gets its line."""

import contextlib
import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.encode import embed
from mlm_jax.encode.embed import Wanted, embed_file
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.sentences import make_embedder
from mlm_jax.errors import UserError
from mlm_jax.mesh import make_mesh
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train.initial import write_initial
from tests.finetune.toys import make_start

TEXTS = ["the film was great", "so", "Anna 1 2 3 4 5", "so", "the film was sad 1 2 3 4", "Otto", "Mia was so great"]
OWN = SentenceVectors("max", 1, True, {"query": "the "}, 8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return str(make_start(tmp_path_factory.mktemp("run") / "start"))


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "TEXTS", 2)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return str(path)


def expected(workdir, vectors, prompt=""):
    pretrained, tokenizer = read_pretrained(workdir), load_tokenizer(f"{workdir}/vocabulary")
    return make_embedder(pretrained, tokenizer, make_mesh(cfg.Mesh()), vectors, 64)(TEXTS, "en", prompt)


def test_vectors_of_every_format_are_the_encoder_s(workdir, text, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"body": x, "other": 1}) + "\n" for x in TEXTS))
    wanted = Wanted(pooling="first", layer=1, normalise=False, prompt="so ")
    right = expected(workdir, SentenceVectors("first", 1, False), "so ")
    said = embed_file(workdir, f"{rows}#body", str(tmp_path / "a.npy"), wanted)
    assert said.startswith("7 vectors of 32 dimensions (first of layer 1, after 'so ')")
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, atol=1e-6)
    for name in ("b.jsonl", "c.parquet"):
        embed_file(workdir, text, str(tmp_path / name), wanted)
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    table = pyarrow.read_table(tmp_path / "c.parquet").to_pylist()
    for rows in (lines, table):
        assert [(r["key"], r["text"]) for r in rows] == [(str(i), x) for i, x in enumerate(TEXTS, 1)]
        np.testing.assert_array_equal(np.array([r["vector"] for r in rows], np.float32), found)
    assert not list(tmp_path.glob("*.unfinished"))


def test_an_encoder_s_own_vectors_are_made_unless_others_are_asked_for(workdir, text, tmp_path):
    own = dataclasses.replace(read_pretrained(workdir), vectors=OWN)
    write_initial(tmp_path / "own", own)
    (tmp_path / "own" / "vocabulary").symlink_to(f"{workdir}/vocabulary")
    out, asked = str(tmp_path / "a.npy"), {"--prompt": "query", "--dimensions": "4"}
    assert cli.main(["embed", str(tmp_path / "own"), text, out, *(x for pair in asked.items() for x in pair)]) == 0
    right = expected(workdir, dataclasses.replace(OWN, dimensions=4), "the ")
    np.testing.assert_allclose(np.load(out), right, atol=1e-6)
    assert embed.chosen(SentenceVectors(), Wanted()) == SentenceVectors("mean", 0, True)


class Killed(BaseException):
    """As by kill -9: nothing that catches errors catches it, and it may come anywhere."""


@pytest.mark.parametrize("at", range(0, 12, 3))
def test_a_killed_run_goes_on_to_the_same_bytes(workdir, text, tmp_path, monkeypatch, at, capsys):
    whole, out = tmp_path / "whole.npy", tmp_path / "broken.npy"
    embed_file(workdir, text, str(whole))
    left = [at]

    def killing(function):
        def call(*given):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return function(*given)

        return call

    with monkeypatch.context() as patched, contextlib.suppress(Killed):
        patched.setattr(os, "fsync", killing(os.fsync))  # stands between any two writes
        embed_file(workdir, text, str(out))
    vectors = tmp_path / "broken.npy.unfinished" / "vectors"
    if vectors.exists():
        assert not out.exists()
        with open(vectors, "ab") as file:  # half a part
            file.write(b"\1\2\3")
    embed_file(workdir, text, str(out))
    assert out.read_bytes() == whole.read_bytes()
    assert not vectors.parent.exists()


def test_what_was_done_is_not_done_again_unless_something_else_is_asked_for(
    workdir, text, tmp_path, monkeypatch, capsys
):
    out, counts = str(tmp_path / "a.npy"), []
    cutter = embed.cutter

    def counting(*given):
        cut = cutter(*given)

        def counted(part):
            counts.append(len(part))
            if len(counts) == 3:
                raise Killed
            return cut(part)

        return counted

    monkeypatch.setattr(embed, "cutter", counting)
    monkeypatch.setattr(embed, "ahead", lambda items: items)
    with pytest.raises(Killed):
        embed_file(workdir, text, out)
    assert sum(counts[:2]) == 4
    embed_file(workdir, text, out)
    assert "going on after 4 texts" in capsys.readouterr().out and counts[3:] == [2, 1]
    counts.clear()
    with pytest.raises(Killed):
        embed_file(workdir, text, out)
    embed_file(workdir, text, out, Wanted(pooling="max"))
    assert "of another vectors; beginning anew" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(out), expected(workdir, SentenceVectors("max")), atol=1e-6)


def test_what_is_cut_or_unknown_is_said(workdir, text, tmp_path, capsys):
    with open(text, "a") as file:
        file.write("ཨོཾ " * 9 + "\n")
    embed_file(workdir, text, str(tmp_path / "a.npy"), Wanted(max_length=6))
    said = capsys.readouterr().err
    assert "of 8 texts cut to 6 tokens (--max_length)" in said
    assert "% of the tokens are <unk>" in said


def test_vectors_are_the_same_over_devices(workdir, text, tmp_path):
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices")
    for name, mesh in (("one", cfg.Mesh(data=8)), ("two", cfg.Mesh(data=2, fsdp=2, tensor=2))):
        embed_file(workdir, text, str(tmp_path / f"{name}.npy"), mesh=mesh)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy"), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "3"], "layer: 3, the encoder has 2"),
        (["--layer", "-1"], "--layer: -1 is not a whole number"),
        (["--dimensions", "33"], "dimensions: 33, the encoder's vectors have 32"),
        (["--pooling", "cls"], "--pooling: cls; use mean or first or max"),
        (["--normalise", "yes"], "--normalise: yes; use true or false"),
        (["--prompt", "query"], "prompt: query: no such prompt; the encoder names none"),
        (["--max_length", "65"], "max_length: 65 is beyond the encoder's 64 positions"),
        (["--max_length", "2"], "max_length: 2 leaves no place"),
    ],
)
def test_options_that_cannot_be_are_refused(workdir, text, tmp_path, capsys, options, message):
    assert cli.main(["embed", workdir, text, str(tmp_path / "a.npy"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("a.npy*"))


def test_text_and_targets_that_cannot_be_are_refused(workdir, text, tmp_path):
    empty, none = tmp_path / "empty.txt", tmp_path / "none.txt"
    empty.write_text("so\n \nso\n")
    none.write_text("")
    out = str(tmp_path / "a.npy")
    for path, target, message in (
        (str(empty), out, f"{empty}:2: empty, so it has no vector"),
        (str(none), out, f"{none}: empty"),
        (f"{tmp_path}/missing.txt", out, "missing.txt: no such file"),
        (f"{text}#field", out, "has lines and no fields"),
        (text, f"{tmp_path}/a.nyp", "not a file that vectors are written to; did you mean .npy"),
        (text, text, "not a file that vectors are written to"),
        (text, "gs://bucket/a.npy", "vectors are written to a local file"),
    ):
        with pytest.raises(UserError, match=message):
            embed_file(workdir, path, target)


def test_vectors_that_are_not_finite_are_refused_with_their_text(workdir, text, tmp_path):
    pretrained = read_pretrained(workdir)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "vocabulary").symlink_to(f"{workdir}/vocabulary")
    piece = load_tokenizer(f"{workdir}/vocabulary").encode(["Anna"])[0][0]
    params = jax.tree.map(np.array, pretrained.params)
    params["embedding"]["token_embedding"][piece] = np.nan
    write_initial(tmp_path / "bad", dataclasses.replace(pretrained, params=params))
    with pytest.raises(UserError, match=r"text.txt:3: its vector has NaN or infinity"):
        embed_file(str(tmp_path / "bad"), text, str(tmp_path / "a.npy"))
    params["embedding"]["token_embedding"][pretrained.vocabulary.bos] = np.nan
    write_initial(tmp_path / "bad", dataclasses.replace(pretrained, params=params))
    with pytest.raises(UserError, match="bad: the encoder makes vectors with NaN or infinity"):
        embed_file(str(tmp_path / "bad"), text, str(tmp_path / "a.npy"))
    assert not (tmp_path / "a.npy").exists()
