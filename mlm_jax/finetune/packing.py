# SPDX-License-Identifier: Apache-2.0
"""Items → rows of one length, several per row, each in a segment of its own, so that one compiled program serves."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Batch = list[list[int]]  # items of each row


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


def pack(lengths: Sequence[int], order: Sequence[int], shape: Shape, ahead: int) -> list[Batch]:
    """Put every item into a row of a batch, best-fit.

    A batch takes items in order while they fit, and then such of the `ahead` next as still do; those it passes
    over begin the next batch.

    Args:
      lengths: tokens of each item; none above `shape.length`.
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


def padding_share(lengths: Sequence[int], batches: Sequence[Batch], shape: Shape) -> float:
    """Share of the batches' positions that hold no token; of the last, which has only what was left, its filled rows'."""
    used = sum(lengths[item] for batch in batches for row in batch for item in row)
    rows = shape.rows * (len(batches) - 1) + sum(bool(row) for row in batches[-1])
    return 1 - used / (rows * shape.length)


def choose_shape(lengths: Sequence[int], batch_size: int, padding: float) -> tuple[Shape, float]:
    """The shortest rows that hold `batch_size` items on average and at most a share of padding.

    The number of rows is a power of two, so that devices divide it. It does not depend on the number of devices: any number
    of them sees the same batches.

    Args:
      lengths: tokens of each item.

    Returns:
      The shape, and the share of padding in a trial packing; above `padding` where no shape has less.
    """
    longest, mean = max(lengths), float(np.mean(lengths))
    order = np.random.default_rng(0).permutation(len(lengths))[: 64 * batch_size].tolist()
    batch_size = min(batch_size, len(lengths))
    tried: list[tuple[float, Shape]] = []
    for times in (1, 1.5, 2, 3, 4, 6, 8):
        rows = 2 ** max(0, round(np.log2(batch_size * mean / (longest * times))))
        length = max(longest, int(np.ceil(batch_size * mean * 1.02 / rows)))
        length = -(-length // 16) * 16
        shape = Shape(rows, length, max(2, int(np.ceil(2 * length / mean))))
        share = padding_share(lengths, pack(lengths, order, shape, 2 * batch_size), shape)
        if share <= padding:
            return shape, share
        tried.append((share, shape))
    share, shape = min(tried, key=lambda found: found[0])
    return shape, share


def epoch(lengths: Sequence[int], shape: Shape, batch_size: int, seed: int, number: int) -> list[Batch]:
    """The batches of an epoch: a function of the seed and its number alone."""
    order = np.random.default_rng((seed, number)).permutation(len(lengths)).tolist()
    return pack(lengths, order, shape, 2 * batch_size)


def in_order(lengths: Sequence[int], shape: Shape) -> list[Batch]:
    """Batches for prediction, in the order of the items but for what fills the rows up."""
    return pack(lengths, range(len(lengths)), shape, 256)
