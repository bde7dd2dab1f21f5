# SPDX-License-Identifier: Apache-2.0
"""Tokens and positions → vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from mlm_jax import config as cfg
from mlm_jax.model import split
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.layers import LayerNorm, part


@jax.custom_vjp
def look_up(matrix: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of a matrix, and the matrix for whoever uses it next.

    The matrix's gradient is then the later user's, with the rows' added to it in place. Two users side
    by side would each make a gradient of the matrix's size, and a third would be their sum.

    Devices that hold the same part of the matrix hand on a copy each, so that the later user's gradient need not be
    summed over them before the rows' is added: there is one sum. The matrix itself does not move. Devices that hold
    parts of its width exchange ids and rows.

    Args:
      matrix: [rows, width].
      ids: int32 [batch, length].

    Returns:
      [batch, length, width], and the matrix as it is, [copies, rows, width]: one copy on one device.
    """
    return _look_up(matrix, ids)[0]


def _look_up(matrix: jax.Array, ids: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    over = split.split_over(len(ids), *matrix.shape)
    if over is None:
        return (jnp.take(matrix, ids, axis=0), matrix[None]), ids

    def part(matrix: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        local = _local(matrix.shape[0], split.gathered(ids, over.width), over)
        rows = jnp.take(matrix, local, axis=0, mode="fill", fill_value=0)
        return split.total(split.turned(rows, over.width, 0, 2), over.vocabulary), matrix[None]

    lies = P(over.vocabulary, over.width)
    outputs = P(over.blocks), P(over.copies, *lies)
    return split.on_each_device(part, (lies, P(over.blocks)), outputs)(matrix, ids), ids


def _look_up_backward(ids: jax.Array, cotangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    d_rows, d_copies = cotangents
    over = split.split_over(len(ids), *d_copies.shape[1:])
    if over is None:
        return d_copies[0].at[ids].add(d_rows), None

    def part(d_copy: jax.Array, d_rows: jax.Array, ids: jax.Array) -> jax.Array:
        local = _local(d_copy.shape[1], split.gathered(ids, over.width), over)
        d_matrix = d_copy[0].at[local].add(split.turned(d_rows, over.width, 2, 0), mode="drop")
        return split.total(d_matrix, over.copies)

    lies = P(over.vocabulary, over.width)
    inputs = P(over.copies, *lies), P(over.blocks), P(over.blocks)
    return split.on_each_device(part, inputs, lies)(d_copies, d_rows, ids), None


def _local(rows: int, ids: jax.Array, over: split.Split) -> jax.Array:
    """Ids as rows of this device's part of the vocabulary; those that lie elsewhere are `rows`, beyond it."""
    if not over.vocabulary:
        return ids
    local = ids - split.number(over.vocabulary) * rows
    return jnp.where((local >= 0) & (local < rows), local, rows)


look_up.defvjp(_look_up, _look_up_backward)


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
            return part(self, name, (axis, "embed_small"), (rows, config.width), random)

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
