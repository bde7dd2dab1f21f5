# SPDX-License-Identifier: Apache-2.0
"""Packing loses nothing, repeats nothing, overfills nothing, and wastes no more than was asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.finetune import packing


@given(st.lists(st.integers(3, 64), min_size=1, max_size=200), st.integers(1, 6), st.integers(1, 9), st.integers(0, 50))
@settings(deadline=None)
def test_every_item_is_in_one_row_and_fits(lengths, rows, slots, ahead):
    shape = packing.Shape(rows, 64, slots)
    order = np.random.default_rng(0).permutation(len(lengths)).tolist()
    batches = packing.pack(lengths, order, shape, ahead)
    assert sorted(item for batch in batches for row in batch for item in row) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == rows
        assert all(len(row) <= slots and sum(lengths[item] for item in row) <= 64 for row in batch)


@pytest.mark.parametrize("batch_size", [4, 16, 32, 128])
@pytest.mark.parametrize("padding", [0.05, 0.1])
def test_a_share_of_padding_is_kept_and_the_batch_has_the_examples_asked_for(batch_size, padding):
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(3.4, 0.6, 3_000).astype(int), 4, 128).tolist()
    shape, share = packing.choose_shape(lengths, batch_size, padding)
    assert share <= padding and shape.rows & (shape.rows - 1) == 0 and shape.length >= max(lengths)
    batches = packing.epoch(lengths, shape, batch_size, 0, 0)
    assert len(lengths) / len(batches) == pytest.approx(batch_size, rel=0.15)
    assert packing.padding_share(lengths, batches, shape) <= padding


def test_an_epoch_is_a_function_of_seed_and_number():
    lengths = np.random.default_rng(0).integers(5, 60, 300).tolist()
    shape = packing.Shape(4, 128, 12)
    again = [packing.epoch(lengths, shape, 16, *key) for key in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert again[0] == again[1]
    assert again[0] != again[2] and again[0] != again[3]
