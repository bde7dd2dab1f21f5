# SPDX-License-Identifier: Apache-2.0
"""How long a step must take at the least, from what it does and what the chips can do: a prediction, not a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlm_jax.plan.program import Collective, Program
from mlm_jax.plan.topology import Chip, Topology


@dataclass(frozen=True)
class Roofline:
    """Seconds per step.

    Attributes:
      compute: of the matrix products at the chip's peak.
      memory: of the traffic at HBM's bandwidth.
      links: of the collectives, over links and network.
      step: each instruction takes the longer of its two times, and what collectives can be done meanwhile are.
      expected: each instruction takes as many cycles as the compiler expects, collectives as above; None where it says nothing.
    """

    compute: float
    memory: float
    links: float
    step: float
    expected: float | None = None


def predict(program: Program, topology: Topology, devices: Sequence[Any]) -> Roofline:
    """The least time of a step (the roofline model, Williams et al. 2009, instruction by instruction).

    It leaves out all that keeps programs below the roof: matrix products of sizes that do not fill the units,
    element-wise work, latencies, the input.

    Args:
      devices: in the mesh's order, as the program numbers them.
    """
    chip = topology.chip
    compute, memory = program.flops / chip.peak, program.traffic / chip.bandwidth
    roofs = [max(work.flops / chip.peak, work.traffic / chip.bandwidth) for work in program.work]
    seconds = [(collective_seconds(c, topology, devices) * c.times, c.alone) for c in program.collectives]
    alone = sum(s for s, is_alone in seconds if is_alone)
    meanwhile = sum(s for s, is_alone in seconds if not is_alone)
    expected = None
    if chip.clock and any(work.cycles for work in program.work):
        # It expects nothing of a kernel that it did not write.
        cycles = [w.cycles / chip.clock if w.cycles else roof for w, roof in zip(program.work, roofs, strict=True)]
        expected = max(sum(cycles), meanwhile) + alone
    return Roofline(compute, memory, alone + meanwhile, max(sum(roofs), meanwhile) + alone, expected)


def collective_seconds(collective: Collective, topology: Topology, devices: Sequence[Any]) -> float:
    """The least time of one collective of one group, by the bytes that the slowest place has to let through.

    Around a ring, both ways at once, an all-gather or a reduce-scatter passes the whole array over each chip's
    links; an all-reduce is one of each; an all-to-all passes a quarter of it (half the ways are half as long).
    Over several dimensions of the torus each carries its share. Between slices each chip has its share of its host's
    network, and sends what its slice has put together.
    """
    chip = topology.chip
    members = [devices[i] for i in collective.group] or list(devices)
    if len(members) < 2:
        return 0
    if chip.card is not None:
        return _between_gpus(collective, chip, len(members), len({device.process_index for device in members}))
    slices = len({getattr(d, "slice_index", 0) for d in members})
    places = np.array(
        [d.coords for d in members if getattr(d, "slice_index", 0) == getattr(members[0], "slice_index", 0)]
    )
    ways = 0
    for dimension, size in enumerate(topology.shape):
        if len(set(places[:, dimension])) > 1:
            is_ring = len(set(places[:, dimension])) == size and size % chip.ring == 0
            ways += 2 if is_ring else 1
    passes = {"all-reduce": 2.0, "all-to-all": 0.25, "ragged-all-to-all": 0.25}.get(collective.kind, 1.0)
    inside = len(places)
    seconds = 0.0
    if ways:
        seconds = passes * collective.bytes * (inside - 1) / inside / (ways * chip.link)
    if slices > 1:
        seconds += passes * collective.bytes / inside * (slices - 1) / slices / chip.network
    return seconds


def _between_gpus(collective: Collective, chip: Chip, members: int, hosts: int) -> float:
    """The least time of a collective of GPUs, the same number of each of some hosts.

    NVLink joins every GPU of a host with every other by all of its bandwidth. Between hosts each GPU has an adapter and
    sends its share of what its host has put together. Of an all-to-all each GPU sends its own part, an n-th to each of n.
    """
    inside = members // hosts
    if collective.kind == "collective-permute":
        return collective.bytes / (chip.link if hosts == 1 else chip.network)
    if collective.kind in ("all-to-all", "ragged-all-to-all"):
        part = collective.bytes / members**2
        return part * max((inside - 1) / chip.link, (members - inside) / chip.network)
    passes = 2.0 if collective.kind == "all-reduce" else 1.0
    within = (inside - 1) / inside / chip.link
    across = (hosts - 1) / hosts / inside / chip.network
    return passes * collective.bytes * (within + across)
