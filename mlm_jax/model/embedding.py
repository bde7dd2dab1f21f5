# SPDX-License-Identifier: Apache-2.0
"""Tokens and positions → vectors."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from mlm_jax import config as cfg
from mlm_jax.model import collectives
from mlm_jax.model.batch import Batch
from mlm_jax.model.collectives import MeshAxes, mesh_axes
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.layers import LayerNorm, parameter


@jax.custom_vjp
def look_up(matrix: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of a matrix, and the matrix for whoever uses it next.

    The matrix's gradient is then the later user's, with the rows' added to it in place. Two users side
    by side would each make a gradient of the matrix's size, and a third would be their sum.

    Devices that hold the same part of the matrix hand on a copy each, so that the later user's gradient need not be
    summed over them before the rows' is added: there is one sum. The matrix itself does not move. Devices that hold
    parts of its width exchange ids and rows.

    Args:
      matrix: float32 [rows, embed].
      ids: int32 [batch, length].

    Returns:
      float32 [batch, length, embed], and the matrix as it is, [copies, rows, embed]: one copy on one device.
    """
    return _look_up(matrix, ids)[0]


def _look_up(matrix: jax.Array, ids: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    axes = mesh_axes(len(ids), *matrix.shape)
    if axes is None:
        return (jnp.take(matrix, ids, axis=0), matrix[None]), ids  # [batch, length, embed], [1, rows, embed]

    def part(matrix: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Shards: matrix [rows / vocabulary, embed / width], ids [batch / devices, length]."""
        # A device has part of the columns, so it looks up the ids of all devices that have the other parts ...
        local = _local(matrix.shape[0], collectives.all_gather(ids, axes.width), axes)
        rows = jnp.take(matrix, local, axis=0, mode="fill", fill_value=0)  # [more batch, length, embed / width]
        # ... and exchanges: fewer rows of the batch, with all columns. Rows of other devices' ids are 0 until the sum.
        return collectives.psum(collectives.all_to_all(rows, axes.width, 0, 2), axes.vocabulary), matrix[None]

    lies = P(axes.vocabulary, axes.width)
    outputs = P(axes.batch), P(axes.copies, *lies)
    return collectives.shard_map(part, (lies, P(axes.batch)), outputs)(matrix, ids), ids


def _look_up_backward(ids: jax.Array, cotangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    d_rows, d_copies = cotangents  # [batch, length, embed], [copies, rows, embed]
    axes = mesh_axes(len(ids), *d_copies.shape[1:])
    if axes is None:
        # In place: the later user's gradient is the array that the rows' is scattered into.
        return d_copies[0].at[ids].add(d_rows), None

    def part(d_copy: jax.Array, d_rows: jax.Array, ids: jax.Array) -> jax.Array:
        """Shards: d_copy [1, rows / vocabulary, embed / width], d_rows [batch / devices, length, embed]."""
        # The way back of `_look_up`: all columns of few rows of the batch become some columns of more; ids of other
        # devices' rows are out of bounds, and dropped.
        local = _local(d_copy.shape[1], collectives.all_gather(ids, axes.width), axes)
        d_matrix = d_copy[0].at[local].add(collectives.all_to_all(d_rows, axes.width, 2, 0), mode="drop")
        return collectives.psum(d_matrix, axes.copies)  # the one sum, of both users' gradients

    lies = P(axes.vocabulary, axes.width)
    inputs = P(axes.copies, *lies), P(axes.batch), P(axes.batch)
    return collectives.shard_map(part, inputs, lies)(d_copies, d_rows, ids), None


def _local(rows: int, ids: jax.Array, axes: MeshAxes) -> jax.Array:
    """Ids as rows of this device's part of the vocabulary; those that lie elsewhere are `rows`, beyond it."""
    if not axes.vocabulary:
        return ids
    local = ids - collectives.axis_index(axes.vocabulary) * rows
    return jnp.where((local >= 0) & (local < rows), local, rows)


look_up.defvjp(_look_up, _look_up_backward)


class Residual(NamedTuple):
    """The residual stream between layers, and what the next layer reads of it: activations.

    The two are one array, but in a pre-norm encoder between its layers, and before them unless `embedding_norm`.

    Attributes:
      stream: [batch, length, embed], what sublayers add to.
      normed: [batch, length, embed].
    """

    stream: jax.Array
    normed: jax.Array


class Embedding(nn.Module):
    """Sum of token, position, token type and language embeddings, and its norm.

    Attributes:
      size: ids in use.
      rows: of the token embedding; those from `size` on stand for no token, and begin and stay zero.
      languages: of the language embedding.
      dtype: of activations.
    """

    config: cfg.Model
    size: int
    rows: int
    languages: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, batch: Batch, keys: jax.Array | None) -> tuple[Residual, jax.Array]:
        """Embed a batch.

        Args:
          batch: see `Encoder.__call__`.
          keys: dropout keys, uint32 [batch], or None.

        Returns:
          The residual, [batch, length, embed]; and the token embedding for the output layer, float32
          [copies, rows, embed] (`look_up`).
        """
        config = self.config
        random = nn.initializers.normal(config.initializer_std)

        def table(name: str, axis: str, rows: int) -> jax.Array:
            """A small embedding, float32 [rows, embed]; not split by width, see `mesh.RULES`."""
            return parameter(self, name, (axis, "embed_small"), (rows, config.width), random)

        def of_tokens(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            """Random rows for the ids in use, zeros for the padding."""
            return jnp.where(jnp.arange(self.rows)[:, None] < self.size, random(key, shape, dtype), 0)

        # The sum is float32, as the tables are, and is rounded to the dtype of activations once, after the norm.
        token_embedding = parameter(self, "token_embedding", ("vocab", "embed"), (self.rows, config.width), of_tokens)
        x, matrix = look_up(token_embedding, batch["tokens"])  # [batch, length, embed], [copies, rows, embed]
        if config.position_embedding == "learned":  # rotary positions are attention's
            position = table("position_embedding", "position", config.positions + config.position_offset)
            x = x + jnp.take(position, batch["positions"] + config.position_offset, axis=0)
        if config.token_types:
            kind = table("token_type_embedding", "token_type", config.token_types)
            # A table of one row is the same for every token: a sum and no look-up, whose gradient would be a scatter.
            x = x + (jnp.take(kind, batch["token_types"], axis=0) if config.token_types > 1 else kind[0][None, None])
        if config.language_embedding:
            language = table("language_embedding", "language", self.languages)
            x = x + jnp.take(language, batch["language_ids"], axis=0)

        norm = LayerNorm(config.norm_epsilon, config.bias, name="norm")
        dropout_keys = None if keys is None else site_keys(keys, 0)
        if config.embedding_norm:
            x = dropout(norm(x).astype(self.dtype), config.dropout, dropout_keys)
            return Residual(x, x), matrix
        # XLM-R XL: the stream begins unnormalised, and the first layer's own norm stands here.
        x = dropout(x.astype(self.dtype), config.dropout, dropout_keys)
        return Residual(x, norm(x)), matrix
