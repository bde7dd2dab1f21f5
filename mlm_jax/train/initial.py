# SPDX-License-Identifier: Apache-2.0
"""The encoder that a run starts from, where it is not a random one: `initial.json` and `initial.safetensors`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from safetensors.numpy import load, save

from mlm_jax.config import Config, Model
from mlm_jax.errors import UserError
from mlm_jax.files import read_json, write_whole
from mlm_jax.train.state import State

# What a run may choose anew; all else of `Model` is the encoder's own.
CHOSEN = (
    "dropout",
    "attention_dropout",
    "attention_out_dropout",
    "initializer_std",
    "dtype",
    "attention",
    "remat",
    "loss_chunk",
)


@dataclasses.dataclass(frozen=True)
class Initial:
    """An encoder to start from.

    Attributes:
      source: where it comes from, for messages.
      model: its shape.
      params: tree of float32 NumPy arrays.
      languages: in the order of the language embedding's rows.
    """

    source: str
    model: Model
    params: Any
    languages: tuple[str, ...]


def flatten(params: Any) -> dict[str, Any]:
    """Parameters by their paths, parts joined with "/"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def write(workdir: epath.PathLike, initial: Initial) -> None:
    """Store an encoder in a workdir, for the run there to start from."""
    folder = epath.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in flatten(initial.params).items()}
    write_whole(folder / "initial.safetensors", save(tensors))
    described = {
        "source": initial.source,
        "model": dataclasses.asdict(initial.model),
        "languages": list(initial.languages),
    }
    # Last: a workdir with it has the whole encoder.
    write_whole(folder / "initial.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def exists(workdir: epath.PathLike) -> bool:
    """Whether a workdir holds an encoder to start from."""
    return (epath.Path(workdir) / "initial.json").exists()


def read_source(workdir: epath.PathLike) -> str:
    """Where the encoder of a workdir comes from, for messages."""
    return read_json(epath.Path(workdir) / "initial.json")["source"]


def read(workdir: epath.PathLike) -> Initial:
    """The encoder that `write` stored, its parameters as a flat dict."""
    folder = epath.Path(workdir)
    described = read_json(folder / "initial.json")
    tensors = load((folder / "initial.safetensors").read_bytes())
    return Initial(described["source"], Model(**described["model"]), tensors, tuple(described["languages"]))


def adopt(config: Config) -> Config:
    """The config with the encoder that its workdir starts from in place of `model`.

    Dropout and how to compute stay the config's; an encoder that came without an output layer gets a new one, and
    next-sentence prediction is where the data has sentence pairs.
    """
    described = read_json(epath.Path(config.workdir) / "initial.json")
    model = Model(**described["model"])
    if model.head == "none":
        model = dataclasses.replace(
            model, head="plain" if model.token_types == 0 and model.norm == "post" else "transform"
        )
    paired = config.data.packing == "next_sentence"
    model = dataclasses.replace(
        model,
        next_sentence=paired,
        pooler=model.pooler or paired,
        **{name: getattr(config.model, name) for name in CHOSEN},
    )
    return dataclasses.replace(config, model=model)


def load_into(state: State, workdir: epath.PathLike, languages: Sequence[str]) -> tuple[State, list[str]]:
    """A first state with the parameters of the encoder that its workdir starts from.

    Args:
      languages: of the run, in the order of its language embedding's rows. A language that the encoder does not
        know starts from the mean of those it does.

    Returns:
      The state, and the names of the parameters that the encoder lacks, which stay random.

    Raises:
      UserError: a parameter has another shape: the workdir's vocabulary is not the encoder's.
    """
    initial = read(workdir)
    fresh = []

    def take(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in initial.params:
            fresh.append(name)
            return leaf
        stored = initial.params[name]
        if name == "embedding/language_embedding":
            rows = {language: stored[i] for i, language in enumerate(initial.languages)}
            stored = np.stack([rows.get(language, stored.mean(axis=0)) for language in languages])
        if stored.shape != leaf.shape:
            raise UserError(
                f"{workdir}: {name} of the encoder to start from has shape {list(stored.shape)}, the run's has "
                f"{list(leaf.shape)}; its vocabulary/ or config is not the encoder's"
            )
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: stored[index])

    params = jax.tree_util.tree_map_with_path(take, state.params)
    return dataclasses.replace(state, params=params), fresh
