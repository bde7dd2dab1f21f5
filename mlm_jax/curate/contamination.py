# SPDX-License-Identifier: Apache-2.0
"""Documents that hold a part of an evaluation set: they share a run of 13 words with it (Brown et al. 2020, appendix C).

Words are compared without case, punctuation and digits. In scripts without spaces a word of `words.py` is about a syllable, so runs are twice as
long there. A text of fewer words counts as a whole, if it has at least 8; shorter ones are not looked for, since they stand in many documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlm_jax.curate.words import LONGEST, U64, Words, n_gram_hashes, plain_words, word_hashes

RUN, LEAST = 13, 8  # words
UNSPACED = 2  # runs are that much longer where words are about a syllable
_OVERLAP = 2000  # characters that parts of a long document share
_ENOUGH = 0.5  # the share of words that follow the one before without a space, which tells such a text


@dataclass(frozen=True)
class Evaluation:
    """The runs of words of all sets.

    Attributes:
      names: of the sets.
      runs: words in a run → hashes of runs, sorted, uint64 [runs].
      sets: words in a run → for each its sets, bit i for names[i]; uint64 [runs].
      unseen: texts that are too short to be looked for, per set.
      firsts: hashes of the first 8 words of runs, sorted, uint64.
      maybe: whether one of them has these lower bits, so that most places are told at once; bool [a power of 2].
    """

    names: tuple[str, ...]
    runs: Mapping[int, U64]
    sets: Mapping[int, U64]
    unseen: Mapping[str, int]
    firsts: U64
    maybe: NDArray[np.bool_]


def _unspaced(found: Words) -> bool:
    if not len(found):
        return False
    glued = found.starts[1:] == found.ends[:-1]  # words without anything between them
    return bool(glued.mean() > _ENOUGH) if len(glued) else False


def read_evaluation(sets: Mapping[str, Iterable[str]]) -> Evaluation:
    """What documents are compared with.

    Args:
      sets: name → its texts; at most 64 sets.
    """
    if len(sets) > 64:
        raise ValueError(f"{len(sets)} evaluation sets; at most 64")
    parts: dict[int, list[tuple[U64, int]]] = {}
    unseen = {}
    eights = [np.zeros(0, np.uint64)]
    for number, (name, texts) in enumerate(sets.items()):
        short = 0
        for text in texts:
            found = plain_words(text)
            times = UNSPACED if _unspaced(found) else 1
            length = min(len(found), RUN * times)
            if length < LEAST * times:
                short += 1
                continue
            hashes = word_hashes(found)
            parts.setdefault(length, []).append((np.unique(n_gram_hashes(hashes, length)), number))
            eights.append(n_gram_hashes(hashes, LEAST)[: len(found) - length + 1])
        unseen[name] = short
    runs, members = {}, {}
    for length, owned in sorted(parts.items()):
        keys, inverse = np.unique(np.concatenate([part for part, _ in owned]), return_inverse=True)
        bits = np.zeros(len(keys), np.uint64)
        owners = np.repeat([number for _, number in owned], [len(part) for part, _ in owned]).astype(np.uint64)
        np.bitwise_or.at(bits, inverse, np.uint64(1) << owners)
        runs[length], members[length] = keys, bits
    firsts = np.unique(np.concatenate(eights))
    maybe = np.zeros(1 << max(10, len(firsts).bit_length() + 4), bool)
    maybe[_lower(firsts, maybe)] = True
    return Evaluation(tuple(sets), runs, members, unseen, firsts, maybe)


def _lower(hashes: U64, table: NDArray[np.bool_]) -> NDArray[np.int64]:
    return (hashes & np.uint64(len(table) - 1)).astype(np.int64)


def _among(hashes: U64, keys: U64) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where hashes stand among sorted keys, and which do."""
    if not len(keys):
        return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
    at = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
    return at, keys[at] == hashes


def contaminating(text: str, evaluation: Evaluation) -> list[str]:
    """The names of the sets that a document holds a part of."""
    bits = 0
    for at in range(0, max(1, len(text)), LONGEST):
        hashes = word_hashes(plain_words(text[max(0, at - _OVERLAP) : at + LONGEST]))
        eights = n_gram_hashes(hashes, LEAST)
        places = np.flatnonzero(evaluation.maybe[_lower(eights, evaluation.maybe)])
        places = places[_among(eights[places], evaluation.firsts)[1]]
        if not len(places):
            continue
        for length, keys in evaluation.runs.items():
            fits = places[places + length <= len(hashes)]
            grams = n_gram_hashes(hashes, length, fits)
            spots, hits = _among(grams, keys)
            if hits.any():
                bits |= int(np.bitwise_or.reduce(evaluation.sets[length][spots[hits]]))
    return [name for i, name in enumerate(evaluation.names) if bits >> i & 1]
