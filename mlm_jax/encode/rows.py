# SPDX-License-Identifier: Apache-2.0
"""Token ids of texts → the rows of a batch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Batch = list[list[int]]  # items of each row
Arrays = dict[str, np.ndarray]

MULTIPLE = 4  # of the lengths of short rows: of a sentence of 15 tokens 8 would make a quarter padding
SORTED = 4_096  # items that are sorted at a time, so that what streams to disk stays together


@dataclass(frozen=True)
class Shape:
    """The shape of a batch.

    Attributes:
      rows: number of rows.
      length: of a row, in tokens.
      slots: items per row, at most.
    """

    rows: int
    length: int
    slots: int


@dataclass(frozen=True)
class Items:
    """Texts, pairs or windows as token ids, in columns.

    Attributes:
      ids: with specials, int32 [length] each.
      types: 1 in the second text, else 0, int32 [length] each.
      language_ids: an id per item; encoders without language embeddings do not read it.
    """

    ids: list[np.ndarray]
    types: list[np.ndarray]
    language_ids: list[int]

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]


def round_up(length: int) -> int:
    """The length of the rows that hold an item: each is a program of its own, so there are few.

    Multiples of 4 up to 128 tokens, of 8 up to 256, and so on.
    """
    step = max(MULTIPLE, 1 << max((length - 1).bit_length() - 5, 0))
    return -(-length // step) * step


def by_length(lengths: Sequence[int], tokens: int, multiple: int) -> Iterator[tuple[Batch, Shape]]:
    """Batches of items of like lengths, the longest first, an item per row.

    Rows that hold several items would have less padding, but each token's scores with all others of the row, most of which
    are masked.

    Args:
      lengths: tokens per item.
      tokens: positions of a batch, about.
      multiple: of the number of rows: devices that they are divided over.
    """
    for begin in range(0, len(lengths), SORTED):
        waiting = sorted(range(begin, min(begin + SORTED, len(lengths))), key=lambda i: -lengths[i])
        while waiting:
            length = round_up(lengths[waiting[0]])
            rows = max(1, tokens // length // multiple) * multiple
            yield [[item] for item in waiting[:rows]], Shape(rows, length, 1)
            waiting = waiting[rows:]


def pack(lengths: Sequence[int], order: Sequence[int], shape: Shape, ahead: int) -> list[Batch]:
    """Put every item into a row of a batch, best-fit.

    A batch takes items in order while they fit, and then such of the `ahead` next as still do; those it passes
    over begin the next batch.

    Args:
      lengths: tokens per item; none above `shape.length`.
      order: in which items come.
      ahead: items passed over, at most, before a batch is closed.
    """
    waiting = list(reversed(order))  # its end is the front
    batches = []
    while waiting:
        rows: Batch = [[] for _ in range(shape.rows)]
        free = [(shape.length, row) for row in range(shape.rows)]  # ascending
        passed: list[int] = []
        while waiting and len(passed) <= ahead and free:
            item = waiting.pop()
            # The fullest row that it fits into.
            place = bisect_left(free, (lengths[item], -1))
            if place == len(free):
                passed.append(item)
                continue
            left, row = free.pop(place)
            rows[row].append(item)
            if len(rows[row]) < shape.slots:
                insort(free, (left - lengths[item], row))
        waiting += reversed(passed)
        batches.append(rows)
    return batches


def placed(items: Items, batch: Batch) -> Iterator[tuple[int, int, slice, int]]:
    """(row, slot, places in the row, item) of every item of a batch; the items of a row follow each other."""
    for row, members in enumerate(batch):
        at = 0
        for slot, item in enumerate(members):
            yield row, slot, slice(at, at + len(items.ids[item])), item
            at += len(items.ids[item])


def to_arrays(items: Items, batch: Batch, shape: Shape, pad: int, token_types: int) -> Arrays:
    """A batch.

    Args:
      token_types: rows of the encoder's token type embedding; types beyond are the last.

    Returns:
      tokens, segment_ids (slot + 1; 0 is padding), positions, token_types, language_ids: int32 [rows, length]; starts (of
      each segment, int32) and valid (whether there is an item, bool): [rows, slots].
    """
    square, slots = (shape.rows, shape.length), (shape.rows, shape.slots)
    out = {
        "tokens": np.full(square, pad, np.int32),
        "segment_ids": np.zeros(square, np.int32),
        "positions": np.zeros(square, np.int32),
        "token_types": np.zeros(square, np.int32),
        "language_ids": np.zeros(square, np.int32),
        "starts": np.zeros(slots, np.int32),
        "valid": np.zeros(slots, bool),
    }
    for row, slot, here, item in placed(items, batch):
        out["tokens"][row, here] = items.ids[item]
        out["segment_ids"][row, here] = slot + 1
        out["positions"][row, here] = np.arange(len(items.ids[item]))
        out["token_types"][row, here] = np.minimum(items.types[item], max(token_types - 1, 0))
        out["language_ids"][row, here] = items.language_ids[item]
        out["starts"][row, slot], out["valid"][row, slot] = here.start, True
    return out
