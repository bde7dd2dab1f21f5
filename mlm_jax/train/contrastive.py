# SPDX-License-Identifier: Apache-2.0
"""Contrastive learning: vectors of texts that belong together are nearer to each other than to all others of the batch."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.input.arrays import to_global
from mlm_jax.manifest import Stream
from mlm_jax.model.batch import Batch, PackedBatch
from mlm_jax.model.dropout import mix, row_keys
from mlm_jax.model.task_head import pool
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.train.info_nce import Rule, info_nce
from mlm_jax.train.learning import Given, Learning
from mlm_jax.train.metrics import Record
from mlm_jax.train.state import Params
from mlm_jax.train.step import Comparison, Measured, comparing

MEASURED = ("loss", "accuracy")
FEWEST = 2  # held-out pairs of which one can be looked for among others


class PairBatch(PackedBatch, total=False):
    """A batch of blocks of pairs (`packing.pairs_block`), of `slots` texts each: those of pair i are i * sides and on.

    Attributes:
      texts: a number for each text, the same where texts are, uint32 [batch, slots].
    """

    texts: jax.Array


def learn_contrast(given: Given) -> Learning:
    """Learn to find each text's partner among the texts of the batch."""
    config, model = given.config, given.model
    data, options = config.data, config.contrastive
    sides = cfg.sides_of_pairs(data)
    slots = cfg.pairs_per_block(data) * sides
    rule = Rule(options.temperature, options.margin, options.symmetric, (0, *options.matryoshka))
    rates = (config.model.dropout, config.model.attention_dropout, config.model.attention_out_dropout)

    def prepare(step: jax.Array, batch: Batch) -> PairBatch:
        rows = jnp.arange(len(batch["tokens"]), dtype=jnp.uint32)
        return find_texts(batch, slots) | {"dropout_keys": row_keys(config.seed, step, rows)}

    def represent(params: Params, frozen: Params, batch: PairBatch) -> jax.Array:
        keys = batch.get("dropout_keys") if max(rates) > 0 else None
        hidden = cast(jax.Array, model.apply({"params": params}, batch, keys))  # [rows, length, width]
        vectors = pool(hidden.astype(jnp.float32), batch["starts"], batch["segment_ids"], options.pooling)
        vectors = jnp.where(batch["valid"][:, :, None], vectors, 0)  # [rows, slots, width]
        return nn.with_logical_constraint(vectors, ("act_batch", None, None))

    def of_slots(vectors: jax.Array, valid: jax.Array, texts: jax.Array) -> Measured:
        return info_nce(by_pair(vectors, sides), by_pair(valid, sides), by_pair(texts, sides), rule)

    def compare(vectors: jax.Array, batch: PairBatch) -> Measured:
        return of_slots(vectors, batch["valid"], batch["texts"])

    def validation(params: Params, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
        found = find_texts(batch, slots)
        return {"vectors": represent(params, frozen, found), "valid": found["valid"], "texts": found["texts"]}

    everywhere = jax.sharding.NamedSharding(given.mesh, jax.sharding.PartitionSpec())
    compared = jax.jit(of_slots, out_shardings=everywhere)

    def score(stream: Stream, of_blocks: dict[str, np.ndarray]) -> dict[str, Any] | None:
        blocks = config.train.validation_blocks
        # Every process has them all, and gives them to each of its devices.
        placed = to_global(padded(of_blocks, blocks), blocks, everywhere)
        found: Measured = jax.device_get(compared(placed["vectors"], placed["valid"], placed["texts"]))
        (loss, pairs), (correct, _) = found["loss"], found["accuracy"]
        if pairs < FEWEST:
            return None
        return {"loss": float(loss / pairs), "accuracy": float(correct / pairs), "pairs": int(pairs)}

    return Learning(
        objective=comparing(prepare, Comparison(represent, compare)),
        measured=MEASURED,
        validation=validation,
        score=score,
        log=log_pairs,
    )


def find_texts(batch: Batch, slots: int) -> PairBatch:
    """The batch with where its texts are, and which of them are equal.

    Args:
      batch: tokens, positions, segment_ids: int32 [batch, length]; segment i + 1 is the text of slot i.
      slots: texts per block at most.

    Returns:
      With starts, valid and texts. Numbers of 32 bits take two of 4,096 different texts for equal in one of 500 batches, which then
      has one wrong answer less.
    """
    of_slot = batch["segment_ids"][:, None, :] == jnp.arange(1, slots + 1)[None, :, None]  # [batch, slots, length]
    tokens, positions = (batch[name].astype(jnp.uint32) for name in ("tokens", "positions"))  # type: ignore[literal-required]
    hashes = mix(mix(tokens + np.uint32(1)) + positions * np.uint32(0x9E3779B9))  # [batch, length]
    # Sums of whole numbers, which are the same in any order.
    texts = mix(jnp.sum(jnp.where(of_slot, hashes[:, None, :], 0), axis=2, dtype=jnp.uint32))
    starts = jnp.argmax(of_slot, axis=2).astype(jnp.int32)
    return {**batch, "starts": starts, "valid": of_slot.any(axis=2), "texts": texts}


def by_pair(of_slots: jax.Array, sides: int) -> jax.Array:
    """What blocks have per slot, by pair: [rows, pairs * sides, ...] → [rows * pairs, sides, ...]; float32, bool or uint32."""
    return of_slots.reshape(-1, sides, *of_slots.shape[2:])


def padded(of_blocks: dict[str, np.ndarray], blocks: int) -> dict[str, np.ndarray]:
    """Arrays of a stream's blocks, float32, bool or uint32 [blocks of the stream, ...], filled up with blocks of nothing to [blocks, ...], so
    that all streams are one program."""
    return {
        name: np.concatenate([x, np.zeros((blocks - len(x), *x.shape[1:]), x.dtype)]) for name, x in of_blocks.items()
    }


def log_pairs(sums: dict[str, np.ndarray]) -> Record:
    """How many pairs a step had, on average.

    Args:
      sums: the window: `loss`, float32 [2], and `steps`, int32 [].
    """
    return {"pairs": float(sums["loss"][1]) / int(sums["steps"])}


def trained_vectors(config: cfg.Config) -> SentenceVectors:
    """The vectors that a contrastive run teaches its encoder to make, with the prefixes of its texts as prompts, by their first word."""
    prefixes = [prefix for parallel in config.data.parallel for prefix in parallel.prefixes if prefix.strip()]
    prompts = {prefix.split()[0].rstrip(":").lower(): prefix for prefix in prefixes}
    return SentenceVectors(config.contrastive.pooling, prompts=prompts)
