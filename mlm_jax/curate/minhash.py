# SPDX-License-Identifier: Apache-2.0
"""MinHash (Broder 1997): a text's signature, and its keys in bands, of which like texts share one.

As FineWeb and FineWeb-2 have it: shingles of 5 words, 14 bands of 8 hashes. Texts of Jaccard similarity s (of their sets of shingles) share a
band with probability 1 - (1 - s**8)**14: 0.92 at s = 0.8, half at 0.71, 0.01 at 0.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlm_jax.curate.words import (
    LONGEST,
    U64,
    hash_words,
    mix,
    n_gram_hashes,
    numbers,
    plain_words,
    sequence_hashes,
    word_hashes,
)

SHINGLE = 5  # words
BANDS, ROWS = 14, 8
_BLOCK = 1024  # shingles at a time: 112 hashes of them stay in the cache

U32 = NDArray[np.uint32]


def shingles(text: str, n: int = SHINGLE) -> U64:
    """Hashes of the runs of n words, one for the whole of a shorter text, none for a text without words; uint64 [shingles].

    Of a text of over a million characters the beginning is looked at.
    """
    hashes = word_hashes(plain_words(text[:LONGEST]))
    if 0 < len(hashes) < n:
        return sequence_hashes(hashes, np.array([0]), np.array([len(hashes)]))
    return n_gram_hashes(hashes, n)


def signature(hashes: U64, count: int = BANDS * ROWS) -> U32:
    """The least value of each of `count` hash functions over shingles; uint32 [count]."""
    if not len(hashes):
        raise ValueError("no shingles: a text without words has no signature")
    bits = (hashes >> np.uint64(32)).astype(np.uint32)
    factors = (numbers(count, 4) >> np.uint64(32)).astype(np.uint32)[:, None] | np.uint32(1)
    terms = (numbers(count, 5) >> np.uint64(32)).astype(np.uint32)[:, None]
    least = np.full(count, 2**32 - 1, np.uint32)
    for at in range(0, len(bits), _BLOCK):
        values = factors * bits[at : at + _BLOCK]
        values += terms
        np.minimum(least, values.min(axis=1), out=least)
    return least


def band_keys(signed: U32, language: str = "", bands: int = BANDS) -> U64:
    """A key per band, which texts of other languages do not share; uint64 [bands]."""
    rows = signed.astype(np.uint64).reshape(bands, -1)
    salt = hash_words([language])[0] + numbers(bands, 7)
    return mix((rows * numbers(rows.shape[1], 6)).sum(axis=1, dtype=np.uint64) + salt)


def chance(similarity: float, bands: int = BANDS, rows: int = ROWS) -> float:
    """Of two texts of that Jaccard similarity sharing a band."""
    return 1 - (1 - similarity**rows) ** bands


def jaccard(a: U64, b: U64) -> float:
    """The exact similarity of two texts by their shingles."""
    a, b = np.unique(a), np.unique(b)
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both) if len(a) + len(b) else 1.0
