# SPDX-License-Identifier: Apache-2.0
"""Dropout whose every decision is a function of (seed, step, row, layer, site, unit).

XLA's generators make bits for a whole array at once: which unit gets which bit then depends on how the
batch is cut, they are slow on CPUs (threefry), and their masks are stored for the backward pass. Here a
unit's bits are an integer hash of its number, which XLA fuses with the multiplication, which the backward
pass computes again (`encoder.REMAT`), and which any device can compute for its own rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)


def mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 [...] in which every input bit moves every output bit (Wellons' lowbias32)."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def row_keys(seed: int, step: jax.Array, rows: jax.Array) -> jax.Array:
    """A key for each row of a batch at a step.

    Args:
      step: int32 [].
      rows: numbers of the rows, uint32 [batch].

    Returns:
      uint32 [batch].
    """
    start = mix(jnp.uint32(seed & 0xFFFFFFFF) + _GOLDEN)
    return mix(mix(start ^ step.astype(jnp.uint32)) + rows.astype(jnp.uint32) * _GOLDEN)


def site_keys(keys: jax.Array, site: jax.Array | int) -> jax.Array:
    """The rows' keys for one site in the network (a layer's number, a sublayer in it): uint32 [batch] → uint32 [batch]."""
    return mix(keys + jnp.asarray(site, jnp.uint32) * np.uint32(0x85EBCA6B) + np.uint32(0xC2B2AE35))


def dropout(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Set a share `rate` of the units to 0 and scale the rest by 1 / (1 - rate) (Srivastava et al. 2014).

    Args:
      x: [batch, ...]; fewer than 2**32 units per row.
      rate: 0 to 1.
      keys: uint32 [batch], of this site in the network; None leaves x as it is.

    Returns:
      The shape and dtype of x.
    """
    if keys is None or rate == 0:
        return x
    shape = x.shape[1:]
    # One number for each unit of a row, [...]; nothing is stored: XLA fuses all of this with the product below.
    unit, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        unit = unit + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride % 2**32)
        stride *= shape[axis]
    keys = keys.reshape(-1, *[1] * len(shape))  # [batch, 1, ...]
    bits = (unit * _GOLDEN)[None] ^ keys
    # `mix` with a second key halfway, so that no two rows' bits are one sequence at different offsets.
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D) ^ (keys * _GOLDEN)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    bits = bits ^ (bits >> np.uint32(16))
    kept = bits >= np.uint32(round(rate * 2**32))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))
