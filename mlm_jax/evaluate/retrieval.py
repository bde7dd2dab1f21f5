# SPDX-License-Identifier: Apache-2.0
"""Translations by nearness: retrieval accuracy, margin scores, and mining with a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    found, scores = [], []
    for score in scored(a, b, margin):
        best = score.argmax(axis=1)
        found.append(best)
        scores.append(score[np.arange(len(best)), best])
    return np.concatenate(found), np.concatenate(scores)


def scored(a: np.ndarray, b: np.ndarray, margin: int = 0) -> Iterator[np.ndarray]:
    """The scores of each vector of `a` with all of `b`, float32 [some rows, m] at a time; arguments as `nearest`'s."""
    a, b = normalise(a), normalise(b)
    around_a = neighbourhood(a, b, margin) if margin else None
    around_b = neighbourhood(b, a, margin) if margin else None
    for begin in range(0, len(a), ROWS):
        score = a[begin : begin + ROWS] @ b.T
        if around_a is not None and around_b is not None:
            around = (around_a[begin : begin + ROWS, None] + around_b[None]) / 2
            score = np.divide(
                score, around, out=np.zeros_like(score), where=around != 0
            )  # 0: vectors of nothing but zeros
        yield score


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
    ways = _ways(a, b, both_ways, texts)
    return float(np.mean([np.mean(same[nearest(x, y, margin)[0]] == same[: len(x)]) for x, y, same in ways]))


def ranking_scores(
    a: np.ndarray,
    b: np.ndarray,
    margin: int = 0,
    both_ways: bool = False,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> dict[str, float]:
    """How near the vector of the same number is: `accuracy`, mrr (the mean of 1 / its rank) and ndcg_10 (of 1 / log2(1 + rank), 0 beyond 10).

    Args:
      a, b: float32 [n, width] each.
      others: as `accuracy`'s; of a sentence that occurs several times the nearest has the rank that counts.

    Raises:
      UserError: as `accuracy`.
    """
    scores = []
    for x, y, same in _ways(a, b, both_ways, texts):
        ranks = right_ranks(x, y, same, margin)
        gains = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)
        scores.append([np.mean(ranks == 1), np.mean(1 / ranks), np.mean(gains)])
    return dict(zip(("accuracy", "mrr", "ndcg_10"), map(float, np.mean(scores, axis=0)), strict=True))


def right_ranks(a: np.ndarray, b: np.ndarray, same: np.ndarray, margin: int = 0) -> np.ndarray:
    """Of each vector of `a` the rank of the right one of `b` by falling score, from 1; of equal scores the first counts as nearer.

    Args:
      a, b, margin: as `nearest`'s.
      same: of each vector of `b`, the number of the first that is the same; of vector n of `a` that of number n is right, int64 [m].

    Returns:
      int64 [n].
    """
    ranks: list[int] = []
    begin = 0
    for score in scored(a, b, margin):
        for i, row in enumerate(score, begin):
            right = np.flatnonzero(same == same[i])
            best = right[row[right].argmax()]
            ranks.append(int(1 + np.count_nonzero(row > row[best]) + np.count_nonzero(row[:best] == row[best])))
        begin += len(score)
    return np.array(ranks, np.int64)


def _ways(
    a: np.ndarray, b: np.ndarray, both_ways: bool, texts: tuple[Sequence[str], Sequence[str]] | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(those that look, those that are looked for, which of these are the same) of each direction.

    Raises:
      UserError: as `accuracy`.
    """
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or not 0 < len(a) <= len(b):
        raise UserError(
            f"retrieval: vectors {list(a.shape)} and {list(b.shape)}; vector n of one is the translation of n of the other"
        )
    of_a, of_b = (np.arange(len(a)), np.arange(len(b))) if texts is None else map(first_lines, texts)
    return [(a, b, of_b), (b, a, of_a)] if both_ways else [(a, b, of_b)]


def best_documents(queries: np.ndarray, documents: np.ndarray, most: int) -> np.ndarray:
    """The documents that are nearest to each query by cosine, nearest first; of equal ones the first.

    Args:
      queries, documents: float32 [n, width] and [m, width].

    Returns:
      int64 [n, min(most, m)].
    """
    most = min(most, len(documents))
    found = []
    for score in scored(queries, documents):
        least = np.partition(score, -most, axis=1)[:, -most]
        for row, bound in zip(score, least, strict=True):
            near = np.flatnonzero(row >= bound)
            found.append(near[np.argsort(-row[near], kind="stable")][:most])
    return np.stack(found)


def search_scores(found: np.ndarray, relevant: Sequence[dict[int, float]], recall: int) -> dict[str, float]:
    """Means over queries of ndcg_10 (gains as they are graded, as trec_eval has it), mrr_10 and recall_N.

    Args:
      found: documents of each query, nearest first, int64 [queries, documents].
      relevant: of each query, document → how relevant it is, above 0.
      recall: N.
    """
    discounts = 1 / np.log2(np.arange(2, 12))
    scores = []
    for ranked, grades in zip(found, relevant, strict=True):
        gains = np.array([grades.get(int(document), 0.0) for document in ranked[:10]])
        ideal = np.sort(list(grades.values()))[::-1][:10]
        first = next((rank for rank, gain in enumerate(gains, 1) if gain), 0)
        scores.append(
            (
                (gains * discounts[: len(gains)]).sum() / (ideal * discounts[: len(ideal)]).sum(),
                1 / first if first else 0.0,
                len(grades.keys() & set(ranked[:recall].tolist())) / len(grades),
            )
        )
    names = ("ndcg_10", "mrr_10", f"recall_{recall}")
    return dict(zip(names, map(float, np.mean(scores, axis=0)), strict=True))


def mexa(a: np.ndarray, b: np.ndarray, of: int = 100) -> float:
    """Share of the sentences whose translation is nearer than any other of a hundred, seen from both sides (Kargaran et al. 2024, MEXA, equation 1).

    Args:
      a, b: float32 [n, width] each, line n of one the translation of line n of the other.
      of: sentences that are compared at a time; the last are compared with as many before them.
    """
    a, b = normalise(a), normalise(b)
    of = min(of, len(a))
    found = np.zeros(len(a), bool)
    for end in range(of, len(a) + of, of):
        end = min(end, len(a))
        cosine = a[end - of : end] @ b[end - of : end].T
        own = cosine.diagonal().copy()
        np.fill_diagonal(cosine, -np.inf)
        found[end - of : end] = (own > cosine.max(axis=1)) & (own > cosine.max(axis=0))
    return float(found.mean())


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
