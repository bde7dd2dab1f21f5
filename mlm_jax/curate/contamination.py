# SPDX-License-Identifier: Apache-2.0
"""Documents that hold a part of an evaluation set: they share a run of 13 words with it (Brown et al. 2020, appendix C).

Words are compared without case, punctuation and digits. In scripts without spaces a word of `words.py` is about a syllable, so runs are twice as
long there. A text of fewer words counts as a whole, if it has at least 8; shorter ones are not looked for, since they stand in many documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

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
    """

    names: tuple[str, ...]
    runs: Mapping[int, U64]
    sets: Mapping[int, U64]
    unseen: Mapping[str, int]


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
    for number, (name, texts) in enumerate(sets.items()):
        short = 0
        for text in texts:
            found = plain_words(text)
            times = UNSPACED if _unspaced(found) else 1
            length = min(len(found), RUN * times)
            if length < LEAST * times:
                short += 1
                continue
            parts.setdefault(length, []).append((np.unique(n_gram_hashes(word_hashes(found), length)), number))
        unseen[name] = short
    runs, members = {}, {}
    for length, hashes in sorted(parts.items()):
        keys, inverse = np.unique(np.concatenate([part for part, _ in hashes]), return_inverse=True)
        bits = np.zeros(len(keys), np.uint64)
        owners = np.repeat([number for _, number in hashes], [len(part) for part, _ in hashes]).astype(np.uint64)
        np.bitwise_or.at(bits, inverse, np.uint64(1) << owners)
        runs[length], members[length] = keys, bits
    return Evaluation(tuple(sets), runs, members, unseen)


def contaminating(text: str, evaluation: Evaluation) -> list[str]:
    """The names of the sets that a document holds a part of."""
    bits = 0
    for at in range(0, max(1, len(text)), LONGEST):
        hashes = word_hashes(plain_words(text[max(0, at - _OVERLAP) : at + LONGEST]))
        for length, keys in evaluation.runs.items():
            grams = n_gram_hashes(hashes, length)
            places = np.minimum(np.searchsorted(keys, grams), len(keys) - 1)
            hits = keys[places] == grams
            if hits.any():
                bits |= int(np.bitwise_or.reduce(evaluation.sets[length][places[hits]]))
    return [name for i, name in enumerate(evaluation.names) if bits >> i & 1]
