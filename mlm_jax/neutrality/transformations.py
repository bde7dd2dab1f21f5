# SPDX-License-Identifier: Apache-2.0
"""What is done to a language's vectors before they are compared, fitted on other sentences than those compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Vectors = dict[str, np.ndarray]  # language → [sentences, width]
Map = Callable[[np.ndarray], np.ndarray]  # [n, width] → [n, width]
SMALLEST = 1e-3  # of the largest: singular values below are directions that a sample does not determine


def transform(kind: str, fit: Vectors, given: Vectors, pivot: str) -> Vectors:
    """Transform vectors, one language at a time; arguments as in `fit_maps`.

    Args:
      given: what is transformed.
    """
    maps = fit_maps(kind, fit, pivot)
    return {language: maps[language](vectors) for language, vectors in given.items()}


def fit_maps(kind: str, fit: Vectors, pivot: str) -> dict[str, Map]:
    """The transformation of each language.

    Args:
      kind: plain: as they are. Of a language's own vectors: centred: less their mean (Libovický et al. 2019, section 3); normalised: and
        divided by their standard deviation, dimension by dimension; whitened: and multiplied by the inverse root of their covariance, all of whose
        directions are then alike; projected: by the affine map into the pivot with least squared error (the paper's section 4.2), the pivot
        as it is. One map for all languages: lsar: less what lies in the subspace of the languages' means (Xie et al. 2022); leace: less
        what a linear classifier could tell the language by, changed least (Belrose et al. 2023).
      fit: that means, deviations and maps are computed of; for projection, line n the same in all languages.
    """
    if kind in JOINT:
        return dict.fromkeys(fit, JOINT[kind]({language: np.asarray(x, np.float64) for language, x in fit.items()}))
    return {language: _fit_map(kind, fit, language, pivot) for language in fit}


def _fit_map(kind: str, fit: Vectors, language: str, pivot: str) -> Map:
    if kind == "plain" or (kind == "projected" and language == pivot):
        return lambda x: np.asarray(x, np.float32)
    own = np.asarray(fit[language], np.float32)
    mean = own.mean(axis=0)
    if kind == "centred":
        return lambda x: x - mean
    if kind == "normalised":
        deviation = np.maximum(own.std(axis=0), 1e-6)
        return lambda x: (x - mean) / deviation
    if kind == "whitened":
        matrix = _inverse_root(np.cov(own, rowvar=False, dtype=np.float64)).astype(np.float32)
        return lambda x: (x - mean) @ matrix
    # Centred on both sides, least squares needs no constant.
    goal = np.asarray(fit[pivot], np.float32)
    middle = goal.mean(axis=0)
    # rcond drops directions that the sample does not determine (minimum-norm least squares).
    matrix = np.linalg.lstsq(own - mean, goal - middle, rcond=SMALLEST)[0]
    return lambda x: (x - mean) @ matrix + middle


def lsar(fit: Vectors) -> Map:
    """Project vectors off the directions in which the languages' means differ (Xie et al. 2022, algorithm 1, of full rank)."""
    means = np.stack([x.mean(axis=0) for x in fit.values()], axis=1)  # [width, languages]
    rank, ones = len(fit) - 1, np.ones(len(fit))
    left, values, right = np.linalg.svd(means - means.mean(axis=1, keepdims=True), full_matrices=False)
    low = means.mean(axis=1, keepdims=True) + left[:, :rank] * values[:rank] @ right[:rank]
    # What is common to all languages, orthogonal to what is not.
    common = np.linalg.pinv(low).T @ ones  # [width]
    common /= common @ common
    left, values, _ = np.linalg.svd(low - common[:, None], full_matrices=False)
    basis = left[:, :rank][:, values[:rank] > 1e-9 * max(float(values[0]), 1e-300)].astype(np.float32)  # [width, rank]
    return lambda x: np.asarray(x, np.float32) - (x @ basis) @ basis.T


def leace(fit: Vectors) -> Map:
    """Erase linearly what tells the languages (Belrose et al. 2023, theorem 4.3): x − W⁺ P W (x − mean), where W is the inverse root of the
    covariance and P the projection onto the whitened covariances with the languages."""
    x = np.concatenate(list(fit.values()))  # [sentences, width]
    of = np.repeat(np.eye(len(fit)), [len(v) for v in fit.values()], axis=0)  # [sentences, languages]
    mean = x.mean(axis=0)
    centred, cross = x - mean, (x - mean).T @ (of - of.mean(axis=0)) / len(x)  # [width, languages]
    covariance = centred.T @ centred / len(x)
    white = _inverse_root(covariance, smallest=1e-10)
    left, values, _ = np.linalg.svd(white @ cross, full_matrices=False)
    left = left[:, values > 1e-8 * max(float(values[0]), 1e-300)]
    root = _inverse_root(covariance, smallest=1e-10, inverse=False)
    matrix = (root @ left @ left.T @ white).T.astype(np.float32)
    middle = mean.astype(np.float32)
    return lambda x: np.asarray(x, np.float32) - (x - middle) @ matrix


JOINT: dict[str, Callable[[Vectors], Map]] = {"lsar": lsar, "leace": leace}


def _inverse_root(covariance: np.ndarray, smallest: float = SMALLEST**2, inverse: bool = True) -> np.ndarray:
    """The inverse root of a covariance (or its root), symmetric, [width, width]; directions below `smallest` of the largest variance are left out."""
    values, vectors = np.linalg.eigh(covariance)
    there = values > smallest * max(float(values[-1]), 1e-300)
    scale = values[there] ** (-0.5 if inverse else 0.5)
    return (vectors[:, there] * scale) @ vectors[:, there].T
