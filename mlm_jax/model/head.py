# SPDX-License-Identifier: Apache-2.0
"""The language model's head, and its cross-entropy in chunks of the vocabulary."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from mlm_jax import config as cfg
from mlm_jax.model import split
from mlm_jax.model.layers import LayerNorm, gelu, matrix, zeros


class Head(nn.Module):
    """Dense, GELU and layer norm (Devlin et al. 2019), or nothing; the output matrix is the token embedding."""

    config: cfg.Model
    rows: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[batch, bound, width] → the same, and the output layer's bias, float32 [rows]."""
        config, dtype = self.config, self.dtype
        output_bias = zeros(self, "output_bias", ("vocab",), (self.rows,), jnp.dtype(jnp.float32))
        if config.head == "plain":
            return x, output_bias
        shape = (config.width, config.width)
        kernel = matrix(self, "dense_kernel", ("embed", "embed_out"), shape, config.initializer_std, dtype)
        h = jnp.einsum("bsw,wv->bsv", x, kernel)
        if config.bias:
            h = h + zeros(self, "dense_bias", ("embed_out",), (config.width,), dtype)[None, None]
        return LayerNorm(config.norm_epsilon, config.bias, name="norm")(gelu(h)), output_bias


class Pooler(nn.Module):
    """Dense and tanh of the first token, and what it says of the next sentence (Devlin et al. 2019, section 3.1)."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, width] → the same; with `next_sentence`, float32 [batch, 2] of is-next and is-random."""
        width, std = self.config.width, self.config.initializer_std
        kernel = matrix(self, "dense_kernel", ("embed", "embed_out"), (width, width), std, self.dtype)
        bias = zeros(self, "dense_bias", ("embed_out",), (width,), self.dtype)
        pooled = jnp.tanh(x @ kernel + bias[None])
        if not self.config.next_sentence:
            return pooled
        kernel = matrix(self, "next_sentence_kernel", ("embed", "class"), (width, 2), std, self.dtype)
        bias = zeros(self, "next_sentence_bias", ("class",), (2,), self.dtype)
        return (pooled @ kernel + bias[None]).astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    features: jax.Array, matrix: jax.Array, bias: jax.Array, targets: jax.Array, size: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each target under softmax(features · matrixᵀ + bias), without all scores at once.

    The vocabulary is gone through `chunk` rows at a time, and the backward pass computes each chunk's
    scores again; where it is one chunk, they are kept and nothing is computed twice. Sums and
    exponentials are float32.

    Over devices each scores its part of the vocabulary for all features of those that share it. Where the matrix lies
    split by width they exchange parts, so that each has whole rows: features and sums are brought together, neither
    the matrix nor scores.

    Args:
      features: [n, width], in the compute dtype.
      matrix: float32 [copies, rows, width], of `embedding.look_up`; rows from `size` on are padding, which has no probability.
      bias: float32 [rows].
      targets: int32 [n], below `size`.
      size: ids in use.
      chunk: vocabulary rows at a time.

    Returns:
      loss in nats and whether the target scored highest, both float32 [n]. The matrix's gradient is each copy's own, not
      yet summed over them.
    """
    return _forward(features, matrix, bias, targets, size, chunk)[0]


def _forward(features, matrix, bias, targets, size, chunk):  # type: ignore[no-untyped-def]
    over = split.split_over(len(features), *matrix.shape[1:])
    if over is None:
        outputs, kept = _forward_part(features, matrix[0], bias, targets, 0, size, chunk, ())
        return outputs, (features, matrix, bias, targets, kept)
    everywhere = over.vocabulary + over.width

    def part(features, matrix, bias, targets):  # type: ignore[no-untyped-def]
        matrix, bias, first, end = _whole_rows(matrix[0].astype(features.dtype), bias, size, over)
        together = split.gathered(features, over.width), split.gathered(targets, over.width)
        within = max(chunk // split.size(over.width), 128)
        outputs, kept = _forward_part(together[0], matrix, bias, together[1], first, end, within, everywhere)
        mine = split.number(over.width) * len(features)
        outputs = tuple(jax.lax.dynamic_slice_in_dim(x, mine, len(features)) for x in outputs)
        return outputs, (*together, matrix, bias, kept)

    blocks, lies, together, rows = P(over.blocks), P(over.vocabulary, over.width), P(over.copies), P(everywhere)
    exponentials = P(over.copies, everywhere) if _one_chunk(matrix, chunk, over) else None
    kept = exponentials, P((*over.copies, *everywhere))
    inputs = blocks, P(over.copies, *lies), P(over.vocabulary), blocks
    outputs = (blocks, blocks), (together, together, rows, rows, kept)
    outputs, kept = split.on_each_device(part, inputs, outputs)(features, matrix, bias, targets)
    return outputs, (features, matrix, bias, targets, kept)


def _backward(size, chunk, residuals, cotangents):  # type: ignore[no-untyped-def]
    features, matrix, bias, targets, kept = residuals
    weights = cotangents[0]  # [n]; being the highest has no gradient
    over = split.split_over(len(features), *matrix.shape[1:])
    if over is None:
        d_features, d_matrix, d_bias = _backward_part(features, matrix[0], bias, targets, kept, weights, 0, size, chunk)
        return d_features.astype(features.dtype), d_matrix[None], d_bias, None
    everywhere = over.vocabulary + over.width

    def part(weights, features, targets, matrix, bias, kept):  # type: ignore[no-untyped-def]
        first, end = _rows_of(len(bias), rows_local, size, over)
        weights = split.gathered(weights, over.width)
        within = max(chunk // split.size(over.width), 128)
        d_features, d_matrix, d_bias = _backward_part(
            features, matrix, bias, targets, kept, weights, first, end, within
        )
        d_features = split.total_part(split.total(d_features, over.vocabulary), over.width).astype(features.dtype)
        d_matrix = split.turned(d_matrix, over.width, 1, 0)[None, :rows_local]
        d_bias = split.total(split.gathered(d_bias, over.width)[:rows_local], over.copies)
        return d_features, d_matrix, d_bias

    rows_local = matrix.shape[1] // split.size(over.vocabulary)
    blocks, lies, together, rows = P(over.blocks), P(over.vocabulary, over.width), P(over.copies), P(everywhere)
    exponentials = P(over.copies, everywhere) if kept[-1][0] is not None else None
    inputs = blocks, together, together, rows, rows, (exponentials, P((*over.copies, *everywhere)))
    outputs = blocks, P(over.copies, *lies), P(over.vocabulary)
    d_features, d_matrix, d_bias = split.on_each_device(part, inputs, outputs)(weights, *kept)
    return d_features, d_matrix, d_bias, None


cross_entropy.defvjp(_forward, _backward)


def _whole_rows(matrix, bias, size, over):  # type: ignore[no-untyped-def]
    """This device's rows of the vocabulary, whole, with their biases; the first's id, and the id that ends those in use.

    Of the rows it has a part of the width of, each device along the width takes an equal share; the last may hold rows
    beyond them, which are then not in use.
    """
    rows, shares = len(bias), split.size(over.width)
    share = -(-rows // shares)
    matrix = jnp.pad(matrix, ((0, share * shares - rows), (0, 0)))
    bias = jnp.pad(bias, (0, share * shares - rows))
    bias = jax.lax.dynamic_slice_in_dim(bias, split.number(over.width) * share, share)
    return split.turned(matrix, over.width, 0, 1), bias, *_rows_of(share, rows, size, over)


def _rows_of(share, rows, size, over):  # type: ignore[no-untyped-def]
    """The first id of this device's rows, and the id that ends those in use."""
    begin = split.number(over.vocabulary) * rows
    return begin + split.number(over.width) * share, jnp.minimum(begin + rows, size)


def _one_chunk(matrix, chunk, over):  # type: ignore[no-untyped-def]
    shares = split.size(over.width)
    share = -(-(matrix.shape[1] // split.size(over.vocabulary)) // shares)
    return _chunks(share, max(chunk // shares, 128))[0] == 1


def _chunks(rows: int, chunk: int) -> tuple[int, int]:
    """Number and size of equal chunks that cover the rows, the size a multiple of 128 where it can be."""
    number = -(-rows // chunk)
    size = -(-rows // number)
    return number, min(rows, -(-size // 128) * 128)


def _scores(features, matrix, bias, first, end):  # type: ignore[no-untyped-def]
    """Scores of a chunk of rows that begins at id `first`, float32 [n, chunk]; -inf from id `end` on."""
    scores = jnp.einsum("nw,vw->nv", features, matrix.astype(features.dtype), preferred_element_type=jnp.float32)
    ids = first + jnp.arange(matrix.shape[0])
    # As a bias, so that the padding costs nothing where there is none.
    return scores + jnp.where(ids < end, bias, -jnp.inf)[None]


def _cut(matrix: jax.Array, bias: jax.Array, start: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.dynamic_slice_in_dim(matrix, start, chunk), jax.lax.dynamic_slice_in_dim(bias, start, chunk)


def _forward_part(features, matrix, bias, targets, first, end, chunk, axes):  # type: ignore[no-untyped-def]
    """Loss and correctness from the rows of ids `first` to `end`, and the others' sums along the mesh axes."""
    rows = matrix.shape[0]
    number, chunk = _chunks(rows, chunk)
    # The target's own score, from its row, by the device that has it. Ids are not clamped: XLA would copy the matrix first.
    local = targets - first
    own = jnp.einsum(
        "nw,nw->n",
        features,
        jnp.take(matrix, local, axis=0, mode="fill", fill_value=0).astype(features.dtype),
        preferred_element_type=jnp.float32,
    )
    own = own + jnp.take(bias, local, mode="fill", fill_value=0)
    if axes:
        own = split.total(jnp.where((local >= 0) & (local < rows) & (targets < end), own, 0), axes)
    lowest = jnp.finfo(jnp.float32).min  # of a part that has no row in use
    if number == 1:
        scores = _scores(features, matrix, bias, first, end)
        top = jnp.maximum(jnp.max(scores, axis=1), lowest)
        shifted = jnp.exp(scores - top[:, None])
        sums = jnp.sum(shifted, axis=1)
    else:

        def body(carry, begin):  # type: ignore[no-untyped-def]
            top, sums = carry
            start = jnp.minimum(begin, rows - chunk)
            scores = _scores(features, *_cut(matrix, bias, start, chunk), first + start, end)
            # The last chunk may begin within the one before: those rows are counted there.
            scores = jnp.where((start + jnp.arange(chunk) < begin)[None], -jnp.inf, scores)
            higher = jnp.maximum(top, jnp.max(scores, axis=1))
            sums = sums * jnp.exp(top - higher) + jnp.sum(jnp.exp(scores - higher[:, None]), axis=1)
            return (higher, sums), None

        n = features.shape[0]
        begin = jnp.full(n, lowest), jnp.zeros(n, jnp.float32)
        (top, sums), _ = jax.lax.scan(body, begin, jnp.arange(number, dtype=jnp.int32) * chunk)
    highest = split.highest(top, axes)
    sums = split.total(sums * jnp.exp(top - highest), axes) if axes else sums
    log_sum = highest + jnp.log(sums)
    loss = log_sum - own
    # The target's score is computed apart from the others', so rounding may set them a little apart.
    correct = (own >= highest - 1e-5 * jnp.maximum(jnp.abs(highest), 1)).astype(jnp.float32)
    if number == 1:
        # What this part's exponentials are to be divided by: it may lie far below the highest of all.
        kept: tuple[jax.Array | None, jax.Array] = (
            shifted.astype(features.dtype),
            sums * jnp.exp(highest - top) if axes else sums,
        )
    else:
        kept = None, log_sum
    return (loss, correct), kept


def _backward_part(features, matrix, bias, targets, kept, weights, first, end, chunk):  # type: ignore[no-untyped-def]
    """Gradients of the rows of ids `first` to `end`, and the features' share from them, float32."""
    shifted, normaliser = kept
    rows = matrix.shape[0]
    number, chunk = _chunks(rows, chunk)

    def products(exponentials, factor, matrix):  # type: ignore[no-untyped-def]
        """Gradients from d_scores = exponentials * factor: the factor [n] goes to the small side of each product."""
        exponentials = exponentials.astype(features.dtype)
        scaled = (features * factor[:, None]).astype(features.dtype)
        product = partial(jnp.einsum, preferred_element_type=jnp.float32)
        d_features = product("nv,vw->nw", exponentials, matrix.astype(features.dtype)) * factor[:, None]
        # A product for the bias too, and not a sum over rows, which XLA's CPU backend is slow at.
        d_bias = product("nv,n->v", exponentials, factor.astype(features.dtype))
        return d_features, product("nv,nw->vw", exponentials, scaled), d_bias

    if number == 1:
        d_features, d_matrix, d_bias = products(shifted, weights / normaliser, matrix)
    else:

        def body(carry, begin):  # type: ignore[no-untyped-def]
            d_features, d_matrix, d_bias = carry
            start = jnp.minimum(begin, rows - chunk)
            part_matrix, part_bias = _cut(matrix, bias, start, chunk)
            scores = _scores(features, part_matrix, part_bias, first + start, end)
            probabilities = jnp.exp(scores - normaliser[:, None])
            # What the chunk before had already.
            probabilities = jnp.where((start + jnp.arange(chunk) < begin)[None], 0.0, probabilities)
            more_features, more_matrix, more_bias = products(probabilities, weights, part_matrix)
            old = jax.lax.dynamic_slice_in_dim(d_matrix, start, chunk)
            d_matrix = jax.lax.dynamic_update_slice_in_dim(d_matrix, old + more_matrix, start, 0)
            old = jax.lax.dynamic_slice_in_dim(d_bias, start, chunk)
            d_bias = jax.lax.dynamic_update_slice_in_dim(d_bias, old + more_bias, start, 0)
            return (d_features + more_features, d_matrix, d_bias), None

        zeros = (
            jnp.zeros(features.shape, jnp.float32),
            jnp.zeros(matrix.shape, jnp.float32),
            jnp.zeros(rows, jnp.float32),
        )
        (d_features, d_matrix, d_bias), _ = jax.lax.scan(body, zeros, jnp.arange(number, dtype=jnp.int32) * chunk)
    # The target's own part, from the device that has its row.
    local = targets - first
    if not (isinstance(first, int) and first == 0):
        local = jnp.where((local >= 0) & (targets < end), local, rows)
    d_features = d_features - weights[:, None] * jnp.take(matrix, local, axis=0, mode="fill", fill_value=0)
    d_matrix = d_matrix.at[local].add(-weights[:, None] * features.astype(jnp.float32), mode="drop")
    d_bias = d_bias.at[local].add(-weights, mode="drop")
    return d_features, d_matrix, d_bias
