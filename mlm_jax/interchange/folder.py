# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder → an encoder's parameters, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlm_jax.config import Model
from mlm_jax.errors import UserError
from mlm_jax.files import read_json, write_whole
from mlm_jax.interchange import task_heads, weights
from mlm_jax.interchange.settings import family_of, from_settings, to_settings
from mlm_jax.interchange.task_heads import HeadOf
from mlm_jax.interchange.tensors import BUFFERS, NAMES, TIED, Tensors, tensors
from mlm_jax.model.encoder import parameter_shapes
from mlm_jax.vocabulary import Vocabulary


@dataclass(frozen=True)
class Checkpoint:
    """An encoder as it came.

    Attributes:
      model: its shape.
      params: tree of float32 NumPy arrays, unboxed.
      size: ids in use.
      languages: in the order of the language embedding's rows; empty where there is none.
      head: of a fine-tuned encoder.
    """

    model: Model
    params: Any
    size: int
    languages: tuple[str, ...]
    head: HeadOf | None = None


def read_folder(folder: Path) -> Checkpoint:
    """Read config.json and the safetensors of a Hugging Face folder.

    Raises:
      UserError: a file is missing or damaged, the encoder is one that ours cannot express, or a tensor is
        missing, of no use, or of another shape.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json there; give a folder that save_pretrained or mlm-jax export wrote")
    settings = read_json(folder / "config.json")
    stored = weights.read(folder)
    model_type = settings.get("model_type", "")
    names = NAMES.get("xlm-roberta" if model_type == "roberta" else model_type)
    if names:
        stored = _rename(stored, names)
    family, model, languages = from_settings(settings, stored, str(folder))
    size = int(settings["n_words"] if family == "xlm" and "n_words" in settings else settings["vocab_size"])
    rows = settings.get("n_langs", 1) if model.language_embedding else 1
    task, head = task_heads.from_settings(settings, family, str(folder)), None
    wanted: Tensors = {}
    if task is not None:
        model = dataclasses.replace(model, pooler=False)  # BERT's is a part of the head
        made = task_heads.empty_head(model, family, task)
        wanted, head = task_heads.head_tensors(made, family, task.kind), HeadOf(task, made)
    params = jax.tree.map(lambda shape: np.zeros(shape.shape, np.float32), parameter_shapes(model, size, rows))
    copy_in(stored, tensors(params, model, family, size) | wanted, str(folder), names or {})
    return Checkpoint(model, params, size, languages, head)


def copy_in(stored: Tensors, wanted: Tensors, where: str, names: dict[str, str]) -> None:
    """Copy a checkpoint's tensors into the views of our parameters.

    Raises:
      UserError: a tensor is missing, of no use, of another shape, or of no finite numbers; names it.
    """
    prefix, token = names["prefix"], f"{names['prefix']}{names['token']}.weight"
    stored = {name: t for name, t in stored.items() if name.removeprefix(prefix) not in BUFFERS}
    missing, extra = [n for n in wanted if n not in stored], []
    for name, tensor in stored.items():
        if name in wanted:
            continue
        # A copy of what is tied is of use to nobody, but one that differs is another model.
        owner, _, kind = name.rpartition(".")
        tied = {"weight": token, "bias": names["head_bias"]}.get(kind) if owner in TIED else None
        if tied is None or tied not in stored:
            extra.append(name)
        elif not np.array_equal(tensor, stored[tied]):
            raise UserError(f"{where}: {name} differs from {tied}; an output layer that is not tied cannot be imported")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{where}: tensor {missing[0]} is missing{more}; get the whole checkpoint")
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(f"{where}: tensor {extra[0]}{more} has no place in the encoder; it is of another model or head")
    for name, view in wanted.items():
        if stored[name].shape != view.shape:
            raise UserError(
                f"{where}: tensor {name} has shape {list(stored[name].shape)}, config.json makes it {list(view.shape)}; "
                "they do not belong together"
            )
        # bfloat16 is no subtype of NumPy's floats.
        if not jax.numpy.issubdtype(stored[name].dtype, jax.numpy.floating):
            raise UserError(
                f"{where}: tensor {name} is of {stored[name].dtype}; only floating-point weights can be imported"
            )
        view[...] = stored[name]
        if not np.isfinite(view).all():
            raise UserError(
                f"{where}: tensor {name} holds NaN or infinity; its training failed, get another checkpoint"
            )


def _rename(stored: Tensors, names: dict[str, str]) -> Tensors:
    """Names as the classes with a head have them: with the prefix, and norms' parts called weight and bias."""
    old = {".gamma": ".weight", ".beta": ".bias"}
    for ending, new in old.items():
        stored = {n.removesuffix(ending) + new if n.endswith(ending) else n: t for n, t in stored.items()}
    if f"{names['token']}.weight" in stored:
        stored = {names["prefix"] + name: tensor for name, tensor in stored.items()}
    return stored


def write_folder(
    folder: Path,
    model: Model,
    params: Any,
    vocabulary: Vocabulary,
    languages: Iterable[str],
    shard_bytes: int = weights.SHARD_BYTES,
    head: HeadOf | None = None,
) -> None:
    """Write config.json and the safetensors of a Hugging Face folder.

    Args:
      params: tree of float32 arrays, unboxed.
      languages: in the order of the language embedding's rows.
      head: of a fine-tuned encoder, which has no other.

    Raises:
      UserError: no Hugging Face class has this encoder, or such a head on it.
    """
    family = family_of(model)
    names = NAMES[family]
    params = jax.tree.map(np.asarray, params)
    found = tensors(params, model, family, vocabulary.size)
    if model.position_embedding == "learned":
        name = f"{names['prefix']}{names['position']}.weight"
        found[name] = _offset(found[name], model, 0 if family in ("bert", "xlm") else vocabulary.pad + 1)
    if head is not None:
        found |= task_heads.head_tensors(head.params, family, head.task.kind)
    elif model.head == "none":
        found = {name.removeprefix(names["prefix"]): tensor for name, tensor in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    weights.write(found, folder, shard_bytes)
    # Last: a folder with a config.json is whole.
    settings = to_settings(model, vocabulary, family, languages)
    if head is not None:
        settings |= task_heads.to_settings(family, head.task)
    write_whole(folder / "config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _offset(table: np.ndarray, model: Model, offset: int) -> np.ndarray:
    """The position table with `offset` rows before position 0, which those classes count from the padding's id."""
    kept = table[max(0, model.position_offset - offset) :]
    return np.concatenate([np.zeros((max(0, offset - model.position_offset), table.shape[1]), table.dtype), kept])
