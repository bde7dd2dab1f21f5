# SPDX-License-Identifier: Apache-2.0
"""The loop of every training: step, log, evaluate, save, stop."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlm_jax import console, hosts
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.input.arrays import to_global
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.clock import Clock, catch_stop
from mlm_jax.train.metrics import MetricsWriter, Record
from mlm_jax.train.state import Params, State, Window
from mlm_jax.train.step import FLOAT32, Objective, make_train_step

AHEAD = 2  # steps handed to the devices before the oldest has to be done, so that a signal is heard soon

HostBatch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      record: its line of metrics, `kind` among them; None where there is none.
      metrics: by which the best checkpoint is chosen; None where there was nothing to evaluate on.
    """

    record: Record | None
    metrics: dict[str, float] | None


@dataclass(frozen=True)
class Learner:
    """What one kind of training hands to the loop; pretraining and fine-tuning differ in nothing else.

    Attributes:
      name: of what is trained, for messages; empty where there is but one.
      unit: what an update is called: step (pretraining) or update (fine-tuning).
      objective: what is minimised.
      optimizer, schedule: the update rule, and its learning rate at an update.
      abstract_state: shapes, dtypes and shardings of the train state.
      initialize: () → the first state, on the mesh.
      frozen: parameters that are read and not trained, on the mesh.
      batches: first step → this process's rows of the batch of that step and of every later one.
      batch_shapes: feature → (shape over all processes, dtype) of a batch.
      describe: first step → the line that says what is about to be trained.
      log: (step, sums on the host, steps per second) → fields of the line of metrics, besides those every training has.
      evaluate: (step, state) → what the validation or dev sets say.
      save_evaluated: whether an evaluation's state is saved whenever it was measured.
      blame: step → what was in its batch, for the message of a loss that is not finite.
      sum_dtype: of the gradients while they are summed over the data axis.
    """

    name: str
    unit: str
    objective: Objective
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    abstract_state: State
    initialize: Callable[[], State]
    frozen: Params
    batches: Callable[[int], Iterator[HostBatch]]
    batch_shapes: dict[str, tuple[tuple[int, ...], type]]
    describe: Callable[[int], str]
    log: Callable[[int, dict[str, np.ndarray], float], Record]
    evaluate: Callable[[int, State], Evaluation]
    save_evaluated: bool
    blame: Callable[[int], str]
    sum_dtype: jnp.dtype = FLOAT32


@dataclass(frozen=True)
class Pace:
    """Steps of a run, steps between what it does besides (each is done once more at the end), and its time limit.

    Attributes:
      steps: of the whole run.
      log_every, evaluate_every, save_every: steps between lines of metrics, evaluations and checkpoints.
      max_seconds: after which the run saves and stops; 0: no limit.
      accumulate: microbatches per step.
    """

    steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    max_seconds: float = 0.0
    accumulate: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a call of `fit` ended: the step reached, the signal that stopped it, if one did, and the state, if any step was done."""

    step: int
    stopped_by: signal.Signals | None
    state: State | None = None


def fit(
    learner: Learner,
    pace: Pace,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    workdir: str,
    state: State | None = None,
) -> Outcome:
    """Train from the newest checkpoint to the last step, or until a signal.

    Everything logged but the times is a function of the learner: a run that was killed and continued writes what an
    unbroken one writes.

    Args:
      checkpoints: of the run.
      workdir: where metrics.jsonl and tensorboard/ are.
      state: to go on with, in place of the newest checkpoint's; it is donated.

    Raises:
      UserError: a checkpoint cannot be written, or a loss is not finite; such a state is never saved.
    """
    # 1. Resume from the newest checkpoint, or begin.
    # The checkpoint is read straight onto this run's mesh, which may be another than the one that wrote it.
    state = checkpoints.restore(learner.abstract_state) if state is None else state
    step = 0 if state is None else int(jax.device_get(state.step))
    console.say(learner.describe(step))
    if step >= pace.steps:
        return Outcome(step, None)
    # Only where it is needed: an encoder to start from may take minutes to read.
    state = learner.initialize() if state is None else state

    # 2. The step, and this process's part of each batch.
    sharding = meshes.batch_sharding(mesh)
    # Shapes over all processes, [rows, ...]; a process holds the rows of its own devices.
    abstract_batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in learner.batch_shapes.items()
    }
    rows = next(iter(abstract_batch.values())).shape[0]
    abstract_frozen = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), learner.frozen
    )
    train_step = make_train_step(
        learner.objective,
        learner.optimizer,
        learner.schedule,
        learner.abstract_state,
        abstract_frozen,
        mesh,
        pace.log_every,
        pace.accumulate,
        learner.sum_dtype,
    )
    # A batch is a function of its step, so that there is no state of the input to restore.
    batches = learner.batches(step)
    # Drops what the run had logged past the checkpoint it continues from: those steps come again.
    writer = MetricsWriter(workdir, step)
    # What earlier processes did of the current line of metrics, which the rates of its line leave out.
    earlier = {name: int(jax.device_get(state.window[name])) for name in ("tokens", "steps")}
    earlier = earlier if step % pace.log_every else dict.fromkeys(earlier, 0)
    before = checkpoints.progress(step) if step else {"seconds": 0.0, "lines": 0}
    clock = Clock(max(writer.seconds, before["seconds"]))
    # Of an earlier version's checkpoint it is known only where nothing is left.
    wanted = int(before["lines"]) or int(step >= pace.log_every)
    if len(writer.kept) < wanted and jax.process_index() == 0:
        console.warn(
            f"{workdir}/metrics.jsonl: {wanted - len(writer.kept):,} lines or more of the {wanted:,} up to {learner.unit} {step:,} are gone; "
            "the run goes on, and its report lacks them: put the file back from a copy if there is one"
        )
    try:
        with (
            meshes.mesh_context(mesh),
            # What moves between host and devices says so: a slip here would wait on every step.
            jax.transfer_guard("disallow"),
            catch_stop(pace.max_seconds, step) as stop_reason,
            console.progress(learner.name or "training", pace.steps, step, f"{learner.unit}s") as advance,
        ):
            # Ahead of the loop, from shapes alone, so that no step's time holds the compilation.
            compiled = train_step.lower(learner.abstract_state, abstract_frozen, abstract_batch).compile()
            # Collectives wait for 30 s only, and the processes do not compile equally fast.
            hosts.barrier(f"compiled {learner.name}")
            clock.start()

            # 3. The loop.
            in_flight: deque[jax.Array] = deque()
            stop = None
            while step < pace.steps and stop is None:
                with clock.waiting():
                    batch = next(batches)
                # Returns as soon as the step is handed over; `state` is donated, the old one is gone.
                state, window = compiled(state, learner.frozen, to_global(batch, rows, sharding))
                step += 1
                in_flight.append(window["steps"])
                # Not further ahead than that: the loop hears a signal, and the host keeps few batches.
                if len(in_flight) > AHEAD:
                    in_flight.popleft().block_until_ready()

                # The same answer in every process, or some would wait for the others in the next step.
                stop = stop_reason(step)
                last = step == pace.steps
                logs, evaluates, saves = (
                    last or step % every == 0 for every in (pace.log_every, pace.evaluate_every, pace.save_every)
                )
                saves |= stop is not None
                note, metrics = "", None
                if logs or evaluates or saves:
                    # Before anything is made of the state: what is not finite is neither scored nor saved.
                    refuse_bad(learner, int(jax.device_get(window["first_bad"])), checkpoints)
                if logs:
                    record = line_of(learner, step, window, clock, earlier)
                    earlier = dict.fromkeys(earlier, 0)
                    writer.write(record)
                    note = f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tokens/s"
                if evaluates:
                    # Also where the run is stopping: continued, it would begin behind this step.
                    with clock.paused():
                        evaluation = learner.evaluate(step, state)
                    metrics = evaluation.metrics
                    if evaluation.record is not None:
                        writer.write({"step": step, "seconds": clock.total, **evaluation.record})
                # The metrics must be of this very step, because Orbax keeps the best checkpoint by them.
                if saves or (metrics is not None and learner.save_evaluated):
                    progress = {"seconds": clock.now(), "lines": writer.lines}
                    with clock.paused():
                        writer.flush()  # who continues from a checkpoint reads the lines up to it
                        checkpoints.save(step, state, metrics, progress)
                advance(1, note)
            # Saves run beside the training: the last one may still be under way.
            checkpoints.wait()
    finally:
        writer.close()
        if hasattr(batches, "close"):
            batches.close()
    return Outcome(step, stop, state)


def line_of(learner: Learner, step: int, window: Window, clock: Clock, earlier: dict[str, int]) -> Record:
    """A line of metrics: every (sum, weight) pair as its mean, rates, and what the learner adds.

    Args:
      earlier: `tokens` and `steps` of the window that other processes did before: no part of the rates.
    """
    # The one transfer of a line of metrics; it waits for the step.
    sums: dict[str, np.ndarray] = jax.device_get(window)
    seconds, waited = clock.lap()
    # Each pair is float32 [2]: a sum and its weight. One without weight (no sentence pairs, say) is left out, but for the loss.
    pairs = {name: pair.tolist() for name, pair in sums.items() if pair.ndim}
    means = {name: total / max(weight, 1.0) for name, (total, weight) in pairs.items() if weight or name == "loss"}
    return {
        "kind": "train",
        "step": step,
        "seconds": clock.total,
        **means,
        "gradient_norm": float(sums["gradient_norm"]) / int(sums["steps"]),
        "learning_rate": float(sums["learning_rate"]),
        "tokens_per_second": (int(sums["tokens"]) - earlier["tokens"]) / seconds,
        "input_wait": waited / seconds,
        **learner.log(step, sums, (int(sums["steps"]) - earlier["steps"]) / seconds),
    }


def refuse_bad(learner: Learner, first_bad: int, checkpoints: Checkpoints) -> None:
    """Stop the run if the loss or the gradient of a step was not finite.

    Raises:
      UserError: naming the step, what was in its batch, and the last good checkpoint.
    """
    if first_bad < 0:
        return
    # So that the checkpoint that is named is on disk.
    checkpoints.wait()
    good = checkpoints.latest()
    found = "no checkpoint was saved" if good is None else f"the last good checkpoint is of {learner.unit} {good}"
    raise UserError(
        f"{learner.name + ', ' if learner.name else ''}{learner.unit} {first_bad}: the loss or its gradient is not finite"
        f"{learner.blame(first_bad)}; {found}; lower optimizer.learning_rate or set optimizer.clip_norm, and run again"
    )
