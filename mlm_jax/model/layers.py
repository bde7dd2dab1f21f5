# SPDX-License-Identifier: Apache-2.0
"""What every part of the encoder is made of: named parameters, layer norm, GELU."""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn


def parameter(
    module: nn.Module,
    name: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    init: nn.initializers.Initializer,
) -> jax.Array:
    """A parameter with its logical axes (`mesh.RULES`, `model.axes`), float32 [*shape]."""
    # Flax types the box that `init` returns; inside a module the parameter is the array.
    return cast(jax.Array, module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32))


def matrix(module: nn.Module, name: str, axes: tuple[str, ...], shape: tuple[int, ...], std: float) -> jax.Array:
    """A weight matrix, normal with standard deviation `std` at the start, float32 [*shape]; `product` rounds it."""
    return parameter(module, name, axes, shape, nn.initializers.normal(std))


def zeros(module: nn.Module, name: str, axes: tuple[str, ...], shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """A bias, zero at the start, [*shape] in the dtype of what it is added to."""
    return parameter(module, name, axes, shape, nn.initializers.zeros).astype(dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), computed in float32."""

    epsilon: float
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., embed] → the same shape and dtype."""
        width = x.shape[-1]
        shape = (1,) * (x.ndim - 1) + (width,)
        scale = parameter(self, "scale", ("norm",), (width,), nn.initializers.ones)
        # Twice over x, and not E[x²] - E[x]², which cancels where the mean is large. float32: bfloat16 has 8 bits.
        y = x.astype(jnp.float32)
        mean = jnp.mean(y, axis=-1, keepdims=True)
        centred = y - mean
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + self.epsilon) * scale.reshape(shape)
        if self.bias:
            normal = normal + zeros(self, "bias", ("norm",), (width,), jnp.dtype(jnp.float32)).reshape(shape)
        return normal.astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016), not its tanh approximation: [...] → the same shape and dtype."""
    # jax.nn.gelu has other bits and is slower on CPUs (docs/design.md).
    return x * 0.5 * (1 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))
