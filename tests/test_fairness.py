# SPDX-License-Identifier: Apache-2.0
"""The Gini coefficient against its definition, and what a corpus holds out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax.fairness import gini, held_out
from tests.corpora import make_corpus

VALUES = st.lists(st.just(0.0) | st.floats(1e-3, 1e6), min_size=1, max_size=30).filter(any)


@given(VALUES)
def test_gini_is_the_mean_absolute_difference_over_twice_the_mean(values):
    differences = np.abs(np.subtract.outer(values, values))
    assert gini(values) == pytest.approx(differences.mean() / (2 * np.mean(values)), abs=1e-9)


@given(VALUES, st.floats(1e-3, 1e3), st.randoms())
def test_gini_knows_no_unit_and_no_order(values, scale, random):
    shuffled = random.sample(values, len(values))
    assert gini([scale * value for value in shuffled]) == pytest.approx(gini(values), abs=1e-9)
    assert -1e-12 <= gini(values) <= 1 - 1 / len(values) + 1e-12


def test_gini_of_all_alike_and_of_one_that_has_all():
    assert gini([3.0, 3.0]) == gini([0.0, 0.0]) == gini([]) == 0
    assert gini([0.0, 0.0, 0.0, 5.0]) == pytest.approx(1 - 1 / 4)


def test_what_languages_hold_out(tmp_path):
    made = make_corpus(tmp_path, {"en": 4, "sw": 2})
    assert held_out(tmp_path) == {s.name: (s.validation.documents, s.validation.tokens) for s in made.streams}
    assert held_out(tmp_path / "nowhere") == {}
