# SPDX-License-Identifier: Apache-2.0
"""TPU slices and hosts of GPUs that are not here: what their chips can do, and devices to compile for."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from mlm_jax.cuda_plugin import has_cuda_plugin
from mlm_jax.errors import UserError
from mlm_jax.model.flops import PEAKS
from mlm_jax.plan.cards import CARDS, Card, target_config


@dataclass(frozen=True)
class Chip:
    """What one chip can do, as published (cloud.google.com/tpu/docs/v4, v5e, v5p and v6e; `cards`).

    Attributes:
      peak: dense bfloat16, FLOP/s.
      memory: bytes of HBM that a program may use: of a TPU as its compiler says, which keeps a little back; of a GPU
        `JAX_SHARE`.
      bandwidth: of HBM, bytes/s.
      link: one way over one link to a neighbour, bytes/s; of a GPU, over NVLink to its host's others together.
      network: over the data centre's network, a chip's share of its host's, bytes/s. v4's is not published: v5p's.
      dimensions: of the torus.
      ring: a dimension whose size is a multiple of this is closed to a ring.
      cores: TensorCores, which the names of v4 and v5p slices count.
      clock: of a TPU, Hz: that at which its matrix units reach `peak`.
      card: what it is if it is a GPU.
    """

    peak: float
    memory: float
    bandwidth: float
    link: float
    network: float
    dimensions: int
    ring: int
    cores: int = 1
    clock: float = 0.0
    card: Card | None = None


GIB = 2**30
JAX_SHARE = 0.75  # of a GPU's memory: what JAX takes at its start, unless XLA_CLIENT_MEM_FRACTION says otherwise
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1200e9, 50e9, 6.25e9, 3, 4, 2, 1.05e9),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 50e9, 3.125e9, 2, 16, 1, 1.5e9),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 100e9, 6.25e9, 3, 4, 2, 1.75e9),
    "v6e": Chip(918e12, 31.25 * GIB, 1600e9, 100e9, 12.5e9, 2, 16, 1, 1.75e9),
} | {
    name: Chip(PEAKS[name.upper()], JAX_SHARE * card.memory, card.bandwidth, card.nvlink, card.network, 1, 1, card=card)
    for name, card in CARDS.items()
}

# Shapes of slices by chips, as the documents above list them.
SHAPES: dict[int, dict[int, tuple[int, ...]]] = {
    2: {4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)},
    3: {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (4, 4, 8), 256: (4, 8, 8)},
}


GPUS, HOSTS = (1, 2, 4, 8), 128  # of a host; of them, at most


@dataclass(frozen=True)
class Topology:
    """Slices of TPUs of one shape, or hosts of GPUs.

    Attributes:
      generation: a key of `CHIPS`.
      shape: chips along each dimension of the torus; of GPUs (per host, hosts).
      slices: how many of them, joined by the data centre's network; GPUs are of one.
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

    @property
    def noun(self) -> str:
        """What a chip is called."""
        return "chip" if self.chip.card is None else "GPU"

    def __str__(self) -> str:
        shape = self.shape[:1] if self.chip.card and self.shape[1] == 1 else self.shape
        text = f"{self.generation}:{'x'.join(map(str, shape))}"
        return text if self.slices == 1 else f"{self.slices} slices of {text}"


def parse(text: str, slices: int = 1) -> Topology:
    """A topology of TPUs by its shape, `v5e:16x16`, or by Google Cloud's name, `v5e-256`, which counts cores for v4 and v5p; of
    GPUs by their number in a host and that of hosts, `h100:8`, `h100:8x16`.

    Raises:
      UserError: there is no such slice, or no such hosts.
    """
    match = re.fullmatch(r"(\w+)(?::(\d+(?:x\d+)*)|-(\d+))", text)
    generation = match[1].replace("v5litepod", "v5e") if match else ""
    if match is None or generation not in CHIPS:
        raise UserError(
            f"topology: {text}; name TPUs by their slice's shape or name, e.g. v5e:16x16, v5e-256, v4:4x4x4, v6e-64 "
            f"(v4, v5e, v5p, v6e), or GPUs by how many a host has and how many hosts, e.g. h100:8, h100:8x16 ({', '.join(CARDS)})"
        )
    if slices < 1:
        raise UserError(f"slices: {slices} is less than 1")
    if generation in CARDS:
        return _parse_gpus(text, generation, match[2], slices)
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
    return Topology(generation, shape, slices)


def _parse_gpus(text: str, generation: str, shape: str | None, slices: int) -> Topology:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", shape or "")
    gpus, hosts = (int(match[1]), int(match[2] or 1)) if match else (0, 0)
    if gpus not in GPUS or not 1 <= hosts <= HOSTS:
        known = ", ".join(f"{generation}:{number}" for number in GPUS)
        raise UserError(
            f"topology: {text}; there are {known} and, of several hosts, {generation}:8x2 to {generation}:8x{HOSTS}"
        )
    if slices != 1:
        raise UserError(
            f"mesh.slices: {slices}; slices are of TPUs, say how many hosts of GPUs by {generation}:8x{slices}"
        )
    return Topology(generation, (gpus, hosts))


def require_compiler(topology: Topology) -> None:
    """Make the topology's compiler ready to be used where there is no such chip; to be called before JAX is first used.

    Raises:
      UserError: it is not installed.
    """
    if topology.chip.card is None:
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(_missing("the TPU compiler, libtpu,", "plan"))
        # Nothing runs on a TPU here: no metadata server is asked about one, none is locked, no logs are written.
        os.environ.update(
            TPU_SKIP_MDS_QUERY="1",
            TPU_WORKER_HOSTNAMES="localhost",
            TPU_ACCELERATOR_TYPE="v5litepod-4",
            ALLOW_MULTIPLE_LIBTPU_LOAD="1",
            TPU_LOG_DIR="disabled",
            TPU_MIN_LOG_LEVEL="3",
        )
    elif not has_cuda_plugin():
        raise UserError(_missing("the GPU compiler, jax-cuda12-plugin,", "plan-gpu"))
    else:
        jax.config.update("jax_enable_compilation_cache", False)  # what it compiled cannot be read back without a GPU
    jax.config.update("jax_platforms", "cpu")


def _missing(what: str, extra: str) -> str:
    return f"plan: {what} is not installed; pip install -c constraints.txt -e '.[{extra}]'"


def devices(topology: Topology) -> Sequence[Any]:
    """Devices to compile for, one per chip: a v4 chip's two cores work as one, as they do in a pod."""
    from jax.experimental import topologies

    card = topology.chip.card
    if card is not None:
        per_host, hosts = topology.shape
        return topologies.get_topology_desc(
            platform="cuda", topology=f"1x{hosts}x{per_host}", target_config=target_config(card)
        ).devices
    return topologies.get_topology_desc(
        platform="tpu",
        topology_name=f"{topology.generation}:{'x'.join(map(str, topology.shape))}",
        chip_config_name="megacore" if topology.generation == "v4" else "default",
        chips_per_host_bounds=(2, 2, 1),
        num_slices=topology.slices,
    ).devices
