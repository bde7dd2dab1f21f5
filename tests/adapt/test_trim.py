# SPDX-License-Identifier: Apache-2.0
"""A trimmed vocabulary cuts the text as before, and the encoder computes what it did."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax.adapt.pieces import Pieces, changed, longest_match
from mlm_jax.adapt.run import adapt
from mlm_jax.adapt.trim import kept_pieces
from mlm_jax.encode.read import read_pretrained
from mlm_jax.tokenizers import load_tokenizer, word_piece
from tests.adapt import starts
from tests.test_lock import leave, needs_proc

NTREX = Path(__file__).parents[3] / "shared" / "data" / "ntrex"


def both(start, adapted, texts):
    """The pieces of texts by the old and by the new vocabulary."""
    found = []
    for folder in (start, adapted):
        made = load_tokenizer(read_folder(folder))
        found.append([[made.pieces[i] for i in row] for row in made.encode(texts)])
    return found


def read_folder(workdir):
    return Path(workdir) / "vocabulary"


@pytest.mark.parametrize("kind", starts.KINDS)
def test_kept_text_is_cut_alike_and_computed_alike(tmp_path, kind):
    start = starts.make_start(tmp_path / "start", *starts.trained(kind))
    data = starts.sources(tmp_path / "text", a=starts.LATIN[::2], b=starts.TEXT[5:8])
    config = starts.adaptation(tmp_path, start, data)
    adapt(config)
    texts = starts.LATIN[::2] + starts.TEXT[5:8]
    old, new = both(start, config.workdir, texts)
    assert old == new
    before, after = read_pretrained(start), read_pretrained(config.workdir)
    assert after.vocabulary.size < 0.8 * before.vocabulary.size
    ours, theirs = load_tokenizer(read_folder(start)), load_tokenizer(read_folder(config.workdir))
    place = {name: i for i, name in enumerate(ours.pieces)}
    kept = [place[name] for name in theirs.pieces]
    assert kept == sorted(kept)
    for role in ("pad", "bos", "eos", "unk", "mask"):
        assert kept[getattr(after.vocabulary, role)] == getattr(before.vocabulary, role)
    assert [kept[i] for i in after.vocabulary.special_ids] == list(before.vocabulary.special_ids)
    for text in texts[:2] if kind in ("unigram", "wordpiece") else ():
        rows = [made.encode([text])[0][:60] for made in (ours, theirs)]
        (hidden, logits), (hidden_now, logits_now) = map(starts.computed, (before, after), rows)
        np.testing.assert_array_equal(hidden, hidden_now)
        np.testing.assert_array_equal(logits[:, kept], logits_now[:, : len(kept)])
    assert all(of["differing"] == 0 for of in starts.as_json(tmp_path / "adapted" / "adapt.json")["languages"].values())


def test_the_score_of_an_unknown_character_stays():
    """It is 10 below the worst piece's; were that one gone, <unk> would win over `cd` here."""
    scores = {"<unk>": 0.0, "a": -1.0, "z": -30.0, "c": -2.0, "d": -60.0, "b": -1.5}
    description = json.loads(word_piece({"[UNK]": 0}, False).to_str()) | {"normalizer": None, "pre_tokenizer": None}
    description["model"] = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [list(x) for x in scores.items()],
        "byte_fallback": False,
    }
    old = Pieces(description, tuple(scores), (0,))
    counts = np.array([0, 3, 0, 2, 0, 1])
    kept = kept_pieces(old, counts, 1)
    assert [old.names[i] for i in kept] == ["<unk>", "a", "c", "d", "b"]  # the worst, and no other that does not occur
    made = changed(old, kept.tolist())
    assert made.model["unk_id"] == 0 and made.names == ("<unk>", "a", "c", "d", "b")


def test_a_word_that_wordpiece_cannot_write_stays_one(tmp_path):
    """`ab` is found first in `abc`, and then nothing; without it `a` and `##bc` would be."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "a", "##bc", "x", "##y", "b", "c", "other"]
    made = word_piece({name: i for i, name in enumerate(names)}, False)
    made.add_special_tokens(names[:5])
    start = starts.make_start(tmp_path / "start", "tokenizer.json", made.to_str().encode())
    texts = ["abc xy", "abc", "xbc", "a b c"]
    config = starts.adaptation(tmp_path, start, starts.sources(tmp_path / "text", a=texts))
    adapt(config)
    old, new = both(start, config.workdir, texts)
    assert old == new and old[1] == ["[UNK]"]
    assert "other" not in load_tokenizer(read_folder(config.workdir)).pieces
    pieces = Pieces(json.loads(made.to_str()), tuple(names), ())
    assert longest_match("xbc", pieces) == ([8, 7], True) and longest_match("abc", pieces) == ([5], False)


def test_what_of_the_text_is_cut_otherwise_is_said(tmp_path, capsys):
    start = starts.make_start(tmp_path / "start", *starts.trained("unigram"))
    data = starts.sources(tmp_path / "text", a=starts.LATIN)
    config = starts.write_config(tmp_path / "trim.py", starts.adaptation(tmp_path, start, data))
    assert cli.main(["adapt", str(config), "--min_count", "3"]) == 0
    said = capsys.readouterr()
    found = starts.as_json(tmp_path / "adapted" / "adapt.json")
    differing = found["languages"]["a"]["differing"]
    assert 0 < differing <= len(starts.LATIN)
    assert (
        f"trim: {differing} of {len(starts.LATIN)} documents are cut otherwise (they have pieces that occur less than 3 times)"
        in said.err
    )
    assert f"{found['pieces']['after']:,} after" in said.out
    assert cli.main(["adapt", str(config), "--min_count", "3"]) == 0  # is there already
    assert cli.main(["adapt", str(config), "--min_count", "2"]) == 2
    assert "starts from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_count": 10**6}, "no piece of the vocabulary occurs 1,000,000 times in this text"),
        ({"init": ""}, "init: empty; name a run or a Hugging Face folder to adapt"),
        ({"init": "/nowhere"}, "/nowhere: no config.json there"),
        ({"data": dataclasses.replace(starts.Adapt().data, sources=())}, "data.sources: empty"),
        ({"workdir": "gs://bucket/run"}, "adapt works on a local disk"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, options, said):
    start = starts.make_start(tmp_path / "start", *starts.trained("wordpiece", starts.LATIN, 200))
    config = starts.adaptation(tmp_path, start, starts.sources(tmp_path / "text", a=starts.LATIN))
    path = starts.write_config(tmp_path / "trim.py", dataclasses.replace(config, **options))
    assert cli.main(["adapt", str(path)]) == 2
    found = capsys.readouterr().err.strip().splitlines()
    assert said in found[-1] and found[-1].startswith("error: ")
    assert not (tmp_path / "adapted" / "initial.json").exists()


@needs_proc
def test_a_workdir_in_use_is_refused(tmp_path, capsys):
    config = starts.adaptation(tmp_path, "/nowhere", starts.sources(tmp_path / "text", a=starts.LATIN))
    (tmp_path / "adapted").mkdir()
    leave(tmp_path / "adapted")
    assert cli.main(["adapt", str(starts.write_config(tmp_path / "trim.py", config))]) == 2
    assert "is at work here" in capsys.readouterr().err


def test_on_all_languages_of_ntrex(tmp_path):
    """A vocabulary of 56 languages, trimmed to two of them at a time; and the text of all, to all of them."""
    if not NTREX.exists():
        pytest.skip("shared/data is not there")
    texts = {path.stem: path.read_text().splitlines()[:60] for path in sorted(NTREX.glob("*.txt"))}
    everything = [line for lines in texts.values() for line in lines]
    start = starts.make_start(tmp_path / "start", *starts.trained("unigram with bytes", everything, 6_000))
    config = starts.adaptation(tmp_path, start, starts.sources(tmp_path / "text", **texts))
    adapt(config)
    old, new = both(start, config.workdir, everything)
    assert old == new
