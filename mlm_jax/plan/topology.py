# SPDX-License-Identifier: Apache-2.0
"""TPU slices that are not here: what their chips can do, and devices to compile for."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from mlm_jax.errors import UserError


@dataclass(frozen=True)
class Chip:
    """What one chip can do, as published (cloud.google.com/tpu/docs/v4, v5e, v5p and v6e).

    Attributes:
      peak: dense bfloat16, FLOP/s.
      memory: bytes of HBM that a program may use, from the compiler: a little is kept back.
      bandwidth: of HBM, bytes/s.
      link: one way over one link to a neighbour, bytes/s.
      network: over the data centre's network, a chip's share of its host's, bytes/s. v4's is not published: v5p's.
      dimensions: of the torus.
      ring: a dimension whose size is a multiple of this is closed to a ring.
      cores: TensorCores, which the names of v4 and v5p slices count.
    """

    peak: float
    memory: float
    bandwidth: float
    link: float
    network: float
    dimensions: int
    ring: int
    cores: int = 1


GIB = 2**30
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1200e9, 50e9, 6.25e9, 3, 4, 2),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 50e9, 3.125e9, 2, 16),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 100e9, 6.25e9, 3, 4, 2),
    "v6e": Chip(918e12, 31.25 * GIB, 1600e9, 100e9, 12.5e9, 2, 16),
}

# Shapes of slices by chips, as the documents above list them.
SHAPES: dict[int, dict[int, tuple[int, ...]]] = {
    2: {4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)},
    3: {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8)},
}


@dataclass(frozen=True)
class Topology:
    """Slices of one shape.

    Attributes:
      generation: a key of `CHIPS`.
      shape: chips along each dimension of the torus.
      slices: how many of them, joined by the data centre's network.
    """

    generation: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        """Of all slices together."""
        return math.prod(self.shape) * self.slices

    def __str__(self) -> str:
        shape = f"{self.generation}:{'x'.join(map(str, self.shape))}"
        return shape if self.slices == 1 else f"{self.slices} slices of {shape}"


def parse(text: str, slices: int = 1) -> Topology:
    """A topology by its shape, `v5e:16x16`, or by Google Cloud's name, `v5e-256`, which counts cores for v4 and v5p.

    Raises:
      UserError: there is no such slice.
    """
    match = re.fullmatch(r"(v4|v5e|v5litepod|v5p|v6e)(?::(\d+(?:x\d+)+)|-(\d+))", text)
    if not match:
        raise UserError(
            f"topology: {text}; name a slice by its shape or name, e.g. v5e:16x16, v5e-256, v4:4x4x4, v6e-64"
        )
    generation = match[1].replace("litepod", "e")
    chip = CHIPS[generation]
    shapes = SHAPES[chip.dimensions]
    if match[2]:
        shape = tuple(int(size) for size in match[2].split("x"))
        if shape not in shapes.values():
            known = ", ".join("x".join(map(str, s)) for s in shapes.values())
            raise UserError(f"topology: {text} is no slice of {generation}; there are {known}")
    else:
        chips, rest = divmod(int(match[3]), chip.cores)
        if rest or chips not in shapes:
            known = ", ".join(f"{generation}-{number * chip.cores}" for number in shapes)
            raise UserError(f"topology: {text} is no slice of {generation}; there are {known}")
        shape = shapes[chips]
    if slices < 1:
        raise UserError(f"slices: {slices} is less than 1")
    return Topology(generation, shape, slices)


def require_compiler() -> None:
    """Make the TPU compiler ready to be used where there is no TPU; to be called before JAX is first used.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("plan: the TPU compiler, libtpu, is not installed; pip install -c constraints.txt -e '.[plan]'")
    # Nothing runs on a TPU here: no metadata server is asked about one, none is locked, no logs are written.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_LOG_DIR="disabled",
        TPU_MIN_LOG_LEVEL="3",
    )
    jax.config.update("jax_platforms", "cpu")


def devices(topology: Topology) -> Sequence[Any]:
    """Devices to compile for, one per chip: a v4 chip's two cores work as one, as they do in a pod."""
    from jax.experimental import topologies

    return topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{topology.generation}:{'x'.join(map(str, topology.shape))}",
        chip_config_name="megacore" if topology.generation == "v4" else "default",
        chips_per_host_bounds=(2, 2, 1),
        num_slices=topology.slices,
    ).devices
