# SPDX-License-Identifier: Apache-2.0
"""Safetensors files, a tensor at a time.

The library's own functions take and give all tensors of a file at once, which a large encoder's host has no room for. The
format: the header's length (uint64, little-endian), the header (JSON: name → dtype, shape, place), and the bytes.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from mlm_jax.files import check_file, in_bucket, naming, writing
from mlm_jax.given import foreign

Shape = tuple[int, ...]
LONGEST_HEADER = 100_000_000  # bytes
FLOAT32 = np.dtype("<f4")


def write_tensors(
    path: epath.PathLike,
    shapes: Mapping[str, Shape],
    read: Callable[[str], Iterable[np.ndarray]],
    metadata: Mapping[str, str] | None = None,
    writes: bool = True,
) -> None:
    """Write a file of float32 tensors, byte for byte what `safetensors.numpy.save` gives, whole or not at all.

    Args:
      shapes: of every tensor, by name.
      read: a tensor by its name, whole or in parts along its first axis; called for one after another.
      writes: False in all but one of several processes: they read with it, since gathering a tensor takes all of them.
    """
    path = epath.Path(path)
    if not writes:
        for name in sorted(shapes):
            deque(read(name), maxlen=0)
        return
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in sorted(shapes):
        begin, end = end, end + FLOAT32.itemsize * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with writing(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(shapes):
            for part in read(name):
                file.write(np.ascontiguousarray(part, FLOAT32).data)
                del part  # before the next is read


def read_tensors(path: epath.PathLike) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a file of `write_tensors`, in its order: name and float32 array [...].

    Of a local file they are mapped into memory, so that a part of one costs no more than the part; of an object store each
    is read when it comes.

    Raises:
      UserError: the file is damaged.
    """
    path = epath.Path(path)
    advice = "restore it from a copy, or import anew"
    check_file(path)
    with foreign(f"{path}: not a whole safetensors file", advice), naming(path), path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().length
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"a header of {length:,} bytes, of {size:,}")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), shape = entry["data_offsets"], tuple(entry["shape"])
            if entry["dtype"] != "F32":
                raise ValueError(f"{name} is of {entry['dtype']}")
            if not 0 <= begin <= end <= size - 8 - length or FLOAT32.itemsize * math.prod(shape) != end - begin:
                raise ValueError(
                    f"{name} of shape {list(shape)} has bytes {begin:,} to {end:,}, of {size - 8 - length:,}"
                )
            if in_bucket(path):
                yield name, np.frombuffer(file.read(end - begin), FLOAT32).reshape(shape)
            elif begin == end:
                yield name, np.zeros(shape, FLOAT32)
            else:
                yield name, np.memmap(path, FLOAT32, "r", 8 + length + begin, shape)
