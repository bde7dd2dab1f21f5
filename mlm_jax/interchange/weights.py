# SPDX-License-Identifier: Apache-2.0
"""Safetensors files: one, or several with an index."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.tensor_files import write_tensors

SHARD_BYTES = 5 * 10**9


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face folder's checkpoint, as it is stored (bfloat16 as ml_dtypes').

    Returns:
      Name → array [...] of the shape and dtype of the file.

    Raises:
      UserError: there is none, only pickles, a file is missing or damaged.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        files = ["model.safetensors"]
    elif index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif any(folder.glob("*.bin")):
        raise UserError(
            f"{folder}: only a pickle (.bin), which may run any code when it is read; convert it to safetensors first"
        )
    else:
        raise UserError(f"{folder}: no model.safetensors and no model.safetensors.index.json there; check the folder")
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        path = folder / name
        if not path.exists():
            raise UserError(f"{path}: missing, though {index.name} names it; get the whole checkpoint")
        try:
            # The NumPy side of the library knows no bfloat16; arrays stay in this machine's memory.
            with jax.default_device(jax.devices("cpu")[0]), safe_open(path, "flax") as file:
                tensors |= {key: np.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as e:
            raise UserError(f"{path}: not a safetensors file, or cut off ({e}); get it again") from e
    return tensors


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
        write_whole(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")
