# SPDX-License-Identifier: Apache-2.0
"""Tokens and positions → vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.layers import LayerNorm, part


@jax.custom_vjp
def look_up(matrix: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of a matrix, and the matrix for whoever uses it next.

    The matrix's gradient is then the later user's, with the rows' added to it in place. Two users side
    by side would each make a gradient of the matrix's size, and a third would be their sum.

    Args:
      matrix: [rows, width].
      ids: int32 [...].

    Returns:
      [..., width], and the matrix as it is.
    """
    return jnp.take(matrix, ids, axis=0), matrix


def _look_up_backward(ids: jax.Array, cotangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    d_rows, d_matrix = cotangents
    return d_matrix.at[ids].add(d_rows), None


look_up.defvjp(lambda matrix, ids: (look_up(matrix, ids), ids), _look_up_backward)


class Embedding(nn.Module):
    """Sum of token and position embeddings, normalised."""

    config: cfg.Model
    rows: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array, positions: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """int32 [batch, length] twice → [batch, length, width], and the token embedding for the output layer."""
        width = self.config.width
        token = part(self, "token_embedding", ("vocab", "embed"), (self.rows, width))
        position = part(self, "position_embedding", ("position", "embed"), (self.config.positions, width))
        x, token = look_up(token, tokens)
        x = x + jnp.take(position, positions, axis=0)
        x = LayerNorm(self.config.norm_epsilon, name="norm")(x).astype(self.dtype)
        return dropout(x, self.config.dropout, None if keys is None else site_keys(keys, 0)), token
