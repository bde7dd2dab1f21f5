# SPDX-License-Identifier: Apache-2.0
"""What a study will take, before it is run: FLOPs of each run, and its time, by a few updates here or by `plan` elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from mlm_jax import config as cfg
from mlm_jax import console, objectives
from mlm_jax.console import duration, format_table
from mlm_jax.errors import UserError
from mlm_jax.input.arrays import to_global
from mlm_jax.input.mixture import batch_shapes
from mlm_jax.mesh import batch_sharding, make_mesh, mesh_context
from mlm_jax.model.encoder import padded_rows
from mlm_jax.model.flops import step_flops
from mlm_jax.phases import Part, in_steps, parts_of
from mlm_jax.plan import topology
from mlm_jax.plan.compile import build_training
from mlm_jax.plan.planned import adapt, plan_step
from mlm_jax.plan.run import refuse_unplanned
from mlm_jax.plan.search import LEAST_EFFORT
from mlm_jax.start import with_positions
from mlm_jax.study.config import Study, chosen, runs_of
from mlm_jax.study.run import bind
from mlm_jax.study.table import Progress, progress_of
from mlm_jax.train.pretraining import pretraining_step

TIMED = 5  # updates, after the first
STARTING = 25.0  # seconds per run, of importing, restoring, validating and saving, on two cores
# Options of the optimizer that change an update's numbers, and not what it computes.
OF_SCHEDULE = ("learning_rate", "schedule", "warmup_steps", "warmup_share", "decay_steps", "final_share")


@dataclass(frozen=True)
class Cost:
    """What is left of a run: FLOPs and seconds."""

    progress: Progress
    flops: float
    seconds: float


def flops_of(part: Part) -> float:
    """Floating-point operations of an update's matrix products."""
    c = part.config
    scored = objectives.max_predictions(c.data.sequence_length, c.objective, c.model.causal)
    return step_flops(c.model, padded_rows(c.vocabulary.size), c.train.batch_size, c.data.sequence_length, scored)


def seconds_per_update(config: cfg.Config) -> float:
    """The time of an update of this config on random tokens, on all devices here, compilation left out."""
    rows = config.train.batch_size // config.train.accumulate
    mesh = make_mesh(config.mesh, rows)
    training = build_training(config, mesh)
    draw = np.random.default_rng(0)
    shapes = batch_shapes(config.train.batch_size, config.data.sequence_length)
    arrays: dict[str, np.ndarray] = {name: np.zeros(shape, kind) for name, (shape, kind) in shapes.items()}
    arrays["tokens"] = draw.integers(5, config.vocabulary.size, arrays["tokens"].shape, np.int32)
    arrays["segment_ids"] = np.ones_like(arrays["tokens"])
    arrays["positions"] = np.broadcast_to(np.arange(arrays["tokens"].shape[1], dtype=np.int32), arrays["tokens"].shape)
    with mesh_context(mesh):
        batch = to_global(arrays, config.train.batch_size, batch_sharding(mesh))
        step, state = pretraining_step(config, training, mesh), training.initialize()
        state, window = step(state, training.learning.frozen, batch)
        jax.block_until_ready(window)
        began = time.perf_counter()
        for _ in range(TIMED):
            state, window = step(state, training.learning.frozen, batch)
        jax.block_until_ready(window)
    return (time.perf_counter() - began) / TIMED


def seconds_there(config: cfg.Config, name: str) -> float:
    """The time of an update on a topology that is not here, as `plan` predicts it, with a mesh and a batch that divide over its chips.

    Raises:
      UserError: the step does not fit, or is none that is planned.
    """
    refuse_unplanned(config)
    where = topology.parse(name, config.mesh.slices)
    planned = plan_step(adapt(config, where), where, LEAST_EFFORT)
    if planned.predicted is None:
        over = (planned.memory.total - where.chip.memory) / topology.GIB
        raise UserError(f"takes {over:.2f} GiB more than a {where.noun} of {where} has; name another --topology")
    return planned.predicted.step


def program_of(config: cfg.Config) -> str:
    """A key of what an update's time depends on: configs with the same differ in numbers of their programs at most."""
    stored = json.loads(cfg.config_to_json(config))
    parts = {name: stored[name] for name in ("model", "objective", "mesh", "vocabulary")}
    parts |= {"train": [stored["train"][x] for x in ("batch_size", "accumulate", "gradient_sum")]}
    parts |= {"data": [stored["data"][x] for x in ("sequence_length", "packing")]}
    parts |= {"optimizer": {name: x for name, x in stored["optimizer"].items() if name not in OF_SCHEDULE}}
    return json.dumps(parts)


def cost_of(study: Study) -> list[Cost]:
    """What is left of each run; of like programs one is timed, or compiled for `study.topology`.

    Raises:
      UserError: there is no such topology or no compiler for it here, or a run's updates cannot be planned on it (`seconds_there`).
    """
    if study.topology:
        topology.require_compiler(topology.parse(study.topology))
    elif study.jobs > 1:
        bind(0, study.jobs, 0)  # before JAX makes its threads: updates are timed on a run's share of the cores
    left = []  # (progress, [(updates, part)]) of each run
    programs: dict[str, tuple[str, cfg.Config]] = {}  # → the first run that has it, and its config
    for run in chosen(study, runs_of(study)):
        progress = progress_of(run)
        parts = [
            (part.end - max(part.start, progress.step), part)
            for part in parts_of(with_positions(in_steps(run.config)))
            if part.end > progress.step
        ]
        for _, part in parts:
            programs.setdefault(program_of(part.config), (run.name, part.config))
        left.append((progress, parts))
    seconds = {}
    with console.progress("compiling" if study.topology else "timing", len(programs), unit="programs") as advance:
        for program, (name, config) in programs.items():
            try:
                there = seconds_there(config, study.topology) if study.topology else seconds_per_update(config)
            except UserError as e:
                raise UserError(f"{name}: {e}") from e
            seconds[program] = there
            advance()
    found = []
    for progress, parts in left:
        flops = sum(updates * flops_of(part) for updates, part in parts)
        time_left = sum(updates * seconds[program_of(part.config)] for updates, part in parts)
        found.append(Cost(progress, flops, time_left + (STARTING if parts and not study.topology else 0.0)))
    return found


def described(study: Study, costs: Sequence[Cost]) -> str:
    """A table of the runs, and their sums."""
    rows = [
        [
            str(number),
            cost.progress.run.name,
            f"{cost.progress.step:,} of {cost.progress.steps:,}",
            f"{cost.flops:.2e}",
            duration(cost.seconds),
        ]
        for number, cost in enumerate(costs)
    ]
    flops, seconds = (sum(getattr(cost, name) for cost in costs) for name in ("flops", "seconds"))
    if not study.topology:
        seconds /= study.jobs
    rows.append(["", f"{len(costs):,} runs", "", f"{flops:.2e}", duration(seconds)])
    table = format_table(["number", "run", "updates", "FLOPs left", "time left"], rows)
    if study.topology:
        how = (
            f"on {study.topology}, one run after the other, by the roofline that plan predicts, which no real run reaches, with batches rounded up to "
            "what its chips divide"
        )
    else:
        how = f"by {TIMED} updates of each model here and {STARTING:.0f} s per run"
        if study.jobs > 1:
            how += f", on its share of the cores; in all {study.jobs} at a time"
    return f"{table}\ntime: {how}; corpora and what is measured of runs come on top"
