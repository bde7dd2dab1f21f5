# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling: what is hidden, what is scored (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax.config import Objective
from mlm_jax.model.encoder import Encoder
from mlm_jax.model.head import cross_entropy
from mlm_jax.vocabulary import Vocabulary

Tables = dict[str, Any]


def make_tables(vocabulary: Vocabulary, starts_word: np.ndarray | None) -> Tables:
    """What `hide` has to know of a vocabulary.

    Args:
      starts_word: bool [size] (`vocabulary.word_starts`) to hide whole words; None to hide pieces.

    Returns:
      ordinary: the ids that may be hidden or shown instead of another, int32 [n]; may_hide: bool [size];
      mask: its id; size; and starts_word where given.
    """
    ordinary = vocabulary.ordinary_ids
    may_hide = np.zeros(vocabulary.size, bool)
    may_hide[ordinary] = True
    tables = {
        "ordinary": ordinary,
        "may_hide": may_hide,
        "mask": np.int32(vocabulary.mask),
        "size": np.int32(vocabulary.size),
    }
    return tables if starts_word is None else tables | {"starts_word": starts_word}


def scored_bound(length: int, objective: Objective) -> int:
    """The most positions scored in a block: a static shape, from the highest rate of the schedule."""
    highest = max([objective.mask_rate, *(rate for _, rate in objective.mask_rate_schedule)])
    return min(length, math.ceil(highest * length))


def mask_rate(objective: Objective, step: jax.Array) -> jax.Array:
    """The share of tokens scored at a step, float32 []."""
    rate = jnp.float32(objective.mask_rate)
    for start, later in objective.mask_rate_schedule:
        rate = jnp.where(step >= start, jnp.float32(later), rate)
    return rate


def row_keys(seed: int, step: jax.Array | int, rows: jax.Array) -> jax.Array:
    """A key for each row of a step, [rows]: masks then do not depend on how a batch is cut up.

    The generator is threefry whatever JAX's default, so that every backend draws the same.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def hide(
    keys: jax.Array,
    batch: dict[str, jax.Array],
    rate: jax.Array | float,
    objective: Objective,
    tables: Tables,
    bound: int,
) -> dict[str, jax.Array]:
    """Choose the tokens to score and show something else in most of their places.

    In each block a share `rate` of the tokens that may be hidden (neither padding nor special) is
    scored: rounded down or up at random, so that the share is kept on average in short blocks too.

    Args:
      keys: one a block, [batch] (`row_keys`).
      batch: tokens, segment_ids and positions, int32 [batch, length].
      bound: scored positions a block (`scored_bound`).

    Returns:
      tokens (as shown), segment_ids, positions: int32 [batch, length]; scored, the places of the scored
      tokens, and targets, what stood there: int32 [batch, bound]; weights: 1 where a place is scored and
      0 where the block has fewer, float32 [batch, bound].
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    length = tokens.shape[1]
    bits = jax.vmap(lambda key: jax.random.bits(key, (4, length), jnp.uint32))(keys)  # [batch, 4, length]
    candidate = (segments > 0) & jnp.take(jnp.asarray(tables["may_hide"]), tokens)

    order = bits[:, 0] >> 1  # the places with the lowest numbers are hidden first
    if "starts_word" in tables:
        order = _word_order(order, tokens, segments, jnp.asarray(tables["starts_word"]))
    order = jnp.where(candidate, order, jnp.uint32(2**32 - 1))
    wanted = rate * jnp.sum(candidate, axis=1)
    fraction = (bits[:, 1, 0] >> 8).astype(jnp.float32) / 2**24
    number = jnp.minimum(jnp.floor(wanted + fraction).astype(jnp.int32), bound)

    # Stable, so that the pieces of a word, which share a number, come out in order.
    scored = jnp.argsort(order, axis=1, stable=True)[:, :bound].astype(jnp.int32)
    chosen = jnp.take_along_axis(candidate, scored, axis=1)
    weights = (chosen & (jnp.arange(bound)[None] < number[:, None])).astype(jnp.float32)
    targets = jnp.take_along_axis(tokens, scored, axis=1)

    fate = (jnp.take_along_axis(bits[:, 2], scored, axis=1) >> 8).astype(jnp.float32) / 2**24
    drawn = jnp.take_along_axis(bits[:, 3], scored, axis=1) % np.uint32(len(tables["ordinary"]))
    other = jnp.take(jnp.asarray(tables["ordinary"]), drawn.astype(jnp.int32))
    shown = jnp.where(fate < objective.replace_mask + objective.replace_random, other, targets)
    shown = jnp.where(fate < objective.replace_mask, jnp.int32(tables["mask"]), shown)
    shown = jnp.where(weights > 0, shown, targets)
    tokens = jax.vmap(lambda row, places, values: row.at[places].set(values))(tokens, scored, shown)
    return {
        "tokens": tokens,
        "segment_ids": segments,
        "positions": batch["positions"],
        "scored": scored,
        "targets": targets,
        "weights": weights,
    }


def _word_order(order: jax.Array, tokens: jax.Array, segments: jax.Array, starts_word: jax.Array) -> jax.Array:
    """Give every piece its word's number: that of the word's first piece.

    A word is cut off where the block's number of scored places is reached; a word never crosses segments.
    """
    first_of_segment = jnp.diff(segments, axis=1, prepend=-1) != 0
    starts = jnp.take(starts_word, tokens) | first_of_segment
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    word = jax.lax.cummax(jnp.where(starts, places[None], 0), axis=1)  # the place where the piece's word begins
    return jnp.take_along_axis(order, word, axis=1)


def masked_lm_loss(
    model: Encoder, params: Any, hidden: dict[str, jax.Array], dropout_keys: jax.Array | None, size: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Score what `hide` hid.

    Args:
      hidden: as `hide` returns it.
      dropout_keys: uint32 [batch], or None.
      size: ids in use; the embedding's rows beyond are padding.
      chunk: vocabulary rows scored at a time.

    Returns:
      Sums over each block's scored tokens: loss in nats, and how many scored highest, float32 [batch].
    """
    features, matrix, bias = model.apply(  # type: ignore[misc]  # flax does not type other methods
        {"params": params},
        hidden["tokens"],
        hidden["positions"],
        hidden["segment_ids"],
        hidden["scored"],
        dropout_keys,
        method="features",
    )
    shape = hidden["targets"].shape
    loss, correct = cross_entropy(
        features.reshape(-1, features.shape[-1]), matrix, bias, hidden["targets"].reshape(-1), size, chunk
    )
    weights = hidden["weights"]
    return jnp.sum(loss.reshape(shape) * weights, axis=1), jnp.sum(correct.reshape(shape) * weights, axis=1)
