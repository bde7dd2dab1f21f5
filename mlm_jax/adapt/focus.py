# SPDX-License-Identifier: Apache-2.0
"""FOCUS (Dobler and de Melo 2023): a new piece's row is a mix of the rows of old pieces that are used as it is.

Which are is told by static vectors of pieces, trained on the text. The paper takes fastText's; here they are a factored matrix of
positive pointwise mutual information (Levy, Goldberg and Dagan 2015, with their smoothed contexts and square root of the singular
values), which needs no training and no library.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from mlm_jax.errors import UserError

WIDTH = 100  # of the static vectors
WINDOW = 5  # neighbours on either side; the n-th counts 1/n
SMOOTHING = 0.75  # exponent of the contexts' counts
AT_ONCE = 1_000  # pieces whose similarities are in memory together


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The nearest point of the probability simplex, which has few numbers above 0 (Martins and Astudillo 2016, algorithm 1).

    Args:
      scores: float [..., n].

    Returns:
      float [..., n]; each row is of 0 or more, and sums to 1.
    """
    ordered = -np.sort(-scores, axis=-1)
    sums = np.cumsum(ordered, axis=-1)
    number = np.arange(1, scores.shape[-1] + 1)
    support = (1 + number * ordered > sums).sum(axis=-1, keepdims=True)  # [..., 1]
    threshold = (np.take_along_axis(sums, support - 1, axis=-1) - 1) / support
    return np.maximum(scores - threshold, 0)


def static_vectors(texts: list[list[int]], size: int, width: int = WIDTH) -> np.ndarray:
    """Vectors of pieces by the company they keep, float32 [size, width] of length 1; 0 of those that do not occur.

    Args:
      texts: ids of each, below `size`.
    """
    apart = [-1] * WINDOW
    ids = np.array([i for text in texts for i in (*text, *apart)], np.int64)
    seen, ids = np.unique(ids, return_inverse=True)  # -1 becomes 0
    number = len(seen)
    counts = scipy.sparse.csr_matrix((number, number))
    for distance in range(1, WINDOW + 1):
        a, b = ids[:-distance], ids[distance:]
        pairs = (a > 0) & (b > 0)
        weights = np.full(int(pairs.sum()), 1 / distance)
        counts += scipy.sparse.coo_matrix((weights, (a[pairs], b[pairs])), (number, number)).tocsr()
    counts = (counts + counts.T).tocoo()
    found = np.zeros((size, width), np.float32)
    if counts.nnz == 0:
        return found
    total = np.asarray(counts.sum(axis=1)).ravel()  # [number]
    context = total**SMOOTHING
    expected = total[counts.row] * context[counts.col] / context.sum()
    information = np.log(counts.data / expected)
    above = information > 0
    matrix = scipy.sparse.csr_matrix((information[above], (counts.row[above], counts.col[above])), (number, number))
    few = min(width, number - 2)
    if few < 1 or matrix.nnz == 0:
        return found
    # Begun from the same vector, it gives the same result.
    left, values, _ = scipy.sparse.linalg.svds(matrix, few, v0=np.ones(number))
    vectors = left * np.sqrt(values)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found[seen[1:], :few] = vectors[1:]
    return found


def focus_rows(
    texts: list[list[int]], matched: np.ndarray, fixed: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of new pieces that occur in the text.

    Args:
      texts: ids of the new vocabulary.
      matched: of each new piece the old one that it is, -1 of those that are new, int64 [new].
      fixed: whether a new piece is a special, added token or byte, whose row is no word's, bool [new].
      table: old rows, float32 [old, columns].

    Returns:
      Ids of the new pieces, int64 [n], and their rows, float32 [n, columns].

    Raises:
      UserError: no old piece occurs in the text.
    """
    vectors = static_vectors(texts, len(matched))
    occurs = vectors.any(axis=1) & ~fixed
    shared, new = np.flatnonzero(occurs & (matched >= 0)), np.flatnonzero(occurs & (matched < 0))
    if not len(shared):
        raise UserError(
            "rows: focus mixes new rows of old pieces that the text has too, and it has none: the vocabularies share nothing; "
            "use rows script, or random"
        )
    rows = [np.zeros((0, table.shape[1]), np.float32)]
    for begin in range(0, len(new), AT_ONCE):
        alike = vectors[new[begin : begin + AT_ONCE]] @ vectors[shared].T  # [n, shared]
        rows.append((sparsemax(alike) @ table[matched[shared]]).astype(np.float32))
    return new, np.concatenate(rows)
