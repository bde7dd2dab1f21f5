# SPDX-License-Identifier: Apache-2.0
"""Validation per language, by the scores of whatever is learned, and their averages over languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mlm_jax import mesh as meshes
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.input.blocks import Blocks
from mlm_jax.input.validation import validation_batches
from mlm_jax.manifest import Stream
from mlm_jax.train.learning import Learning
from mlm_jax.train.state import Params


@dataclass(frozen=True)
class Validation:
    """What a run validates on.

    Attributes:
      step: `make_validation_step`.
      frozen: parameters that are not trained.
      score: `Learning.score`.
      streams: that are scored.
      sources: `validation_sources` of them.
      length: tokens in a block.
      pad: id of padding.
      sharding: of a batch's rows.
    """

    step: jax.stages.Wrapped
    frozen: Params
    score: Callable[[Stream, dict[str, np.ndarray]], dict[str, Any] | None]
    streams: Sequence[Stream]
    sources: Sequence[Blocks]
    length: int
    pad: int
    sharding: jax.sharding.NamedSharding


def make_validation_step(learning: Learning, mesh: jax.sharding.Mesh, abstract_params: Params) -> jax.stages.Wrapped:
    """Build the validation step.

    Args:
      abstract_params: shapes, dtypes and shardings of the parameters.

    Returns:
      Jitted step(params, frozen parameters, batch of `mixture.batch_shapes`) → what `Learning.validation` returns, [batch, ...], on every
      process.
    """
    trained, frozen = (jax.tree.map(lambda leaf: leaf.sharding, tree) for tree in (abstract_params, learning.frozen))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(
        learning.validation, in_shardings=(trained, frozen, meshes.batch_sharding(mesh)), out_shardings=replicated
    )


def validate(validation: Validation, params: Params, most_blocks: int, batch_size: int) -> dict[str, Any]:
    """Score every stream's first validation blocks.

    Args:
      params: on the mesh.
      most_blocks: scored per stream.
      batch_size: blocks scored at a time, over all processes.

    Returns:
      `languages`: name → what `Validation.score` says; `pairs`, where language pairs are trained on: the same of
      each; macro_loss and macro_bits_per_byte: means over the languages that have validation text (over the
      pairs where there is no language).
    """
    streams, rows = validation.streams, local_rows(validation.sharding, batch_size).tolist()
    of_blocks: dict[int, list[dict[str, np.ndarray]]] = {}  # stream → arrays of its blocks in each batch, [blocks, ...]
    for batch, owners in validation_batches(
        validation.sources, validation.length, validation.pad, most_blocks, batch_size, rows
    ):
        arrays = to_global(batch, batch_size, validation.sharding)
        out = jax.device_get(validation.step(params, validation.frozen, arrays))
        # A batch mixes streams; owners is the stream of each row, [rows], -1 where there is no block.
        for i in np.unique(owners[owners >= 0]).tolist():
            of_blocks.setdefault(i, []).append({name: values[owners == i] for name, values in out.items()})
    found: dict[int, dict[str, dict[str, Any]]] = {1: {}, 2: {}}
    for i, parts in of_blocks.items():
        scores = validation.score(
            streams[i], {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )
        if scores is not None:
            found[len(streams[i].languages)][streams[i].name] = scores
    # Every language counts alike; pairs only where a run has nothing else.
    averaged = found[1] or found[2]

    def macro(name: str) -> float | None:
        values = [found[name] for found in averaged.values() if name in found]
        return sum(values) / len(values) if values else None

    result = {"macro_loss": macro("loss"), "macro_bits_per_byte": macro("bits_per_byte"), "languages": found[1]}
    return result | ({"pairs": found[2]} if found[2] else {})
