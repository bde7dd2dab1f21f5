# SPDX-License-Identifier: Apache-2.0
"""The language model's head, and its cross-entropy in chunks of the vocabulary."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
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

    Args:
      features: [n, width], in the compute dtype.
      matrix: float32 [rows, width]; rows from `size` on are padding, which has no probability.
      bias: float32 [rows].
      targets: int32 [n], below `size`.
      size: ids in use.
      chunk: vocabulary rows at a time.

    Returns:
      loss in nats and whether the target scored highest, both float32 [n].
    """
    return _forward(features, matrix, bias, targets, size, chunk)[0]


def _chunks(rows: int, chunk: int) -> tuple[int, int]:
    """Number and size of equal chunks that cover the rows, the size a multiple of 128 where it can be."""
    number = -(-rows // chunk)
    size = -(-rows // number)
    return number, min(rows, -(-size // 128) * 128)


def _scores(features: jax.Array, matrix: jax.Array, bias: jax.Array, first: jax.Array, size: int) -> jax.Array:
    """Scores of a chunk of rows that begins at `first`, float32 [n, chunk]; -inf on padding."""
    scores = jnp.einsum("nw,vw->nv", features, matrix.astype(features.dtype), preferred_element_type=jnp.float32)
    ids = first + jnp.arange(matrix.shape[0])
    # As a bias, so that the padding costs nothing where there is none.
    return scores + jnp.where(ids < size, bias, -jnp.inf)[None]


def _cut(matrix: jax.Array, bias: jax.Array, first: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.dynamic_slice_in_dim(matrix, first, chunk), jax.lax.dynamic_slice_in_dim(bias, first, chunk)


def _forward(features, matrix, bias, targets, size, chunk):  # type: ignore[no-untyped-def]
    rows = matrix.shape[0]
    number, chunk = _chunks(rows, chunk)
    # The target's own score, from its row.
    own = jnp.einsum(
        "nw,nw->n",
        features,
        jnp.take(matrix, targets, axis=0).astype(features.dtype),
        preferred_element_type=jnp.float32,
    )
    own = own + jnp.take(bias, targets)
    if number == 1:
        scores = _scores(features, matrix, bias, jnp.int32(0), size)
        top = jnp.max(scores, axis=1)
        shifted = jnp.exp(scores - top[:, None])
        total = jnp.sum(shifted, axis=1)
        log_sum = top + jnp.log(total)
        kept: tuple[jax.Array | None, jax.Array] = (shifted.astype(features.dtype), total)
    else:

        def body(carry, first):  # type: ignore[no-untyped-def]
            top, total = carry
            start = jnp.minimum(first, rows - chunk)
            scores = _scores(features, *_cut(matrix, bias, start, chunk), start, size)
            # The last chunk may begin within the one before: those rows are counted there.
            scores = jnp.where((start + jnp.arange(chunk) < first)[None], -jnp.inf, scores)
            higher = jnp.maximum(top, jnp.max(scores, axis=1))
            total = total * jnp.exp(top - higher) + jnp.sum(jnp.exp(scores - higher[:, None]), axis=1)
            return (higher, total), None

        n = features.shape[0]
        start = jnp.full(n, jnp.finfo(jnp.float32).min), jnp.zeros(n, jnp.float32)
        (top, total), _ = jax.lax.scan(body, start, jnp.arange(number, dtype=jnp.int32) * chunk)
        log_sum = top + jnp.log(total)
        kept = None, log_sum
    loss = log_sum - own
    # The target's score is computed apart from the others', so rounding may set them a little apart.
    correct = (own >= top - 1e-5 * jnp.maximum(jnp.abs(top), 1)).astype(jnp.float32)
    return (loss, correct), (features, matrix, bias, targets, kept)


def _backward(size, chunk, residuals, cotangents):  # type: ignore[no-untyped-def]
    features, matrix, bias, targets, (shifted, normaliser) = residuals
    weights = cotangents[0]  # [n]; being the highest has no gradient
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

        def body(carry, first):  # type: ignore[no-untyped-def]
            d_features, d_matrix, d_bias = carry
            start = jnp.minimum(first, rows - chunk)
            part_matrix, part_bias = _cut(matrix, bias, start, chunk)
            probabilities = jnp.exp(_scores(features, part_matrix, part_bias, start, size) - normaliser[:, None])
            # What the chunk before had already.
            probabilities = jnp.where((start + jnp.arange(chunk) < first)[None], 0.0, probabilities)
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
    d_features = d_features - weights[:, None] * jnp.take(matrix, targets, axis=0)
    d_matrix = d_matrix.at[targets].add(-weights[:, None] * features.astype(jnp.float32))
    d_bias = d_bias.at[targets].add(-weights)
    return d_features.astype(features.dtype), d_matrix, d_bias, None


cross_entropy.defvjp(_forward, _backward)
