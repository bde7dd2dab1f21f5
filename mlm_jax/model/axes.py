# SPDX-License-Identifier: Apache-2.0
"""What the axes of every parameter are, from their logical names: the table that all optimizers read.

A kernel has input and output axes, and axes along which matrices are stacked: layers, and those that one product computes
together (queries, keys and values; the two halves of a gated unit). An embedding is a matrix whose input is an id. Biases
and the scales of norms are no matrices, whatever rank stacking gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
from flax import linen as nn

from mlm_jax.model.encoder import Encoder, boxed_shapes

STACKED = ("layers", "qkv", "half")  # at each index of these there is a matrix of its own
RESIDUAL = ("embed", "embed_small")  # of the residual stream, which every matrix reads or writes


@dataclass(frozen=True)
class Axes:
    """The axes of one parameter, by number; of the optimizer's moments too, which have its shape.

    Attributes:
      place: the part of the model: embedding and layers of the encoder, or any head.
      layers: the axis that stacks layers, () outside of them.
      stacked: all axes that stack matrices, `layers` among them; () where the parameter is no matrix.
      inputs, outputs: the axes that together are the matrix' input and output; () where it is none.
    """

    place: Literal["embedding", "layers", "head"]
    layers: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()

    @property
    def is_matrix(self) -> bool:
        """Whether it is a kernel or an embedding, which weight decay is for, and not a bias or a norm's scale."""
        return bool(self.inputs)

    @property
    def is_hidden(self) -> bool:
        """Whether it is a kernel between vectors that are both inside the encoder, which Muon is for."""
        return self.is_matrix and self.place == "layers"


def matrix_axes(names: tuple[str | None, ...], place: Literal["embedding", "layers", "head"]) -> Axes:
    """The axes of a parameter with these logical names, one per axis.

    The axes that are not stacked are of the residual stream or of something else (heads, units, ids, classes). A parameter
    with both is a matrix: what comes first is its input. With one of the two it is a vector.
    """
    stacked = tuple(i for i, name in enumerate(names) if name in STACKED)
    layers = tuple(i for i in stacked if names[i] == "layers")
    residual = tuple(i for i, name in enumerate(names) if name in RESIDUAL)
    other = tuple(i for i in range(len(names)) if i not in stacked + residual and names[i] is not None)
    if not residual or not other:
        return Axes(place, layers)
    inputs, outputs = sorted((residual, other))
    return Axes(place, layers, stacked, inputs, outputs)


def parameter_axes(boxed: Any) -> Any:
    """The axes of every parameter: a tree of `Axes` in the shape of the unboxed parameters.

    Args:
      boxed: parameters, or their shapes, as `init` returns them: nested dicts whose leaves are flax boxes with logical names.
        A leaf without a box has no names, and is no matrix.
    """

    def axes(path: Any, leaf: Any) -> Axes:
        names = leaf.names if isinstance(leaf, nn.Partitioned) else (None,) * leaf.ndim
        part = path[0].key
        return matrix_axes(names, part if part in ("embedding", "layers") else "head")

    return jax.tree_util.tree_map_with_path(axes, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))


def encoder_axes(encoder: Encoder) -> Any:
    """`parameter_axes` of an encoder's parameters, heads included."""
    return parameter_axes(boxed_shapes(encoder))
