# SPDX-License-Identifier: Apache-2.0
"""What is hidden and what is scored.

Masked LM (Devlin et al. 2019, section 3.1), which on blocks of sentence pairs is translation LM and where blocks
have a label goes with next-sentence prediction; and causal LM.
"""

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
Batch = dict[str, jax.Array]
MASKED_LM = Objective()  # 15 %, 80/10/10


def make_tables(
    vocabulary: Vocabulary,
    objective: Objective = MASKED_LM,
    starts_word: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> Tables:
    """What `hide` has to know of a vocabulary.

    Args:
      starts_word: bool [size] (`vocabulary.word_starts`) to hide whole words; None to hide pieces.
      counts: how often each id occurs in the corpus, [size], for `objective.frequency_exponent`.

    Returns:
      ordinary: the ids that may be hidden or shown instead of another, int32 [n]; may_hide: bool [size];
      mask: its id; and where they are wanted starts_word, and reluctance: an id's weight to the power of -1 as
      whole numbers from 1 on, uint32 [size].
    """
    ordinary = vocabulary.ordinary_ids
    may_hide = np.zeros(vocabulary.size, bool)
    may_hide[ordinary] = True
    tables: Tables = {"ordinary": ordinary, "may_hide": may_hide, "mask": np.int32(vocabulary.mask)}
    if starts_word is not None:
        tables["starts_word"] = starts_word
    if objective.frequency_exponent and counts is not None:
        powers = np.maximum(counts, 1) ** objective.frequency_exponent
        powers = powers / powers[ordinary].min()
        # Finely enough for the rarest, and together with `_negative_log` within 32 bits.
        scale = min(32.0, (2**14 - 1) / powers[ordinary].max())
        tables["reluctance"] = np.clip(np.round(powers * scale), 1, 2**14 - 1).astype(np.uint32)
    return tables


def scored_bound(length: int, objective: Objective, causal: bool = False) -> int:
    """The most positions scored in a block: a static shape, from the highest rate of the schedule."""
    if causal:
        return length - 1
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


def training_keys(seed: int, step: jax.Array, batch: Batch, objective: Objective) -> jax.Array:
    """The keys that a training batch is masked with, [rows]: new ones every step, or a block's own."""
    if not objective.static_masks:
        return row_keys(seed, step, jnp.arange(len(batch["tokens"]), dtype=jnp.uint32))
    keys = row_keys(seed, 0, batch["block_key"])
    return jax.vmap(jax.random.fold_in)(keys, batch["repeat"] % objective.static_masks)


def hide(
    keys: jax.Array, batch: Batch, rate: jax.Array | float, objective: Objective, tables: Tables, bound: int
) -> Batch:
    """Choose the tokens to score and show something else in most of their places.

    In each block a share `rate` of the tokens that may be hidden (neither padding nor special) is
    scored: rounded down or up at random, so that the share is kept on average in short blocks too.

    Args:
      keys: one a block, [batch] (`row_keys`).
      batch: tokens and segment_ids, int32 [batch, length], and any other features.
      bound: scored positions a block (`scored_bound`).

    Returns:
      The batch with tokens as they are shown, and: scored, the places of the scored tokens, and targets,
      what stood there: int32 [batch, bound]; weights: 1 where a place is scored and 0 where the block has
      fewer, float32 [batch, bound].
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    length = tokens.shape[1]
    streams = 4 if objective.span_length == 1 else 5
    bits = jax.vmap(lambda key: jax.random.bits(key, (streams, length), jnp.uint32))(keys)  # [batch, streams, length]
    candidate = (segments > 0) & jnp.take(jnp.asarray(tables["may_hide"]), tokens)

    order = bits[:, 0] >> 1  # the places with the lowest numbers are hidden first
    if "reluctance" in tables:
        order = _negative_log(bits[:, 0]) * jnp.take(jnp.asarray(tables["reluctance"]), tokens)
    if "starts_word" in tables or objective.span_length > 1:
        starts = jnp.diff(segments, axis=1, prepend=-1) != 0  # no word or span crosses segments
        begins = jnp.take(jnp.asarray(tables["starts_word"]), tokens) if "starts_word" in tables else True
        if objective.span_length > 1:
            begins = begins & (bits[:, 4] < np.uint32(min(2**32 / objective.span_length, 2**32 - 1)))
        order = _shared_order(order, starts | begins)
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
    return batch | {"tokens": tokens, "scored": scored, "targets": targets, "weights": weights}


def _shared_order(order: jax.Array, starts: jax.Array) -> jax.Array:
    """Give every piece of a unit (a word, a span) the number of the unit's first piece.

    A unit is cut off where the block's number of scored places is reached.
    """
    places = jnp.arange(order.shape[1], dtype=jnp.int32)
    first = jax.lax.cummax(jnp.where(starts, places[None], 0), axis=1)  # the place where the piece's unit begins
    return jnp.take_along_axis(order, first, axis=1)


_LOG = np.round(-np.log2((np.arange(1024) + 1024.5) / 2048) * 2**12).astype(np.uint32)  # of numbers from 1/2 to 1


def _negative_log(bits: jax.Array) -> jax.Array:
    """-log2 of uniform bits / 2**32 in 2**-12ths, uint32, in whole numbers so that every backend agrees.

    The k places with the lowest -log(u) / weight are k draws without replacement in proportion to the
    weights (Efraimidis and Spirakis 2006).
    """
    zeros = jax.lax.clz(bits | np.uint32(1))
    mantissa = ((bits << zeros) >> np.uint32(21)) & np.uint32(1023)
    return jnp.take(jnp.asarray(_LOG), mantissa.astype(jnp.int32)) + (zeros << np.uint32(12)) + np.uint32(1)


def predict_next(batch: Batch) -> Batch:
    """Score every token but the first of its segment, each from those before it (XLM's CLM).

    Returns:
      The batch and, as from `hide`, scored, targets, weights: [batch, length - 1].
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    places = jnp.arange(tokens.shape[1] - 1, dtype=jnp.int32)
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return batch | {
        "scored": jnp.broadcast_to(places[None], (tokens.shape[0], tokens.shape[1] - 1)),
        "targets": tokens[:, 1:],
        "weights": follows.astype(jnp.float32),
    }


SUMS = ("loss", "correct", "targets", "pair_loss", "pair_correct", "pairs")  # of `score`


def score(
    model: Encoder, params: Any, batch: Batch, dropout_keys: jax.Array | None, size: int, chunk: int
) -> dict[str, jax.Array]:
    """Score what `hide` or `predict_next` chose, and the sentence pairs where the model tells them apart.

    Args:
      batch: as `hide` returns it.
      dropout_keys: uint32 [batch], or None.
      size: ids in use; the embedding's rows beyond are padding.
      chunk: vocabulary rows scored at a time.

    Returns:
      `SUMS` over each block, float32 [batch]: the scored tokens' loss in nats, how many of them scored highest,
      how many there are; and loss, right answers and number of its sentence pairs (0 or 1).
    """
    features, matrix, bias, pooled = model.apply(  # type: ignore[misc]  # flax does not type other methods
        {"params": params}, batch, batch["scored"], dropout_keys, method="features"
    )
    shape, weights = batch["targets"].shape, batch["weights"]
    loss, correct = cross_entropy(
        features.reshape(-1, features.shape[-1]), matrix, bias, batch["targets"].reshape(-1), size, chunk
    )
    sums = {
        "loss": jnp.sum(loss.reshape(shape) * weights, axis=1),
        "correct": jnp.sum(correct.reshape(shape) * weights, axis=1),
        "targets": jnp.sum(weights, axis=1),
    }
    if not model.config.next_sentence:
        zero = jnp.zeros(shape[0], jnp.float32)
        return sums | {"pair_loss": zero, "pair_correct": zero, "pairs": zero}
    label, is_pair = jnp.maximum(batch["next_sentence"], 0), (batch["next_sentence"] >= 0).astype(jnp.float32)
    log_probability = jnp.take_along_axis(jax.nn.log_softmax(pooled), label[:, None], axis=1)[:, 0]
    return sums | {
        "pair_loss": -log_probability * is_pair,
        "pair_correct": (jnp.argmax(pooled, axis=1) == label) * is_pair,
        "pairs": is_pair,
    }
