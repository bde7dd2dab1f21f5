# SPDX-License-Identifier: Apache-2.0
"""A stream's prepared blocks as a Grain random-access source."""

from __future__ import annotations

import bisect
import itertools
import os
import resource
import weakref
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import records
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket
from mlm_jax.manifest import Shard


class Blocks:
    """The blocks of one split of one stream, by number.

    Files' sizes and indexes are checked when the source is made; a record's length and checksums when it is read. Local files are
    kept open once they were read, and read without a memory map, so that one that is cut off meanwhile is an error and no SIGBUS.

    Args:
      corpus: folder that the shards' names are relative to.
      name: of the stream, which with a block's number makes its key.
      shards: as the manifest lists them.
      length: tokens to pad a block to.
      pad: id of the padding token.

    Raises:
      UserError: a shard is missing, its size is not the manifest's, or its index is damaged.
    """

    def __init__(self, corpus: epath.PathLike, name: str, shards: Sequence[Shard], length: int, pad: int):
        self._corpus = epath.Path(corpus)
        self._name = name
        self._shards = list(shards)
        self._ends = list(itertools.accumulate(s.blocks for s in shards))
        self._length, self._pad = length, pad
        self._keep_open()
        for shard in self._shards:
            self._offsets(shard)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Features of a block (`records.expand_block`), and `block_key`, uint32 []: a number that names it wherever it stands.

        Raises:
          UserError: its record is damaged or cut off.
        """
        number = bisect.bisect_right(self._ends, index)
        row = index - (self._ends[number - 1] if number else 0)
        payload = records.unframe(self._read(number, row))
        if payload is None:
            raise self._damaged(
                self._shards[number].file, f"damaged: record {row} is cut off, or its checksum is another"
            )
        key = np.asarray(zlib.crc32(f"{self._name}/{index}".encode()), np.uint32)
        return records.expand_block(records.decode_block(payload), self._length, self._pad) | {"block_key": key}

    def __repr__(self) -> str:
        return f"Blocks({len(self._shards)} shards, {len(self)} blocks)"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._keep_open()

    def _keep_open(self) -> None:
        self._open: dict[int, tuple[np.ndarray, int | epath.Path]] = {}
        weakref.finalize(self, _close, self._open)

    def _read(self, number: int, row: int) -> bytes:
        """A record of a shard as it lies there, in its framing."""
        shard = self._shards[number]
        try:
            if number not in self._open:
                opened = self._offsets(shard), _open(self._corpus / shard.file)
                # Another thread may have been faster.
                if self._open.setdefault(number, opened) is not opened:
                    _close({number: opened})
            offsets, file = self._open[number]
            start, end = int(offsets[row]), int(offsets[row + 1])
            if isinstance(file, int):
                return os.pread(file, end - start, start)
            with file.open("rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        except OSError as e:
            raise UserError(
                f"{self._corpus / shard.file}: cannot be read ({e.strerror or e}); mend the disk or permissions, then run the same command again"
            ) from e

    def _offsets(self, shard: Shard) -> np.ndarray:
        """Where each record of a shard begins, and its end, uint64 [blocks + 1], checked against the manifest."""
        path = self._corpus / shard.file
        index = records.index_path(shard.file)
        found = path.stat().length if path.exists() else None
        if found != shard.bytes:
            is_what = "missing" if found is None else f"truncated or changed: {found:,} bytes"
            raise self._damaged(shard.file, f"{is_what}, the manifest says {shard.bytes:,}")
        if not (self._corpus / index).exists():
            raise self._damaged(index, "missing")
        content = (self._corpus / index).read_bytes()
        if len(content) != 8 * (shard.blocks + 1):
            raise self._damaged(
                index, f"truncated or changed: {len(content):,} bytes, {shard.blocks:,} blocks need others"
            )
        offsets = np.frombuffer(content, "<u8")
        rising = (offsets[1:] > offsets[:-1]).all()
        if not rising or offsets[0] != 0 or offsets[-1] != shard.bytes:
            raise self._damaged(index, "damaged: its offsets do not rise from 0 to the size of the file")
        return offsets

    def _damaged(self, file: str, what: str) -> UserError:
        return UserError(
            f"{self._corpus / file}: {what}; delete it and {self._corpus / 'manifest.json'}, and run: mlm-jax prepare CONFIG "
            "(the other files are kept)"
        )


def _open(path: epath.Path) -> int | epath.Path:
    """A local file's descriptor; the path itself of a file that is opened anew for each read.

    Those are a bucket's, and all beyond half of the files that a process may have open.
    """
    if in_bucket(path):
        return path
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if file < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
        return file
    os.close(file)
    return path


def _close(opened: dict[int, tuple[np.ndarray, int | epath.Path]]) -> None:
    for _, file in opened.values():
        if isinstance(file, int):
            os.close(file)
