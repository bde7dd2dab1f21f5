# SPDX-License-Identifier: Apache-2.0
"""A stream's prepared blocks as a Grain random-access source."""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections.abc import Sequence

import numpy as np
from etils import epath

from mlm_jax import records
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket
from mlm_jax.manifest import Shard

_HEADER, _FOOTER = 12, 4  # TFRecord framing: length and its checksum before the payload, a checksum after


class Blocks:
    """The blocks of one split of one stream, by number.

    Files are checked when the source is made and opened when first read. Local files are memory-mapped,
    so that a process holds no more of a corpus than the pages it reads.

    Args:
      corpus: folder that the shards' names are relative to.
      name: of the stream, which with a block's number makes its key.
      shards: as the manifest lists them.
      length: tokens to pad a block to.
      pad: id of the padding token.

    Raises:
      UserError: a shard is missing or its size is not the manifest's.
    """

    def __init__(self, corpus: epath.PathLike, name: str, shards: Sequence[Shard], length: int, pad: int):
        self._name = name
        self._paths = [epath.Path(corpus) / s.file for s in shards]
        self._ends = list(itertools.accumulate(s.blocks for s in shards))
        self._length, self._pad = length, pad
        self._open: dict[int, tuple[np.ndarray, np.ndarray | epath.Path]] = {}
        for path, shard in zip(self._paths, shards, strict=True):
            found = path.stat().length if path.exists() else None
            if found != shard.bytes:
                is_what = "missing" if found is None else f"truncated or changed: {found:,} bytes"
                raise UserError(
                    f"{path}: {is_what}, the manifest says {shard.bytes:,}; delete it, its .done file "
                    f"and {epath.Path(corpus) / 'manifest.json'}, and run: mlm-jax prepare CONFIG"
                )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Features of a block (`records.expand_block`), and `block_key`, uint32 []: a number that names it wherever it stands."""
        shard = bisect.bisect_right(self._ends, index)
        offsets, data = self._file(shard)
        row = index - (self._ends[shard - 1] if shard else 0)
        start, end = int(offsets[row]) + _HEADER, int(offsets[row + 1]) - _FOOTER
        if isinstance(data, np.ndarray):
            payload = data[start:end].tobytes()
        else:
            with data.open("rb") as file:
                file.seek(start)
                payload = file.read(end - start)
        key = np.asarray(zlib.crc32(f"{self._name}/{index}".encode()), np.uint32)
        return records.expand_block(records.decode_block(payload), self._length, self._pad) | {"block_key": key}

    def __repr__(self) -> str:
        return f"Blocks({len(self._paths)} shards, {len(self)} blocks)"

    def _file(self, shard: int) -> tuple[np.ndarray, np.ndarray | epath.Path]:
        if shard not in self._open:
            path = self._paths[shard]
            index = epath.Path(records.index_path(str(path)))
            if not index.exists():
                raise UserError(
                    f"{index}: missing; delete {path.name}, its .done file and the corpus' manifest.json, and run: mlm-jax prepare CONFIG"
                )
            content = index.read_bytes()
            if len(content) % 8:
                raise UserError(
                    f"{index}: truncated; delete it, {path.name}, its .done file and the corpus' manifest.json, and run: mlm-jax prepare CONFIG"
                )
            offsets = np.frombuffer(content, "<u8")
            self._open[shard] = offsets, path if in_bucket(path) else np.memmap(path, np.uint8, "r")
        return self._open[shard]
