# SPDX-License-Identifier: Apache-2.0
"""More merges for a byte-pair encoding that has some (Sennrich et al. 2016, section 3.2, from where its training ended)."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

Merge = tuple[str, str]
RAREST = 2  # times that a pair has to occur


def more_merges(
    words: Mapping[tuple[str, ...], int], number: int, merged: Callable[[str, str], str], barred: Callable[[str], bool]
) -> list[Merge]:
    """The most frequent pair of neighbours becomes a piece, and again.

    Args:
      words: as the old merges leave them, and how often each occurs.
      number: of merges, at most.
      merged: the piece that two make.
      barred: whether a piece is in no merge.
    """
    cut = [list(word) for word in words]
    times = list(words.values())
    counts: Counter[Merge] = Counter()
    where: dict[Merge, set[int]] = defaultdict(set)

    def add(word: int, sign: int) -> Iterable[Merge]:
        for pair in itertools.pairwise(cut[word]):
            if not (barred(pair[0]) or barred(pair[1])):
                counts[pair] += sign * times[word]
                where[pair].add(word)
                yield pair

    for word in range(len(cut)):
        for _ in add(word, 1):
            pass
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    found: list[Merge] = []
    while heap and len(found) < number:
        count, pair = heapq.heappop(heap)
        if -count != counts[pair]:
            continue  # it has been pushed again since
        if -count < RAREST:
            break
        found.append(pair)
        touched: set[Merge] = set()
        for word in sorted(where.pop(pair)):
            touched.update(add(word, -1))
            cut[word] = _merge(cut[word], pair, merged(*pair))
            touched.update(add(word, 1))
        for other in touched:
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], other))
    return found


def _merge(pieces: list[str], pair: Merge, made: str) -> list[str]:
    """A word's pieces with each such pair as one, from the left."""
    found: list[str] = []
    i = 0
    while i < len(pieces):
        whole = i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == pair
        found.append(made if whole else pieces[i])
        i += 1 + whole
    return found
