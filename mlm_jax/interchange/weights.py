# SPDX-License-Identifier: Apache-2.0
"""Safetensors files: one, or several with an index."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mlm_jax.errors import UserError
from mlm_jax.files import write_whole

SHARD_BYTES = 5 * 10**9


def read(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face folder's checkpoint, as it is stored (bfloat16 as ml_dtypes').

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


def write(tensors: dict[str, np.ndarray], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as model.safetensors, or in shards of at most `shard_bytes` with an index."""
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = np.ascontiguousarray(tensor)
        size += tensor.nbytes
    if len(shards) == 1:
        write_whole(folder / "model.safetensors", save(shards[0], metadata={"format": "pt"}))
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_whole(folder / file, save(shard, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_whole(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")
