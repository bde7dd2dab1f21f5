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
    """Sum of token, position, token type and language embeddings, and its norm.

    Attributes:
      size: ids in use.
      rows: of the token embedding; those from `size` on stand for no piece, and begin and stay zero.
      languages: of the language embedding.
    """

    config: cfg.Model
    size: int
    rows: int
    languages: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], keys: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Args:
          batch: see `Encoder.__call__`.
          keys: dropout keys, uint32 [batch], or None.

        Returns:
          The residual stream and what the first layer reads, [batch, length, width] each and the same but
          in a pre-norm encoder without `embedding_norm`; and the token embedding, for the output layer.
        """
        config = self.config

        def table(name: str, axis: str, rows: int) -> jax.Array:
            return part(self, name, (axis, "embed"), (rows, config.width), random)

        def of_pieces(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return jnp.where(jnp.arange(self.rows)[:, None] < self.size, random(key, shape, dtype), 0)

        random = nn.initializers.normal(config.initializer_std)

        x, token = look_up(
            part(self, "token_embedding", ("vocab", "embed"), (self.rows, config.width), of_pieces), batch["tokens"]
        )
        if config.position_embedding == "learned":
            position = table("position_embedding", "position", config.positions + config.position_offset)
            x = x + jnp.take(position, batch["positions"] + config.position_offset, axis=0)
        if config.token_types:
            kind = table("token_type_embedding", "token_type", config.token_types)
            # A table of one row is the same for every token.
            x = x + (jnp.take(kind, batch["token_types"], axis=0) if config.token_types > 1 else kind[0][None, None])
        if config.language_embedding:
            language = table("language_embedding", "language", self.languages)
            x = x + jnp.take(language, batch["language_ids"], axis=0)

        norm = LayerNorm(config.norm_epsilon, config.bias, name="norm")
        dropout_keys = None if keys is None else site_keys(keys, 0)
        if config.embedding_norm:
            x = dropout(norm(x).astype(self.dtype), config.dropout, dropout_keys)
            return x, x, token
        x = dropout(x.astype(self.dtype), config.dropout, dropout_keys)
        return x, norm(x), token
