# SPDX-License-Identifier: Apache-2.0
"""Safetensors files: one, or several with an index."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.given import given_file, given_json
from mlm_jax.tensor_files import write_tensors

SHARD_BYTES = 5 * 10**9
INDEX = "model.safetensors.index.json"
LARGEST_INDEX = 100_000_000  # bytes
MOST_TENSORS = 20_000  # of a checkpoint; XLM-R XXL has 777


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: its shape, known from the header, and what reads it, as it is stored (bfloat16 as ml_dtypes')."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def read_weights(folder: Path) -> dict[str, Stored]:
    """Every tensor of a Hugging Face folder's checkpoint, by name; none is read yet.

    Raises:
      UserError: there is none, only pickles, a file is missing, damaged, or outside of the folder.
    """
    if given_file(folder, "model.safetensors") is not None:
        files = ["model.safetensors"]
    elif index := given_json(folder, INDEX, LARGEST_INDEX):
        files = _shards(folder, index)
    elif any(folder.glob("*.bin")):
        raise UserError(
            f"{folder}: only a pickle (.bin), which may run any code when it is read; convert it to safetensors first"
        )
    else:
        raise UserError(f"{folder}: no model.safetensors and no {INDEX} there; check the folder")
    stored: dict[str, Stored] = {}
    for name in files:
        path = given_file(folder, name)
        if path is None:
            raise UserError(f"{folder / name}: missing, though {INDEX} names it; get the whole checkpoint")
        stored |= _open(path)
        if len(stored) > MOST_TENSORS:
            raise UserError(f"{path}: over {MOST_TENSORS:,} tensors, which no encoder has; get another checkpoint")
    return stored


def _shards(folder: Path, index: dict[str, Any]) -> list[str]:
    """The files that an index names.

    Raises:
      UserError: it names none, or what is no file of the folder.
    """
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{folder / INDEX}: no weight_map of tensors and their files; get the whole checkpoint")
    for tensor, name in names.items():
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise UserError(
                f"{folder / INDEX}: {tensor} is said to be in {name!r}, which is no name of a file beside it; get another checkpoint"
            )
    return sorted(set(names.values()))


def _open(path: epath.Path) -> dict[str, Stored]:
    damaged = "not a safetensors file, or cut off"
    try:
        file = safe_open(path, "flax")
        names = file.keys()
        if len(names) > MOST_TENSORS:
            raise UserError(f"{path}: {len(names):,} tensors, which no encoder has; get another checkpoint")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except SafetensorError as e:
        raise UserError(f"{path}: {damaged} ({e}); get it again") from e

    def read(name: str) -> np.ndarray:
        try:
            # The NumPy side of the library knows no bfloat16; arrays stay in this machine's memory.
            with jax.default_device(jax.devices("cpu")[0]), np.errstate(over="ignore"):
                return np.asarray(file.get_tensor(name))
        except SafetensorError as e:
            raise UserError(f"{path}: {damaged} ({e}); get it again") from e

    return {name: Stored(shape, partial(read, name)) for name, shape in shapes.items()}


def write_weights(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write float32 tensors as model.safetensors, or in shards of at most `shard_bytes` with an index.

    Args:
      shapes: of every tensor, by name.
      read: a tensor by its name; called for one after another.
    """
    sizes = {name: 4 * math.prod(shape) for name, shape in shapes.items()}
    shards: list[list[str]] = [[]]
    for name, size in sizes.items():
        if shards[-1] and sum(sizes[other] for other in shards[-1]) + size > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(
            folder / file, {name: shapes[name] for name in shard}, lambda name: [read(name)], {"format": "pt"}
        )
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_whole(folder / INDEX, json.dumps(index, indent=1) + "\n")
