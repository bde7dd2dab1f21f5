# SPDX-License-Identifier: Apache-2.0
"""The mesh, the number of microbatches and the rematerialisation that are fastest of those that fit.

Arithmetic orders the candidates and the compiler judges the first of them; what it says corrects the arithmetic for the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax

from mlm_jax import console, objectives
from mlm_jax import mesh as meshes
from mlm_jax.config import Config, Mesh, Model, with_sections
from mlm_jax.errors import UserError
from mlm_jax.model.attention_kernels import choose
from mlm_jax.model.axes import encoder_axes
from mlm_jax.model.encoder import compute_dtype, make_encoder, padded_rows, parameter_shapes
from mlm_jax.model.flops import step_flops
from mlm_jax.plan import topology
from mlm_jax.plan.compile import activations
from mlm_jax.plan.planned import Planned, adapt, plan_step
from mlm_jax.plan.topology import GIB, Topology

LEAST_EFFORT = -1.0  # of the compiler: see `Plan.effort`
REMATS = ("none", "dots", "full")
# Of processor time, for a step of base size with the least effort.
COMPILE_SECONDS = {"chip": 40, "GPU": 30}
SURE = 0.95  # of a chip's memory: what an estimate may fill for advice to work


@dataclass(frozen=True)
class Estimate:
    """An estimate of a candidate: bytes per chip of its state and of what grows with the batch; seconds per update."""

    config: Config
    state: float
    growing: float
    seconds: float


@dataclass(frozen=True)
class Kept:
    """What the forward pass of a model keeps.

    Attributes:
      per_block: rematerialisation → bytes of each block, not split over `tensor`.
      has_scores: attention is computed by plain products, with all scores in memory.
    """

    per_block: dict[str, float]
    has_scores: bool


def what_is_kept(config: Config, device: jax.Device) -> Kept:
    """Look at the derivative of the loss, for a kind of device, with each rematerialisation."""
    one = with_sections(config, train={"batch_size": 1, "accumulate": 1})
    mesh = meshes.make_mesh(Mesh(), 1, [device])
    per_block = {remat: activations(with_sections(one, model={"remat": remat}), mesh) for remat in REMATS}
    dtype = compute_dtype(config.model.dtype, device.platform)
    with meshes.mesh_context(mesh):
        kernel = choose(config.model, dtype, config.data.sequence_length, config.model.attention_dropout > 0)
    return Kept(per_block, kernel == "xla")


def estimate(config: Config, where: Topology, kept: Kept) -> Estimate:
    """Estimate roughly what a step needs. Only the order matters, and the compiler corrects the scale.

    Args:
      kept: of the config's model.
    """
    model, mesh, chip = config.model, config.mesh, where.chip
    length, microbatches = config.data.sequence_length, config.train.accumulate
    shards = mesh.fsdp * mesh.tensor
    parameters = count_parameters(dataclasses.replace(model, remat="none"), config.vocabulary.size)
    rows = config.train.batch_size // microbatches // (mesh.data * mesh.fsdp)
    tokens, tensor = rows * length, mesh.tensor
    predictions = objectives.max_predictions(length, config.objective, model.causal)

    # Bytes of what the backward pass finds; of a layer at work, which computes the rest again; of the head's scores.
    inner = model.mlp_width * (3 if model.gated else 1) / tensor
    scores = model.heads / tensor * length if kept.has_scores else 0
    working = 34 * model.width + 8 * inner + 12 * scores
    head = rows * predictions * min(model.loss_chunk, padded_rows(config.vocabulary.size)) * 6 / tensor
    growing = rows * kept.per_block[model.remat] + tokens * working + head
    # Parameters, their gradient (twice where it is summed up) and two moments, of which Muon has one for its kernels.
    floats = parameters * (4 if microbatches == 1 else 5)
    if config.optimizer.name == "muon":
        floats -= count_parameters(dataclasses.replace(model, remat="none"), config.vocabulary.size, hidden=True)
    state = floats / shards * 4

    vocabulary = padded_rows(config.vocabulary.size)
    flops = step_flops(model, vocabulary, config.train.batch_size, length, predictions) / where.chips
    # With full every product is computed again, with dots a kernel's attention.
    again = {"none": 1.0, "dots": 1.0 if kept.has_scores else 1.1, "full": 4 / 3}[model.remat]
    flops *= again
    traffic = again * microbatches * tokens * model.layers * (60 * model.width + 16 * inner + 40 * scores)
    # The optimizer's; gradients that are summed up are read and written once more.
    traffic += (28 + 12 * microbatches * (microbatches > 1)) * parameters / shards
    links = 2 * 4 * parameters / shards * (mesh.data > 1)  # gradients, once per update
    links += microbatches * 8 * parameters / tensor * (mesh.fsdp > 1)
    links += microbatches * 8 * tokens * model.width * 2 * model.layers * (tensor > 1)
    ways = chip.dimensions * chip.link
    return Estimate(config, state, growing, max(flops / chip.peak, traffic / chip.bandwidth) + links / ways)


@functools.lru_cache
def count_parameters(model: Model, size: int, hidden: bool = False) -> int:
    """Parameters of a model, without making any; hidden: those of the layers' kernels only."""
    shapes = jax.tree.leaves(parameter_shapes(model, size))
    axes = jax.tree.leaves(encoder_axes(make_encoder(model, size)))
    return sum(leaf.size for leaf, leaf_axes in zip(shapes, axes, strict=True) if leaf_axes.is_hidden or not hidden)


def candidates(config: Config, where: Topology) -> Iterator[Config]:
    """Every mesh of powers of two, number of microbatches and rematerialisation that divides."""
    model, inside = config.model, where.chips // where.slices
    powers = [2**i for i in range(9)]
    for tensor, fsdp in itertools.product(powers[:4], powers):
        fit = inside % (tensor * fsdp) == 0 and model.width % fsdp == 0
        if not fit or model.heads % tensor or model.mlp_width % tensor:
            continue
        mesh = Mesh(where.chips // tensor // fsdp, fsdp, tensor, where.slices)
        for microbatches, remat in itertools.product(divisions(config, mesh), REMATS):
            changed = with_sections(config, model={"remat": remat}, train={"accumulate": microbatches})
            yield dataclasses.replace(changed, mesh=mesh)


def divisions(config: Config, mesh: Mesh) -> list[int]:
    """The numbers of microbatches that a batch can be cut into: each leaves every chip the same number of blocks."""
    blocks, rest = divmod(config.train.batch_size, mesh.data * mesh.fsdp)
    return [] if rest else [n for n in range(1, blocks + 1) if blocks % n == 0]


def search(
    config: Config, where: Topology, compiles: int, found: Callable[[Planned], None] = lambda planned: None
) -> Planned:
    """The fastest step that fits, of those that were compiled.

    Args:
      found: is given every step that is faster than those before.

    Raises:
      UserError: nothing fits.
    """
    config = adapt(config, where)
    kept = what_is_kept(config, topology.devices(where)[0])
    options = [estimate(c, where, kept) for c in candidates(config, where)]
    console.say(
        f"search: {len(options):,} candidates, of which at most {compiles} are compiled; {duration(where, min(compiles, len(options)))} on this machine "
        "as it is now"
    )
    best = judge(options, where, compiles, found=found)
    if best is None:
        raise UserError(
            f"search: nothing of {config.model.layers} layers fits {where} in {compiles} compiled steps; take more {where.noun}s"
        )
    return best


def duration(where: Topology, compiles: int) -> str:
    """About how long it takes to compile steps with the least effort."""
    busy = max(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
    minutes = compiles * COMPILE_SECONDS[where.noun] * busy / 60
    return f"about {minutes:.0f} minutes" if minutes >= 1.5 else "about a minute"


def first_that_fits(config: Config, where: Topology, compiles: int) -> Planned | None:
    """The config's own mesh and rematerialisation in the fewest microbatches that fit."""
    config = adapt(config, where)
    kept = what_is_kept(config, topology.devices(where)[0])
    options = [
        estimate(with_sections(config, train={"accumulate": microbatches}), where, kept)
        for microbatches in divisions(config, config.mesh)
    ]
    return judge(options, where, compiles)


def cure(planned: Planned, kept: Kept) -> Config | None:
    """The rematerialisation and number of microbatches that make a step fit that does not, on its mesh, at the least time by estimate.

    Args:
      kept: of its model. What its step needs by the compiler, against the estimate, corrects that of the others.

    Returns:
      None: by estimate none of them does.
    """
    config, where = planned.config, planned.topology
    own = estimate(config, where, kept)
    ratio = max((planned.memory.total - own.state) / own.growing, 1.0)
    options = [
        estimate(
            with_sections(config, model={"remat": remat}, train={"accumulate": microbatches}),
            where,
            kept,
        )
        for remat, microbatches in itertools.product(REMATS, divisions(config, config.mesh))
    ]
    fitting = [o for o in options if o.config != config and o.state + ratio * o.growing < SURE * where.chip.memory]
    return min(fitting, key=lambda o: o.seconds).config if fitting else None


def judge(
    options: list[Estimate],
    where: Topology,
    compiles: int,
    plan: Callable[[Config, Topology, float], Planned] = plan_step,
    found: Callable[[Planned], None] = lambda planned: None,
) -> Planned | None:
    """Compile options, the most promising first, until none is left that could be faster than the best that fits.

    Args:
      plan: compiles one, with the least effort, which is enough to compare by the roofline.
      found: as `search`.
    """
    memory, time = dict.fromkeys(REMATS, 1.0), 1.0
    best: Planned | None = None
    least = float("inf")  # seconds per update of the best
    left = list(options)
    with console.progress("compiling", compiles, unit="steps at most") as advance:
        for _ in range(compiles):
            hopeful = [
                o
                for o in left
                if o.state + o.growing * memory[o.config.model.remat] < where.chip.memory and o.seconds * time < least
            ]
            if not hopeful:
                break
            option = min(hopeful, key=lambda o: o.seconds)
            left.remove(option)
            planned = plan(option.config, where, LEAST_EFFORT)
            growing = planned.memory.total - option.state
            memory[option.config.model.remat] = max(growing / option.growing, 0.05)
            mesh, train = option.config.mesh, option.config.train
            shown = f"data {mesh.data} fsdp {mesh.fsdp} tensor {mesh.tensor}, {train.accumulate} microbatches, remat {option.config.model.remat}"
            if planned.predicted is None:
                said = f"{(planned.memory.total - where.chip.memory) / GIB:.2f} GiB too much"
            else:
                said = f"{planned.predicted.step:.3f} s, MFU {planned.mfu:.1%}"
                time = planned.predicted.step / option.seconds
                if planned.predicted.step < least:
                    best, least = planned, planned.predicted.step
                    found(planned)
            advance(1, f"{shown}: {said}; best so far {f'{least:.3f} s' if best else 'none'}")
    return best
