# SPDX-License-Identifier: Apache-2.0
"""What new rows begin with."""

import json

import numpy as np
import pytest

from mlm_jax.adapt.focus import focus_rows, sparsemax, static_vectors
from mlm_jax.adapt.pieces import Pieces
from mlm_jax.adapt.rows import new_rows, script_of
from mlm_jax.errors import UserError
from mlm_jax.tokenizers import word_piece

OLD = ["[UNK]", "[MASK]", "un", "##do", "do", *"abcdefghijklmnopqrstuvwxyz", *(chr(0x430 + i) for i in range(30))]
NEW = [*OLD, "undo", "щщ", "ཀ", "##doun"]


def pieces(names):
    made = word_piece({name: i for i, name in enumerate(names)}, False)
    made.add_special_tokens(["[UNK]", "[MASK]"])
    return Pieces(json.loads(made.to_str()), tuple(names), (0, 1))


def rows(how, texts=(), seed=0, table=None):
    old, new = pieces(OLD), pieces(NEW)
    matched = np.array([*range(len(OLD)), -1, -1, -1, -1])
    drawn = np.random.default_rng(3).normal(size=(len(OLD), 9)).astype(np.float32)
    table = drawn if table is None else table
    return table, new_rows(how, old, new, matched, table, texts, 0.02, seed)


@pytest.mark.parametrize("how", ["mean", "focus", "script", "random"])
def test_old_rows_stay_and_the_seed_alone_decides(how):
    texts = [[4, len(OLD), 5, 6, len(OLD), 8], [5, 6, 7, 8, 9, 10]] * 3
    table, made = rows(how, texts)
    np.testing.assert_array_equal(made[: len(OLD)], table)
    np.testing.assert_array_equal(made, rows(how, texts)[1])
    assert made.dtype == np.float32 and np.isfinite(made).all() and made[len(OLD) :].any(axis=1).all()
    if how in ("script", "random"):
        assert (made[len(OLD) :] != rows(how, texts, seed=1)[1][len(OLD) :]).any()


def test_means_are_of_the_parts():
    table, made = rows("mean")
    names = {name: i for i, name in enumerate(OLD)}
    np.testing.assert_allclose(made[len(OLD)], table[[names["un"], names["##do"]]].mean(axis=0), rtol=1e-6)


def test_random_rows_have_no_bias_and_the_encoders_spread():
    made = rows("random")[1][len(OLD) :]
    assert not made[:, -1].any() and 0.01 < made[:, :-1].std() < 0.03


def test_a_script_draws_from_its_own_rows():
    table = np.zeros((len(OLD), 9), np.float32)
    table[[i for i, name in enumerate(OLD) if script_of(name) == "CYRILLIC"]] = 5.0
    table[[i for i, name in enumerate(OLD) if script_of(name) == "LATIN"]] = -5.0
    _, made = rows("script", table=table)
    np.testing.assert_array_equal(made[len(OLD) + 1], 5.0)
    np.testing.assert_array_equal(made[len(OLD)], -5.0)
    assert -5 < made[len(OLD) + 2].mean() < 5  # Tibetan: of all


def test_sparsemax_is_the_nearest_distribution():
    """Against the definition, minimised by projection: the threshold is found by bisection."""
    scores = np.random.default_rng(0).normal(size=(50, 20)) * np.geomspace(0.1, 5, 50)[:, None]
    found = sparsemax(scores)
    for row, given in zip(found, scores, strict=True):
        low, high = given.min() - 1, given.max()
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(given - middle, 0).sum() > 1 else (low, middle)
        np.testing.assert_allclose(row, np.maximum(given - low, 0), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(sparsemax(np.array([3.0, 1.0])), [1, 0])
    np.testing.assert_allclose(sparsemax(np.array([0.5, 0.5])), [0.5, 0.5])


def test_pieces_that_are_used_alike_lie_near():
    """4 and 5 stand in the same places, 6 elsewhere."""
    rng = np.random.default_rng(1)
    texts = [[7 + a, [4, 5][rng.integers(2)], 10 + a, 7 + a] for a in rng.integers(0, 3, 300)]
    texts += [[20 + a, 6, 23 + a, 20 + a] for a in rng.integers(0, 3, 300)]
    vectors = static_vectors(texts, 30, 8)
    assert vectors[4] @ vectors[5] > 0.9 > 0.5 > vectors[4] @ vectors[6]
    np.testing.assert_allclose(np.linalg.norm(vectors[[4, 5, 6]], axis=1), 1, rtol=1e-5)
    assert not vectors[:4].any()
    matched = np.arange(30)
    matched[5] = -1
    new, made = focus_rows(texts, matched, np.zeros(30, bool), np.eye(30, dtype=np.float32))
    assert new.tolist() == [5] and made[0].argmax() == 4


def test_a_vocabulary_that_shares_nothing_is_refused():
    with pytest.raises(UserError, match="the vocabularies share nothing; use rows script, or random"):
        focus_rows([[0, 1, 2, 1]], np.full(3, -1), np.zeros(3, bool), np.zeros((2, 4), np.float32))
