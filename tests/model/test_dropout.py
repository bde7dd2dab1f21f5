# SPDX-License-Identifier: Apache-2.0
"""Dropout: its rate, its independence, and that a row's units do not depend on the rest of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax.model.dropout import dropout, row_keys, site_keys

ROWS, UNITS = 64, 4_096
NUMBER = ROWS * UNITS


def kept(rate=0.1, seed=0, step=0, rows=None, layer=0, site=0):
    """Which units stay, bool [rows, 64, 64]."""
    rows = jnp.arange(ROWS) if rows is None else jnp.asarray(rows)
    keys = site_keys(site_keys(row_keys(seed, jnp.int32(step), rows), layer), site)
    return np.asarray(dropout(jnp.ones((len(rows), 64, 64)), rate, keys) > 0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate_and_scale(rate):
    dropped = 1 - kept(rate).mean()
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / NUMBER)
    keys = row_keys(0, jnp.int32(0), jnp.arange(ROWS))
    out = np.asarray(dropout(jnp.full((ROWS, 8), 3.0), rate, keys))
    assert set(np.unique(out)) <= {0.0, np.float32(3 / (1 - rate)), np.float32(3 * np.float32(1 / (1 - rate)))}


def correlation(a, b):
    return np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"step": 1}, {"rows": np.arange(ROWS) + ROWS}, {"layer": 1}, {"site": 1}]
)
def test_seeds_steps_rows_layers_and_sites_are_independent(other):
    a, b = kept(0.5), kept(0.5, **other)
    assert abs(correlation(a, b)) < 5 / np.sqrt(NUMBER)
    # Nor is one the other, moved along by some units.
    for shift in (1, 2, 64, 1_000):
        assert abs(correlation(a.reshape(ROWS, -1), np.roll(b.reshape(ROWS, -1), shift, axis=1))) < 5 / np.sqrt(NUMBER)


def test_neighbouring_units_and_rows_are_independent():
    mask = kept(0.5)
    pairs = [(mask[:, :, 1:], mask[:, :, :-1]), (mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1])]
    for a, b in pairs:
        assert abs(correlation(a, b)) < 5 / np.sqrt(a.size)


def test_counts_a_row_and_a_unit_are_binomial():
    mask = kept(0.1)
    for axis, n in (((1, 2), UNITS), (0, ROWS)):
        spread = mask.sum(axis=axis).var() / (n * 0.1 * 0.9)
        number = mask.size // n
        assert abs(spread - 1) < 6 * np.sqrt(2 / number)


def test_a_row_does_not_depend_on_the_batch_it_is_in():
    whole = kept(0.3, step=7)
    cut = np.concatenate([kept(0.3, step=7, rows=rows) for rows in np.split(np.arange(ROWS), 8)])
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(whole, np.asarray(kept(0.3, step=7)))


def test_gradient_drops_the_units_that_were_dropped():
    keys = row_keys(0, jnp.int32(0), jnp.arange(4))
    x = jnp.ones((4, 100))
    gradient = jax.grad(lambda x: dropout(x, 0.3, keys).sum())(x)
    np.testing.assert_array_equal(gradient, dropout(x, 0.3, keys))


def test_without_keys_or_rate_nothing_is_dropped():
    x = jnp.ones((4, 100))
    assert dropout(x, 0.3, None) is x
    assert dropout(x, 0.0, row_keys(0, jnp.int32(0), jnp.arange(4))) is x
