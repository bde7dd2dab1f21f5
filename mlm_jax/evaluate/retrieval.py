# SPDX-License-Identifier: Apache-2.0
"""Translations by nearness: retrieval accuracy, margin scores, and mining with a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlm_jax.errors import UserError

ROWS = 4_096  # of the similarity matrix in memory at a time


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length 1: float [n, width] → the same shape and dtype."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def neighbourhood(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """Mean cosine of each vector with its k nearest of the other side.

    Args:
      a, b: float32 [n, width] and [m, width], of length 1.

    Returns:
      float32 [n].
    """
    k = min(k, len(b))
    parts = []
    for begin in range(0, len(a), ROWS):
        similarity = a[begin : begin + ROWS] @ b.T
        parts.append(np.partition(similarity, -k, axis=1)[:, -k:].mean(axis=1))
    return np.concatenate(parts)


def nearest(a: np.ndarray, b: np.ndarray, margin: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """For each vector of `a` the nearest of `b`, and its score.

    Args:
      a, b: float32 [n, width] and [m, width].
      margin: 0: cosine; k: the cosine over the mean of the two vectors' mean cosines with their k nearest
        (Artetxe and Schwenk 2019, equation 1, ratio).

    Returns:
      indices int64 [n], scores float32 [n].
    """
    a, b = normalise(a), normalise(b)
    around_a = neighbourhood(a, b, margin) if margin else None
    around_b = neighbourhood(b, a, margin) if margin else None
    found, scores = [], []
    for begin in range(0, len(a), ROWS):
        score = a[begin : begin + ROWS] @ b.T
        if around_a is not None and around_b is not None:
            score = score / ((around_a[begin : begin + ROWS, None] + around_b[None]) / 2)
        best = score.argmax(axis=1)
        found.append(best)
        scores.append(score[np.arange(len(best)), best])
    return np.concatenate(found), np.concatenate(scores)


def accuracy(
    a: np.ndarray,
    b: np.ndarray,
    margin: int = 0,
    both_ways: bool = False,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> float:
    """Share of the vectors of `a` whose nearest of `b` is the one of the same number.

    Args:
      a, b: float32 [n, width] each.
      margin: of `nearest`.
      both_ways: average with the other direction.
      texts: the sentences of both sides: another vector of the same sentence is right too, as LASER compares (similarity_search
        --textual). None: by number alone.

    Raises:
      UserError: the sides have different widths, `a` has no vector, or `b` fewer.
    """
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or not 0 < len(a) <= len(b):
        raise UserError(
            f"retrieval: vectors {list(a.shape)} and {list(b.shape)}; vector n of one is the translation of n of the other"
        )
    of_a, of_b = (np.arange(len(a)), np.arange(len(b))) if texts is None else map(first_lines, texts)
    ways = [(a, b, of_b), (b, a, of_a)] if both_ways else [(a, b, of_b)]
    return float(np.mean([np.mean(same[nearest(x, y, margin)[0]] == same[: len(x)]) for x, y, same in ways]))


def first_lines(sentences: Sequence[str]) -> np.ndarray:
    """The number of the first sentence that is the same as each, int64 [n]."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(sentence, i) for i, sentence in enumerate(sentences)], np.int64)


def candidates(a: np.ndarray, b: np.ndarray, k: int) -> list[tuple[float, int, int]]:
    """Pairs by falling margin score, each vector of either side in one at most (Artetxe and Schwenk 2019, "max. score").

    Args:
      a, b: float32 [n, width] and [m, width].
      k: nearest neighbours of the margin.

    Returns:
      (score, number of the vector of `a`, of `b`) of each pair.
    """
    forward, forward_scores = nearest(a, b, k)
    backward, backward_scores = nearest(b, a, k)
    pairs = {(i, int(j)): float(s) for i, (j, s) in enumerate(zip(forward, forward_scores, strict=True))}
    pairs |= {(int(i), j): float(s) for j, (i, s) in enumerate(zip(backward, backward_scores, strict=True))}
    used_a, used_b, found = set(), set(), []
    for (i, j), score in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])):
        if i not in used_a and j not in used_b:
            found.append((score, i, j))
            used_a.add(i)
            used_b.add(j)
    return found


def best_threshold(found: Sequence[tuple[float, int, int]], gold: set[tuple[int, int]]) -> float:
    """The score above which the pairs' F1 is highest; pairs by falling score.

    Halfway between two scores, as LASER's script sets it; 0, which all pairs are above, where no pair is right.
    """
    best, threshold, right = 0.0, 0.0, 0
    for number, (score, i, j) in enumerate(found, 1):
        right += (i, j) in gold
        f1 = 2 * right / (number + len(gold))
        if f1 > best:
            following = found[number][0] if number < len(found) else score - 1e-6
            best, threshold = f1, (score + following) / 2
    return float(threshold)


def mined_scores(
    found: Sequence[tuple[float, int, int]], gold: set[tuple[int, int]], threshold: float
) -> dict[str, float]:
    """Precision, recall and F1 of the pairs above a threshold."""
    kept = {(i, j) for score, i, j in found if score >= threshold}
    right = len(kept & gold)
    precision, recall = right / len(kept) if kept else 0.0, right / len(gold) if gold else 0.0
    return {"f1": 2 * right / (len(kept) + len(gold)) if right else 0.0, "precision": precision, "recall": recall}
