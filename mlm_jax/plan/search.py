# SPDX-License-Identifier: Apache-2.0
"""The mesh, the number of microbatches and the rematerialisation that are fastest of those that fit.

Arithmetic orders the candidates and the compiler judges the first of them; what it says corrects the arithmetic for the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax

from mlm_jax import console, objectives
from mlm_jax.config import Config, Mesh, Model
from mlm_jax.errors import UserError
from mlm_jax.model.axes import encoder_axes
from mlm_jax.model.encoder import make_encoder, padded_rows, parameter_shapes
from mlm_jax.model.flops import step_flops
from mlm_jax.plan.compile import with_sections
from mlm_jax.plan.planned import Planned, adapt, plan_step
from mlm_jax.plan.topology import GIB, Topology


@dataclass(frozen=True)
class Estimate:
    """An estimate of a candidate: bytes per chip of its state and of what grows with the batch; seconds per update."""

    config: Config
    state: float
    growing: float
    seconds: float


def estimate(config: Config, where: Topology) -> Estimate:
    """Estimate roughly what a step needs. Only the order matters, and the compiler corrects the scale."""
    model, mesh, chip = config.model, config.mesh, where.chip
    length, microbatches = config.data.sequence_length, config.train.accumulate
    shards = mesh.fsdp * mesh.tensor
    parameters = count_parameters(dataclasses.replace(model, remat="none"), config.vocabulary.size)
    rows = config.train.batch_size // microbatches // (mesh.data * mesh.fsdp)
    tokens, tensor = rows * length, mesh.tensor
    predictions = objectives.max_predictions(length, config.objective, model.causal)

    # Bytes per token that a layer keeps for the backward pass.
    inner = model.mlp_width * (3 if model.gated else 1) / tensor
    scores = model.heads / tensor * length
    kept = {
        "none": 34 * model.width + 8 * inner + 7 * scores,
        "dots": 10 * model.width + 6 * model.width / tensor + 2 * inner,
        "full": 4 * model.width,
    }[model.remat]
    working = 0 if model.remat == "none" else 34 * model.width + 8 * inner + 12 * scores
    head = rows * predictions * min(model.loss_chunk, padded_rows(config.vocabulary.size)) * 6 / tensor
    growing = tokens * (model.layers * kept + working) + head
    # Parameters, their gradient (twice where it is summed up) and two moments, of which Muon has one for its kernels.
    floats = parameters * (4 if microbatches == 1 else 5)
    if config.optimizer.name == "muon":
        floats -= count_parameters(dataclasses.replace(model, remat="none"), config.vocabulary.size, hidden=True)
    state = floats / shards * 4

    vocabulary = padded_rows(config.vocabulary.size)
    flops = step_flops(model, vocabulary, config.train.batch_size, length, predictions) / where.chips
    flops *= {"none": 1.0, "dots": 1.1, "full": 4 / 3}[model.remat]
    traffic = (
        microbatches * tokens * model.layers * (60 * model.width + 16 * inner + 40 * scores) + 28 * parameters / shards
    )
    traffic *= {"none": 1.0, "dots": 1.3, "full": 1.3}[model.remat]
    links = microbatches * 2 * 4 * parameters / shards * (mesh.data > 1)
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
        for microbatches, remat in itertools.product(divisions(config, mesh), ("none", "dots", "full")):
            changed = with_sections(config, model={"remat": remat}, train={"accumulate": microbatches})
            yield dataclasses.replace(changed, mesh=mesh)


def divisions(config: Config, mesh: Mesh) -> list[int]:
    """The numbers of microbatches that a batch can be cut into: each leaves every chip the same number of blocks."""
    blocks, rest = divmod(config.train.batch_size, mesh.data * mesh.fsdp)
    return [] if rest else [n for n in range(1, blocks + 1) if blocks % n == 0]


def search(config: Config, where: Topology, compiles: int) -> Planned:
    """The fastest step that fits, of those that were compiled.

    Raises:
      UserError: nothing fits.
    """
    found = judge([estimate(c, where) for c in candidates(adapt(config, where), where)], where, compiles)
    if found is None:
        raise UserError(
            f"search: nothing of {config.model.layers} layers fits {where} in {compiles} compiled steps; take more chips"
        )
    return found


def first_that_fits(config: Config, where: Topology, compiles: int) -> Planned | None:
    """The config's own mesh and rematerialisation in the fewest microbatches that fit."""
    config = adapt(config, where)
    options = [
        estimate(with_sections(config, train={"accumulate": microbatches}), where)
        for microbatches in divisions(config, config.mesh)
    ]
    return judge(options, where, compiles)


def judge(
    options: list[Estimate],
    where: Topology,
    compiles: int,
    plan: Callable[[Config, Topology, float], Planned] = plan_step,
) -> Planned | None:
    """Compile options, the most promising first, until none is left that could be faster than the best that fits."""
    memory, time = dict.fromkeys(("none", "dots", "full"), 1.0), 1.0
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
            planned = plan(option.config, where, -1.0)
            growing = planned.memory.total - option.state
            memory[option.config.model.remat] = max(growing / option.growing, 0.05)
            mesh, train = option.config.mesh, option.config.train
            shown = f"data {mesh.data} fsdp {mesh.fsdp} tensor {mesh.tensor}, {train.accumulate} microbatches, remat {option.config.model.remat}"
            if planned.predicted is None:
                advance(1, f"{shown}: {(planned.memory.total - where.chip.memory) / GIB:.2f} GiB too much")
                continue
            time = planned.predicted.step / option.seconds
            if planned.predicted.step < least:
                best, least = planned, planned.predicted.step
            advance(1, f"{shown}: {planned.predicted.step:.3f} s, MFU {planned.mfu:.1%}")
    return best
