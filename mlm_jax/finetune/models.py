# SPDX-License-Identifier: Apache-2.0
"""The fine-tuned models of a workdir: `models/NAME/`; `encode.read` reads them."""

from __future__ import annotations

import dataclasses
import json

import jax
from etils import epath

from mlm_jax.files import write_whole
from mlm_jax.model.encoder import backbone
from mlm_jax.pretrained import Pretrained
from mlm_jax.train.initial import write_initial


def save_model(folder: epath.Path, tuned: Pretrained) -> None:
    """Store a fine-tuned encoder and its head as `initial` stores an encoder, and its labels; every process has to call it."""
    assert tuned.head is not None
    params = {name: tuned.params[name] for name in ("embedding", "layers")}
    write_initial(folder, dataclasses.replace(tuned, model=backbone(tuned.model), params=params))
    if jax.process_index():
        return
    # Last: a folder with it is whole.
    described = {"labels": list(tuned.head.labels), "step": tuned.step}
    write_whole(folder / "model.json", json.dumps(described, ensure_ascii=False) + "\n")
