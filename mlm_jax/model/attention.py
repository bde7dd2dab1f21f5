# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention within segments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.layers import part


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017, section 3.2), block-diagonal over segments.

    A token attends to the tokens of its own segment only; padding, segment 0, attends to padding, so
    that no row is without anything to attend to.
    """

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, same_segment: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Args:
          x: [batch, length, width].
          same_segment: bool [batch, 1, length, length].
          keys: dropout keys of this layer, uint32 [batch], or None.

        Returns:
          [batch, length, width], before dropout and residual.
        """
        width, heads = self.config.width, self.config.heads
        head = width // heads
        # One product for queries, keys and values.
        kernel = part(self, "qkv_kernel", ("embed", "qkv", "heads", "head"), (width, 3, heads, head))
        bias = part(self, "qkv_bias", ("qkv", "heads", "head"), (3, heads, head), nn.initializers.zeros)
        out_kernel = part(self, "out_kernel", ("heads", "head", "embed"), (heads, head, width))
        out_bias = part(self, "out_bias", ("embed",), (width,), nn.initializers.zeros)

        qkv = jnp.einsum("blw,wchd->cbhld", x, kernel.astype(self.dtype))
        qkv = qkv + bias.astype(self.dtype)[:, None, :, None, :]  # [3, batch, heads, length, head]
        query, key, value = qkv[0], qkv[1], qkv[2]  # [batch, heads, length, head]
        scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(same_segment, scores * head**-0.5, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = dropout(weights, self.config.attention_dropout, None if keys is None else site_keys(keys, 0))
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value)
        mixed = nn.with_logical_constraint(mixed, ("act_batch", "act_heads", "act_length", "act_head"))
        return (
            jnp.einsum("bhld,hdw->blw", mixed, out_kernel.astype(self.dtype)) + out_bias.astype(self.dtype)[None, None]
        )
