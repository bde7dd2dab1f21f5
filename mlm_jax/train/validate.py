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
    """Score every language's first validation blocks.

    Bits a byte is the loss of a token times the language's tokens a byte: what all tokens of the text
    would cost at the price of the hidden ones. It lets vocabularies be compared.

    Returns:
      `languages`: name → loss (nats a scored token), accuracy, bits_per_byte, targets; macro_loss and
      macro_bits_per_byte: their means over the languages that have validation text.
    """
    sums = np.zeros((len(streams), 3))
    for batch, owners in validation_batches(corpus, manifest, streams, pad, most_blocks, batch_size, rows):
        out = jax.device_get(step(params, to_global(batch, batch_size, sharding)))
        for i, name in enumerate(("loss", "correct", "targets")):
            np.add.at(sums[:, i], owners[owners >= 0], out[name][owners >= 0].astype(np.float64))
    languages = {}
    for stream, (loss, correct, targets) in zip(streams, sums.tolist(), strict=True):
        if targets:
            tokens_per_byte = stream.validation.tokens / max(stream.validation.bytes, 1)
            languages[stream.name] = {
                "loss": loss / targets,
                "accuracy": correct / targets,
                "bits_per_byte": loss / targets / math.log(2) * tokens_per_byte,
                "targets": int(targets),
            }

    def macro(name: str) -> float | None:
        return sum(v[name] for v in languages.values()) / len(languages) if languages else None

    return {"macro_loss": macro("loss"), "macro_bits_per_byte": macro("bits_per_byte"), "languages": languages}
