# SPDX-License-Identifier: Apache-2.0
"""The fine-tuned models of a workdir: `models/NAME/`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.train import initial


def save_model(
    folder: epath.Path,
    source: str,
    model: cfg.Model,
    params: dict[str, Any],
    languages: Sequence[str],
    labels: Sequence[str],
    step: int,
) -> None:
    """Store a fine-tuned model as `initial` stores an encoder, and its labels.

    Args:
      source: what it is, in words.
      params: whole: `encoder` and `head`.
    """
    model = dataclasses.replace(model, head="none", pooler=False, next_sentence=False)
    initial.write(folder, initial.Initial(source, model, params, tuple(languages)))
    # Last: a folder with it is whole.
    write_whole(folder / "model.json", json.dumps({"labels": list(labels), "step": step}, ensure_ascii=False) + "\n")


def choose(workdir: epath.Path, name: str) -> epath.Path:
    """The folder of a workdir's model.

    Raises:
      UserError: there is none of this name, or several and no name.
    """
    models = workdir / "models"
    there = sorted(p.name for p in models.iterdir() if (p / "model.json").exists()) if models.exists() else []
    if not there:
        raise UserError(f"{workdir}: no finished model there; run: mlm-jax finetune CONFIG")
    if not name and len(there) == 1:
        name = there[0]
    if name not in there:
        raise UserError(
            f"{workdir}: {'no model ' + name if name else 'several models'} there; choose --model of {', '.join(there)}"
        )
    return models / name


def nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Parameters by their paths → a tree."""
    tree: dict[str, Any] = {}
    for name, tensor in flat.items():
        *parts, last = name.split("/")
        place = tree
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = tensor
    return tree
