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


def read_gold(pairs: str, gold: str, first: int = 1) -> Gold:
    """Read sentence pairs (`source ||| target`) and their links (`i-j` sure, `ipj` possible).

    Args:
      first: the number of a sentence's first word in the links, 1 or 0.

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
        left, bar, right = text.partition(" ||| ")
        if not bar or not split_words(left) or not split_words(right):
            raise UserError(f"{pairs}:{number}: not two sentences with ||| between; mend the line")
        source.append(split_words(left))
        target.append(split_words(right))
        found: dict[str, Links] = {"-": set(), "p": set()}
        for link in marked.split():
            parts = re.fullmatch(r"(\d+)([-p])(\d+)", link)
            if not parts:
                raise UserError(
                    f"{gold}:{number}: {link} is not a link; write i-j (sure) or ipj (possible), words from {first}"
                )
            i, j = int(parts[1]) - first, int(parts[3]) - first
            if min(i, j) < 0:
                raise UserError(
                    f"{gold}:{number}: {link}: words seem to be counted from 0 there, and are read as counted from 1; "
                    "set first=0 in this WordAlignment"
                )
            if i >= len(source[-1]) or j >= len(target[-1]):
                counted = f"the {len(source[-1])} and {len(target[-1])} words of {pairs}:{number}, counted from {first}"
                advice = "mend the line"
                if first == 0 and i <= len(source[-1]) and j <= len(target[-1]):
                    advice = "if they are counted from 1, set first=1 in this WordAlignment"
                raise UserError(f"{gold}:{number}: {link} is beyond {counted}; {advice}")
            found[parts[2]].add((i, j))
        sure.append(found["-"])
        possible.append(found["-"] | found["p"])
    return Gold(source, target, sure, possible)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of every word of one sentence with every word of the other, float32 [n, m].

    Args:
      a, b: vectors of the words, float32 [n, width] and [m, width].
    """
    return normalise(a) @ normalise(b).T


def similarities(a: np.ndarray, b: np.ndarray, distortion: float = 0.0) -> np.ndarray:
    """What words are aligned by, float32 [n, m]: (cosine + 1) / 2, from 0 to 1, as SimAlign has it (Jalili Sabet et al. 2020).

    The sum shifts nothing but itermax, and the distortion penalty, which take shares of a similarity.

    Args:
      a, b: vectors of the words, float32 [n, width] and [m, width].
      distortion: kappa; a pair at relative places x and y keeps 1 - kappa (x - y)², where both sentences have two words or more.
    """
    found = (cosines(a, b) + 1) / 2
    if distortion and min(found.shape) > 1:
        x, y = (np.arange(n) / (n - 1) for n in found.shape)
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

    Pairs of two linked words are out; those of one linked word are worth `alpha` of their similarity. As SimAlign, which
    leaves it at `argmax` where a sentence has one or two words.

    Args:
      similarity: 0 or more (`similarities`), float32 [n, m]. Of negative ones, alpha would favour what it is to hold back.
    """
    found = argmax(similarity)
    if min(similarity.shape) <= 2:
        return found
    for _ in range(rounds - 1):
        rows, columns = np.zeros(similarity.shape[0], bool), np.zeros(similarity.shape[1], bool)
        for i, j in found:
            rows[i], columns[j] = True, True
        if rows.all() or columns.all():
            break
        both, either = rows[:, None] & columns[None], rows[:, None] | columns[None]
        weighed = np.where(both, 0, np.where(either, alpha * similarity, similarity))
        more = {(i, j) for i, j in argmax(weighed) if not both[i, j]}
        if not more:
            break
        found |= more
    return found


def matching(similarity: np.ndarray) -> Links:
    """The links of greatest total similarity, float32 [n, m], in which no word has two."""
    return {(int(i), int(j)) for i, j in zip(*linear_sum_assignment(similarity, maximize=True), strict=True)}


def edge_cover(similarity: np.ndarray) -> Links:
    """The links of least total distance (1 - similarity) in which every word has one (the papers' decoder).

    Each word alone would take its nearest; a pair linked to each other saves one link, so the cover is the matching that
    saves most, and the nearest of every word left over (Schrijver 2003, section 19.3).

    Args:
      similarity: float32 [n, m].
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
