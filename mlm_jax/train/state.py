# SPDX-License-Identifier: Apache-2.0
"""The train state: all that a run is at a step, and all that a checkpoint holds of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mlm_jax import mesh as meshes
from mlm_jax.config import Config
from mlm_jax.model.encoder import Encoder, example_batch
from mlm_jax.objectives import SUMS


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Attributes:
    step: updates done, int32 [].
    params: parameters, float32.
    opt_state: the optimizer's state, sharded as the parameters.
    window: sums since the last line of metrics, each []: see `empty_window`. They are part of the
      state so that a run interrupted between two lines logs the same second line.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    window: dict[str, jax.Array]


def empty_window() -> dict[str, jax.Array]:
    """Sums over the steps since the last line of metrics.

    Returns:
      `objectives.SUMS`; `tokens` seen (padding left out); `gradient_norm`
      over `steps`; the last step's learning_rate; and first_bad, the step whose loss or gradient was not finite, or -1.
    """
    zero = jnp.zeros((), jnp.float32)
    return {
        **dict.fromkeys(SUMS, zero),
        "tokens": jnp.zeros((), jnp.int32),
        "gradient_norm": zero,
        "learning_rate": zero,
        "steps": jnp.zeros((), jnp.int32),
        "first_bad": jnp.full((), -1, jnp.int32),
    }


def make_initializer(config: Config, model: Encoder, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh):
    """How to make a run's first state, and how it lies on the mesh.

    Returns:
      init() → State on the mesh, jitted; and the State of shapes, dtypes and shardings, for restoring.
    """

    scored = jnp.zeros((1, 1), jnp.int32)

    def boxed(key: jax.Array) -> State:
        params = model.init(key, example_batch(config.data.sequence_length), scored, method="features")["params"]
        return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), empty_window())

    key = jax.random.key(config.seed, impl="threefry2x32")
    with meshes.mesh_context(mesh):
        abstract = jax.eval_shape(boxed, key)
        shardings = meshes.shardings(mesh, abstract)
        init = jax.jit(lambda k: nn.meta.unbox(boxed(k)), out_shardings=shardings)
    plan = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), nn.meta.unbox(abstract), shardings
    )

    def initialize() -> State:
        with meshes.mesh_context(mesh):
            return init(key)

    return initialize, plan
