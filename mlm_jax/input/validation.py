# SPDX-License-Identifier: Apache-2.0
"""The validation batches: the same blocks of every language in the same order, whatever the run does."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from mlm_jax.input.blocks import Blocks
from mlm_jax.manifest import Manifest, Stream


def validation_batches(
    corpus: epath.PathLike,
    manifest: Manifest,
    streams: Sequence[Stream],
    pad: int,
    most_blocks: int,
    batch_size: int,
    rows: Sequence[int],
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """This process's rows of each validation batch.

    Args:
      most_blocks: blocks a stream, from its first on.
      batch_size: blocks a batch over all processes; the last batch is filled with padding.
      rows: this process's rows of every batch.

    Yields:
      Features of `records.expand`, each int32 [rows, length], and `block_keys`, uint32 [rows]: a
      number that names the block wherever it stands, from which its mask is made; and the stream of
      every row of the whole batch, int32 [batch_size], -1 for padding.
    """
    sources = [Blocks(corpus, s.validation.shards, manifest.sequence_length, pad) for s in streams]
    chosen = [(i, b) for i, source in enumerate(sources) for b in range(min(len(source), most_blocks))]
    length = manifest.sequence_length
    empty = {
        name: np.full(length, pad if name == "tokens" else 0, np.int32)
        for name in ("tokens", "segment_ids", "positions", "language_ids")
    }
    for first in range(0, len(chosen), batch_size):
        here: list[tuple[int, int]] = chosen[first : first + batch_size]
        here += [(-1, 0)] * (batch_size - len(here))
        mine = [here[row] for row in rows]
        blocks = [sources[i][b] if i >= 0 else empty for i, b in mine]
        batch = {name: np.stack([block[name] for block in blocks]) for name in empty}
        names = [f"{streams[i].name}/{b}" if i >= 0 else "" for i, b in mine]
        batch["block_keys"] = np.array([zlib.crc32(name.encode()) for name in names], np.uint32)
        yield batch, np.array([i for i, _ in here], np.int32)
