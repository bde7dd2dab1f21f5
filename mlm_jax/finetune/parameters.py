# SPDX-License-Identifier: Apache-2.0
"""Which parameters are trained: all, those above the frozen layers, and of the token embedding the rows in use.

A piece that no training example holds has no gradient, so its row is kept out of the step: at 250,002 pieces the
token embedding is most of the model, and the optimizer's pass over it most of a step.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mlm_jax import mesh as meshes
from mlm_jax.model.encoder import boxed_shapes, make_encoder, padded_rows
from mlm_jax.model.task_head import TaskHead
from mlm_jax.pretrained import Params, Pretrained


class Partition:
    """An encoder's parameters as those that are trained and those that are not, on a mesh.

    Args:
      start: the encoder; of its parameters `embedding` and `layers` count.
      freeze: lower layers left as they are, with the embeddings; -1: nothing is.
      used: ids of the training data, ascending, int32; not frozen, the token embedding is trained in these rows only.

    Attributes:
      size: rows of the token embedding that a batch's ids point into.
      frozen: parameters that are read and not trained, on the mesh.
    """

    def __init__(self, start: Pretrained, freeze: int, used: np.ndarray, mesh: jax.sharding.Mesh):
        self._start, self.freeze, self._used, self._mesh = start, freeze, used, mesh
        self.size = len(used) if freeze < 0 else start.vocabulary.size
        initial = {name: start.params[name] for name in ("embedding", "layers")}
        self._initial = jax.device_put(initial, self._shardings(start.vocabulary.size, start.model.layers))
        below = {"embedding": self._initial["embedding"]}
        if freeze > 0:
            shardings = self._shardings(self.size, freeze)["layers"]
            below["layers"] = jax.jit(_first, static_argnums=1, out_shardings=shardings)(
                self._initial["layers"], freeze
            )
        self.frozen: Params = {} if freeze < 0 else below

    @property
    def trained(self) -> Params:
        """The encoder's trained parameters as they are before the first update."""
        shardings = meshes.shardings(self._mesh, self.boxed_trained())

        def take(initial: Params) -> Params:
            if self.freeze >= 0:
                above = jax.tree.map(lambda leaf: leaf[self.freeze :], initial["layers"])
                return {"layers": above} if "layers" in shardings else {}
            table = initial["embedding"]["token_embedding"]  # [padded vocabulary, embed]
            rows = (
                jnp.zeros((padded_rows(self.size), table.shape[1]), table.dtype).at[: self.size].set(table[self._used])
            )
            return {"embedding": initial["embedding"] | {"token_embedding": rows}, "layers": initial["layers"]}

        return jax.jit(take, out_shardings=shardings)(self._initial)

    def boxed_trained(self) -> Params:
        """Shapes and dtypes of `trained`, in boxes that name the logical axes."""
        if self.freeze < 0:
            boxed = self._boxed(self.size, self._start.model.layers)
            return {name: boxed[name] for name in ("embedding", "layers")}
        above = self._start.model.layers - self.freeze
        return {"layers": self._boxed(self.size, above)["layers"]} if above else {}

    def merge(self, trained: Params) -> Params:
        """The whole encoder's parameters, on the mesh, from those trained and those it started from."""
        trained = {name: trained[name] for name in ("embedding", "layers") if name in trained}
        return self._merged(self._initial, trained)

    @cached_property
    def _merged(self) -> jax.stages.Wrapped:
        """(initial, trained) → whole parameters, compiled once: every evaluation calls it."""
        shardings = self._shardings(self._start.vocabulary.size, self._start.model.layers)

        def put(initial: Params, trained: Params) -> Params:
            if self.freeze < 0:
                table = initial["embedding"]["token_embedding"]
                rows = trained["embedding"]["token_embedding"][: self.size]
                table = table.at[self._used].set(rows)
                return {"embedding": trained["embedding"] | {"token_embedding": table}, "layers": trained["layers"]}
            if "layers" not in trained:
                return initial
            layers = jax.tree.map(
                lambda old, new: jnp.concatenate([old[: self.freeze], new]), initial["layers"], trained["layers"]
            )
            return {"embedding": initial["embedding"], "layers": layers}

        return jax.jit(put, out_shardings=shardings)

    def _boxed(self, size: int, layers: int) -> Params:
        return boxed_shapes(make_encoder(self._start.model, size, len(self._start.languages), layers=layers))

    def _shardings(self, size: int, layers: int) -> Params:
        boxed = self._boxed(size, layers)
        return meshes.shardings(self._mesh, {name: boxed[name] for name in ("embedding", "layers")})


def _first(layers: Params, count: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[:count], layers)


def boxed_head(head: TaskHead, params: Params) -> Params:
    """Shapes and dtypes of a head's parameters, in boxes that name the logical axes.

    Args:
      params: of the head; what is trained with it and is not of its layers (a CRF's transitions) has no axes.
    """
    vectors = jnp.zeros((1, 1, head.config.width), head.dtype)
    boxed = jax.eval_shape(head.init, jax.random.key(0), vectors)["params"]
    others = {name: jax.ShapeDtypeStruct(p.shape, p.dtype) for name, p in params.items() if name not in boxed}
    return dict(boxed) | others


def abstract(boxed: Any, shardings: Any) -> Any:
    """Shapes, dtypes and shardings of a tree, from its boxes."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.meta.unbox(boxed),
        shardings,
    )
