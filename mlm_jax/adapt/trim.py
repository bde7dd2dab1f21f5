# SPDX-License-Identifier: Apache-2.0
"""Which pieces stay, so that the text they were counted in is cut as before.

Each kind of model looks for a best cut, and pieces that are in no cut can go without another becoming the best:

- the unigram model's is the path of the highest score. Its pieces stay, so it is there, and no path is new. But a character
  without a piece scores 10 less than the worst piece does, so that piece stays too;
- BPE makes pieces of pieces, so those that a piece was made of stay, and the merges between them, in their order;
- WordPiece takes the longest piece first; the longest of what is there stays the longest of less.
"""

from __future__ import annotations

import numpy as np

from mlm_jax.adapt.pieces import Pieces
from mlm_jax.errors import UserError


def kept_pieces(old: Pieces, counts: np.ndarray, min_count: int) -> np.ndarray:
    """The ids that stay, int64 [n], ascending.

    They are the pieces that occur so often; the characters they consist of, so that other words of the same letters can be written;
    added tokens, <unk> and bytes; and what the cuts need.

    Args:
      counts: how often each id occurs, int64 [pieces or more].

    Raises:
      UserError: no piece occurs so often.
    """
    counts = counts[: len(old.names)]  # an embedding may have rows without a piece
    occurs = (counts >= min_count) & (counts > 0)
    if not (occurs & ~old.fixed).any():
        most = int(counts[~old.fixed].max(initial=0))
        raise UserError(
            f"min_count: no piece of the vocabulary occurs {min_count:,} times in this text (the most frequent {most:,} times), so that "
            "trim would keep nothing; lower min_count, or extend the vocabulary instead"
        )
    kept = occurs | old.fixed
    characters = set("".join(old.names[i] for i in np.flatnonzero(occurs)))
    for character in characters:
        for name in (character, old.prefix + character, character + old.suffix):
            if name in old.ids:
                kept[old.ids[name]] = True
    if old.kind == "Unigram":
        kept[int(np.argmin([score for _, score in old.model["vocab"]]))] = True
    if old.kind == "BPE":
        kept = _with_parts(old, kept)
    return np.flatnonzero(kept)


def _with_parts(old: Pieces, kept: np.ndarray) -> np.ndarray:
    """The pieces with all that merges make them of, bool [pieces]."""
    kept = kept.copy()
    merges = [(old.ids[old.merged(a, b)], old.ids[a], old.ids[b]) for a, b in old.model["merges"]]
    more = True
    while more:  # mostly pieces are made of earlier ones, and one round finds all
        more = False
        for whole, first, second in reversed(merges):
            if kept[whole] and not (kept[first] and kept[second]):
                kept[first] = kept[second] = more = True
    return kept
