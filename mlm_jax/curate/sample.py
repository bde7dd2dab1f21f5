# SPDX-License-Identifier: Apache-2.0
"""A sample of the input: files, or beginnings of files, spread over the whole of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mlm_jax.arrow import library
from mlm_jax.curate.archives import kind_of
from mlm_jax.files import naming
from mlm_jax.storage import opened

WINDOWS = 20  # places of the input that are looked at
MOST = 64_000_000  # bytes that are read of it, packed as they are ...
LEAST = 4_000_000
SHARE = 10  # ... and the part of it that this is, between the two
SHORTEST = 100_000  # bytes of a beginning
CHUNK = 1 << 20
ROWS = 1000


def can_be_cut(path: str) -> bool:
    """Whether the beginning of a file gives documents by itself."""
    return kind_of(path) in ("warc", "json") or path.endswith((".parquet", ".csv", ".tsv"))


def choose(sizes: Mapping[str, int]) -> dict[str, int]:
    """How many bytes of which files to read, from their beginning.

    The input, one file after the other, is looked at in `WINDOWS` places at equal distances; from the file there as much is taken
    as a window has, and from those after it where it is shorter.

    Args:
      sizes: bytes of each file.
    """
    total = sum(sizes.values())
    wanted = min(total, MOST, max(LEAST, total // SHARE))
    paths = [path for path, size in sizes.items() if size]
    taken: dict[str, int] = {}
    at, before = 0, 0  # a file, and the bytes of those before it
    for window in range(WINDOWS):
        place = (2 * window + 1) * total // (2 * WINDOWS)
        while before + sizes[paths[at]] <= place:
            before += sizes[paths[at]]
            at += 1
        left, beside = wanted // WINDOWS, at
        while left > 0 and beside < len(paths):
            path = paths[beside]
            rest = sizes[path] - taken.get(path, 0)
            part = min(rest, max(left, SHORTEST)) if can_be_cut(path) else rest
            if part:
                taken[path] = taken.get(path, 0) + part
            left -= part
            beside += 1
    return {path: taken[path] for path in sizes if path in taken}


def beginning(path: str, length: int, size: int, folder: Path, number: int) -> str:
    """A file with the beginning of another, of the same kind by its name; returns its path.

    Args:
      length: bytes of the beginning; of Parquet, about, as its rows are that part of all.
      size: bytes of the file.
    """
    made = folder / f"{number:05}.{path.rpartition('/')[2]}"
    if path.endswith(".parquet"):
        return str(made) if first_rows(path, length / size, made) else path
    with naming(path), opened(path) as file, made.open("wb") as into:
        while length > 0 and (data := file.read(min(length, CHUNK))):
            into.write(data)
            length -= len(data)
    return str(made)


def first_rows(path: str, part: float, made: Path) -> bool:
    """Write a part of a Parquet file's rows, its first, into another; False if it is damaged, which reading it says."""
    arrow = library()
    try:
        with opened(path) as file:
            found = arrow.parquet.ParquetFile(file, pre_buffer=False)
            left = math.ceil(found.metadata.num_rows * part)
            with arrow.parquet.ParquetWriter(made, found.schema_arrow) as writer:
                for batch in found.iter_batches(ROWS):
                    if left <= 0:
                        break
                    writer.write_batch(batch.slice(0, left))
                    left -= batch.num_rows
    except (arrow.ArrowException, OSError):
        return False
    return True
