# SPDX-License-Identifier: Apache-2.0
"""One reader of encoders: of a pretraining run's checkpoint, of one that was imported, and of what `finetune` made."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import jax
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import manifest, vocabulary
from mlm_jax.errors import UserError
from mlm_jax.files import listed
from mlm_jax.model.encoder import parameter_shapes
from mlm_jax.phases import part_at, parts_of
from mlm_jax.pretrained import FinetunedHead, Pretrained, abstract_params
from mlm_jax.stored import read_json
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.contrastive import trained_vectors
from mlm_jax.train.distillation import student_vectors
from mlm_jax.train.initial import has_initial, read_initial, read_trained, read_vectors
from mlm_jax.train.pretraining import run_checkpoints


def read_pretrained(
    folder: epath.PathLike, which: str = "best", mesh: jax.sharding.Mesh | None = None, model: str = ""
) -> Pretrained:
    """The encoder of a workdir; a Hugging Face folder is imported into one first, or read by `interchange.folder`.

    Parameters alone are read; an optimizer's state is skipped.

    Args:
      folder: a workdir of `pretrain`, one that `import` made, one of `finetune`, or WORKDIR/models/NAME there.
      which: of a run's checkpoints: "best" by macro validation loss (the last, where none was validated), "last", or a step.
      mesh: where the parameters are put, each device's part alone; None: the host's memory, as NumPy arrays.
      model: of a workdir of `finetune` that has several.

    Raises:
      UserError: there is no such encoder, or a parameter does not divide over the mesh.
    """
    folder = epath.Path(folder)
    if (folder / "model.json").exists():
        return _read_finetuned(folder.parent.parent, folder, mesh)
    if is_finetuned(folder):
        return _read_finetuned(folder, choose_model(folder, model), mesh)
    if model:
        raise UserError(
            f"{folder}: --model {model}, but nothing was fine-tuned there; leave it out, or choose a --step"
        )
    if (folder / "checkpoints").exists():
        return _read_checkpoint(folder, which, mesh)
    if not has_initial(folder):
        raise UserError(f"{folder}: no checkpoints and no imported encoder there; give the workdir of a run")
    return read_initial(folder, mesh)


def _read_checkpoint(folder: epath.Path, which: str, mesh: jax.sharding.Mesh | None) -> Pretrained:
    words, prepared = vocabulary.read_vocabulary(folder / "vocabulary"), manifest.read_manifest(folder / "corpus")
    checkpoints, config = open_checkpoints(folder)
    try:
        step = checkpoints.choose(which)
        if step is None:
            raise UserError(f"{folder / 'checkpoints'}: no checkpoint there; train first")
        # As its last update had it. Training asked for an attention kernel that may not run here.
        model = dataclasses.replace(part_at(config, max(step - 1, 0)).config.model, attention="auto")
        shapes = parameter_shapes(model, words.size, len(prepared.languages))
        params = checkpoints.restore_params(abstract_params(shapes, model, mesh), step)
    finally:
        checkpoints.close()
    before, vectors = (read_trained(folder), read_vectors(folder)) if has_initial(folder) else (0, None)
    if config.objective.learn == "contrastive":
        vectors = trained_vectors(config)
    trained = max(before, *(p.config.data.sequence_length for p in parts_of(config) if p.start < step), 0)
    vectors = student_vectors(config) or vectors
    source = f"{folder} at step {step:,}"
    return Pretrained(model, params, words, prepared.languages, source, step, trained=trained, vectors=vectors)


class Described(TypedDict):
    """What model.json says of a fine-tuned model."""

    labels: list[str]
    step: int


class MaxLength(TypedDict):
    """Of the data in a stored config of `finetune`."""

    max_length: int


class Finetuned(TypedDict):
    """What is read of a stored config of `finetune`."""

    task: dict[str, Any]
    data: MaxLength


def _read_finetuned(workdir: epath.Path, folder: epath.Path, mesh: jax.sharding.Mesh | None) -> Pretrained:
    described = read_json(folder / "model.json", Described)
    found = read_initial(folder, mesh, vocabulary.read_vocabulary(workdir / "vocabulary"))
    config = read_json(workdir / "config.json", Finetuned)
    head = FinetunedHead(config["task"], tuple(described["labels"]), found.params["head"])
    trained = max(found.trained, config["data"]["max_length"]) if found.trained else 0
    params, step = found.params["encoder"], described["step"]
    return dataclasses.replace(found, params=params, step=step, head=head, trained=trained)


def is_finetuned(workdir: epath.PathLike) -> bool:
    """Whether a workdir is of `finetune`."""
    config = epath.Path(workdir) / "config.json"
    return config.exists() and "task" in read_json(config, dict[str, Any])


def choose_model(workdir: epath.PathLike, name: str) -> epath.Path:
    """The folder of a fine-tuned model.

    Args:
      name: may be empty where the workdir has one.

    Raises:
      UserError: there is none of this name, or several and no name.
    """
    models = epath.Path(workdir) / "models"
    there = sorted(p.name for p in listed(models) if (p / "model.json").exists())
    if not there:
        raise UserError(f"{workdir}: no finished model there; run: mlm-jax finetune CONFIG")
    if not name and len(there) == 1:
        name = there[0]
    if name not in there:
        raise UserError(
            f"{workdir}: {'no model ' + name if name else 'several models'} there; choose --model of {', '.join(there)}"
        )
    return models / name


def checkpoint_steps(workdir: epath.PathLike) -> list[int]:
    """The steps of the checkpoints that a run has kept, ascending.

    Raises:
      UserError: there is no such run, or it has none.
    """
    folder = epath.Path(workdir)
    if not (folder / "checkpoints").exists():
        raise UserError(f"{folder}: no checkpoints there; give the workdir of a run")
    checkpoints, _ = open_checkpoints(folder)
    try:
        steps = checkpoints.steps()
    finally:
        checkpoints.close()
    if not steps:
        raise UserError(f"{folder / 'checkpoints'}: no checkpoint there; train first")
    return steps


def open_checkpoints(folder: epath.Path) -> tuple[Checkpoints, cfg.Config]:
    """The checkpoints of a pretraining run, and its config."""
    config = cfg.pretraining_config(read_json(folder / "config.json", dict[str, Any]), str(folder))
    return run_checkpoints(config, manifest.read_manifest(folder / "corpus")), config
