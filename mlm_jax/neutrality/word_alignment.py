# SPDX-License-Identifier: Apache-2.0
"""Which words of two sentences translate each other, by the similarity of their vectors; and how right that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mlm_jax.errors import UserError
from mlm_jax.evaluate.retrieval import normalise
from mlm_jax.lines import read_lines, split_words

Links = set[tuple[int, int]]


@dataclass(frozen=True)
class Gold:
    """Hand-aligned pairs.

    Attributes:
      source, target: words of each sentence.
      sure, possible: links of each pair, words counted from 0; sure ones are possible too.
    """

    source: list[list[str]]
    target: list[list[str]]
    sure: list[Links]
    possible: list[Links]


def read_gold(pairs: str, gold: str) -> Gold:
    """Read sentence pairs (`source ||| target`) and their links (`i-j` sure, `ipj` possible, from 1).

    Raises:
      UserError: a line without `|||`, an empty side, a link that is none or beyond the words, files of different lengths.
    """
    source, target, sure, possible = [], [], [], []
    texts, links = list(read_lines(pairs)), list(read_lines(gold))
    if len(texts) != len(links):
        raise UserError(
            f"{pairs}: {len(texts):,} lines, {gold} has {len(links):,}; line n of one is line n of the other"
        )
    for (number, text), (_, marked) in zip(texts, links, strict=True):
        first, bar, second = text.partition(" ||| ")
        if not bar or not split_words(first) or not split_words(second):
            raise UserError(f"{pairs}:{number}: not two sentences with ||| between; mend the line")
        source.append(split_words(first))
        target.append(split_words(second))
        found: dict[str, Links] = {"-": set(), "p": set()}
        for link in marked.split():
            parts = re.fullmatch(r"(\d+)([-p])(\d+)", link)
            if not parts:
                raise UserError(
                    f"{gold}:{number}: {link} is not a link; write i-j (sure) or ipj (possible), words from 1"
                )
            i, j = int(parts[1]), int(parts[3])
            if not (1 <= i <= len(source[-1]) and 1 <= j <= len(target[-1])):
                raise UserError(f"{gold}:{number}: {link} is beyond the {len(source[-1])} and {len(target[-1])} words")
            found[parts[2]].add((i - 1, j - 1))
        sure.append(found["-"])
        possible.append(found["-"] | found["p"])
    return Gold(source, target, sure, possible)


def cosines(a: np.ndarray, b: np.ndarray, distortion: float = 0.0) -> np.ndarray:
    """Cosines of every word of one sentence with every word of the other, float32 [n, m].

    Args:
      a, b: vectors of the words, float32 [n, width] and [m, width].
      distortion: kappa; a pair at relative places x and y is worth 1 - kappa (x - y)² of its cosine (Jalili Sabet et al. 2020).
    """
    found = normalise(a) @ normalise(b).T
    if distortion:
        x, y = (np.arange(n) / max(n - 1, 1) for n in found.shape)
        found = found * (1 - distortion * (x[:, None] - y[None]) ** 2)
    return found


def argmax(similarity: np.ndarray) -> Links:
    """Links whose words are each other's nearest, by a similarity, float32 [n, m]."""
    if not similarity.size:
        return set()
    forward, backward = similarity.argmax(axis=1), similarity.argmax(axis=0)
    return {(i, int(j)) for i, j in enumerate(forward) if backward[j] == i}


def itermax(similarity: np.ndarray, rounds: int = 2, alpha: float = 0.9) -> Links:
    """`argmax`, and then again with words that have no link yet favoured (Jalili Sabet et al. 2020, section 3.1).

    Pairs of two linked words are out; those of one linked word are worth `alpha` of their similarity, float32 [n, m].
    """
    found = argmax(similarity)
    for _ in range(rounds - 1):
        rows, columns = np.zeros(similarity.shape[0], bool), np.zeros(similarity.shape[1], bool)
        for i, j in found:
            rows[i], columns[j] = True, True
        if rows.all() or columns.all():
            break
        both, either = rows[:, None] & columns[None], rows[:, None] | columns[None]
        weighed = np.where(either, alpha * similarity, similarity)
        weighed = np.where(both, np.minimum(weighed, 0).min() - 1, weighed)
        more = {(i, j) for i, j in argmax(weighed) if not both[i, j]}
        if not more:
            break
        found |= more
    return found


def matching(similarity: np.ndarray) -> Links:
    """The links of greatest total similarity, float32 [n, m], in which no word has two."""
    return {(int(i), int(j)) for i, j in zip(*linear_sum_assignment(similarity, maximize=True), strict=True)}


def edge_cover(similarity: np.ndarray) -> Links:
    """The links of least total distance (1 - cosine) in which every word has one (the papers' decoder).

    Each word alone would take its nearest; a pair linked to each other saves one link, so the cover is the matching that
    saves most, and the nearest of every word left over (Schrijver 2003, section 19.3).

    Args:
      similarity: cosines, float32 [n, m].
    """
    if not similarity.size:
        return set()
    cost = 1 - similarity
    row_best, column_best = cost.min(axis=1), cost.min(axis=0)
    saved = np.maximum(row_best[:, None] + column_best[None] - cost, 0)
    found = {
        (int(i), int(j)) for i, j in zip(*linear_sum_assignment(saved, maximize=True), strict=True) if saved[i, j] > 0
    }
    rows, columns = {i for i, _ in found}, {j for _, j in found}
    found |= {(i, int(np.argmin(cost[i]))) for i in range(cost.shape[0]) if i not in rows}
    found |= {(int(np.argmin(cost[:, j])), j) for j in range(cost.shape[1]) if j not in columns}
    return found


DECODE = {"argmax": argmax, "itermax": itermax, "edge_cover": edge_cover, "matching": matching}


def scores(found: Sequence[Links], sure: Sequence[Links], possible: Sequence[Links]) -> dict[str, float]:
    """Precision against the possible links, recall of the sure, F1, and alignment error rate (Och and Ney 2003, section 5.2)."""
    links, golden = sum(map(len, found)), sum(map(len, sure))
    in_sure = sum(len(a & s) for a, s in zip(found, sure, strict=True))
    in_possible = sum(len(a & p) for a, p in zip(found, possible, strict=True))
    precision = in_possible / links if links else 0.0
    recall = in_sure / golden if golden else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    aer = 1 - (in_sure + in_possible) / (links + golden) if links + golden else 0.0
    return {"f1": f1, "aer": aer, "precision": precision, "recall": recall}
