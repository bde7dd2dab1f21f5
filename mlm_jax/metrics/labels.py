# SPDX-License-Identifier: Apache-2.0
"""What the papers' tables hold: accuracies, F1 of classes, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics


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
