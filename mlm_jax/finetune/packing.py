# SPDX-License-Identifier: Apache-2.0
"""Items → rows of one length, several per row, each in a segment of its own, so that one compiled program serves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlm_jax.encode.rows import Batch, Shape, pack


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
