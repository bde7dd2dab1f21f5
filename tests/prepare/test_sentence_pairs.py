# SPDX-License-Identifier: Apache-2.0
"""Next-sentence prediction's blocks: what follows what, labels in balance, languages apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax import records
from mlm_jax.prepare.sentence_pairs import sentence_pairs, sentences

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


def test_what_cannot_be_paired_makes_no_block():
    alone = [[[11, 12, 13]]]  # a document of one sentence
    assert list(sentence_pairs([[*alone, *alone]], 32, BOS, EOS, 0, "")) == []
    assert list(sentence_pairs([corpus(1)], 32, BOS, EOS, 0, "")) == []  # no other document


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("One line.\nAnother. Still the second.", ["One line.", "Another. Still the second."]),
        ("First. Second! Third?", ["First.", "Second!", "Third?"]),
        ("3.5 is one number.", ["3.5 is one number."]),
        ("一つ。二つ！三つ", ["一つ。", "二つ！", "三つ"]),
        ("पहला। दूसरा।", ["पहला।", "दूसरा।"]),
        ("no stop", ["no stop"]),
    ],
)
def test_sentences(document, expected):
    assert sentences(document) == expected
