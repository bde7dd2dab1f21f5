# SPDX-License-Identifier: Apache-2.0
"""Next-sentence prediction's blocks: what follows what, labels in balance, languages apart."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax import records
from mlm_jax.prepare.sentence_pairs import sentence_pairs, sentences
from mlm_jax.prepare.tally import Tally

BOS, EOS = 2, 3


def corpus(documents=400, seed=0):
    """Documents of sentences whose tokens name document and sentence: token = 100 * document + sentence + 10."""
    rng = np.random.default_rng(seed)
    return [
        [[10 + 100 * d + s] * int(rng.integers(3, 9)) for s in range(int(rng.integers(2, 12)))]
        for d in range(documents)
    ]


def parts(block):
    first, second = np.split(block["tokens"], [block["span_lengths"][0]])
    assert first[0] == BOS and first[-1] == EOS and second[-1] == EOS and len(block["span_lengths"]) == 2
    return first[1:-1], second[:-1]


def test_a_second_part_follows_or_is_of_another_document_half_each():
    documents = corpus()
    blocks = list(sentence_pairs([documents], 48, BOS, EOS, 5, "seed"))
    labels = []
    for block in blocks:
        first, second = parts(block)
        labels.append(int(block["next_sentence"][0]))
        of_first, of_second = {t // 100 for t in first - 10}, {t // 100 for t in second - 10}
        assert len(of_first) == len(of_second) == 1
        assert (of_first == of_second) == (labels[-1] == 0)
        if labels[-1] == 0:
            assert 0 <= second[0] - first[-1] <= 2  # a truncated side may miss a sentence at the border
        assert set(block["span_languages"]) == {5} and block["span_segments"].tolist() == [1, 1]
    assert len(labels) > 400
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / len(labels) ** 0.5


@settings(deadline=None)
@given(st.integers(8, 64), st.integers(0, 9))
def test_blocks_fit_and_positions_run_on_over_two_types(length, seed):
    for block in sentence_pairs([corpus(20, seed)], length, BOS, EOS, 0, str(seed)):
        expanded = records.expand_block(records.decode_block(records.encode_block(block)), length, 0)
        used = len(block["tokens"])
        assert used <= length
        np.testing.assert_array_equal(expanded["positions"][:used], np.arange(used))
        assert expanded["token_types"][:used].tolist() == sorted(expanded["token_types"][:used])
        assert set(expanded["token_types"][:used]) == {0, 1}


def test_pairs_are_a_function_of_their_seed():
    def made(seed):
        return [b["tokens"].tolist() for b in sentence_pairs([corpus(30)], 32, BOS, EOS, 0, seed)]

    assert made("a") == made("a") != made("b")


def told_apart(shape, long=0):
    """Documents of so many sentences each, in which no token occurs twice; with one sentence in four of `long` tokens."""
    rng, made, token = np.random.default_rng(0), [], 10
    for count in shape:
        made.append([])
        for _ in range(count):
            size = long if long and rng.random() < 0.25 else int(rng.integers(1, 9))
            made[-1].append(list(range(token, token + size)))
            token += size
    return made


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), max_size=30), min_size=1, max_size=3),
    st.integers(8, 64),
    st.sampled_from([0, 40, 300]),
)
def test_no_token_of_any_document_is_lost(shapes, length, long):
    documents = told_apart([count for shape in shapes for count in shape], long)
    cuts = np.cumsum([0, *map(len, shapes)])
    batches = [documents[a:b] for a, b in itertools.pairwise(cuts)]
    tally = Tally()
    blocks = list(sentence_pairs(batches, length, BOS, EOS, 0, "", tally))
    wanted = [token for document in documents for sentence in document for token in sentence]
    found = [token for block in blocks for token in block["tokens"].tolist() if token not in (BOS, EOS)]
    assert set(found) == set(wanted)
    # What is no copy, for a random pair's second part, stands there once.
    own = Counter(
        token
        for block in blocks
        for place, part in enumerate(np.split(block["tokens"], np.cumsum(block["span_lengths"])[:-1]))
        if not (block["next_sentence"].tolist() == [1] and place == 1)
        for token in part.tolist()
        if token not in (BOS, EOS)
    )
    assert own == Counter(wanted)
    packed = [block for block in blocks if not len(block["next_sentence"])]
    in_packed = sum(token not in (BOS, EOS) for block in packed for token in block["tokens"].tolist())
    assert tally.unpaired == in_packed and tally.in_no_block == sum(not any(d) for d in documents)
    assert max(len(block["tokens"]) for block in blocks) <= length if blocks else not wanted


@pytest.mark.parametrize("shape", [[1] * 300, [1, 1, 1, 2] * 100, [2] * 200, [1] * 50 + [30] * 10, [5] * 100])
def test_labels_stay_in_balance_whatever_share_of_sentences_is_alone(shape):
    blocks = list(sentence_pairs([told_apart(shape)], 48, BOS, EOS, 0, "seed"))
    labels = [int(block["next_sentence"][0]) for block in blocks if len(block["next_sentence"])]
    assert abs(sum(labels) - (len(labels) - sum(labels))) <= 8
    # Sentences alone fill blocks, as documents do.
    rows = [len(block["tokens"]) for block in blocks if not len(block["next_sentence"])]
    assert not rows or np.mean(rows) > 36 or len(rows) == 1


def test_documents_without_another_are_packed():
    alone = [[[11, 12, 13]]]
    (block,) = sentence_pairs([alone], 32, BOS, EOS, 0, "")
    assert block["tokens"].tolist() == [BOS, 11, 12, 13, EOS] and not len(block["next_sentence"])
    # With one document only, what follows follows.
    assert {int(b["next_sentence"][0]) for b in sentence_pairs([told_apart([12])], 32, BOS, EOS, 0, "")} == {0}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("One line.\nAnother. Still the second.", ["One line.", "Another. Still the second."]),
        ("First. Second! Third?", ["First.", "Second!", "Third?"]),
        ("3.5 is one number.", ["3.5 is one number."]),
        ("一つ。二つ！三つ", ["一つ。", "二つ！", "三つ"]),
        ("पहला। दूसरा।", ["पहला।", "दूसरा।"]),
        ("no stop", ["no stop"]),
        # Closing marks stay with the sentence.
        ("He said: \u201cNo.\u201d She left.", ["He said: \u201cNo.\u201d", "She left."]),
        ("Il dit : \u00ab\u00a0Non.\u00a0\u00bb Elle part.", ["Il dit : \u00ab\u00a0Non.\u00a0\u00bb", "Elle part."]),
        ("Sag \u201eja.\u201c Dann geh.", ["Sag \u201eja.\u201c", "Dann geh."]),
        (
            "\u300c\u306f\u3044\u3002\u300d\u3068\u8a00\u3046\u3002",
            ["\u300c\u306f\u3044\u3002\u300d", "\u3068\u8a00\u3046\u3002"],
        ),
        # Letters that Unicode calls small, and text in lower case.
        (
            "\u10d4\u10e1 \u10d0\u10e0\u10d8\u10e1. \u10d8\u10e1 \u10d0\u10e0\u10d8\u10e1.",
            ["\u10d4\u10e1 \u10d0\u10e0\u10d8\u10e1.", "\u10d8\u10e1 \u10d0\u10e0\u10d8\u10e1."],
        ),
        ("one. two.", ["one.", "two."]),
        # Tibetan and Dzongkha, with a space within the double shad.
        ("བོད་ཡིག ། སྐད་ཡིག །", ["བོད་ཡིག །", "སྐད་ཡིག །"]),
        ("ཁ་བ།  །ཆར་པ།  །", ["ཁ་བ།  །", "ཆར་པ།  །"]),
        # Armenian: its full stop, or a colon.
        ("Բարև։ Ինչպես եք։", ["Բարև։", "Ինչպես եք։"]),
        ("Բարև: Ինչպես եք:", ["Բարև:", "Ինչպես եք:"]),
        ("One: two; three", ["One: two; three"]),
        # Greek's question mark is a semicolon.
        ("Τι κάνεις; Καλά.", ["Τι κάνεις;", "Καλά."]),
        # Khmer, Burmese, with or without a space.
        ("ខ្ញុំទៅ។ គាត់មក។ ល្អ៕", ["ខ្ញុំទៅ។", "គាត់មក។", "ល្អ៕"]),
        ("နေကောင်းလား။ကောင်းပါတယ်။", ["နေကောင်းလား။", "ကောင်းပါတယ်။"]),
        # Thai and Lao: spaces, but not around ๆ or numbers.
        ("ฝนตกหนัก แมวนอน", ["ฝนตกหนัก", "แมวนอน"]),
        ("เด็ก ๆ มี 5 คน แมวนอน", ["เด็ก ๆ มี 5 คน", "แมวนอน"]),
        ("ຝົນຕົກ ແມວນອນ", ["ຝົນຕົກ", "ແມວນອນ"]),
        # Amharic: its full stop, two word spaces, two colons.
        ("ሰላም ነው። ደህና ነኝ።", ["ሰላም ነው።", "ደህና ነኝ።"]),
        ("ሰላም ነው፡፡ ደህና ነኝ፡፡", ["ሰላም ነው፡፡", "ደህና ነኝ፡፡"]),
        ("ሰላም ነው:: ደህና ነኝ::", ["ሰላም ነው::", "ደህና ነኝ::"]),
        ("یہ ہے۔ وہ ہے۔", ["یہ ہے۔", "وہ ہے۔"]),
        ("ਇਹ ਹੈ।ਉਹ ਹੈ।", ["ਇਹ ਹੈ।", "ਉਹ ਹੈ।"]),
        ("ਇਹ ਹੈ | ਉਹ ਹੈ|", ["ਇਹ ਹੈ |", "ਉਹ ਹੈ|"]),
        ("a | b", ["a | b"]),
        ("এটা হয়৷ ওটা হয়৷", ["এটা হয়৷", "ওটা হয়৷"]),
        ("நிச்சயமா?மற்றவை.", ["நிச்சயமா?", "மற்றவை."]),
        ("see a.org/?b=c!d", ["see a.org/?b=c!d"]),
        ("ᱱᱚᱶᱟ᱾ ᱚᱱᱟ᱾", ["ᱱᱚᱶᱟ᱾", "ᱚᱱᱟ᱾"]),
    ],
)
def test_sentences(document, expected):
    assert sentences(document) == expected
    assert "".join("".join(expected).split()) == "".join(document.split())


def test_thai_spaces_may_be_left_whole():
    assert sentences("ฝนตกหนัก แมวนอน", spaces=False) == ["ฝนตกหนัก แมวนอน"]


def test_every_character_that_ends_sentences_by_unicode_ends_one_here():
    regex = pytest.importorskip("regex")
    ends = regex.compile(r"\p{Sentence_Terminal}")
    found = [chr(code) for code in range(0x110000) if ends.match(chr(code))]
    assert len(found) > 150
    missed = [hex(ord(mark)) for mark in found if len(sentences(f"A{mark} B")) != 2]
    assert not missed
