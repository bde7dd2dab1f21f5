# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning one model: from top to bottom in the order things happen."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax import mesh as meshes
from mlm_jax.encode.rows import to_arrays
from mlm_jax.errors import UserError
from mlm_jax.finetune import packing, parameters
from mlm_jax.finetune.arrays import Items
from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.step import (
    empty_window,
    make_head,
    make_train_step,
    params_of_head,
)
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.model.encoder import backbone, compute_dtype, parameter_shapes
from mlm_jax.pretrained import Params, Pretrained
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.clock import Clock, catch_signals
from mlm_jax.train.metrics import MetricsWriter
from mlm_jax.train.state import State

AHEAD = 2  # updates handed to the devices before the oldest has to be done, so that a signal is heard soon

# whole parameters (encoder, head) → language → metrics, on the dev sets
Evaluate = Callable[[Params], dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Tuned:
    """How a call of `tune` ended.

    Attributes:
      params: step → whole parameters of the checkpoints asked for, loaded when called.
      dev: step → language → metrics, of every evaluation.
      stopped_by: the signal that stopped it, if one did.
    """

    params: Callable[[int], Params]
    dev: dict[int, dict[str, dict[str, float]]]
    last: int
    stopped_by: signal.Signals | None


def random_start(start: Pretrained, seed: int) -> Pretrained:
    """Random weights in the same shape."""
    shapes = parameter_shapes(backbone(start.model), start.vocabulary.size, len(start.languages) or 1)
    generator = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name.endswith(("kernel", "embedding")):
            return generator.normal(0, start.model.initializer_std, leaf.shape).astype(np.float32)
        return (np.ones if name == "scale" else np.zeros)(leaf.shape, np.float32)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return dataclasses.replace(start, params=params, source=f"random weights in the shape of {start.source}")


def tune(
    config: Finetune,
    folder: epath.PathLike,
    start: Pretrained,
    items: Items,
    labels: Sequence[str],
    metric: str,
    selected: Sequence[str],
    evaluate: Evaluate,
    seed: int,
    name: str,
    devices: Sequence[jax.Device] | None = None,
) -> Tuned:
    """Fine-tune a model from where its folder stands to its last epoch, or until a signal.

    Args:
      folder: of this model: checkpoints/, metrics.jsonl, tensorboard/.
      items: training items of all its languages.
      labels: in the order of their ids.
      metric: its mean over dev languages and its value of each choose what is kept.
      selected: dev languages whose best checkpoints are kept, besides the best by the mean (`mean`).
      evaluate: scores whole parameters on the dev sets; no languages where there are none.
      seed: of head, order and dropout.
      name: of the model, for messages.

    Raises:
      UserError: a loss that is not finite, a checkpoint that cannot be written or is another's.
    """
    folder = epath.Path(folder)
    kind = TASKS[config.task.kind]

    # 1. Blocks: their shape, and all epochs' batches.
    devices = jax.devices()[: config.devices or None] if devices is None else list(devices)
    lengths = items.lengths
    shape, padding = packing.choose_shape(lengths, config.train.batch_size, config.data.padding)
    if padding > config.data.padding:
        console.warn(
            f"{name}: {padding:.0%} of the positions are padding, above data.padding {config.data.padding:g}; "
            "too few examples to fill the blocks"
        )
    batches: list[packing.Batch] = []
    per_epoch = 0
    for number in range(math.ceil(config.train.epochs)):
        batches += packing.epoch(lengths, shape, config.train.batch_size, seed, number)
        per_epoch = per_epoch or len(batches)
    steps = max(1, round(config.train.epochs * per_epoch)) if config.train.epochs % 1 else len(batches)
    batches = batches[:steps]
    every = config.train.evaluate_every or per_epoch

    # 2. What is trained, and the jitted step.
    busy = max(n for n in range(1, len(devices) + 1) if shape.rows % n == 0)
    if busy < len(devices):
        console.warn(
            f"{name}: {shape.rows} rows a batch keep {busy} of {len(devices)} devices busy; raise train.batch_size"
        )
    mesh = meshes.make_mesh(cfg.Mesh(), shape.rows, devices[:busy])
    sharding = meshes.batch_sharding(mesh)
    rows = local_rows(sharding, shape.rows)
    freeze = min(config.optimizer.freeze, start.model.layers)
    used = np.unique(np.concatenate(items.ids)) if freeze < 0 else np.zeros(0, np.int32)
    trained, frozen = parameters.split(start.params, freeze, used)
    dtype = compute_dtype(config.dtype)
    head = make_head(config, start.model, kind.outputs(labels), dtype)
    trained["head"] = params_of_head(config, head, start.params, seed)
    size = len(used) if freeze < 0 else start.vocabulary.size
    step_function, optimizer = make_train_step(
        config, start.model, head, (size, len(start.languages) or 1), steps, seed, mesh
    )
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    # 3. Resume, or begin.
    must_match = {"vocabulary_sha256": start.vocabulary.sha256}
    noted = {"config": json.loads(json.dumps(dataclasses.asdict(config)))}
    # Of a model that is chosen by nothing only the last is worth its space.
    best = ["mean", *selected] if selected else []
    checkpoints = Checkpoints(folder / "checkpoints", must_match, noted, 1, best, highest=True)

    def begin(params: Params) -> State:
        return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), empty_window())

    plan = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), jax.eval_shape(begin, trained)
    )
    state = checkpoints.restore(plan)
    begun = 0 if state is None else int(state.step)
    state = jax.jit(begin, out_shardings=everywhere)(trained) if state is None else state
    frozen = jax.device_put(frozen, everywhere)
    count = sum(leaf.size for leaf in jax.tree.leaves(trained))
    where = f"continuing at update {begun:,}" if begun else f"from {start.source}"
    console.say(
        f"{name}: {count:,} trained parameters, {len(lengths):,} examples in {per_epoch:,} updates an epoch "
        f"({shape.rows} rows of {shape.length}, {padding:.1%} padding), {where}"
    )

    # 4. Train.
    writer = MetricsWriter(folder, begun)
    dev = {r["step"]: r["languages"] for r in writer.kept if r["kind"] == "dev"}
    clock = Clock(writer.seconds)
    step, stop = begun, None
    in_flight: deque[jax.Array] = deque()

    def whole(params: Params) -> Params:
        encoder = parameters.merge(params, start.params, freeze, used)
        return {"encoder": encoder, "head": jax.tree.map(np.asarray, params["head"])}

    def log(window: dict[str, Any]) -> str:
        window = jax.device_get(window)
        bad = int(window["first_bad"])
        if bad >= 0:
            raise UserError(
                f"{name}, update {bad}: the loss or its gradient is not finite; lower optimizer.learning_rate and run again"
            )
        seconds, waited = clock.lap()
        scored, updates = max(float(window["count"]), 1.0), int(window["steps"])
        record = {
            "kind": "train",
            "step": step,
            "seconds": clock.total,
            "loss": float(window["loss"]) / scored,
            "accuracy": float(window["correct"]) / scored,
            "gradient_norm": float(window["gradient_norm"]) / updates,
            "learning_rate": float(window["learning_rate"]),
            "examples": float(window["examples"]) / updates,
            "tokens_per_second": float(window["tokens"]) / seconds,
            "input_wait": waited / seconds,
        }
        if not kind.counts_correct:
            del record["accuracy"]
        writer.write(record)
        return f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tokens/s"

    try:
        with (
            meshes.mesh_context(mesh),
            catch_signals() as caught,
            console.progress(name, steps, begun, "updates") as advance,
        ):
            clock.start()
            while step < steps and stop is None:
                with clock.waiting():
                    arrays = to_arrays(items, batches[step], shape, start.vocabulary.pad, start.model.token_types)
                    arrays |= kind.targets(items, batches[step], shape)
                    if freeze < 0:
                        # Padding points anywhere: nothing reads it.
                        arrays["tokens"] = (
                            np.searchsorted(used, arrays["tokens"]).clip(0, len(used) - 1).astype(np.int32)
                        )
                    arrays = {key: value[rows] for key, value in arrays.items()}
                state, window = step_function(state, frozen, to_global(arrays, shape.rows, sharding))
                step += 1
                in_flight.append(window["steps"])
                if len(in_flight) > AHEAD:
                    in_flight.popleft().block_until_ready()
                stop = caught.signal
                last, found, note = step == steps, None, ""
                if step % config.train.log_every == 0 or last:
                    note = log(window)
                if (step % every == 0 or last) and stop is None:
                    with clock.paused():
                        scored = evaluate(whole(state.params))
                        if scored:
                            values = {language: m[metric] for language, m in scored.items()}
                            dev[step] = scored
                            found = {"mean": float(np.mean(list(values.values()))), **values}
                            writer.write(
                                {
                                    "kind": "dev",
                                    "step": step,
                                    "seconds": clock.total,
                                    "metric": metric,
                                    "languages": scored,
                                }
                            )
                            shown = ", ".join(f"{language} {100 * value:.1f}" for language, value in values.items())
                            console.say(f"{name}, update {step:,}: {metric} on dev {shown}")
                if step % config.train.save_every == 0 or last or stop or found:
                    with clock.paused():
                        writer.flush()
                        checkpoints.save(step, state, found)
                advance(1, note)
            checkpoints.wait()
    except BaseException:
        checkpoints.close()
        raise
    finally:
        writer.close()

    def load(at: int) -> Params:
        restored = checkpoints.restore(plan, at)
        assert restored is not None
        return whole(restored.params)

    return Tuned(load, dev, step, stop)
