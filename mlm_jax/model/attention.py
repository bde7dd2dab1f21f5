# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention: who sees whom, and where everyone stands."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from mlm_jax import config as cfg
from mlm_jax.model.attention_kernels import attend, choose
from mlm_jax.model.layers import matrix, zeros
from mlm_jax.model.products import product

# What all layers share: `segment_ids`, int32 [batch, length]; `allowed`, bool [batch, 1, length, length], queries before keys;
# with local layers `near`, bool [1, 1, length, length]; with rotary positions `angles` and `local_angles`, float32 [batch, 1,
# length, head / 2]. The axis of 1 is the heads'.
Context = dict[str, jax.Array]


def make_context(config: cfg.Model, segment_ids: jax.Array, positions: jax.Array) -> Context:
    """What attention needs to know of a batch, computed once for all layers.

    A token sees the tokens of its own segment; padding, segment 0, sees padding, so that no row is
    without anything to see. In a causal encoder it sees no later token.

    Args:
      segment_ids, positions: int32 [batch, length].

    Returns:
      The arrays of `Context`.
    """
    places = jnp.arange(segment_ids.shape[1])  # [length]
    allowed = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    if config.causal:
        allowed = allowed & (places[:, None] >= places[None, :])[None, None]
    context = {"segment_ids": segment_ids, "allowed": allowed}
    if config.global_every > 1:
        # By place in the block, which differs from position only by where the segment begins: so it is one for all rows.
        context["near"] = (jnp.abs(places[:, None] - places[None, :]) <= config.window // 2)[None, None]
    if config.position_embedding == "rotary":
        size = config.width // config.heads
        # Each pair of units has a wavelength of its own, from 2π tokens to nearly 2π theta.
        exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        for name, theta in (("angles", config.rope_theta), ("local_angles", config.rope_local_theta)):
            frequencies = np.float32(1) / np.float32(theta) ** exponents
            context[name] = positions[:, None, :, None].astype(jnp.float32) * frequencies[None, None, None, :]
    return context


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotate each pair (i, i + half) of a head's units by the token's angle (RoPE, Su et al. 2021, section 3.2).

    Args:
      x: [..., batch, heads, length, head].
      angles: float32 [batch, 1, length, head / 2].

    Returns:
      The same shape and dtype; computed in float32.
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)  # [..., batch, heads, length, head / 2]
    angles = angles.reshape(*[1] * (x.ndim - angles.ndim), *angles.shape)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017, section 3.2)."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, number: jax.Array, context: Context, keys: jax.Array | None) -> jax.Array:
        """Attend from every token to those it may see.

        Args:
          x: [batch, length, embed], activations.
          number: of the layer, uint32 [].
          context: of `make_context`.
          keys: dropout keys of this layer, uint32 [batch], or None.

        Returns:
          [batch, length, embed], of the dtype of x, before dropout and residual.
        """
        config, dtype = self.config, self.dtype
        width, heads, std = config.width, config.heads, config.initializer_std
        head = width // heads
        # One product for queries, keys and values: they read the same x.
        kernel = matrix(self, "qkv_kernel", ("embed", "qkv", "heads", "head"), (width, 3, heads, head), std)
        qkv = product("ble,echd->cbhld", x, kernel, dtype)  # [3, batch, heads, length, head]
        if config.bias:
            bias = zeros(self, "qkv_bias", ("qkv", "heads", "head"), (3, heads, head), qkv.dtype)
            qkv = qkv + bias[:, None, :, None, :]

        # By the layer's number and not by a field, so that all layers are one program and the scan holds.
        is_global = number % config.global_every == 0  # bool []
        query_key, value = qkv[:2], qkv[2]
        if "angles" in context:
            query_key = rotate(query_key, jnp.where(is_global, context["angles"], context["local_angles"]))
        # As attention reads them: a rotation's derivative does not need what was rotated.
        query_key, value = checkpoint_name(query_key, "qkv"), checkpoint_name(value, "qkv")
        query, key = query_key[0], query_key[1]  # [batch, heads, length, head]

        # Parameters are made with plain products: their shapes do not depend on the kernel, and the single row of
        # `example_batch` does not divide over devices.
        dropped = keys is not None and config.attention_dropout > 0
        chosen = "xla" if self.is_initializing() else choose(config, dtype, x.shape[1], dropped)
        # [batch, heads, length, head]
        mixed = attend(chosen, config, query, key, value, context, is_global, keys, dtype)
        mixed = nn.with_logical_constraint(mixed, ("act_batch", "act_heads", "act_length", "act_head"))
        out_kernel = matrix(self, "out_kernel", ("heads", "head", "embed"), (heads, head, width), std)
        out = product("bhld,hde->ble", mixed, out_kernel, dtype)  # [batch, length, embed]
        if config.bias:
            out = out + zeros(self, "out_bias", ("embed",), (width,), out.dtype)[None, None]
        return out
