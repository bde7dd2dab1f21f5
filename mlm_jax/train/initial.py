# SPDX-License-Identifier: Apache-2.0
"""The encoder that a run starts from, where it is not a random one: `initial.json` and `initial.safetensors`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from typing import Any, NotRequired, TypedDict

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from mlm_jax import vocabulary
from mlm_jax.config import Config, Model, predicts_tokens
from mlm_jax.errors import UserError
from mlm_jax.files import link, make_folder, sync, write_whole
from mlm_jax.model.encoder import backbone
from mlm_jax.model.families import family_of
from mlm_jax.pretrained import (
    Params,
    Pretrained,
    SentenceVectors,
    head_shardings,
    host_parts,
    parameter_shardings,
    put,
)
from mlm_jax.stored import read_json
from mlm_jax.tensor_files import read_tensors, write_tensors
from mlm_jax.train.state import State
from mlm_jax.vocabulary import Vocabulary

TENSORS = "initial.safetensors"

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


class Description(TypedDict):
    """What initial.json says; `kept` are the layers of the source that the encoder has, counted from 1, where it has some only."""

    source: str
    model: Model
    languages: list[str]
    trained: NotRequired[int]
    vectors: NotRequired[SentenceVectors | None]
    kept: NotRequired[list[int]]


def _read_description(workdir: epath.PathLike) -> Description:
    return read_json(epath.Path(workdir) / "initial.json", Description)


def write_initial(workdir: epath.PathLike, pretrained: Pretrained, kept: Sequence[int] = ()) -> None:
    """Store an encoder in a workdir, for the run there to start from; one tensor at a time is gathered on the host.

    Of several processes all have to call it, and the first one writes. Of a fine-tuned encoder the head is stored too, all names
    then beginning with `encoder/` or `head/`. The vocabulary is not stored here.

    Args:
      kept: layers of the encoder's source that it was made of, counted from 1; empty: all.
    """
    folder = epath.Path(workdir)
    make_folder(folder)
    params, first = pretrained.params, jax.process_index() == 0
    if pretrained.head is not None:
        params = {"encoder": params, "head": pretrained.head.params}
    flat = traverse_util.flatten_dict(params, sep="/")
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    write_tensors(folder / TENSORS, shapes, lambda name: host_parts(flat[name], name), writes=first)
    if not first:
        return
    described = {
        "source": pretrained.source,
        "model": dataclasses.asdict(pretrained.model),
        "languages": list(pretrained.languages),
        "trained": pretrained.trained,
        **({} if pretrained.vectors is None else {"vectors": dataclasses.asdict(pretrained.vectors)}),
        **({"kept": list(kept)} if kept else {}),
    }
    # Last: a workdir with it has the whole encoder.
    write_whole(folder / "initial.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def link_initial(source: epath.PathLike, workdir: epath.PathLike) -> None:
    """Let a workdir start from the encoder that another starts from and has not trained: one file on disk for both.

    Args:
      source: a local workdir with `initial.safetensors`.
    """
    folder = epath.Path(workdir)
    described = read_json(epath.Path(source) / "initial.json", dict[str, Any]) | {"source": f"{source} at step 0"}
    described.pop("kept", None)  # of the source's source
    link(epath.Path(source) / TENSORS, folder / TENSORS)
    sync(folder)
    write_whole(folder / "initial.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def has_initial(workdir: epath.PathLike) -> bool:
    """Whether a workdir holds an encoder to start from."""
    return (epath.Path(workdir) / "initial.json").exists()


def read_trained(workdir: epath.PathLike) -> int:
    """The longest text that the encoder a workdir starts from was trained on, in tokens; 0 where that is unknown."""
    described = _read_description(workdir)
    return described.get("trained", 0) or described["model"].positions


def read_vectors(workdir: epath.PathLike) -> SentenceVectors | None:
    """How the encoder that a workdir starts from makes vectors of texts; None where none are known."""
    return _read_description(workdir).get("vectors")


def new_parameters(workdir: epath.PathLike, params: Params) -> list[str]:
    """Parameters of a run that the encoder it started from lacks, so that the run's own updates made all of them."""
    had = {name for name, _ in read_tensors(epath.Path(workdir) / TENSORS)}
    return sorted(set(traverse_util.flatten_dict(params, sep="/")) - had)


def read_source(workdir: epath.PathLike) -> str:
    """Where the encoder of a workdir comes from, for messages."""
    return _read_description(workdir)["source"]


def read_model(workdir: epath.PathLike) -> Model:
    """The shape of the encoder of a workdir."""
    return _read_description(workdir)["model"]


def read_kept(workdir: epath.PathLike) -> list[int]:
    """The layers of its source that the encoder of a workdir was made of, counted from 1; empty where it was all of them."""
    return _read_description(workdir).get("kept", [])


def read_initial(
    workdir: epath.PathLike, mesh: jax.sharding.Mesh | None = None, words: Vocabulary | None = None
) -> Pretrained:
    """The encoder that `write_initial` stored, read a tensor at a time.

    Args:
      mesh: where its parameters are put, each device's part alone; None: the host's memory.
      words: its vocabulary; None: that of the workdir.

    Returns:
      Of a fine-tuned encoder the params are `encoder` and `head`, as they were stored (`read_pretrained` parts them).

    Raises:
      UserError: the file is damaged, or a parameter does not divide over the mesh.
    """
    folder = epath.Path(workdir)
    described = _read_description(folder)
    # Training asked for an attention kernel that may not run here.
    model = dataclasses.replace(described["model"], attention="auto")
    flat: dict[str, np.ndarray | jax.Array]
    if mesh is None:
        flat = {name: np.array(tensor) for name, tensor in read_tensors(folder / TENSORS)}
    else:
        encoder = parameter_shardings(model, mesh)
        tuned = traverse_util.flatten_dict({"encoder": encoder, "head": head_shardings(model, mesh)}, sep="/")
        places = tuned | encoder
        flat = {name: put(tensor, name, places, mesh) for name, tensor in read_tensors(folder / TENSORS)}
    params = traverse_util.unflatten_dict(flat, sep="/")
    words = vocabulary.read_vocabulary(folder / "vocabulary") if words is None else words
    languages, trained = tuple(described["languages"]), described.get("trained", 0)
    vectors = described.get("vectors")
    return Pretrained(model, params, words, languages, described["source"], trained=trained, vectors=vectors)


def adopt(config: Config) -> Config:
    """The config with the encoder that its workdir starts from in place of `model`.

    Dropout, dtype, attention and rematerialisation come from the config. An encoder without an output layer gets a new one, and
    one with it loses it where the run does not train it; `next_sentence` is set by `data.packing`.
    """
    model = _read_description(config.workdir)["model"]
    if not predicts_tokens(config):
        model = backbone(model)
    elif model.head == "none":
        model = dataclasses.replace(model, head="plain" if family_of(model) == "xlm" else "transform")
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
    known = _read_description(workdir)["languages"]
    params = traverse_util.flatten_dict(state.params, sep="/")
    fresh = set(params)
    for name, stored in read_tensors(epath.Path(workdir) / TENSORS):
        if name not in params:
            continue
        if name == "embedding/language_embedding":
            rows = {language: stored[i] for i, language in enumerate(known)}
            stored = np.stack([rows.get(language, stored.mean(axis=0)) for language in languages])
        leaf = params[name]
        if stored.shape != leaf.shape:
            raise UserError(
                f"{workdir}: {name} of the encoder to start from has shape {list(stored.shape)}, the run's has "
                f"{list(leaf.shape)}; its vocabulary/ or config is not the encoder's"
            )
        params[name] = jax.make_array_from_callback(leaf.shape, leaf.sharding, partial(np.ndarray.__getitem__, stored))
        fresh.remove(name)
    return dataclasses.replace(state, params=traverse_util.unflatten_dict(params, sep="/")), sorted(fresh)
