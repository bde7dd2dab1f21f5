# SPDX-License-Identifier: Apache-2.0
"""Packing: no token lost, no block too long, documents apart."""

from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax import records
from mlm_jax.prepare import packing
from mlm_jax.prepare.tally import Tally

BOS, EOS = 3, 1
documents = st.lists(st.lists(st.integers(5, 99), max_size=40), max_size=30)
length = st.integers(8, 32)


def batches(items):
    return [items[i : i + 4] for i in range(0, len(items), 4)]


def check(block, length):
    assert 0 < len(block["tokens"]) <= length
    assert block["span_lengths"].sum() == len(block["tokens"])
    assert len(block["span_lengths"]) == len(block["span_segments"]) == len(block["span_languages"])
    records.decode_block(records.encode_block(block))


@given(documents, length)
def test_concatenated_blocks_are_the_documents_in_order(docs, length):
    blocks = list(packing.concatenate(batches(docs), length, BOS, EOS, 7))
    for block in blocks:
        check(block, length)
        assert block["tokens"][0] == BOS and block["span_languages"].tolist() == [7]
    assert all(len(b["tokens"]) == length for b in blocks[:-1])
    stream = [t for b in blocks for t in b["tokens"][1:].tolist()]
    assert stream == [t for d in docs for t in [*d, EOS]]


@given(documents, length)
def test_segments_hold_whole_documents(docs, length):
    blocks = list(packing.best_fit(packing.document_segments(batches(docs), length, BOS, EOS, 2), length))
    found = []
    for block in blocks:
        check(block, length)
        assert block["span_segments"].tolist() == list(range(1, len(block["span_segments"]) + 1))
        found += [part.tolist() for part in np.split(block["tokens"], np.cumsum(block["span_lengths"])[:-1])]
    room = length - 2
    want = [[BOS, *d[i : i + room], EOS] for d in docs for i in range(0, max(len(d), 1), room)]
    assert sorted(found) == sorted(want)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(5, 99), min_size=1, max_size=40), st.lists(st.integers(5, 99), min_size=1, max_size=40)
        ),
        max_size=20,
    ),
    length,
)
def test_pairs_share_a_segment_and_restart_positions(pairs, length):
    blocks = list(packing.best_fit(packing.pair_segments(batches(pairs), length, BOS, EOS, (0, 5)), length))
    count = 0
    for block in blocks:
        check(block, length)
        assert block["span_languages"].tolist() == [0, 5] * (len(block["span_lengths"]) // 2)
        assert (
            block["span_segments"].tolist() == np.repeat(np.arange(1, len(block["span_lengths"]) // 2 + 1), 2).tolist()
        )
        expanded = records.expand_block(records.decode_block(records.encode_block(block)), length, 0)
        starts = np.cumsum(block["span_lengths"]) - block["span_lengths"]
        assert (expanded["positions"][starts] == 0).all() and (expanded["tokens"][starts] == BOS).all()
        count += len(block["span_lengths"]) // 2
    assert count == len(pairs)


def test_best_fit_fills_blocks():
    rng = np.random.default_rng(0)
    docs = [[9] * n for n in rng.integers(5, 200, 5000)]
    blocks = list(packing.best_fit(packing.document_segments(batches(docs), 256, BOS, EOS, 0), 256))
    assert sum(len(b["tokens"]) for b in blocks) / (256 * len(blocks)) > 0.98


sides = st.lists(st.integers(5, 99), min_size=1, max_size=40)


@given(
    st.lists(st.tuples(sides, sides) | st.tuples(sides, sides, sides), max_size=30),
    st.integers(16, 64),
    st.integers(1, 4),
)
def test_pairs_of_texts_are_segments_of_one_block_cut_evenly(pairs, length, most):
    tally = Tally()
    segments = packing.text_pairs(batches(pairs), length, BOS, EOS, (0, 5), tally)
    blocks = list(packing.best_fit(segments, length, most, partial(packing.pairs_block, sides=3)))
    found, cut = [], 0
    for block in blocks:
        check(block, length)
        assert block["span_segments"].max() <= most * 3 and not block["span_positions"].any()
        texts = np.split(block["tokens"], np.cumsum(block["span_lengths"])[:-1])
        for i in range(most):
            mine = [t.tolist() for t, s in zip(texts, block["span_segments"], strict=True) if (s - 1) // 3 == i]
            assert len(mine) in (0, 2, 3) and all(t[0] == BOS and t[-1] == EOS for t in mine)
            found += [tuple(tuple(t[1:-1]) for t in mine)] if mine else []
    assert len(found) == len(pairs)
    room = {n: length - 2 * n for n in (2, 3)}
    wanted = []
    for pair in pairs:
        # The greatest length to which all may be cut.
        level = max(n for n in range(length) if sum(min(len(t), n) for t in pair) <= room[len(pair)])
        wanted.append(tuple(tuple(t[:level]) for t in pair))
        cut += sum(len(t) > level for t in pair)
    assert sorted(found) == sorted(wanted) and tally.cut == cut
