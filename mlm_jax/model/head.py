# SPDX-License-Identifier: Apache-2.0
"""The language model's head, and its cross-entropy in chunks of the vocabulary."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from mlm_jax import config as cfg
from mlm_jax.model import collectives
from mlm_jax.model.collectives import MeshAxes, mesh_axes
from mlm_jax.model.layers import LayerNorm, gelu, matrix, zeros
from mlm_jax.model.products import product, rounded


class Head(nn.Module):
    """Dense, GELU and layer norm (Devlin et al. 2019), or nothing; the output matrix is the token embedding."""

    config: cfg.Model
    rows: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[batch, predictions, embed] → the same shape and dtype, and the output layer's bias, float32 [rows]."""
        config, dtype = self.config, self.dtype
        output_bias = zeros(self, "output_bias", ("vocab",), (self.rows,), jnp.dtype(jnp.float32))
        if config.head == "plain":
            return x, output_bias
        shape = (config.width, config.width)
        kernel = matrix(self, "dense_kernel", ("embed", "embed_out"), shape, config.initializer_std)
        # Letters: batch, predictions, embed; o is embed again.
        h = product("bpe,eo->bpo", x, kernel, dtype)  # [batch, predictions, embed]
        if config.bias:
            h = h + zeros(self, "dense_bias", ("embed_out",), (config.width,), h.dtype)[None, None]
        return LayerNorm(config.norm_epsilon, config.bias, name="norm")(gelu(h)), output_bias


class Pooler(nn.Module):
    """Dense and tanh of the first token, and what it says of the next sentence (Devlin et al. 2019, section 3.1)."""

    config: cfg.Model
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, embed] → the same shape and dtype; with `next_sentence`, float32 [batch, 2] of is-next and is-random."""
        width, std, dtype = self.config.width, self.config.initializer_std, self.dtype
        kernel = matrix(self, "dense_kernel", ("embed", "embed_out"), (width, width), std)
        bias = zeros(self, "dense_bias", ("embed_out",), (width,), x.dtype)
        pooled = jnp.tanh(product("be,eo->bo", x, kernel, dtype) + bias[None])  # [batch, embed]
        if not self.config.next_sentence:
            return pooled
        kernel = matrix(self, "next_sentence_kernel", ("embed", "class"), (width, 2), std)
        bias = zeros(self, "next_sentence_bias", ("class",), (2,), x.dtype)
        return (product("be,ec->bc", pooled, kernel, dtype) + bias[None]).astype(jnp.float32)


class Kept(NamedTuple):
    """What the forward pass of a part of the vocabulary keeps for the backward pass.

    Attributes:
      exponentials: of the scores, relative to the part's own maximum, [n, rows] in the dtype of the products; None where the part is
        gone through in several chunks, whose scores are computed again.
      normaliser: float32 [n]: what divides those exponentials, relative to the same maximum; without them the logarithm of the
        sum of all exponentials.
    """

    exponentials: jax.Array | None
    normaliser: jax.Array


# Features, matrix, bias, targets (of this device, within `shard_map`: see `_forward`), and what was kept.
Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Any]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(
    features: jax.Array,
    matrix: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    size: int,
    chunk: int,
    dtype: jnp.dtype | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each target under softmax(features · matrixᵀ + bias), without all scores at once.

    The vocabulary is gone through `chunk` rows at a time, and the backward pass computes each chunk's
    scores again; where it is one chunk, they are kept and nothing is computed twice. Sums and
    exponentials are float32.

    Over devices each scores its part of the vocabulary for all features of those that share it. Where the matrix lies
    sharded by width they exchange parts, so that each has whole rows: features and sums are brought together, neither
    the matrix nor scores.

    Args:
      features: [n, embed], activations.
      matrix: float32 [copies, rows, embed], of `embedding.look_up`; rows from `size` on are padding, which has no probability.
      bias: float32 [rows].
      targets: int32 [n], below `size`.
      size: ids in use.
      chunk: vocabulary rows at a time.
      dtype: that the products' operands are rounded to, as in `product`; None: that of the features.

    Returns:
      loss in nats and whether the target scored highest, both float32 [n]. The matrix's gradient is each copy's own, not
      yet summed over them.
    """
    return _forward(features, matrix, bias, targets, size, chunk, dtype)[0]


def _forward(
    given: jax.Array,
    matrix: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    size: int,
    chunk: int,
    dtype: jnp.dtype | None,
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    """`cross_entropy` of given features, and what its backward pass needs: the arguments, and the kept of each device."""
    features = given if dtype is None else given.astype(dtype)
    axes = mesh_axes(len(features), *matrix.shape[1:])
    if axes is None:
        # One device: the whole vocabulary is its part, and ids begin at 0.
        outputs, kept = _forward_part(features, matrix[0], bias, targets, 0, size, chunk, ())
        return outputs, (given, matrix, bias, targets, kept)
    everywhere = axes.vocabulary + axes.width

    def part(features: jax.Array, matrix: jax.Array, bias: jax.Array, targets: jax.Array) -> tuple[Any, Any]:
        """Shards: features [n / devices, embed], matrix [1, rows / vocabulary, embed / width]."""
        matrix, bias, first, end = _whole_rows(matrix[0].astype(features.dtype), bias, size, axes)
        # The devices that share a part's width have other rows of the batch: each scores the features of all of them.
        together = collectives.all_gather(features, axes.width), collectives.all_gather(targets, axes.width)
        within = max(chunk // collectives.devices(axes.width), 128)  # they hold a chunk between them
        outputs, kept = _forward_part(together[0], matrix, bias, together[1], first, end, within, everywhere)
        # Of the losses of all of them, this device returns those of its own rows of the batch, [n / devices].
        mine = collectives.axis_index(axes.width) * len(features)
        loss, correct = (jax.lax.dynamic_slice_in_dim(x, mine, len(features)) for x in outputs)
        return (loss, correct), (*together, matrix, bias, kept)

    # How the arrays lie: the batch's rows; the matrix; what is gathered over the width; whole rows of the vocabulary.
    batch, lies, together, rows = P(axes.batch), P(axes.vocabulary, axes.width), P(axes.copies), P(everywhere)
    kept_specs = _kept_specs(_is_one_chunk(matrix.shape[1], chunk, axes), axes)
    inputs = batch, P(axes.copies, *lies), P(axes.vocabulary), batch
    specs = (batch, batch), (together, together, rows, rows, kept_specs)
    outputs, kept = collectives.shard_map(part, inputs, specs)(features, matrix, bias, targets)
    return outputs, (given, matrix, bias, targets, kept)


def _backward(
    size: int, chunk: int, dtype: jnp.dtype | None, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """Gradients of features, matrix and bias, of the arguments' shapes."""
    given, matrix, bias, targets, kept = residuals
    features = given if dtype is None else given.astype(dtype)
    is_wide = features.dtype != given.dtype
    weights = cotangents[0]  # float32 [n]; being the highest has no gradient
    axes = mesh_axes(len(features), *matrix.shape[1:])
    if axes is None:
        d_features, d_matrix, d_bias = _backward_part(
            features, matrix[0], bias, targets, kept, weights, 0, size, chunk, is_wide
        )
        return d_features.astype(given.dtype), d_matrix[None], d_bias, None
    everywhere = axes.vocabulary + axes.width

    def part(
        weights: jax.Array, features: jax.Array, targets: jax.Array, matrix: jax.Array, bias: jax.Array, kept: Kept
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `_forward` kept of this device, and weights [n / devices]."""
        first, end = _ids_of(len(bias), rows_local, size, axes)
        weights = collectives.all_gather(weights, axes.width)
        within = max(chunk // collectives.devices(axes.width), 128)
        d_features, d_matrix, d_bias = _backward_part(
            features, matrix, bias, targets, kept, weights, first, end, within, is_wide
        )
        # Every part of the vocabulary has a share in the features' gradient; each device takes that of its own rows.
        d_features = collectives.psum(d_features, axes.vocabulary)
        d_features = collectives.psum_scatter(d_features, axes.width).astype(given.dtype)
        # Back to part of the width of more rows, as the matrix lies. Its copies are summed in `embedding.look_up`.
        d_matrix = collectives.all_to_all(d_matrix, axes.width, 1, 0)[None, :rows_local]
        d_bias = collectives.psum(collectives.all_gather(d_bias, axes.width)[:rows_local], axes.copies)
        return d_features, d_matrix, d_bias

    # Rows of the vocabulary that lie on a device, before they are exchanged along the width.
    rows_local = matrix.shape[1] // collectives.devices(axes.vocabulary)
    batch, lies, together, rows = P(axes.batch), P(axes.vocabulary, axes.width), P(axes.copies), P(everywhere)
    inputs = batch, together, together, rows, rows, _kept_specs(kept[-1].exponentials is not None, axes)
    outputs = batch, P(axes.copies, *lies), P(axes.vocabulary)
    d_features, d_matrix, d_bias = collectives.shard_map(part, inputs, outputs)(weights, *kept)
    return d_features, d_matrix, d_bias, None


cross_entropy.defvjp(_forward, _backward)


def _kept_specs(one_chunk: bool, axes: MeshAxes) -> Kept:
    """The PartitionSpecs of a `Kept`, in the arrays' places."""
    everywhere = axes.vocabulary + axes.width
    specs: Any = P(axes.copies, everywhere) if one_chunk else None, P((*axes.copies, *everywhere))
    return Kept(*specs)


def _whole_rows(
    matrix: jax.Array, bias: jax.Array, size: int, axes: MeshAxes
) -> tuple[jax.Array, jax.Array, jax.Array | int, jax.Array]:
    """This device's rows of the vocabulary, whole, with their biases; the first's id, and the id that ends those in use.

    Of the rows it has a part of the width of, each device along the width takes an equal share; the last may hold rows
    beyond them, which are then not in use.

    Args:
      matrix: [rows, embed / width].
      bias: [rows].

    Returns:
      [share, embed], [share], int32 [], int32 [].
    """
    rows, shares = len(bias), collectives.devices(axes.width)
    share = -(-rows // shares)
    # The exchange is of equal parts: [rows, embed / width] → [share, embed].
    matrix = jnp.pad(matrix, ((0, share * shares - rows), (0, 0)))
    bias = jnp.pad(bias, (0, share * shares - rows))
    bias = jax.lax.dynamic_slice_in_dim(bias, collectives.axis_index(axes.width) * share, share)
    return collectives.all_to_all(matrix, axes.width, 0, 1), bias, *_ids_of(share, rows, size, axes)


def _ids_of(share: int, rows: int, size: int, axes: MeshAxes) -> tuple[jax.Array | int, jax.Array]:
    """The first id of this device's `share` of its `rows`, and the id that ends those in use, int32 [] each."""
    begin = collectives.axis_index(axes.vocabulary) * rows
    return begin + collectives.axis_index(axes.width) * share, jnp.minimum(begin + rows, size)


def _is_one_chunk(rows: int, chunk: int, axes: MeshAxes) -> bool:
    """Whether a device goes through its part of the vocabulary in one chunk."""
    shares = collectives.devices(axes.width)
    share = -(-(rows // collectives.devices(axes.vocabulary)) // shares)
    return _chunks(share, max(chunk // shares, 128))[0] == 1


def _chunks(rows: int, chunk: int) -> tuple[int, int]:
    """Number and size of equal chunks that cover the rows, the size a multiple of 128 where it can be."""
    number = -(-rows // chunk)
    size = -(-rows // number)
    # 128: the matrix units' width. The last chunk begins earlier where the sizes do not add up.
    return number, min(rows, -(-size // 128) * 128)


def _scores(
    features: jax.Array, matrix: jax.Array, bias: jax.Array, first: jax.Array | int, end: jax.Array | int
) -> jax.Array:
    """Scores of a chunk of rows that begins at id `first`, float32 [n, chunk]; -inf from id `end` on."""
    scores = jnp.einsum("ne,ve->nv", features, matrix.astype(features.dtype), preferred_element_type=jnp.float32)
    ids = first + jnp.arange(matrix.shape[0])
    # As a bias, so that the padding costs nothing where there is none.
    return scores + jnp.where(ids < end, bias, -jnp.inf)[None]


def _cut(matrix: jax.Array, bias: jax.Array, start: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """`chunk` rows from row `start` on: [chunk, embed] and [chunk]."""
    return jax.lax.dynamic_slice_in_dim(matrix, start, chunk), jax.lax.dynamic_slice_in_dim(bias, start, chunk)


def _forward_part(
    features: jax.Array,
    matrix: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    first: jax.Array | int,
    end: jax.Array | int,
    chunk: int,
    axes: tuple[str, ...],
) -> tuple[tuple[jax.Array, jax.Array], Kept]:
    """Loss and correctness from the rows of ids `first` to `end`, and the others' sums along the mesh axes.

    Args:
      features, targets: [n, embed], int32 [n].
      matrix, bias: of this part of the vocabulary, [rows, embed], [rows].
      axes: of the devices that have the other parts.

    Returns:
      float32 [n] each, over the whole vocabulary; and what was kept of this part.
    """
    rows = matrix.shape[0]
    number, chunk = _chunks(rows, chunk)
    # The target's own score, from its row, by the device that has it. Ids are not clamped: XLA would copy the matrix first.
    local = targets - first
    own = jnp.einsum(
        "ne,ne->n",
        features,
        jnp.take(matrix, local, axis=0, mode="fill", fill_value=0).astype(features.dtype),
        preferred_element_type=jnp.float32,
    )
    own = own + jnp.take(bias, local, mode="fill", fill_value=0)  # [n]
    if axes:
        own = collectives.psum(jnp.where((local >= 0) & (local < rows) & (targets < end), own, 0), axes)
    lowest = jnp.finfo(jnp.float32).min  # of a part that has no row in use
    if number == 1:
        scores = _scores(features, matrix, bias, first, end)  # [n, rows]
        # Relative to the highest score, so that no exponential overflows.
        top = jnp.maximum(jnp.max(scores, axis=1), lowest)
        shifted = jnp.exp(scores - top[:, None])
        sums = jnp.sum(shifted, axis=1)
    else:

        def body(carry: tuple[jax.Array, jax.Array], begin: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            """A chunk more: the highest score so far, and the sum of exponentials relative to it."""
            top, sums = carry
            start = jnp.minimum(begin, rows - chunk)
            scores = _scores(features, *_cut(matrix, bias, start, chunk), first + start, end)  # [n, chunk]
            # The last chunk may begin within the one before: those rows are counted there.
            scores = jnp.where((start + jnp.arange(chunk) < begin)[None], -jnp.inf, scores)
            higher = jnp.maximum(top, jnp.max(scores, axis=1))
            sums = sums * jnp.exp(top - higher) + jnp.sum(jnp.exp(scores - higher[:, None]), axis=1)
            return (higher, sums), None

        n = features.shape[0]
        begin = jnp.full(n, lowest), jnp.zeros(n, jnp.float32)
        (top, sums), _ = jax.lax.scan(body, begin, jnp.arange(number, dtype=jnp.int32) * chunk)
    # Over all parts: sums relative to the highest score of all, [n].
    highest = collectives.pmax(top, axes)
    sums = collectives.psum(sums * jnp.exp(top - highest), axes) if axes else sums
    log_sum = highest + jnp.log(sums)  # [n]: the logarithm of the softmax' denominator
    loss = log_sum - own
    # The target's score is computed apart from the others', so rounding may set them a little apart.
    correct = (own >= highest - 1e-5 * jnp.maximum(jnp.abs(highest), 1)).astype(jnp.float32)
    if number == 1:
        # Normaliser of this part's exponentials, relative to the part's own maximum, which may lie far below the highest.
        normaliser = sums * jnp.exp(highest - top) if axes else sums
        return (loss, correct), Kept(shifted.astype(features.dtype), normaliser)
    return (loss, correct), Kept(None, log_sum)


def _backward_part(
    features: jax.Array,
    matrix: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    kept: Kept,
    weights: jax.Array,
    first: jax.Array | int,
    end: jax.Array | int,
    chunk: int,
    is_wide: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of the rows of ids `first` to `end`, and the features' share from them.

    A score's gradient is weight * (probability - 1 if it is the target's): the products of the probabilities come first, and
    the targets' part is scattered into them.

    Args:
      weights: of the losses, float32 [n]; the others as in `_forward_part`.
      is_wide: whether activations are wider than the features' dtype (`products`).

    Returns:
      float32 [n, embed], [rows, embed], [rows].
    """
    shifted, normaliser = kept
    rows = matrix.shape[0]
    number, chunk = _chunks(rows, chunk)

    def products(
        exponentials: jax.Array, factor: jax.Array, matrix: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Gradients from d_scores = exponentials * factor: the factor [n] goes to the small side of each product."""
        dtype = features.dtype
        of_bias = jnp.dtype(jnp.float32) if is_wide else dtype  # a vector is not worth rounding [n, chunk] for
        sums = partial(jnp.einsum, preferred_element_type=jnp.float32)
        multiply = rounded if is_wide else sums
        scaled = (features * factor[:, None]).astype(dtype)  # [n, embed]
        d_features = multiply("nv,ve->ne", exponentials.astype(dtype), matrix.astype(dtype)) * factor[:, None]
        # A product for the bias too, and not a sum over rows, which XLA's CPU backend is slow at.
        d_bias = sums("nv,n->v", exponentials.astype(of_bias), factor.astype(of_bias))
        return d_features, multiply("nv,ne->ve", exponentials.astype(dtype), scaled), d_bias

    if shifted is not None:
        # softmax = exponentials / normaliser, so that the scores are not computed again.
        d_features, d_matrix, d_bias = products(shifted, weights / normaliser, matrix)
    else:

        def body(
            carry: tuple[jax.Array, jax.Array, jax.Array], begin: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
            """A chunk more of each gradient, written in place."""
            d_features, d_matrix, d_bias = carry
            start = jnp.minimum(begin, rows - chunk)
            part_matrix, part_bias = _cut(matrix, bias, start, chunk)
            scores = _scores(features, part_matrix, part_bias, first + start, end)  # [n, chunk]
            probabilities = jnp.exp(scores - normaliser[:, None])
            # What the chunk before had already.
            probabilities = jnp.where((start + jnp.arange(chunk) < begin)[None], 0.0, probabilities)
            # Rows of the matrix belong to one chunk each; every chunk adds to the features.
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
    # Of other parts' targets the row is one beyond the last: a read there gives 0, a write is dropped.
    if not (isinstance(first, int) and first == 0):
        local = jnp.where((local >= 0) & (targets < end), local, rows)
    d_features = d_features - weights[:, None] * jnp.take(matrix, local, axis=0, mode="fill", fill_value=0)
    d_matrix = d_matrix.at[local].add(-weights[:, None] * features.astype(jnp.float32), mode="drop")
    d_bias = d_bias.at[local].add(-weights, mode="drop")
    return d_features, d_matrix, d_bias
