# SPDX-License-Identifier: Apache-2.0
"""Tokens and positions → vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.layers import LayerNorm, part


class Embedding(nn.Module):
    """Sum of token and position embeddings, normalised."""

    config: cfg.Model
    rows: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array, positions: jax.Array, keys: jax.Array | None) -> jax.Array:
        """int32 [batch, length] twice → [batch, length, width]."""
        width = self.config.width
        token = part(self, "token_embedding", ("vocab", "embed"), (self.rows, width))
        position = part(self, "position_embedding", ("position", "embed"), (self.config.positions, width))
        x = jnp.take(token, tokens, axis=0) + jnp.take(position, positions, axis=0)
        x = LayerNorm(self.config.norm_epsilon, name="norm")(x).astype(self.dtype)
        return dropout(x, self.config.dropout, None if keys is None else site_keys(keys, 0))
