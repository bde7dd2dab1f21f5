# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning one model, from top to bottom in the order things happen: what it hands to the loop of every training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from mlm_jax import console
from mlm_jax import mesh as meshes
from mlm_jax.encode.rows import to_arrays
from mlm_jax.errors import UserError
from mlm_jax.finetune import packing, parameters
from mlm_jax.finetune.arrays import Items
from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.forward import hidden_states, make_head, params_of_head
from mlm_jax.finetune.forward import scores as head_scores
from mlm_jax.finetune.tasks import task_kind
from mlm_jax.input.arrays import local_rows
from mlm_jax.model.axes import parameter_axes
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.dropout import row_keys, site_keys
from mlm_jax.model.encoder import compute_dtype, parameter_shapes
from mlm_jax.model.task_head import TaskHead
from mlm_jax.pretrained import Params, Pretrained
from mlm_jax.starts import last_saved
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.fit import Evaluation, HostBatch, Learner, Pace, fit
from mlm_jax.train.metrics import Record, read_metrics
from mlm_jax.train.optimizer import endless_warmup, make_optimizer, make_schedule
from mlm_jax.train.state import State, empty_window
from mlm_jax.train.step import Measured, Objective

HEAD_SITE = 10_000  # of dropout; encoders' layers have the numbers below

Scores = dict[str, dict[str, float]]  # language → metric → value


@dataclass(frozen=True)
class Experiment:
    """One model of a transfer regime: what it learns from, and what chooses among its checkpoints.

    Attributes:
      name: for messages and folders.
      seed: of head, order and dropout.
      items: training items of all its languages.
      labels: in the order of their ids.
      metric: its mean over dev languages and its value of each choose what is kept.
      selected: dev languages whose best checkpoints are kept, besides the best by the mean (`mean`).
      evaluate: scores whole parameters, encoder and head on the mesh, on the dev sets; {} where there are none.
    """

    name: str
    seed: int
    items: Items
    labels: Sequence[str]
    metric: str
    selected: Sequence[str]
    evaluate: Callable[[Params], Scores]


@dataclass(frozen=True)
class Finetuned:
    """How a call of `finetune_model` ended.

    Attributes:
      params: update → whole parameters of that checkpoint (`encoder` and `head`), read onto the mesh when called.
      dev: update → language → metrics, of every evaluation.
      last: update that was reached.
      stopped_by: the signal that stopped it, if one did.
    """

    params: Callable[[int], Params]
    dev: dict[int, Scores]
    last: int
    stopped_by: signal.Signals | None


def finetune_model(
    config: Finetune, folder: epath.PathLike, start: Pretrained, experiment: Experiment, mesh: jax.sharding.Mesh
) -> Finetuned:
    """Fine-tune a model from where its folder stands to its last epoch, or until a signal.

    Args:
      folder: of this model: checkpoints/, metrics.jsonl, tensorboard/.
      start: the encoder, on the mesh or on the host.

    Raises:
      UserError: a loss that is not finite, a checkpoint that cannot be written or is another's.
    """
    folder, name, items = epath.Path(folder), experiment.name, experiment.items
    kind = task_kind(config.task)

    # 1. Blocks: their shape, and all epochs' batches, as rows of items.
    shape, padding = packing.choose_shape(items.lengths, config.train.batch_size, config.data.padding)
    if padding > config.data.padding:
        console.warn(
            f"{name}: {padding:.0%} of the positions are padding, above data.padding {config.data.padding:g}; "
            "too few examples to fill the blocks"
        )
    batches, per_epoch = plan_batches(config, items, shape, experiment.seed)
    refuse_passed(folder, name, len(batches))
    # Empty rows fill up what devices and microbatches divide: any number of them sees the same items in a batch.
    divisor = mesh.shape["data"] * mesh.shape["fsdp"] * config.train.accumulate
    if shape.rows < divisor:
        console.warn(
            f"{name}: batches of {shape.rows} rows keep {divisor} devices or microbatches busy in part; "
            "raise train.batch_size"
        )
    shape = dataclasses.replace(shape, rows=-(-shape.rows // divisor) * divisor)

    # 2. What is trained, and what is not.
    freeze = min(config.optimizer.freeze, start.model.layers)
    used = np.unique(np.concatenate(items.ids)) if freeze < 0 else np.zeros(0, np.int32)
    refuse_endless_warmup(config, len(batches))
    training = build_training(config, start, experiment.labels, used, len(batches), experiment.seed, mesh)
    partition = training.partition

    def batches_from(update: int) -> Iterator[HostBatch]:
        rows = local_rows(meshes.batch_sharding(mesh), shape.rows)
        for batch in batches[update:]:
            arrays = batch_arrays(batch)
            yield {key: value[rows] for key, value in arrays.items()}

    def batch_arrays(batch: packing.Batch) -> HostBatch:
        arrays = to_arrays(items, batch, shape, start.vocabulary.pad, start.model.token_types)
        arrays |= kind.targets(items, batch, shape)
        if freeze < 0:
            # Ids count the rows in use. Padding points anywhere: nothing reads it.
            arrays["tokens"] = np.searchsorted(used, arrays["tokens"]).clip(0, len(used) - 1).astype(np.int32)
        return arrays

    # 3. The loop.
    dev: dict[int, Scores] = {}

    def whole(params: Params) -> Params:
        return {"encoder": partition.merge(params), "head": params["head"]}

    def describe(update: int) -> str:
        dev.update({r["step"]: r["languages"] for r in read_metrics(folder) if is_dev(r, update)})
        count = sum(leaf.size for leaf in jax.tree.leaves(training.abstract_state.params))
        where = f"continuing at update {update:,}" if update else f"from {start.source}"
        return (
            f"{name}: {count:,} trained parameters, {len(items.lengths):,} examples in {per_epoch:,} updates per epoch "
            f"({shape.rows} rows of {shape.length}, {padding:.1%} padding), {where}"
        )

    def evaluate(update: int, state: State) -> Evaluation:
        with jax.transfer_guard("allow"):
            scores = experiment.evaluate(whole(state.params))
        if not scores:
            return Evaluation(None, None)
        dev[update] = scores
        values = {language: metrics[experiment.metric] for language, metrics in scores.items()}
        shown = ", ".join(f"{language} {100 * value:.1f}" for language, value in values.items())
        console.say(f"{name}, update {update:,}: {experiment.metric} on dev {shown}")
        record: Record = {"kind": "dev", "metric": experiment.metric, "languages": scores}
        return Evaluation(record, {"mean": float(np.mean(list(values.values()))), **values})

    learner = Learner(
        name=name,
        unit="update",
        objective=training.objective,
        optimizer=training.optimizer,
        schedule=training.schedule,
        abstract_state=training.abstract_state,
        initialize=training.initialize,
        frozen=partition.frozen,
        batches=batches_from,
        batch_shapes={key: (value.shape, value.dtype.type) for key, value in batch_arrays(batches[0]).items()},
        describe=describe,
        log=lambda update, sums, updates_per_second: {"examples": float(sums["examples"][0]) / int(sums["steps"])},
        evaluate=evaluate,
        save_evaluated=True,
        blame=lambda update: "",
    )
    train = config.train
    pace = Pace(
        len(batches),
        train.log_every,
        train.evaluate_every or per_epoch,
        train.save_every,
        train.max_seconds,
        train.accumulate,
    )
    must_match = {
        "vocabulary_sha256": start.vocabulary.sha256,
        "examples_sha256": digest_of(items),
        "labels_sha256": hashlib.sha256(json.dumps(list(experiment.labels)).encode()).hexdigest(),
    }
    noted = {"config": json.loads(json.dumps(dataclasses.asdict(config))), "labels": list(experiment.labels)}
    # Of a model that is chosen by nothing only the last is worth its space.
    best = ["mean", *experiment.selected] if experiment.selected else []
    opened = partial(Checkpoints, folder / "checkpoints", must_match, noted, 1, best, highest=True)
    with opened() as checkpoints:
        outcome = fit(learner, pace, mesh, checkpoints, str(folder))

    def params_at(update: int) -> Params:
        with opened() as checkpoints:
            state = checkpoints.restore(training.abstract_state, update)
        assert state is not None
        return whole(state.params)

    return Finetuned(params_at, dev, outcome.step, outcome.stopped_by)


@dataclass(frozen=True)
class Training:
    """A model's objective, optimizer and first state on a mesh.

    Attributes:
      partition: what of the encoder is trained, and what is not.
      initialize: () → the first state, on the mesh.
      abstract_state: its shapes, dtypes and shardings.
    """

    partition: parameters.Partition
    objective: Objective
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    initialize: Callable[[], State]
    abstract_state: State


def build_training(
    config: Finetune,
    start: Pretrained,
    labels: Sequence[str],
    used: np.ndarray,
    updates: int,
    seed: int,
    mesh: jax.sharding.Mesh,
) -> Training:
    """Build what `finetune_model` trains.

    Args:
      labels: in the order of their ids.
      used: ids of the training data, ascending, int32 [ids in use], where the embeddings are trained.
      updates: of the whole run.
      seed: of head and dropout.
    """
    kind = task_kind(config.task)
    head = make_head(config, start.model, kind.outputs(labels), compute_dtype(config.dtype))
    initial_head = params_of_head(config, head, start.params, seed)
    partition = parameters.Partition(start, min(config.optimizer.freeze, start.model.layers), used, mesh)
    boxed_params = {**partition.boxed_trained(), "head": parameters.boxed_head(head, initial_head)}
    optimizer = make_optimizer(config.optimizer, updates, parameter_axes(boxed_params))
    measured = ("loss", "examples", *(["accuracy"] if kind.counts_correct else []))

    def first_state(trained: Params) -> State:
        return State(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), empty_window(measured))

    boxed = jax.eval_shape(first_state, boxed_params)
    shardings = meshes.shardings(mesh, boxed)

    def initialize() -> State:
        return jax.jit(first_state, out_shardings=shardings)({**partition.trained, "head": initial_head})

    return Training(
        partition,
        make_objective(config, start, partition, head, seed),
        optimizer,
        make_schedule(config.optimizer, updates),
        initialize,
        parameters.abstract(boxed, shardings),
    )


def make_objective(
    config: Finetune, start: Pretrained, partition: parameters.Partition, head: TaskHead, seed: int
) -> Objective:
    """The task's loss on the encoder, with dropout; no gradient enters what is frozen."""
    kind, model, sizes = task_kind(config.task), start.model, (partition.size, len(start.languages))

    def prepare(update: jax.Array, batch: PackedBatch) -> PackedBatch:
        rows = jnp.arange(len(batch["tokens"]), dtype=jnp.uint32)
        return {**batch, "dropout_keys": row_keys(seed, update, rows)}

    def loss(trained: Params, frozen: Params, batch: PackedBatch) -> Measured:
        keys = batch["dropout_keys"]
        hidden = hidden_states(model, sizes, partition.freeze, trained, frozen, head.dtype, batch, keys)
        scores = head_scores(config, head, trained["head"], hidden, batch, site_keys(keys, HEAD_SITE))
        examples = jnp.sum(batch["valid"], dtype=jnp.float32)
        return kind.loss(trained["head"], scores, batch) | {"examples": (examples, examples)}

    return Objective(prepare, loss)


def refuse_endless_warmup(config: Finetune, updates: int) -> None:
    """Refuse a learning rate that never comes to its peak.

    Raises:
      UserError: the updates are over before the warm-up.
    """
    if said := endless_warmup(config.optimizer, updates):
        raise UserError(f"{said}, or replace(FINETUNE_OPTIMIZER, ...) in the config file")


def refuse_passed(folder: epath.Path, name: str, updates: int) -> None:
    """Refuse fewer updates than a model has had.

    Raises:
      UserError: naming the options that say so.
    """
    done = last_saved(folder)
    if done > updates:
        raise UserError(
            f"{name}: has had {done:,} updates, train.epochs and train.max_updates allow {updates:,}; raise them, or use another "
            "--workdir"
        )


def plan_batches(config: Finetune, items: Items, shape: packing.Shape, seed: int) -> tuple[list[packing.Batch], int]:
    """The batches of all epochs, `train.max_updates` at most, and how many the first epoch has; the last may be a part of one."""
    epochs, batch_size = config.train.epochs, config.train.batch_size
    every = [packing.epoch(items.lengths, shape, batch_size, seed, number) for number in range(math.ceil(epochs))]
    batches, per_epoch = [batch for epoch in every for batch in epoch], len(every[0])
    updates = max(1, round(epochs * per_epoch)) if epochs % 1 else len(batches)
    return batches[: min(updates, config.train.max_updates or updates)], per_epoch


def is_dev(record: Record, update: int) -> bool:
    """Whether a line of metrics is an evaluation up to an update."""
    return record["kind"] == "dev" and record["step"] <= update


def digest_of(items: Items) -> str:
    """sha256 of everything a model learns from: a run continued on other examples would train other rows."""
    digest = hashlib.sha256()
    for ids, types, target, language in zip(items.ids, items.types, items.targets, items.language_ids, strict=True):
        for part in (ids, types, np.asarray(target), np.int32(language)):
            digest.update(np.ascontiguousarray(part).tobytes() + b"/")
    return digest.hexdigest()


def random_start(start: Pretrained, seed: int) -> Pretrained:
    """Random weights in the same shape."""
    shapes = parameter_shapes(start.model, start.vocabulary.size, len(start.languages))
    generator = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name.endswith(("kernel", "embedding")):
            return generator.normal(0, start.model.initializer_std, leaf.shape).astype(np.float32)
        return (np.ones if name == "scale" else np.zeros)(leaf.shape, np.float32)

    params = jax.tree_util.tree_map_with_path(draw, {name: shapes[name] for name in ("embedding", "layers")})
    return dataclasses.replace(start, params=params, source=f"random weights in the shape of {start.source}")
