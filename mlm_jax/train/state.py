# SPDX-License-Identifier: Apache-2.0
"""The train state: all that a run is at a step, and all that a checkpoint holds of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mlm_jax import mesh as meshes
from mlm_jax.config import Config
from mlm_jax.model.encoder import Encoder, example_batch

Params = dict[str, Any]  # nested dicts of arrays
Window = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Attributes:
    step: updates done, int32 [].
    params: trained parameters, float32.
    opt_state: the optimizer's state, sharded as the parameters.
    window: sums since the last line of metrics, see `empty_window`. They are part of the state so that a run
      interrupted between two lines logs the same second line.
    """

    step: jax.Array
    params: Params
    opt_state: Any
    window: Window


def empty_window(measured: Sequence[str]) -> Window:
    """Sums over the steps since the last line of metrics.

    Args:
      measured: names of the (sum, weight) pairs that the loss returns.

    Returns:
      Each pair, float32 [2]; `tokens` seen (padding left out), int32 []; `gradient_norm` over `steps`, float32 [] and
      int32 []; the last step's `learning_rate`, float32 []; and `first_bad`, the step whose loss or gradient was not
      finite, or -1, int32 [].
    """
    zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return {
        **dict.fromkeys(measured, jnp.zeros(2, jnp.float32)),
        **dict.fromkeys(("gradient_norm", "learning_rate"), zero),
        **dict.fromkeys(("tokens", "steps"), none),
        "first_bad": none - 1,
    }


def make_initializer(
    config: Config,
    model: Encoder,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    measured: Sequence[str],
    besides: Callable[[jax.Array], Params] | None = None,
) -> tuple[Callable[[], State], State]:
    """How to make a run's first state, and how it lies on the mesh.

    Args:
      measured: names of the (sum, weight) pairs that the loss returns.
      besides: of `Learning`.

    Returns:
      init() → State on the mesh, jitted; and the State of shapes, dtypes and shardings, for restoring.
    """

    positions = jnp.zeros((1, 1), jnp.int32)

    def boxed(key: jax.Array) -> State:
        params = model.init(key, example_batch(config.data.sequence_length), positions, method="features")["params"]
        if besides is not None:
            params = {**params, **besides(jax.random.fold_in(key, 1))}
        return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), empty_window(measured))

    # Threefry whatever JAX's default is, so that every backend draws the same parameters.
    key = jax.random.key(config.seed, impl="threefry2x32")
    with meshes.mesh_context(mesh):
        # The boxes carry logical axis names, and the optimizer's state is boxed as the parameters it belongs to.
        abstract = jax.eval_shape(boxed, key)
        shardings = meshes.shardings(mesh, abstract)
        # Every device draws its own part: the whole state is nowhere.
        init = jax.jit(lambda k: nn.meta.unbox(boxed(k)), out_shardings=shardings)
    abstract_state = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), nn.meta.unbox(abstract), shardings
    )

    def initialize() -> State:
        with meshes.mesh_context(mesh):
            return init(key)

    return initialize, abstract_state
