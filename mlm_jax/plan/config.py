# SPDX-License-Identifier: Apache-2.0
"""The options of `plan` besides those of `pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mlm_jax.config import Config
from mlm_jax.fields import AtLeast, Within


@dataclass(frozen=True)
class Plan(Config):
    """A run, and the TPU slices or hosts of GPUs that are thought of for it."""

    topology: str = "v5e:4x4"
    """A slice by its shape or by Google Cloud's name: v5e:16x16, v5e-256, v4:4x4x4, v6e-64; `mesh.slices` of them.
    Or GPUs by how many a host has, and how many hosts: h100:8, h100:8x16 (a100, h100, h200, b200)."""
    phase: Annotated[int, AtLeast(0)] = 0
    """The phase that is planned, from 1 on; 0: the one with most tokens per batch, of those the last."""
    search: bool = False
    """Look for the mesh, the number of microbatches and the rematerialisation that are fastest of those that fit."""
    compiles: Annotated[int, AtLeast(1)] = 8
    """Steps that a search compiles at most, with the least effort; the best is then compiled as `effort` says."""
    effort: Annotated[float, Within(-1, 0)] = 0.0
    """What the compiler does for the program's speed. 0: as for a run; -1: as little as it can, which takes a third of
    the time and gives memory, FLOPs and the roofline within a few percent, but not what the compiler itself expects."""
