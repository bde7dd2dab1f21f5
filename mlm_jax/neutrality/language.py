# SPDX-License-Identifier: Apache-2.0
"""Can the language be told, and are languages near their relatives?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy
from sklearn import metrics
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from mlm_jax.neutrality.transformations import Vectors


def identify(fit: Vectors, test: Vectors, network: bool = False) -> tuple[float, np.ndarray]:
    """Tell languages apart by logistic regression on sentence vectors, float32 [sentences, width] per language.

    Args:
      network: by a network of a hidden layer of 64 units in its place.

    Returns:
      Accuracy on `test`, and the confusion, counts, int64 [language, found], in the order of `fit`.
    """
    languages = list(fit)

    def together(vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([vectors[x] for x in languages]), np.repeat(
            languages, [len(vectors[x]) for x in languages]
        )

    y, found = together(test)[1], classify(*together(fit), together(test)[0], network)
    return float(np.mean(found == y)), metrics.confusion_matrix(y, found, labels=languages)


def classify(x: np.ndarray, y: np.ndarray, given: np.ndarray, network: bool = False) -> np.ndarray:
    """The classes of vectors, by logistic regression or a network of a hidden layer of 64 units.

    Args:
      x, y: vectors, float32 [n, width], and their classes, [n], that it is fitted on.
      given: float32 [m, width].

    Returns:
      Of the classes of y, [m].
    """
    # So that one strength of regularisation serves every layer; what is left of equal vectors, centred, is rounding.
    scale = deviation if (deviation := float(x.std())) > 1e-6 else np.inf
    model = MLPClassifier((64,), max_iter=200, random_state=0) if network else LogisticRegression(max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # accuracy has settled long before
        model.fit(x / scale, y)
    return np.asarray(model.predict(given / scale))


@dataclass(frozen=True)
class Similarity:
    """Languages clustered by their mean vectors.

    Attributes:
      languages: those whose family is known.
      tree: SciPy's linkage of their centroids, average, by cosine.
      v_measure, rand: of as many clusters as there are families, against the families (adjusted Rand index).
    """

    languages: list[str]
    tree: np.ndarray
    v_measure: float
    rand: float


def similarity(vectors: Vectors, families: dict[str, str]) -> Similarity | None:
    """Cluster the languages' centroids; None where fewer than three languages, or fewer than two families, are known."""
    languages = [x for x in vectors if x in families]
    kinds = [families[x] for x in languages]
    if len(languages) < 3 or len(set(kinds)) < 2:
        return None
    centroids = np.stack([np.asarray(vectors[x], np.float64).mean(axis=0) for x in languages])
    tree = hierarchy.linkage(centroids, "average", "cosine")
    clusters = hierarchy.fcluster(tree, len(set(kinds)), "maxclust")
    return Similarity(
        languages,
        tree,
        float(metrics.v_measure_score(kinds, clusters)),
        float(metrics.adjusted_rand_score(kinds, clusters)),
    )


def plane(vectors: Vectors, most: int = 40) -> dict[str, np.ndarray]:
    """Places of each language's first sentences on the two principal components, float64 [sentences, 2]."""
    taken = {x: np.asarray(v[:most], np.float64) for x, v in vectors.items()}
    together = np.concatenate(list(taken.values()))
    if not np.ptp(together, axis=0).any():  # layer 0 has one vector for all first tokens
        return {x: np.zeros((len(v), 2)) for x, v in taken.items()}
    fitted = PCA(2, random_state=0).fit(together)
    return {x: fitted.transform(v) for x, v in taken.items()}


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Linear centred kernel alignment of the same sentences' vectors (Kornblith et al. 2019, equation 3 with a linear kernel), 0 to 1.

    Args:
      a, b: float32 [sentences, width] each, widths may differ.
    """
    a, b = (np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64) for x in (a, b))
    # By whichever of the two forms has the smaller matrices.
    if len(a) < max(a.shape[1], b.shape[1]):
        k, m = a @ a.T, b @ b.T
        cross, own = (k * m).sum(), np.linalg.norm(k) * np.linalg.norm(m)
    else:
        cross, own = (np.linalg.norm(a.T @ b) ** 2), np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(cross / own) if own > 0 else 0.0
