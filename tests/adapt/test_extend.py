# SPDX-License-Identifier: Apache-2.0
"""An extended vocabulary keeps old ids and uses its new pieces; merges go on from where they ended."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.adapt.merges import more_merges
from mlm_jax.adapt.run import adapt
from mlm_jax.encode.read import read_pretrained
from mlm_jax.tokenizers import load_tokenizer
from tests.adapt import starts

TIBETAN = [
    "འགྲོ་བ་མི་རིགས་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌། ཐོབ་ཐངགི་རང་དབང་འདྲ་མཉམ་དུ་ཡོད་ལ།",
    "ཁོང་ཚོར་རང་བྱུང་གི་བློ་རྩལ་དང་བསམ་ཚུལ་བཟང་པོ་འདོན་པའི་འོས་བབས་ཀྱང་ཡོད།",
    "དེ་བཞིན་ཕན་ཚུན་གཅིག་གིས་གཅིག་ལ་བུ་སྤུན་གྱི་འདུ་ཤེས་འཛིན་པའི་བྱ་སྤྱོད་ཀྱང་ལག་ལེན་བསྟར་དགོས་པ་ཡིན།",
] * 2  # fmt: skip
KNOWN = [
    "Il-bnedmin kollha jitwieldu ħielsa u ugwali fid-dinjità u d-drittijiet.",
    "Huma mogħnija bir-raġuni u bil-kuxjenza u għandhom iġibu ruħhom ma' xulxin bi spirtu ta' aħwa.",
] * 2
OPTIONS = {"unigram": 75, "unigram with bytes": 75, "wordpiece": 125}


def extended(tmp_path, kind, change="extend", rows="mean", text=TIBETAN + KNOWN, size=None):
    start = starts.make_start(
        tmp_path / "start", *starts.trained(kind, starts.LATIN, 300 if kind == "wordpiece" else 400)
    )
    data = dataclasses.replace(starts.sources(tmp_path / "text", bo=text), validation_fraction=0.0)
    words = cfg.Vocabulary(
        size=size or OPTIONS.get(kind, 60), character_coverage=1.0, model=kind.split()[0] if kind in OPTIONS else "bpe"
    )
    config = starts.adaptation(tmp_path, start, data, change=change, rows=rows, vocabulary=words)
    adapt(config)
    return start, config


@pytest.mark.parametrize("kind", starts.KINDS)
def test_old_ids_stay_and_new_pieces_are_used(tmp_path, kind):
    start, config = extended(tmp_path, kind)
    before, after = (load_tokenizer(starts.epath.Path(f) / "vocabulary") for f in (start, config.workdir))
    size = len(before.pieces)
    assert after.pieces[:size] == before.pieces and len(after.pieces) > size
    old, new = (sum(map(len, made.encode(TIBETAN + KNOWN))) for made in (before, after))
    unknown = read_pretrained(config.workdir).vocabulary.unk
    assert not any(unknown in row for row in after.encode(TIBETAN))
    if kind in ("unigram with bytes", "bpe with bytes", "byte-level"):  # where no <unk> stands for many characters
        assert new < 0.9 * old
    used = {i for row in after.encode(TIBETAN + KNOWN) for i in row if i >= size}
    assert len(used) > 20
    # Rows: the old ones to the bit, the new ones of the old width.
    one, two = read_pretrained(start), read_pretrained(config.workdir)
    assert two.vocabulary.size == len(after.pieces)
    table, now = (each.params["embedding"]["token_embedding"] for each in (one, two))
    np.testing.assert_array_equal(table[:size], now[:size])
    assert now[size : two.vocabulary.size].any(axis=1).all() and not now[two.vocabulary.size :].any()


def test_every_new_unigram_piece_wins_over_the_old_cut_of_itself(tmp_path):
    start, config = extended(tmp_path, "unigram", text=KNOWN, size=50)
    size = len(load_tokenizer(starts.epath.Path(start) / "vocabulary").pieces)
    made = load_tokenizer(starts.epath.Path(config.workdir) / "vocabulary")
    begins = [i for i, name in enumerate(made.pieces) if i >= size and name.startswith("▁") and "▁" not in name[1:]]
    assert len(begins) > 2
    for i in begins:
        if (text := made.pieces[i][1:]) and text == text.strip():
            assert made.encode([text])[0] == [i]


def test_merges_are_those_of_training_from_nothing():
    """Against the definition: all pairs counted anew before every merge."""
    rng = np.random.default_rng(0)
    words = Counter("".join(rng.choice(list("abcd"), rng.integers(1, 8))) for _ in range(400))
    cut = {tuple(word): count for word, count in words.items()}
    found = more_merges(cut, 30, str.__add__, lambda name: name == "d")
    slow = [(list(word), count) for word, count in words.items()]
    for merge in found:
        pairs = Counter()
        for word, count in slow:
            for pair in itertools.pairwise(word):
                if "d" not in pair:
                    pairs[pair] += count
        assert pairs[merge] == max(pairs.values()) and merge == min(p for p, n in pairs.items() if n == pairs[merge])
        for word, _ in slow:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == merge:
                    word[i : i + 2] = ["".join(merge)]
                i += 1
    assert len(found) == 30


@pytest.mark.parametrize("model", ["unigram", "wordpiece"])
def test_a_vocabulary_of_its_own_takes_the_rows_of_the_same_pieces(tmp_path, model):
    start = starts.make_start(tmp_path / "start", *starts.trained("byte-level", starts.LATIN, 400))
    data = dataclasses.replace(starts.sources(tmp_path / "text", en=starts.LATIN), validation_fraction=0.0)
    words = cfg.Vocabulary(
        size=105 if model == "unigram" else 135, character_coverage=0.98, model=model, byte_fallback=False
    )
    config = starts.adaptation(tmp_path, start, data, change="replace", rows="mean", vocabulary=words)
    adapt(config)
    before, after = read_pretrained(start), read_pretrained(config.workdir)
    old, new = (load_tokenizer(starts.epath.Path(f) / "vocabulary") for f in (start, config.workdir))
    table, now = (each.params["embedding"]["token_embedding"] for each in (before, after))
    for role in ("pad", "bos", "eos", "unk", "mask"):
        np.testing.assert_array_equal(table[getattr(before.vocabulary, role)], now[getattr(after.vocabulary, role)])
    begin, word = ("▁", "") if model == "unigram" else ("", "##")
    shared = [
        (old.pieces.index(f"Ġ{x}"), new.pieces.index(f"{begin}{x}"))
        for x in "abdes"
        if f"{begin}{x}" in new.pieces and f"Ġ{x}" in old.pieces
    ]
    assert shared
    for i, j in shared:
        np.testing.assert_array_equal(table[i], now[j])
    assert starts.as_json(tmp_path / "adapted" / "adapt.json")["pieces"]["kept"] > 30 and word in ("", "##")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 10**6}, "vocabulary.size: 1,000,000 is more than the text can give; the largest possible is"),
        ({"path": "x.model"}, "vocabulary.path: x.model, but extend makes its own"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, options, said):
    start = starts.make_start(tmp_path / "start", *starts.trained("unigram", starts.LATIN, 300))
    data = starts.sources(tmp_path / "text", bo=TIBETAN)
    config = starts.adaptation(tmp_path, start, data, change="extend", vocabulary=cfg.Vocabulary(**options))
    assert cli.main(["adapt", str(starts.write_config(tmp_path / "extend.py", config))]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
