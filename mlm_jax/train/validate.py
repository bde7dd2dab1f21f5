# SPDX-License-Identifier: Apache-2.0
"""Validation a language: loss, accuracy and bits a byte, and their averages over languages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mlm_jax.input.arrays import to_global
from mlm_jax.input.validation import validation_batches
from mlm_jax.manifest import Manifest, Stream
from mlm_jax.objectives import SUMS


def validate(
    step: Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]],
    params: Any,
    corpus: str,
    manifest: Manifest,
    streams: Sequence[Stream],
    pad: int,
    most_blocks: int,
    batch_size: int,
    sharding: jax.sharding.NamedSharding,
    rows: Sequence[int],
) -> dict[str, Any]:
    """Score every stream's first validation blocks.

    Bits a byte is the loss of a token times the language's tokens a byte: what all tokens of the text
    would cost at the price of the scored ones. It lets vocabularies be compared.

    Returns:
      `languages`: name → loss (nats a scored token), accuracy, perplexity, bits_per_byte, targets, and with
      next-sentence prediction pair_accuracy; `pairs`, where language pairs are trained on: the same of
      each; macro_loss and macro_bits_per_byte: means over the languages that have validation text (over the
      pairs where there is no language).
    """
    sums = np.zeros((len(streams), len(SUMS)))
    for batch, owners in validation_batches(corpus, manifest, streams, pad, most_blocks, batch_size, rows):
        out = jax.device_get(step(params, to_global(batch, batch_size, sharding)))
        for i, name in enumerate(SUMS):
            np.add.at(sums[:, i], owners[owners >= 0], out[name][owners >= 0].astype(np.float64))
    found: dict[int, dict[str, dict[str, Any]]] = {1: {}, 2: {}}
    for stream, values in zip(streams, sums.tolist(), strict=True):
        loss, correct, targets, _, pair_correct, pairs = values
        if targets:
            tokens_per_byte = stream.validation.tokens / max(stream.validation.bytes, 1)
            found[len(stream.languages)][stream.name] = {
                "loss": loss / targets,
                "accuracy": correct / targets,
                "perplexity": math.exp(min(loss / targets, 700)),
                "bits_per_byte": loss / targets / math.log(2) * tokens_per_byte,
                "targets": int(targets),
                **({"pair_accuracy": pair_correct / pairs} if pairs else {}),
            }
    averaged = found[1] or found[2]

    def macro(name: str) -> float | None:
        return sum(v[name] for v in averaged.values()) / len(averaged) if averaged else None

    result = {"macro_loss": macro("loss"), "macro_bits_per_byte": macro("bits_per_byte"), "languages": found[1]}
    return result | ({"pairs": found[2]} if found[2] else {})
