# SPDX-License-Identifier: Apache-2.0
"""What every part of the encoder is made of: named parameters, layer norm, GELU."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn

initializer = nn.initializers.normal(0.02)  # Devlin et al. 2019, section A.2, without the truncation


def part(
    module: nn.Module,
    name: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    init: nn.initializers.Initializer = initializer,
) -> jax.Array:
    """A float32 parameter with its logical axes."""
    # Flax types the box that `init` returns; inside a module the parameter is the array.
    return cast(jax.Array, module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32))


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), computed in float32."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] → the same shape and dtype."""
        width = x.shape[-1]
        scale = part(self, "scale", ("norm",), (width,), nn.initializers.ones)
        bias = part(self, "bias", ("norm",), (width,), nn.initializers.zeros)
        y = x.astype(jnp.float32)
        mean = jnp.mean(y, axis=-1, keepdims=True)
        centred = y - mean
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (width,)
        return (normal * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016), not its tanh approximation."""
    return x * 0.5 * (1 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))
