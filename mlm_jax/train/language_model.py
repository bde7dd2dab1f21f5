# SPDX-License-Identifier: Apache-2.0
"""Language modelling: masked LM (translation LM, where blocks hold pairs) or causal LM, and next-sentence prediction where blocks have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax import objectives
from mlm_jax.manifest import Stream
from mlm_jax.model.batch import Batch, MaskedBatch
from mlm_jax.model.dropout import row_keys as dropout_row_keys
from mlm_jax.model.encoder import Encoder
from mlm_jax.train.learning import Given, Learning
from mlm_jax.train.metrics import Record
from mlm_jax.train.state import Params
from mlm_jax.train.step import Measured, Objective
from mlm_jax.vocabulary import Vocabulary

MEASURED = ("loss", "accuracy", "pair_loss", "pair_accuracy")
RULE = objectives.MASKED_LM  # of validation, whatever the training's masks are
SEED = 15
LOST = 0.001  # share of a text that the vocabulary cannot write, from which its bits per byte would be those of another text
FEW_TARGETS = 1_000  # under which a loss is too uncertain to choose a checkpoint by
FEWEST = 5  # of them, named


def learn_language_model(given: Given) -> Learning:
    """Predict masked tokens, or the next one."""
    config, length = given.config, given.config.data.sequence_length
    sums = validation_sums(given.model, given.words, length)
    return Learning(
        objective=language_model_objective(given),
        measured=MEASURED,
        validation=lambda params, frozen, batch: sums(params, batch),
        score=score,
        predictions=objectives.max_predictions(length, config.objective, config.model.causal),
        log=log_perplexity,
    )


def language_model_objective(given: Given) -> Objective:
    """The loss of what is masked, or comes next, in each block."""
    config, model, words = given.config, given.model, given.words
    tables = objectives.make_tables(words, config.objective, given.word_classes, given.counts)
    bound = objectives.max_predictions(config.data.sequence_length, config.objective)
    rates = (config.model.dropout, config.model.attention_dropout, config.model.attention_out_dropout)

    def prepare(step: jax.Array, batch: Batch) -> MaskedBatch:
        if config.model.causal:
            masked = objectives.predict_next(batch)
        else:
            rate = objectives.mask_rate(config.objective, step)
            keys = objectives.training_keys(config.seed, step, batch, config.objective)
            masked = objectives.mask_tokens(keys, batch, rate, config.objective, tables, bound)
        rows = jnp.arange(len(batch["tokens"]), dtype=jnp.uint32)
        return {**masked, "dropout_keys": dropout_row_keys(config.seed, step, rows)}

    def loss(params: Params, frozen: Params, batch: MaskedBatch) -> Measured:
        keys = batch["dropout_keys"] if max(rates) > 0 else None
        per_row = objectives.loss_sums(model, params, batch, keys, words.size, config.model.loss_chunk)
        sums = {name: value.sum() for name, value in per_row.items()}  # [rows] → []
        return {
            "loss": (sums["loss"], sums["targets"]),
            "accuracy": (sums["correct"], sums["targets"]),
            "pair_loss": (sums["pair_loss"], sums["pairs"]),
            "pair_accuracy": (sums["pair_correct"], sums["pairs"]),
        }

    return Objective(prepare, loss)


def log_perplexity(sums: dict[str, np.ndarray]) -> Record:
    """The perplexity of a line of metrics.

    Args:
      sums: `loss` among them, float32 [2].
    """
    total, targets = sums["loss"].tolist()
    return {"perplexity": float(np.exp(min(total / max(targets, 1.0), 700.0)))}


def validation_sums(
    model: Encoder, vocabulary: Vocabulary, length: int
) -> Callable[[Params, Batch], dict[str, jax.Array]]:
    """The function from parameters and a batch to `objectives.SUMS` of each block, float32 [batch]; see `RULE`.

    Args:
      length: tokens per block.
    """
    mask = validation_masks(vocabulary, length)

    def sums(params: Params, batch: Batch) -> dict[str, jax.Array]:
        masked = objectives.predict_next(batch) if model.config.causal else mask(batch)
        return objectives.loss_sums(model, params, masked, None, vocabulary.size, model.config.loss_chunk)

    return sums


def validation_masks(vocabulary: Vocabulary, length: int) -> Callable[[Batch], MaskedBatch]:
    """The function that masks validation blocks of `length` tokens, the same positions whenever it is asked."""
    tables = objectives.make_tables(vocabulary)
    bound = objectives.max_predictions(length, RULE)

    def mask(batch: Batch) -> MaskedBatch:
        # By the block and not by its place in a batch: the masks stay when batches or languages change.
        keys = objectives.row_keys(SEED, 0, batch["block_key"])
        return objectives.mask_tokens(keys, batch, RULE.mask_rate, RULE, tables, bound)

    return mask


def score(stream: Stream, of_blocks: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """What validation says of a stream: loss (nats per scored token), accuracy, perplexity, bits_per_byte, targets, and with
    next-sentence prediction pair_accuracy.

    Bits per byte is the loss per token times the language's tokens per byte: what all tokens of the text
    would cost at the price of the scored ones. It lets vocabularies be compared, and is left out where the vocabulary cannot write
    a thousandth of the language's text: what is lost costs nothing.

    Args:
      of_blocks: `objectives.SUMS` of each block, float32 [blocks].
    """
    of = {name: float(values.sum(dtype=np.float64)) for name, values in of_blocks.items()}
    if not of["targets"]:
        return None
    loss = of["loss"] / of["targets"]
    tokens_per_byte = stream.validation.tokens / max(stream.validation.bytes, 1)
    return {
        "loss": loss,
        "accuracy": of["correct"] / of["targets"],
        "perplexity": math.exp(min(loss, 700)),
        **({"bits_per_byte": loss / math.log(2) * tokens_per_byte} if writes(stream) else {}),
        "targets": int(of["targets"]),
        **({"pair_accuracy": of["pair_correct"] / of["pairs"]} if of["pairs"] else {}),
    }


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
