# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder → an encoder's parameters, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from flax import traverse_util

from mlm_jax import console
from mlm_jax.config import Model
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.finetune.config import Task
from mlm_jax.given import given_file, given_json
from mlm_jax.interchange import task_heads
from mlm_jax.interchange.settings import (
    absent_biases,
    exportable_family,
    family_of_settings,
    from_settings,
    to_settings,
    vocabulary_size,
    without_nulls,
)
from mlm_jax.interchange.tensors import BUFFERS, NAMES, TIED, Tensors, tensors, views
from mlm_jax.interchange.weights import SHARD_BYTES, Stored, read_weights, write_weights
from mlm_jax.model.encoder import parameter_shapes
from mlm_jax.pretrained import FinetunedHead, Pretrained, to_host
from mlm_jax.typed import as_type
from mlm_jax.vocabulary import Vocabulary


def read_folder(folder: Path, make_vocabulary: Callable[[int], Vocabulary]) -> Pretrained:
    """Read config.json and the safetensors of a Hugging Face folder; the parameters are NumPy arrays.

    Args:
      make_vocabulary: the folder's vocabulary, from the ids that its embedding has rows for; called when all else is read.

    Raises:
      UserError: a file is missing or damaged, the encoder is one that ours cannot express, or a tensor is
        missing, of no use, or of another shape.
    """
    if given_file(folder, "config.json") is None:
        raise UserError(f"{folder}: no config.json there; give a folder that save_pretrained or mlm-jax export wrote")
    settings = without_nulls(given_json(folder, "config.json"))
    where = str(folder)
    family = family_of_settings(settings, where)
    names = NAMES[family]
    stored = _rename(read_weights(folder), names)
    model, languages = from_settings(settings, family, stored, where)
    size = vocabulary_size(settings, family)
    rows = settings.get("n_langs", 1) if model.language_embedding else 1
    task, head = task_heads.from_settings(settings, family, where), None
    if task is not None:
        model = dataclasses.replace(model, pooler=False)  # BERT's is a part of the head
    _check_shapes(stored, model, size, rows, family, task, where)
    wanted: Tensors = {}
    if task is not None:
        made = task_heads.empty_head(model, family, task)
        wanted = task_heads.head_tensors(made, family, task)
        head = FinetunedHead(dataclasses.asdict(dataclasses.replace(task, labels=())), task.labels, made)
    params = jax.tree.map(lambda shape: np.zeros(shape.shape, np.float32), parameter_shapes(model, size, rows))
    absent = absent_biases(settings)
    wanted = {
        name: view
        for name, view in (tensors(params, model, family, size) | wanted).items()
        if not name.endswith(absent or ("\0",))
    }
    copy_in(stored, wanted, where, names)
    if absent and model.bias:
        console.say(f"{folder}: biases that it lacks start from 0: {', '.join(absent)}")
    return Pretrained(model, params, make_vocabulary(size), languages, where, head=head)


def _check_shapes(
    stored: Mapping[str, Stored], model: Model, size: int, rows: int, family: str, task: Task | None, where: str
) -> None:
    """Refuse sizes that the checkpoint's tensors do not have, by the files' headers, before arrays of them are made.

    Args:
      rows: of the language embedding.
    """
    if model.layers > len(stored):
        raise UserError(
            f"{where}: config.json has {model.layers:,} layers (num_hidden_layers), the checkpoint {len(stored):,} tensors; they do not "
            "belong together"
        )
    names, width = NAMES[family], model.width
    is_xlm = family == "xlm"
    wanted = {"token": ("n_words" if is_xlm else "vocab_size", [size, width])}
    if model.position_embedding == "learned":
        wanted["position"] = ("max_position_embeddings", [model.positions + model.position_offset, width])
    if model.token_types:
        wanted["token_type"] = ("type_vocab_size", [model.token_types, width])
    if model.language_embedding:
        wanted["language"] = ("n_langs", [rows, width])
    named = {f"{names['prefix']}{names[part]}.weight": found for part, found in wanted.items()}
    inner = [model.mlp_width * (2 if model.gated else 1), width]
    for layer in range(model.layers):
        named[f"{names['prefix']}{names['mlp_in'].format(layer)}.weight"] = (
            "emb_dim" if is_xlm else "intermediate_size",
            inner,
        )
    if task is not None:
        outputs = task_heads.task_kind(task).outputs(task.labels)
        named[f"{task_heads.names(family, task)['output']}.weight"] = ("id2label", [outputs, width])
    for name, (field, shape) in named.items():
        if name in stored and list(stored[name].shape) != shape:
            raise UserError(
                f"{where}: tensor {name} has shape {list(stored[name].shape)}, config.json makes it {shape} ({field}); "
                "they do not belong together"
            )
    if missing := [name for name in named if name not in stored]:
        _refuse_missing(missing, where)


def _refuse_missing(missing: Sequence[str], where: str) -> NoReturn:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise UserError(f"{where}: tensor {missing[0]} is missing{more}; get the whole checkpoint")


def copy_in(stored: Mapping[str, Stored], wanted: Tensors, where: str, names: dict[str, str]) -> None:
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
        elif tensor.shape != stored[tied].shape or not np.array_equal(tensor.read(), stored[tied].read()):
            raise UserError(f"{where}: {name} differs from {tied}; an output layer that is not tied cannot be imported")
    if missing:
        _refuse_missing(missing, where)
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(f"{where}: tensor {extra[0]}{more} has no place in the encoder; it is of another model or head")
    for name, view in wanted.items():
        if stored[name].shape != view.shape:
            raise UserError(
                f"{where}: tensor {name} has shape {list(stored[name].shape)}, config.json makes it {list(view.shape)}; "
                "they do not belong together"
            )
        found = stored[name].read()
        # bfloat16 is no subtype of NumPy's floats.
        if not jax.numpy.issubdtype(found.dtype, jax.numpy.floating):
            raise UserError(f"{where}: tensor {name} is of {found.dtype}; only floating-point weights can be imported")
        with np.errstate(over="ignore"):  # float64's largest are infinite, and refused
            view[...] = found
        if not np.isfinite(view).all():
            raise UserError(
                f"{where}: tensor {name} holds NaN or infinity; its training failed, get another checkpoint"
            )


def _rename(stored: dict[str, Stored], names: dict[str, str]) -> dict[str, Stored]:
    """Names as the classes with a head have them: with the prefix, and norms' parts called weight and bias."""
    old = {".gamma": ".weight", ".beta": ".bias"}
    for ending, new in old.items():
        stored = {n.removesuffix(ending) + new if n.endswith(ending) else n: t for n, t in stored.items()}
    if f"{names['token']}.weight" in stored:
        stored = {names["prefix"] + name: tensor for name, tensor in stored.items()}
    return stored


def write_folder(folder: Path, pretrained: Pretrained, shard_bytes: int = SHARD_BYTES) -> None:
    """Write config.json and the safetensors of a Hugging Face folder, gathering one tensor at a time on the host.

    Raises:
      UserError: no Hugging Face class has this encoder, or such a head on it.
    """
    model, vocabulary, head = pretrained.model, pretrained.vocabulary, pretrained.head
    family = exportable_family(model)
    names = NAMES[family]
    settings = to_settings(model, vocabulary, family, pretrained.languages)
    of_head: dict[str, Any] = {}
    if head is not None:
        task: Task = dataclasses.replace(as_type(Task, head.task), labels=head.labels)
        settings |= task_heads.to_settings(family, task)
        params = jax.tree.map(to_host, head.params)  # small beside the encoder
        of_head = task_heads.head_tensors(params, family, task)
    flat = traverse_util.flatten_dict(pretrained.params, sep="/")
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    found = views(model, family, vocabulary.size)
    position = ""
    if model.position_embedding == "learned":
        position = f"{names['prefix']}{names['position']}.weight"
    if head is None and model.head == "none":
        found = {name.removeprefix(names["prefix"]): view for name, view in found.items()}
        position = position.removeprefix(names["prefix"])
    offset = 0 if family in ("bert", "xlm") else vocabulary.pad + 1

    def read(name: str) -> np.ndarray:
        if name in of_head:
            return of_head[name]
        tensor = found[name].read(flat)
        return _offset(tensor, model, offset) if name == position else tensor

    written = {name: view.shape(shapes) for name, view in found.items()}
    if position:
        rows, width = written[position]
        written[position] = (rows - model.position_offset + offset, width)
    written |= {name: tensor.shape for name, tensor in of_head.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, written, read, shard_bytes)
    # Last: a folder with a config.json is whole.
    write_whole(folder / "config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _offset(table: np.ndarray, model: Model, offset: int) -> np.ndarray:
    """The position table with `offset` rows before position 0, which those classes count from the padding's id."""
    kept = table[max(0, model.position_offset - offset) :]
    return np.concatenate([np.zeros((max(0, offset - model.position_offset), table.shape[1]), table.dtype), kept])
