# SPDX-License-Identifier: Apache-2.0
"""Blocks on disk, against TensorFlow's own reading of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax import records

spans = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1832)), min_size=1, max_size=8)


def make(spans, seed):
    lengths = np.array([n for n, _ in spans])
    return {
        "tokens": np.random.default_rng(seed).integers(0, 250_002, lengths.sum()),
        "span_lengths": lengths,
        "span_segments": np.arange(len(spans)) // 2 + 1,
        "span_languages": np.array([language for _, language in spans]),
        "span_types": np.arange(len(spans)) % 2,
        "span_positions": 7 * np.arange(len(spans)),
        "next_sentence": np.array([1] if seed % 2 else [], int),
    }


@given(spans, st.integers(0, 99))
def test_round_trip(spans, seed):
    block = make(spans, seed)
    back = records.decode_block(records.encode_block(block))
    for name in records.FEATURES:
        np.testing.assert_array_equal(back[name], block[name])
        assert back[name].dtype == np.int32


@given(spans, st.integers(0, 99))
def test_expand_restarts_positions_and_pads(spans, seed):
    block = make(spans, seed)
    used = len(block["tokens"])
    out = records.expand_block(block, 80, pad=1)
    np.testing.assert_array_equal(out["tokens"], [*block["tokens"], *[1] * (80 - used)])
    positions, segments, languages, types = [], [], [], []
    for number, (length, language) in enumerate(spans):
        positions += range(7 * number, 7 * number + length)
        types += [number % 2] * length
        segments += [number // 2 + 1] * length
        languages += [language] * length
    assert out["next_sentence"] == (1 if seed % 2 else -1)
    wanted = {"positions": positions, "segment_ids": segments, "language_ids": languages, "token_types": types}
    for name, want in wanted.items():
        np.testing.assert_array_equal(out[name], want + [0] * (80 - used))


def test_tensorflow_reads_the_same():
    tf = pytest.importorskip("tensorflow")
    block = make([(5, 3), (4, 99)], 0)
    spec = {name: tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True) for name in records.FEATURES}
    parsed = tf.io.parse_single_example(records.encode_block(block), spec)
    for name in records.FEATURES:
        np.testing.assert_array_equal(parsed[name].numpy(), block[name])
    written = tf.train.Example(
        features=tf.train.Features(
            feature={n: tf.train.Feature(int64_list=tf.train.Int64List(value=block[n])) for n in records.FEATURES}
        )
    )
    for name, values in records.decode_block(written.SerializeToString()).items():
        np.testing.assert_array_equal(values, block[name])
