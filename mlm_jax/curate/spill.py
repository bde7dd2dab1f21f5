# SPDX-License-Identifier: Apache-2.0
"""Small records sorted on disk in bounded memory: sorted runs, and their merge.

A record is a row of a structured array whose fields are whole numbers; records are ordered by their fields, the first before the others.
Runs may be written by any number of processes and merged by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

MEMORY = 256 << 20  # bytes, by default
_COPIES = 4  # of a run or of the blocks of a merge that are in memory at once, at most

Records = np.ndarray  # structured, [records]


def sort(records: Records) -> Records:
    """The records in order."""
    names = records.dtype.names or ()
    return records[np.lexsort([records[name] for name in reversed(names)])]


def distinct(records: Records) -> Records:
    """Sorted records, each once."""
    if len(records) < 2:
        return records
    new = np.ones(len(records), bool)
    new[1:] = records[1:] != records[:-1]
    return records[new]


def write_runs(
    batches: Iterable[Records], folder: Path, dtype: DTypeLike, memory: int = MEMORY, once: bool = False
) -> list[Path]:
    """Write records as sorted runs.

    Args:
      folder: for the runs' files; it is made.
      memory: bytes to work in.
      once: whether a run has equal records once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(dtype)
    most = max(1024, memory // (_COPIES * dtype.itemsize))
    runs: list[Path] = []
    waiting: list[Records] = []
    count = 0

    def write() -> None:
        nonlocal count
        records = sort(np.concatenate(waiting))
        path = folder / f"{len(runs):06d}.run"
        aside = path.with_suffix(".part")
        (distinct(records) if once else records).tofile(aside)
        os.replace(aside, path)
        runs.append(path)
        waiting.clear()
        count = 0

    for batch in batches:
        for at in range(0, len(batch), most):
            part = batch[at : at + most]
            if count and count + len(part) > most:
                write()
            waiting.append(part)
            count += len(part)
    if count:
        write()
    return runs


def _count_until(block: Records, bound: np.void) -> int:
    """How many of a sorted block's records are not above a bound."""
    low, high = 0, len(block)
    for name in block.dtype.names or ():
        column = block[name][low:high]
        right = low + int(np.searchsorted(column, bound[name], "right"))
        low = low + int(np.searchsorted(column, bound[name], "left"))
        high = right
    return high


def merge(runs: Sequence[Path], dtype: DTypeLike, memory: int = MEMORY) -> Iterator[Records]:
    """The records of all runs in order, a chunk at a time; records of one key may fall into several chunks."""
    dtype = np.dtype(dtype)
    length = max(256, memory // (_COPIES * dtype.itemsize * max(1, len(runs))))
    lengths = [path.stat().st_size // dtype.itemsize for path in runs]
    at = [0] * len(runs)
    blocks = [np.zeros(0, dtype) for _ in runs]
    while True:
        for i, path in enumerate(runs):
            if not len(blocks[i]) and at[i] < lengths[i]:
                blocks[i] = np.fromfile(path, dtype, length, offset=at[i] * dtype.itemsize)
                at[i] += len(blocks[i])
        ends = [block[-1] for i, block in enumerate(blocks) if len(block) and at[i] < lengths[i]]
        taken = [len(block) for block in blocks]
        if ends:
            bound = min(ends, key=lambda record: record.item())
            taken = [_count_until(block, bound) for block in blocks]
        chunk = np.concatenate([block[:n] for block, n in zip(blocks, taken, strict=True)] or [np.zeros(0, dtype)])
        if not len(chunk):
            return
        blocks = [block[n:] for block, n in zip(blocks, taken, strict=True)]
        yield sort(chunk)


def merge_distinct(runs: Sequence[Path], dtype: DTypeLike, memory: int = MEMORY) -> Iterator[Records]:
    """As `merge`, equal records once."""
    last = None
    for chunk in merge(runs, dtype, memory):
        chunk = distinct(chunk)
        if last is not None and chunk[0] == last:
            chunk = chunk[1:]
        if len(chunk):
            last = chunk[-1]
            yield chunk


def write_sorted(chunks: Iterable[Records], path: Path) -> None:
    """One file of what a merge gives, whole or not there."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk).tobytes())
    os.replace(aside, path)


def open_sorted(path: Path, dtype: DTypeLike) -> Records:
    """The records of such a file, mapped into memory; read only."""
    dtype = np.dtype(dtype)
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r")


def chunks(records: Records, length: int = 1 << 16) -> Iterator[Records]:
    """Records, some at a time."""
    return (records[at : at + length] for at in range(0, len(records), length))
