# SPDX-License-Identifier: Apache-2.0
"""What is done to a language's vectors before they are compared, fitted on other sentences than those compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Vectors = dict[str, np.ndarray]  # language → [sentences, width]


def transform(kind: str, fit: Vectors, given: Vectors, pivot: str) -> Vectors:
    """Transform vectors, one language at a time.

    Args:
      kind: plain: as they are; centred: less the language's mean (Libovický et al. 2019, section 3); normalised: and divided by its
        standard deviation, dimension by dimension; projected: by the affine map into the pivot with least squared error (the
        paper's section 4.2), the pivot as it is.
      fit: that means, deviations and maps are computed of; for projection, line n the same in all languages.
      given: what is transformed.
    """
    return {language: fitted(kind, fit, language, pivot)(vectors) for language, vectors in given.items()}


def fitted(kind: str, fit: Vectors, language: str, pivot: str) -> Callable[[np.ndarray], np.ndarray]:
    """The transformation of one language, [n, width] → [n, width]."""
    if kind == "plain" or (kind == "projected" and language == pivot):
        return lambda x: np.asarray(x, np.float32)
    own = np.asarray(fit[language], np.float32)
    mean = own.mean(axis=0)
    if kind == "centred":
        return lambda x: x - mean
    if kind == "normalised":
        deviation = np.maximum(own.std(axis=0), 1e-6)
        return lambda x: (x - mean) / deviation
    # Centred on both sides, least squares needs no constant.
    goal = np.asarray(fit[pivot], np.float32)
    middle = goal.mean(axis=0)
    # rcond drops directions that the sample does not determine (minimum-norm least squares).
    matrix = np.linalg.lstsq(own - mean, goal - middle, rcond=1e-3)[0]
    return lambda x: (x - mean) @ matrix + middle
