# SPDX-License-Identifier: Apache-2.0
"""How blocks, vocabulary and width are split over devices, for what is written device by device.

The compiler splits the encoder well by itself. Left alone with a table of the vocabulary it gathers it, and sums a
gradient of its size once a use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec


@dataclass(frozen=True)
class Split:
    """Mesh axes; those of one device are left out.

    Attributes:
      blocks: over which the batch is split.
      vocabulary: over which the embedding's rows are.
      width: over which its columns are; the batch is split over these too.
      copies: over which the batch is split and the embedding is not: the gradient is summed over these.
    """

    blocks: tuple[str, ...]
    vocabulary: tuple[str, ...]
    width: tuple[str, ...]

    @property
    def copies(self) -> tuple[str, ...]:
        return tuple(axis for axis in self.blocks if axis not in self.width)


def split_over(blocks: int, rows: int, width: int) -> Split | None:
    """The split in force where blocks, rows and width divide evenly over the devices; None on one device, or elsewhere."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return None

    def axes(name: str) -> tuple[str, ...]:
        found = (nn.logical_to_mesh_axes((name,)) or PartitionSpec(None))[0] or ()
        return tuple(axis for axis in ((found,) if isinstance(found, str) else found) if mesh.shape[axis] > 1)

    split = Split(axes("act_batch"), axes("vocab"), axes("embed"))
    even = blocks % size(split.blocks) == rows % size(split.vocabulary) == width % size(split.width) == 0
    if not (split.blocks or split.vocabulary) or not even or set(split.width) - set(split.blocks):
        return None
    return split


def size(axes: tuple[str, ...]) -> int:
    """Devices along mesh axes."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in axes)


def on_each_device(function: Callable[..., Any], inputs: tuple[Any, ...], outputs: Any) -> Callable[..., Any]:
    """The function of whole arrays that does `function` with each device's part."""
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, check_vma=False)


# Collectives over mesh axes, of which there may be none: then nothing is to do.


def number(axes: tuple[str, ...]) -> jax.Array | int:
    """This device's place along the axes."""
    return jax.lax.axis_index(axes) if axes else 0


def total(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return jax.lax.psum(x, axes) if axes else x


def highest(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    return jax.lax.pmax(x, axes) if axes else x


def gathered(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Parts one after the other along the first dimension."""
    return jax.lax.all_gather(x, axes, axis=0, tiled=True) if axes else x


def total_part(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """This device's part, along the first dimension, of the sum."""
    return jax.lax.psum_scatter(x, axes, scatter_dimension=0, tiled=True) if axes else x


def turned(x: jax.Array, axes: tuple[str, ...], whole: int, split: int) -> jax.Array:
    """An array that is split along dimension `split`, split along `whole` instead."""
    return jax.lax.all_to_all(x, axes, whole, split, tiled=True) if axes else x
