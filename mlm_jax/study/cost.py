# SPDX-License-Identifier: Apache-2.0
"""What a study will take, before it is run: FLOPs of each run, and its time by the speed of a few updates here."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from mlm_jax import config as cfg
from mlm_jax import objectives
from mlm_jax.console import duration, format_table
from mlm_jax.input.arrays import to_global
from mlm_jax.input.mixture import batch_shapes
from mlm_jax.mesh import batch_sharding, make_mesh, mesh_context
from mlm_jax.model.encoder import padded_rows
from mlm_jax.model.flops import step_flops
from mlm_jax.phases import Part, in_steps, parts_of
from mlm_jax.plan.compile import build_training
from mlm_jax.start import with_positions
from mlm_jax.study.config import Study, chosen, runs_of
from mlm_jax.study.table import Progress, progress_of
from mlm_jax.train.pretraining import pretraining_step

TIMED = 5  # updates, after the first
STARTING = 25.0  # seconds per run, of importing, restoring, validating and saving, on two cores


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


def cost_of(study: Study) -> list[Cost]:
    """What is left of each run; updates of like programs are timed once."""
    known: dict[str, float] = {}

    def measured(part: Part) -> float:
        config = part.config
        program = dataclasses.replace(config, seed=0, workdir="", train=dataclasses.replace(config.train, steps=1_000))
        stored = json.loads(cfg.config_to_json(program))
        key = json.dumps(
            [stored[x] for x in ("model", "objective", "optimizer", "train", "vocabulary")]
            + [stored["data"]["sequence_length"]]
        )
        if key not in known:
            known[key] = seconds_per_update(config)
        return known[key]

    found = []
    for run in chosen(study, runs_of(study)):
        progress = progress_of(run)
        flops = seconds = 0.0
        for part in parts_of(with_positions(in_steps(run.config))):
            left = max(part.end - max(part.start, progress.step), 0)
            flops += left * flops_of(part)
            seconds += left * measured(part) if left else 0.0
        found.append(Cost(progress, flops, seconds + (STARTING if seconds else 0.0)))
    return found


def described(costs: Sequence[Cost]) -> str:
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
    rows.append(["", f"{len(costs):,} runs", "", f"{flops:.2e}", duration(seconds)])
    table = format_table(["number", "run", "updates", "FLOPs left", "time left"], rows)
    return f"{table}\ntime: by {TIMED} updates of each model here and {STARTING:.0f} s per run; corpora and what is measured of runs come on top"
