# SPDX-License-Identifier: Apache-2.0
"""Retrieval and mining: against brute force over every pair, and planted translations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import precision_recall_fscore_support
from sklearn.neighbors import NearestNeighbors

from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval


def vectors(seed, rows, width=7):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def test_the_nearest_by_cosine_is_scipys_and_blocks_of_rows_change_nothing(monkeypatch):
    a, b = vectors(0, 23), vectors(1, 31)
    distances = cdist(a.astype(np.float64), b.astype(np.float64), "cosine")
    for rows in (4_096, 5):
        monkeypatch.setattr(retrieval, "ROWS", rows)
        found, scores = retrieval.nearest(a, b)
        assert found.tolist() == distances.argmin(axis=1).tolist()
        np.testing.assert_allclose(scores, 1 - distances.min(axis=1), atol=1e-6)


@pytest.mark.parametrize("k", [1, 4, 50])
def test_the_margin_is_equation_1(k, monkeypatch):
    a, b = vectors(0, 23), vectors(1, 31)
    monkeypatch.setattr(retrieval, "ROWS", 6)

    def mean_cosine(x, y):
        found = NearestNeighbors(n_neighbors=min(k, len(y)), metric="cosine").fit(y.astype(np.float64))
        return 1 - found.kneighbors(x.astype(np.float64))[0].mean(axis=1)

    cosine = 1 - cdist(a.astype(np.float64), b.astype(np.float64), "cosine")
    margin = cosine / ((mean_cosine(a, b)[:, None] + mean_cosine(b, a)[None]) / 2)
    found, scores = retrieval.nearest(a, b, k)
    assert found.tolist() == margin.argmax(axis=1).tolist()
    np.testing.assert_allclose(scores, margin.max(axis=1), rtol=1e-4)


def test_planted_translations_are_found_and_hubs_are_what_the_margin_is_for():
    meaning = vectors(0, 50, 16)
    a, b = meaning + 0.1 * vectors(1, 50, 16), meaning + 0.1 * vectors(2, 50, 16)
    assert retrieval.accuracy(a, b) == 1 == retrieval.accuracy(a, b, both_ways=True)
    assert retrieval.accuracy(a, b[::-1]) < 0.1
    hub = np.concatenate([b, (a.mean(axis=0) * 50)[None]])  # near everything
    a = a + 3 * a.mean(axis=0)
    assert retrieval.accuracy(a, hub, margin=4) >= retrieval.accuracy(a, hub)


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_the_threshold_is_the_best_of_all(seed, count):
    rng = np.random.default_rng(seed)
    found = sorted(((float(rng.integers(0, 6)) + 1e-3 * i, i, i) for i in range(count)), reverse=True)
    gold = {(i, i) for i in range(count) if rng.random() < 0.5} | {(99, 99)}
    threshold = retrieval.best_threshold(found, gold)
    best = max(retrieval.mined_scores(found, gold, t)["f1"] for t in [-1.0, *(s for s, _, _ in found), np.inf])
    assert retrieval.mined_scores(found, gold, threshold)["f1"] == pytest.approx(best)


@given(st.integers(0, 10_000))
def test_mined_scores_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(5) for j in range(4)]
    found = [(float(s), i, j) for s, (i, j) in zip(rng.random(len(pairs)), pairs, strict=True)]
    gold = {p for p in pairs if rng.random() < 0.3}
    truth, said = [p in gold for p in pairs], [s >= 0.5 for s, _, _ in found]
    precision, recall, f1, _ = precision_recall_fscore_support(truth, said, average="binary", zero_division=0)
    ours = retrieval.mined_scores(found, gold, 0.5)
    assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx((precision, recall, f1))


def test_no_sentence_is_mined_twice_and_scores_fall():
    found = retrieval.candidates(vectors(3, 40), vectors(4, 30), 4)
    assert len({i for _, i, _ in found}) == len(found) == len({j for _, _, j in found})
    assert [s for s, _, _ in found] == sorted((s for s, _, _ in found), reverse=True)


def test_another_copy_of_the_right_sentence_is_right_by_text_and_wrong_by_number():
    a = vectors(5, 4)
    b = a.copy()
    b[3] = b[1] + 1e-4 * vectors(6, 1)[0]  # of the same sentence; a's fourth is still nearest to b's second
    a[3] = a[1]
    texts = (["a", "b", "c", "b"], ["A", "B", "C", "B"])
    assert retrieval.accuracy(a, b) == 0.75 and retrieval.accuracy(a, b, texts=texts) == 1
    assert retrieval.accuracy(a, b, 2, True, texts) == 1
    assert retrieval.accuracy(a, b, texts=(texts[0], ["A", "B", "C", "D"])) == 0.75
    for other in (b[:, :3], b[:2], b[0]):
        with pytest.raises(UserError, match="vector n of one is the translation of n of the other"):
            retrieval.accuracy(a, other)
    with pytest.raises(UserError, match="vector n of one"):
        retrieval.accuracy(a[:0], b[:0])


def test_no_right_pair_means_that_all_are_taken_as_lasers_script_does():
    found = [(1.2, 0, 0), (1.1, 1, 1)]
    assert retrieval.best_threshold(found, {(5, 5)}) == 0 == retrieval.best_threshold([], {(5, 5)})


def test_mexa_is_the_papers_share():
    """Against the definition, sentence by sentence."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(250, 8)).astype(np.float32)
    b = a + rng.normal(size=a.shape).astype(np.float32)

    def cosine(x, y):
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    right = {}
    for block in (range(100), range(100, 200), range(150, 250)):
        for i in block:
            others = [j for j in block if j != i]
            own = cosine(a[i], b[i])
            right[i] = all(own > cosine(a[i], b[j]) and own > cosine(a[j], b[i]) for j in others)
    assert retrieval.mexa(a, b) == pytest.approx(np.mean(list(right.values()))) and 0.1 < retrieval.mexa(a, b) < 0.9
    assert retrieval.mexa(a[:3], a[:3]) == 1
