# SPDX-License-Identifier: Apache-2.0
"""The validation batches: the same blocks of every language in the same order, whatever the run does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from mlm_jax.input.blocks import Blocks
from mlm_jax.input.mixture import batch_shapes
from mlm_jax.manifest import Manifest, Stream


def validation_sources(corpus: epath.PathLike, manifest: Manifest, streams: Sequence[Stream], pad: int) -> list[Blocks]:
    """The validation blocks of each stream.

    Raises:
      UserError: a shard is missing or truncated, or its index is damaged.
    """
    return [Blocks(corpus, s.name, s.validation.shards, manifest.sequence_length, pad) for s in streams]


def validation_batches(
    sources: Sequence[Blocks],
    length: int,
    pad: int,
    most_blocks: int,
    batch_size: int,
    rows: Sequence[int],
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """This process's rows of each validation batch.

    Args:
      sources: `validation_sources`.
      length: tokens in a block.
      pad: id of padding.
      most_blocks: blocks per stream, from its first on.
      batch_size: blocks per batch over all processes; the last batch is filled with padding.
      rows: this process's rows of every batch.

    Yields:
      What `mixture.batch_shapes` says, this process's rows of it; and the stream of every row of the whole
      batch, int32 [batch_size], -1 for padding.
    """
    chosen = [(i, b) for i, source in enumerate(sources) for b in range(min(len(source), most_blocks))]
    shapes = batch_shapes(batch_size, length)
    empty: dict[str, np.ndarray] = {name: np.zeros(shape[1:], kind) for name, (shape, kind) in shapes.items()}
    empty["tokens"] = np.full_like(empty["tokens"], pad)
    empty["next_sentence"] -= 1
    for first in range(0, len(chosen), batch_size):
        here: list[tuple[int, int]] = chosen[first : first + batch_size]
        here += [(-1, 0)] * (batch_size - len(here))
        blocks = [empty | sources[i][b] if i >= 0 else empty for i, b in (here[row] for row in rows)]
        yield {name: np.stack([block[name] for block in blocks]) for name in empty}, np.array([i for i, _ in here])
