# SPDX-License-Identifier: Apache-2.0
"""Validation per language: loss, accuracy and bits per byte, and their averages over languages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mlm_jax import mesh as meshes
from mlm_jax import objectives
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.input.blocks import Blocks
from mlm_jax.input.validation import validation_batches
from mlm_jax.manifest import Stream
from mlm_jax.model.batch import Batch
from mlm_jax.model.encoder import Encoder
from mlm_jax.train.state import Params
from mlm_jax.vocabulary import Vocabulary

RULE = objectives.MASKED_LM  # of validation, whatever the training's masks are
SEED = 15
LOST = 0.001  # share of a text that the vocabulary cannot write, from which its bits per byte would be those of another text
FEW_TARGETS = 1_000  # under which a loss is too uncertain to choose a checkpoint by
FEWEST = 5  # of them, named


@dataclass(frozen=True)
class Validation:
    """What a run validates on.

    Attributes:
      step: `make_validation_step`.
      streams: that are scored.
      sources: `validation_sources` of them.
      length: tokens in a block.
      pad: id of padding.
      sharding: of a batch's rows.
    """

    step: jax.stages.Wrapped
    streams: Sequence[Stream]
    sources: Sequence[Blocks]
    length: int
    pad: int
    sharding: jax.sharding.NamedSharding


def make_validation_step(
    model: Encoder, vocabulary: Vocabulary, length: int, mesh: jax.sharding.Mesh, abstract_params: Params
) -> jax.stages.Wrapped:
    """Build the validation step: 15 % of each block masked, always the same positions, no dropout; causal: every token.

    Args:
      length: tokens per block.
      abstract_params: shapes, dtypes and shardings of the parameters.

    Returns:
      Jitted step(params, batch of `mixture.batch_shapes`) → `objectives.SUMS` of each block, float32 [batch], on every
      process.
    """
    step = validation_sums(model, vocabulary, length)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(step, in_shardings=(shardings, meshes.batch_sharding(mesh)), out_shardings=replicated)


def validation_sums(
    model: Encoder, vocabulary: Vocabulary, length: int
) -> Callable[[Params, Batch], dict[str, jax.Array]]:
    """The function from parameters and a batch to `objectives.SUMS` of each block, float32 [batch]; see `RULE`.

    Args:
      length: tokens per block.
    """
    tables = objectives.make_tables(vocabulary)
    bound = objectives.max_predictions(length, RULE)

    def sums(params: Params, batch: Batch) -> dict[str, jax.Array]:
        if model.config.causal:
            masked = objectives.predict_next(batch)
        else:
            # By the block and not by its place in a batch: the masks stay when batches or languages change.
            keys = objectives.row_keys(SEED, 0, batch["block_key"])
            masked = objectives.mask_tokens(keys, batch, RULE.mask_rate, RULE, tables, bound)
        return objectives.loss_sums(model, params, masked, None, vocabulary.size, model.config.loss_chunk)

    return sums


def validate(validation: Validation, params: Params, most_blocks: int, batch_size: int) -> dict[str, Any]:
    """Score every stream's first validation blocks.

    Bits per byte is the loss per token times the language's tokens per byte: what all tokens of the text
    would cost at the price of the scored ones. It lets vocabularies be compared, and is left out where the vocabulary cannot write
    a thousandth of the language's text: what is lost costs nothing.

    Args:
      params: on the mesh.
      most_blocks: scored per stream.
      batch_size: blocks scored at a time, over all processes.

    Returns:
      `languages`: name → loss (nats per scored token), accuracy, perplexity, bits_per_byte (see above), targets, and with
      next-sentence prediction pair_accuracy; `pairs`, where language pairs are trained on: the same of
      each; macro_loss and macro_bits_per_byte: means over the languages that have validation text (over the
      pairs where there is no language).
    """
    streams, rows = validation.streams, local_rows(validation.sharding, batch_size).tolist()
    sums = {name: np.zeros(len(streams)) for name in objectives.SUMS}  # [streams]
    for batch, owners in validation_batches(
        validation.sources, validation.length, validation.pad, most_blocks, batch_size, rows
    ):
        out = jax.device_get(validation.step(params, to_global(batch, batch_size, validation.sharding)))
        # A batch mixes streams; owners is the stream of each row, [rows], -1 where there is no block.
        for name, total in sums.items():
            np.add.at(total, owners[owners >= 0], out[name][owners >= 0].astype(np.float64))
    found: dict[int, dict[str, dict[str, Any]]] = {1: {}, 2: {}}
    for i, stream in enumerate(streams):
        of = {name: float(total[i]) for name, total in sums.items()}
        if of["targets"]:
            loss = of["loss"] / of["targets"]
            tokens_per_byte = stream.validation.tokens / max(stream.validation.bytes, 1)
            found[len(stream.languages)][stream.name] = {
                "loss": loss,
                "accuracy": of["correct"] / of["targets"],
                "perplexity": math.exp(min(loss, 700)),
                **({"bits_per_byte": loss / math.log(2) * tokens_per_byte} if writes(stream) else {}),
                "targets": int(of["targets"]),
                **({"pair_accuracy": of["pair_correct"] / of["pairs"]} if of["pairs"] else {}),
            }
    # Every language counts alike; pairs only where a run has nothing else.
    averaged = found[1] or found[2]

    def macro(name: str) -> float | None:
        values = [found[name] for found in averaged.values() if name in found]
        return sum(values) / len(values) if values else None

    result = {"macro_loss": macro("loss"), "macro_bits_per_byte": macro("bits_per_byte"), "languages": found[1]}
    return result | ({"pairs": found[2]} if found[2] else {})


def writes(stream: Stream) -> bool:
    """Whether the vocabulary can write a stream's text, but for less than `LOST`."""
    return max(stream.train.unknown, stream.validation.unknown) < LOST


def few_targets(streams: Sequence[Stream], most_blocks: int, length: int) -> str:
    """What to say of streams of whose validation text less than `FEW_TARGETS` tokens will be scored; empty where there are none.

    Args:
      most_blocks: scored per stream.
      length: tokens in a block.
    """
    targets = {s.name: RULE.mask_rate * min(s.validation.tokens, most_blocks * length) for s in streams}
    few = sorted((number, name) for name, number in targets.items() if 0 < number < FEW_TARGETS)
    if not few:
        return ""
    fewest = ", ".join(f"{name} {number:.0f}" for number, name in few[:FEWEST])
    advice = []
    if any(RULE.mask_rate * s.validation.tokens < FEW_TARGETS for s in streams):
        advice += ["raise data.validation_documents or data.validation_fraction, or name a file in Source.validation"]
    if RULE.mask_rate * most_blocks * length < FEW_TARGETS:
        advice += [f"raise train.validation_blocks to {math.ceil(FEW_TARGETS / (RULE.mask_rate * length))}"]
    return (
        f"in validation fewer than {FEW_TARGETS:,} tokens will be scored of {len(few)} of {len(targets)} languages and pairs (fewest: "
        f"{fewest}), so their losses are uncertain; {'; and '.join(advice)}"
    )
