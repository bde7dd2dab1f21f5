# SPDX-License-Identifier: Apache-2.0
"""How good a translation is, as far as sentence vectors tell: by the cosine alone, and by regression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from mlm_jax.errors import UserError
from mlm_jax.evaluate.retrieval import normalise
from mlm_jax.formats import read_rows
from mlm_jax.lines import LARGEST_FILE
from mlm_jax.metrics.labels import pearson, spearman
from mlm_jax.neutrality.config import Quality
from mlm_jax.rows import Reading


@dataclass(frozen=True)
class Judged:
    """Translations with people's scores, float64 [sentences], and their places, FILE:LINE."""

    source: list[str]
    translation: list[str]
    score: np.ndarray
    places: list[str]


def read_judged(path: str, part: Quality) -> Judged:
    """Read a file of scored translations.

    Raises:
      UserError: no such column, an empty sentence, or a score that is not a number.
    """
    source, translation, score, places = [], [], [], []
    for where, row in read_rows(path, Reading(most=LARGEST_FILE)):
        for column in (part.source, part.translation, part.score):
            if column not in row:
                raise UserError(f"{where}: no column {column}; there are {', '.join(row)}")
            if row[column] is None or not str(row[column]).strip():
                raise UserError(f"{where}: {column} is empty; remove the line")
        try:
            value = float(row[part.score])
        except (ValueError, TypeError) as e:
            raise UserError(f"{where}: {part.score} is {row[part.score]!r}, not a number") from e
        if not math.isfinite(value):
            raise UserError(f"{where}: {part.score} is {value}, not a finite number")
        source.append(str(row[part.source]))
        translation.append(str(row[part.translation]))
        score.append(value)
        places.append(where)
        if len(score) == part.most:
            break
    if len(score) < 3:
        raise UserError(f"{path}: {len(score)} scored translations; a correlation needs three")
    return Judged(source, translation, np.asarray(score), places)


def by_cosine(a: np.ndarray, b: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Correlation of people's scores, float64 [sentences], with the cosine of source and translation, float32 [sentences, width]."""
    cosine = (normalise(np.asarray(a)) * normalise(np.asarray(b))).sum(axis=1)
    return _correlations(score, cosine)


def by_regression(fit: np.ndarray, fit_score: np.ndarray, test: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """The same with the predictions of ridge regression on vectors, float32 [sentences, width] each."""
    scale = max(float(np.std(fit)), 1e-12)
    found = Ridge(alpha=100.0).fit(fit / scale, fit_score).predict(test / scale)
    return _correlations(score, found)


def _correlations(score: np.ndarray, found: np.ndarray) -> dict[str, float]:
    return {"pearson": pearson(score.tolist(), found.tolist()), "spearman": spearman(score.tolist(), found.tolist())}
