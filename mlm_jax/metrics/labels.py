# SPDX-License-Identifier: Apache-2.0
"""What the papers' tables hold: accuracies, correlations, entity F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

Tags = Sequence[Sequence[str]]


def accuracy(gold: Sequence[Any], found: Sequence[Any]) -> float:
    """Share that is correct."""
    return float(np.mean([a == b for a, b in zip(gold, found, strict=True)]))


def macro_f1(gold: Sequence[str], found: Sequence[str]) -> float:
    """F1 of each class that is in the gold labels or was found, averaged."""
    return float(metrics.f1_score(gold, found, average="macro", zero_division=0))


def binary_f1(gold: Sequence[str], found: Sequence[str], positive: str) -> float:
    """F1 of one class (GLUE's MRPC and QQP)."""
    return float(metrics.f1_score([g == positive for g in gold], [f == positive for f in found], zero_division=0))


def mcc(gold: Sequence[str], found: Sequence[str]) -> float:
    """Matthews' correlation (GLUE's CoLA)."""
    return float(metrics.matthews_corrcoef(gold, found))


def pearson(gold: Sequence[float], found: Sequence[float]) -> float:
    """Linear correlation; 0 where either side is constant."""
    return _correlation(stats.pearsonr, gold, found)


def spearman(gold: Sequence[float], found: Sequence[float]) -> float:
    """Rank correlation; 0 where either side is constant."""
    return _correlation(stats.spearmanr, gold, found)


def _correlation(function: Any, gold: Sequence[float], found: Sequence[float]) -> float:
    if len(gold) < 2 or np.ptp(gold) == 0 or np.ptp(found) == 0:
        return 0.0
    return float(function(gold, found)[0])


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of a sentence's IOB tags: (kind, first word, last word).

    As conlleval, and seqeval by default, have them: an entity ends where another kind, O or B- follows, and I- without an
    entity of its kind before it begins one. IOBES's E- ends one and S- is one.
    """
    found = set()
    open_kind, begin = None, 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        kind = kind or "_"
        inside = prefix in ("I", "E") and kind == open_kind
        if open_kind is not None and not inside:
            found.add((open_kind, begin, i - 1))
            open_kind = None
        if open_kind is None and prefix in ("B", "I", "E", "S"):
            open_kind, begin = kind, i
        if prefix in ("E", "S") and open_kind is not None:
            found.add((open_kind, begin, i))
            open_kind = None
    return found


def entity_scores(gold: Tags, found: Tags) -> dict[str, float]:
    """Precision, recall and F1 of whole entities over all sentences (CoNLL-2003's measure).

    Returns:
      precision, recall, entity_f1: 0 where there is nothing to divide by.
    """
    correct = marked = expected = 0
    for a, b in zip(gold, found, strict=True):
        if len(a) != len(b):
            raise ValueError(f"{len(b)} tags for a sentence of {len(a)}")
        gold_entities, found_entities = entities(a), entities(b)
        correct += len(gold_entities & found_entities)
        marked += len(found_entities)
        expected += len(gold_entities)
    precision = correct / marked if marked else 0.0
    recall = correct / expected if expected else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    return {"precision": precision, "recall": recall, "entity_f1": f1}
