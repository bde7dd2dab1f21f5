# SPDX-License-Identifier: Apache-2.0
"""The training program, from top to bottom in the order things happen."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from etils import epath

from mlm_jax import console, hosts, manifest, objectives, sampling, vocabulary
from mlm_jax import mesh as meshes
from mlm_jax.config import Config
from mlm_jax.errors import UserError
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.input.mixture import Mixture, batch_shapes, training_batches, training_mixture
from mlm_jax.manifest import Stream
from mlm_jax.model.encoder import make_encoder, padded_rows
from mlm_jax.model.flops import peak_flops, step_flops
from mlm_jax.train import initial
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.clock import Clock, catch_stop
from mlm_jax.train.metrics import MetricsWriter
from mlm_jax.train.optimizer import make_optimizer
from mlm_jax.train.state import State, make_initializer
from mlm_jax.train.step import make_train_step, make_validation_step
from mlm_jax.train.trained import run_checkpoints
from mlm_jax.train.validate import validate

AHEAD = 2  # steps handed to the devices before the oldest has to be done


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: the step reached, and the signal that stopped it, if one did."""

    step: int
    stopped_by: signal.Signals | None


def train(config: Config, devices: Sequence[jax.Device] | None = None) -> Outcome:
    """Train from where the workdir stands to `train.steps`, or until a signal.

    Everything logged but the times is a function of the config and the corpus: a run that was killed
    and continued writes what an unbroken one writes.

    Args:
      config: validated; its workdir holds `corpus/` and `vocabulary/`.
      devices: to train on; all there are unless given.

    Raises:
      UserError: bad input, a checkpoint that cannot be written, or a loss that is not finite.
    """
    workdir = epath.Path(config.workdir)

    # 1. What there is to learn from.
    corpus = workdir / "corpus"
    prepared = manifest.read(corpus)
    words = vocabulary.read(workdir / "vocabulary")
    if words.sha256 != prepared.vocabulary_sha256:
        raise UserError(
            f"{workdir}: corpus/ was prepared with another vocabulary than vocabulary/ holds; prepare again"
        )
    streams = sampling.trained_streams(config, prepared.streams)

    # 2. Devices, and this process's part of each batch.
    mesh = meshes.make_mesh(config.mesh, config.train.batch_size // config.train.accumulate, devices)
    sharding = meshes.batch_sharding(mesh)
    batch_size = config.train.batch_size
    rows = local_rows(sharding, batch_size).tolist()
    mixture = training_mixture(config, streams, rows)

    # 3. Model, optimizer and the jitted functions.
    model = make_encoder(config.model, words.size, len(prepared.languages), config.model.dtype)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    initialize, plan = make_initializer(config, model, optimizer, mesh)
    starts_word = vocabulary.word_starts(workdir / "vocabulary", words) if config.objective.whole_words else None
    counts = manifest.read_token_counts(corpus) if config.objective.frequency_exponent else None
    tables = objectives.make_tables(words, config.objective, starts_word, counts)
    train_step = make_train_step(config, model, optimizer, words, tables, mesh, plan)
    validation_step = make_validation_step(config, model, words, mesh, plan)

    # 4. Resume where the workdir stands, or start from an encoder that is there, or from seed.
    checkpoints = run_checkpoints(config, prepared)
    state = checkpoints.restore(plan)
    start = 0 if state is None else int(jax.device_get(state.step))
    console.say(describe(config, plan, words.size, mesh, streams, start))
    if start >= config.train.steps:
        console.say(f"all {config.train.steps:,} steps are done; a larger --train.steps goes on")
        checkpoints.close()
        return Outcome(start, None)
    if state is None:
        state = initialize()
        if initial.exists(workdir):
            state, fresh = initial.load_into(state, workdir, prepared.languages)
            new = f"; new: {', '.join(fresh)}" if fresh else ""
            console.say(f"starting from {initial.read(workdir).source}{new}")

    # 5. Train.
    writer = MetricsWriter(workdir, start)
    batches = training_batches(mixture, corpus, prepared, streams, words.pad, config.seed, start, config.train.readers)
    clock = Clock(writer.seconds)
    flops = step_flops(
        config.model,
        padded_rows(words.size),
        batch_size,
        config.data.sequence_length,
        objectives.scored_bound(config.data.sequence_length, config.objective, config.model.causal),
    )
    peak = peak_flops(mesh.devices.flat[0])

    def log(step: int, window: dict[str, Any]) -> str:
        """Write the line of metrics of `step` and return it in short; raises where a step went bad."""
        window = jax.device_get(window)
        stop_if_bad(int(window["first_bad"]), mixture, streams, checkpoints)
        seconds, waited = clock.lap()
        scored, steps = max(float(window["targets"]), 1.0), int(window["steps"])
        rate = flops * steps / seconds
        loss = float(window["loss"]) / scored
        drawn = mixture.drawn(step)
        record: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "seconds": clock.total,
            "loss": loss,
            "accuracy": float(window["correct"]) / scored,
            "perplexity": float(np.exp(min(loss, 700.0))),
            **next_sentence(window),
            "gradient_norm": float(window["gradient_norm"]) / steps,
            "learning_rate": float(window["learning_rate"]),
            "tokens_per_second": int(window["tokens"]) / seconds,
            "model_flops_per_second": rate,
            "mfu": rate / (peak * mesh.size) if peak else None,
            "input_wait": waited / seconds,
            "blocks": {s.name: int(n) for s, n in zip(streams, drawn, strict=True)},
        }
        writer.write(record)
        return f"loss {loss:.3f}  {record['tokens_per_second']:,.0f} tokens/s"

    def check(step: int, state: State) -> float | None:
        """Validate, write the line, and return the macro average of the loss."""
        result = validate(
            validation_step,
            state.params,
            corpus,
            prepared,
            streams,
            words.pad,
            config.train.validation_blocks,
            batch_size // config.train.accumulate,
            sharding,
            local_rows(sharding, batch_size // config.train.accumulate).tolist(),
        )
        writer.write({"kind": "validation", "step": step, "seconds": clock.total, **result})
        return result["macro_loss"]

    in_flight: deque[jax.Array] = deque()
    step, stop = start, None
    try:
        with (
            meshes.mesh_context(mesh),
            # What moves between host and devices says so: a slip here would wait on every step.
            jax.transfer_guard("disallow"),
            catch_stop(config.train.max_seconds, start) as stop_reason,
            console.progress("training", config.train.steps, start, "steps") as advance,
        ):
            compiled_step = train_step.lower(plan, abstract_batch(config, sharding)).compile()
            hosts.meet("compiled")
            clock.start()
            while step < config.train.steps and stop is None:
                with clock.waiting():
                    batch = next(batches)
                state, window = compiled_step(state, to_global(batch, batch_size, sharding))
                step += 1
                in_flight.append(window["steps"])
                if len(in_flight) > AHEAD:
                    in_flight.popleft().block_until_ready()

                stop = stop_reason(step)
                last = step == config.train.steps
                note, macro = "", None
                if step % config.train.log_every == 0 or last:
                    note = log(step, window)
                if step % config.train.validate_every == 0 or last:
                    with clock.paused():
                        macro = check(step, state)
                    if macro is not None:
                        console.say(f"step {step:,}: validation loss {macro:.3f}, mean over languages")
                if step % config.train.save_every == 0 or last or stop is not None:
                    with clock.paused():
                        bad = int(jax.device_get(window["first_bad"]))
                        stop_if_bad(bad, mixture, streams, checkpoints)
                        writer.flush()
                        checkpoints.save(step, state, None if macro is None else {"macro_loss": macro})
                advance(1, note)
            checkpoints.wait()
    finally:
        batches.close()
        writer.close()
        checkpoints.close()
    return Outcome(step, stop)


def abstract_batch(config: Config, sharding: jax.sharding.NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, types and sharding of a training batch."""
    shapes = batch_shapes(config.train.batch_size, config.data.sequence_length)
    return {name: jax.ShapeDtypeStruct(shape, kind, sharding=sharding) for name, (shape, kind) in shapes.items()}


def next_sentence(window: dict[str, Any]) -> dict[str, float]:
    """What a line of metrics says of next-sentence prediction, where there is some."""
    pairs = float(window["pairs"])
    if not pairs:
        return {}
    return {"pair_loss": float(window["pair_loss"]) / pairs, "pair_accuracy": float(window["pair_correct"]) / pairs}


def describe(
    config: Config, plan: State, vocabulary_size: int, mesh: jax.sharding.Mesh, streams: Sequence[Stream], start: int
) -> str:
    """The line that says what is about to be trained, and from where."""
    count = sum(leaf.size for leaf in jax.tree.leaves(plan.params))
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    where = f"continuing at step {start:,}" if start else "from step 0"
    pairs = sum(len(s.languages) == 2 for s in streams)
    shown = f"{len(streams) - pairs} languages" + (f" and {pairs} pairs" if pairs else "")
    return (
        f"{count:,} parameters, {vocabulary_size:,} pieces, {shown}, "
        f"{mesh.devices.flat[0].device_kind} ({axes}), {where} of {config.train.steps:,} in {config.workdir}"
    )


def stop_if_bad(first_bad: int, mixture: Mixture, streams: Sequence[Stream], checkpoints: Checkpoints) -> None:
    """Stop the run if the loss or the gradient of a step was not finite.

    Raises:
      UserError: naming the step, the languages of its batch and the last good checkpoint.
    """
    if first_bad < 0:
        return
    names = sorted({streams[i].name for i in mixture.streams_of(first_bad)})
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    checkpoints.wait()  # so that the one that is named is on disk
    good = checkpoints.latest()
    raise UserError(
        f"step {first_bad}: the loss or its gradient is not finite (languages in the batch: {shown}); "
        f"{'no checkpoint was saved' if good is None else f'the last good checkpoint is of step {good}'}; "
        "lower optimizer.learning_rate or set optimizer.clip_norm, and run again"
    )
