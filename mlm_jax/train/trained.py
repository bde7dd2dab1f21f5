# SPDX-License-Identifier: Apache-2.0
"""A run's encoder, as it was at one of its checkpoints."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import manifest, vocabulary
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.files import read_json
from mlm_jax.model.axes import encoder_axes
from mlm_jax.model.encoder import make_encoder
from mlm_jax.train import initial
from mlm_jax.train.optimizer import make_optimizer
from mlm_jax.train.pretraining import MEASURED, run_checkpoints
from mlm_jax.train.state import make_initializer
from mlm_jax.vocabulary import Vocabulary


@dataclass(frozen=True)
class Trained:
    """Attributes:
    model: the encoder's shape.
    params: tree of float32 NumPy arrays, unboxed.
    vocabulary: of the run.
    languages: in the order of language ids.
    step: of the checkpoint.
    """

    model: cfg.Model
    params: Any
    vocabulary: Vocabulary
    languages: tuple[str, ...]
    step: int


def read_trained(workdir: epath.PathLike, which: str = "best") -> Trained:
    """The encoder of a run's checkpoint, or of one that was imported and not trained yet.

    Args:
      which: "best" by macro validation loss (the last, where none was validated), "last", or a step.

    Raises:
      UserError: there is no such run or checkpoint.
    """
    folder = epath.Path(workdir)
    words = vocabulary.read(folder / "vocabulary")
    if not (folder / "checkpoints").exists():
        if not initial.exists(folder):
            raise UserError(f"{folder}: no checkpoints and no imported encoder there; give the workdir of a run")
        found = initial.read(folder)
        tree: dict[str, Any] = {}
        for name, tensor in found.params.items():
            branch, *parts = name.split("/")
            place = tree.setdefault(branch, {}) if parts else tree
            for part in parts[:-1]:
                place = place.setdefault(part, {})
            place[parts[-1] if parts else branch] = tensor
        return Trained(anywhere(found.model), tree, words, found.languages, 0)
    config = cfg.from_json(read_json(folder / "config.json"), str(folder))
    prepared = manifest.read(folder / "corpus")
    mesh = meshes.make_mesh(cfg.Mesh(), 1, jax.devices()[:1])
    encoder = make_encoder(config.model, words.size, len(prepared.languages))
    optimizer = make_optimizer(config.optimizer, config.train.steps, encoder_axes(encoder))
    _, plan = make_initializer(config, encoder, optimizer, mesh, MEASURED)
    checkpoints = run_checkpoints(config, prepared)
    try:
        state = checkpoints.restore(plan, checkpoints.choose(which))
    finally:
        checkpoints.close()
    if state is None:
        raise UserError(f"{folder / 'checkpoints'}: no checkpoint there; train first")
    params = jax.tree.map(np.asarray, state.params)
    return Trained(anywhere(config.model), params, words, prepared.languages, int(state.step))


def anywhere(model: cfg.Model) -> cfg.Model:
    """The model without the attention kernel that its training asked for, which may not run here."""
    return dataclasses.replace(model, attention="auto")


def checkpoint_steps(workdir: epath.PathLike) -> list[int]:
    """The steps of the checkpoints that a run has kept, ascending.

    Raises:
      UserError: there is no such run, or it has none.
    """
    folder = epath.Path(workdir)
    if not (folder / "checkpoints").exists():
        raise UserError(f"{folder}: no checkpoints there; give the workdir of a run")
    config = cfg.from_json(read_json(folder / "config.json"), str(folder))
    checkpoints = run_checkpoints(config, manifest.read(folder / "corpus"))
    try:
        steps = checkpoints.steps()
    finally:
        checkpoints.close()
    if not steps:
        raise UserError(f"{folder / 'checkpoints'}: no checkpoint there; train first")
    return steps
