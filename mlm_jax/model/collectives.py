# SPDX-License-Identifier: Apache-2.0
"""How batch, vocabulary and width lie over devices, and JAX's collectives, for what is written device by device.

The compiler shards the encoder well by itself. Left alone with a table of the vocabulary it gathers it, and sums a
gradient of its size once per use; so the look-up and the head's loss are written with `shard_map`.
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
class MeshAxes:
    """Names of mesh axes of more than one device.

    Attributes:
      batch: over which rows of the batch are sharded.
      vocabulary: over which the embedding's rows are.
      width: over which its columns are; the batch is sharded over these too.
    """

    batch: tuple[str, ...]
    vocabulary: tuple[str, ...]
    width: tuple[str, ...]

    @property
    def copies(self) -> tuple[str, ...]:
        """Over which the batch is sharded and the embedding is not: its gradient is summed over these."""
        return tuple(axis for axis in self.batch if axis not in self.width)


def mesh_axes(batch: int, rows: int, width: int) -> MeshAxes | None:
    """The mesh axes over which arrays of these sizes are sharded; None on one device, or where a size is not divisible."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return None

    def of(name: str) -> tuple[str, ...]:
        """Mesh axes of a logical axis."""
        found = (nn.logical_to_mesh_axes((name,)) or PartitionSpec(None))[0] or ()
        return tuple(axis for axis in ((found,) if isinstance(found, str) else found) if mesh.shape[axis] > 1)

    axes = MeshAxes(of("act_batch"), of("vocab"), of("embed"))
    even = batch % devices(axes.batch) == rows % devices(axes.vocabulary) == width % devices(axes.width) == 0
    if not (axes.batch or axes.vocabulary) or not even or set(axes.width) - set(axes.batch):
        return None
    return axes


def devices(axes: tuple[str, ...]) -> int:
    """Number of devices along mesh axes."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in axes)


def shard_map(function: Callable[..., Any], inputs: tuple[Any, ...], outputs: Any) -> Callable[..., Any]:
    """The function of whole arrays that runs `function` with each device's shards.

    Args:
      inputs, outputs: PartitionSpecs of the arrays; None of what is no array.
    """
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, check_vma=False)


# JAX's collectives by their own names, for shards within `shard_map`; no-ops where `axes` is empty. The dtype stays.


def axis_index(axes: tuple[str, ...]) -> jax.Array | int:
    """This device's number along the axes, int32 []."""
    return jax.lax.axis_index(axes) if axes else 0


def psum(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """The sum over the devices: [...] → the same shape and dtype."""
    return jax.lax.psum(x, axes) if axes else x


def pmax(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """The maximum over the devices: [...] → the same shape and dtype."""
    return jax.lax.pmax(x, axes) if axes else x


def all_gather(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """All shards one after the other: [n, ...] → [devices * n, ...] of the same dtype."""
    return jax.lax.all_gather(x, axes, axis=0, tiled=True) if axes else x


def psum_scatter(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """This device's shard of the sum: [devices * n, ...] → [n, ...] of the same dtype."""
    return jax.lax.psum_scatter(x, axes, scatter_dimension=0, tiled=True) if axes else x


def all_to_all(x: jax.Array, axes: tuple[str, ...], split: int, concatenate: int) -> jax.Array:
    """Shards along dimension `concatenate` become shards along `split`.

    Args:
      x: [n * devices, m], where the dimensions are 0 and 1.

    Returns:
      [n, m * devices] of the same dtype.
    """
    return jax.lax.all_to_all(x, axes, split, concatenate, tiled=True) if axes else x
