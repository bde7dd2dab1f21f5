# SPDX-License-Identifier: Apache-2.0
"""Records that are grouped by a key: written by partition into one file per job, read back by partition from all of them.

A file is a row of frames, each zstd of length-prefixed records of one partition, then the list of frames as JSON, then the
list's length. A writer holds at most `memory` bytes; a reader streams.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import zstandard
from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.files import naming, writing

LENGTH = struct.Struct("<I")
END = struct.Struct("<Q")
LEVEL = 1
OBJECT = 40  # bytes that a small bytes object takes besides its content
ADVICE = "delete the folder that it is in, and run again"


def frame(records: Iterable[bytes]) -> bytes:
    """Records packed together."""
    content = b"".join(part for record in records for part in (LENGTH.pack(len(record)), record))
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(content)


def unframed(packed: bytes) -> Iterator[bytes]:
    """The records of a frame.

    Raises:
      zstandard.ZstdError, struct.error: it is damaged.
    """
    content = memoryview(zstandard.ZstdDecompressor().decompress(packed))
    at = 0
    while at < len(content):
        (length,) = LENGTH.unpack_from(content, at)
        at += LENGTH.size
        yield bytes(content[at : at + length])
        at += length


def frames(records: Iterable[tuple[Any, bytes]], memory: int) -> Iterator[tuple[Any, bytes]]:
    """Pairs of group and record → pairs of group and frame.

    Args:
      memory: bytes of records that are held until they are given on.
    """
    held: dict[Any, list[bytes]] = {}
    size = 0
    for group, record in records:
        held.setdefault(group, []).append(record)
        size += len(record) + OBJECT
        if size >= memory:
            yield from ((group, frame(found)) for group, found in held.items())
            held, size = {}, 0
    yield from ((group, frame(found)) for group, found in held.items())


@contextlib.contextmanager
def partitioned(path: epath.PathLike, partitions: int, memory: int) -> Iterator[Callable[[int, bytes], None]]:
    """Yield add(partition, record); the file is there, whole, at the end of the block.

    Args:
      memory: bytes of records that are held until they are written.
    """
    held: list[list[bytes]] = [[] for _ in range(partitions)]
    places: list[tuple[int, int, int]] = []
    size = 0
    with writing(path, "wb", listed=False) as file:

        def flush() -> None:
            nonlocal size
            for partition, records in enumerate(held):
                if records:
                    start = file.tell()
                    file.write(frame(records))
                    places.append((partition, start, file.tell() - start))
                    records.clear()
            size = 0

        def add(partition: int, record: bytes) -> None:
            nonlocal size
            held[partition].append(record)
            size += len(record) + OBJECT
            if size >= memory:
                flush()

        yield add
        flush()
        listed = json.dumps([partitions, places]).encode()
        file.write(listed + END.pack(len(listed)))


def records_of(paths: Iterable[epath.PathLike], partition: int) -> Iterator[bytes]:
    """The records of a partition from every file, in the order of the files and of their writing.

    Raises:
      UserError: a file that `partitioned` did not write, or that is damaged.
    """
    for path in paths:
        with naming(path), epath.Path(path).open("rb") as file:
            yield from _records_in(file, partition, path)


def _records_in(file: IO[bytes], partition: int, path: epath.PathLike) -> Iterator[bytes]:
    try:
        end = file.seek(-END.size, 2)
        (length,) = END.unpack(file.read(END.size))
        file.seek(end - length)
        _, places = json.loads(file.read(length))
        for number, start, size in places:
            if number == partition:
                file.seek(start)
                yield from unframed(file.read(size))
    except (OSError, ValueError, struct.error, zstandard.ZstdError) as e:
        if isinstance(e, OSError) and e.errno is not None and e.errno != 22:
            raise
        raise UserError(f"{path}: damaged ({type(e).__name__}); {ADVICE}") from e
