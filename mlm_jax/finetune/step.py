# SPDX-License-Identifier: Apache-2.0
"""The jitted functions of fine-tuning: `(state, batch) → (state, metrics)`, and a batch's scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.model.axes import encoder_axes, parameter_axes
from mlm_jax.model.dropout import row_keys, site_keys
from mlm_jax.model.encoder import backbone, make_encoder
from mlm_jax.model.families import family_of
from mlm_jax.model.task_head import TaskHead, transform_of
from mlm_jax.train.optimizer import make_optimizer, make_schedule
from mlm_jax.train.state import State

Batch = dict[str, jax.Array]
Params = dict[str, Any]

HEAD_SITE = 10_000  # of dropout; encoders' layers have the numbers below


def make_head(config: Finetune, model: cfg.Model, outputs: int, dtype: jnp.dtype) -> TaskHead:
    """The head of a task on an encoder."""
    of_texts = not TASKS[config.task.kind].of_tokens
    return TaskHead(model, outputs, transform_of(model, of_texts), config.task.dropout, dtype)


def params_of_head(config: Finetune, head: TaskHead, pretrained: Params, seed: int) -> Params:
    """A head's first parameters, NumPy arrays; BERT's pooler, where the encoder has one, begins its dense layer."""
    key = jax.random.key(seed, impl="threefry2x32")
    made = nn.meta.unbox(head.init(key, jnp.zeros((1, 1, head.config.width), head.dtype))["params"])
    params: Params = jax.tree.map(np.asarray, made)
    pooler = pretrained.get("pooler", {})
    if head.transform == "tanh" and family_of(head.config) == "bert" and "dense_kernel" in pooler:
        params |= {name: pooler[name] for name in ("dense_kernel", "dense_bias")}
    return params | TASKS[config.task.kind].extra_params(config.task, head.outputs)


def hidden_states(
    model: cfg.Model,
    freeze: int,
    trained: Params,
    frozen: Params,
    sizes: tuple[int, int],
    dtype: jnp.dtype,
    batch: Batch,
    keys: jax.Array,
) -> jax.Array:
    """An encoder's output in training, [rows, length, width]: no gradient enters what is frozen.

    Args:
      freeze: see `Optimizer.freeze`.
      trained, frozen: of `parameters.split`.
      sizes: rows in use of the token embedding that the batch's tokens point into, and of the language embedding.
      keys: dropout keys, uint32 [rows].
    """
    size, languages = sizes
    below = max(freeze, 0)
    above = model.layers - below
    if freeze < 0:
        whole = make_encoder(model, size, languages, dtype.name, model.layers)
        return whole.apply({"params": trained}, batch, keys)  # type: ignore[return-value]
    lower = make_encoder(model, size, languages, dtype.name, below)
    residual, _ = lower.apply({"params": frozen}, batch, keys, method="embed")  # type: ignore[misc]
    if below:
        residual = lower.apply({"params": frozen}, residual, batch, keys, method="run_layers")
    residual = jax.lax.stop_gradient(residual)
    if above:
        upper = make_encoder(model, size, languages, dtype.name, above)
        residual = upper.apply({"params": trained}, residual, batch, keys, below, method="run_layers")
    return residual.normed


def scores(config: Finetune, head: TaskHead, params: Params, hidden: jax.Array, batch: Batch, keys: Any) -> jax.Array:
    """The head's scores, float32: [rows, slots, outputs] of texts, [rows, length, outputs] of tokens."""
    read = TASKS[config.task.kind].vectors(hidden, batch, config.task)
    return head.apply({"params": params}, read, keys)  # type: ignore[return-value]


def trained_axes(config: Finetune, model: cfg.Model, head: TaskHead) -> Params:
    """`model.axes.parameter_axes` of what is trained: of `parameters.split`, and the head of `params_of_head`."""
    encoder = encoder_axes(make_encoder(backbone(model), 1))
    freeze = config.optimizer.freeze
    names = ("embedding", "layers") if freeze < 0 else ("layers",) if freeze < model.layers else ()
    shapes = jax.eval_shape(head.init, jax.random.key(0), jnp.zeros((1, 1, model.width), head.dtype))["params"]
    extra = TASKS[config.task.kind].extra_params(config.task, head.outputs)
    return {name: encoder[name] for name in names} | parameter_axes({"head": shapes | extra})


def empty_window() -> dict[str, jax.Array]:
    """Sums over the updates since the last line of metrics, as `train.state.empty_window`; `examples` are items."""
    zero = jnp.zeros((), jnp.float32)
    return {
        **dict.fromkeys(("loss", "count", "correct", "examples", "tokens", "gradient_norm", "learning_rate"), zero),
        "steps": jnp.zeros((), jnp.int32),
        "first_bad": jnp.full((), -1, jnp.int32),
    }


def make_train_step(
    config: Finetune,
    model: cfg.Model,
    head: TaskHead,
    sizes: tuple[int, int],
    steps: int,
    seed: int,
    mesh: jax.sharding.Mesh,
) -> tuple[jax.stages.Wrapped, optax.GradientTransformation]:
    """Build the training step.

    The loss is the sum over what the batch scores over its number, however the batch is cut over devices.

    Args:
      sizes: as in `hidden_states`.
      steps: updates of the whole run.

    Raises:
      UserError: the updates are over before the warm-up.

    Returns:
      Jitted step(state, frozen parameters, batch) → (state, its window), the state donated; and the optimizer.
    """
    if not config.optimizer.warmup_share and config.optimizer.warmup_steps >= max(steps, 2):
        raise UserError(
            f"optimizer.warmup_steps: {config.optimizer.warmup_steps} of {steps} updates would all warm up; set "
            "optimizer.warmup_share, or replace(FINETUNE_OPTIMIZER, ...) in the config file"
        )
    freeze = min(config.optimizer.freeze, model.layers)
    axes = trained_axes(config, model, head)
    optimizer, schedule = make_optimizer(config.optimizer, steps, axes), make_schedule(config.optimizer, steps)

    def step(state: State, frozen: Params, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        rows = batch["tokens"].shape[0]
        keys = row_keys(seed, state.step, jnp.arange(rows, dtype=jnp.uint32))

        def loss_of(params: Params) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            hidden = hidden_states(model, freeze, params, frozen, sizes, head.dtype, batch, keys)
            found = scores(config, head, params["head"], hidden, batch, site_keys(keys, HEAD_SITE))
            named = TASKS[config.task.kind].loss(params["head"], found, batch)
            total, count = named["loss"]
            correct, _ = named.get("accuracy", (jnp.zeros(()), count))
            return total / jnp.maximum(count, 1), (total, count, correct)

        (mean, (total, count, correct)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        is_new = state.step % config.train.log_every == 0
        window = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), empty_window(), state.window)
        finite = jnp.isfinite(mean) & jnp.isfinite(norm)
        window = {
            "loss": window["loss"] + total,
            "count": window["count"] + count,
            "correct": window["correct"] + correct,
            "examples": window["examples"] + jnp.sum(batch["valid"], dtype=jnp.float32),
            "tokens": window["tokens"] + jnp.sum(batch["segment_ids"] > 0, dtype=jnp.float32),
            "gradient_norm": window["gradient_norm"] + norm,
            "learning_rate": schedule(state.step),
            "steps": window["steps"] + 1,
            "first_bad": jnp.where((state.window["first_bad"] < 0) & ~finite, state.step, state.window["first_bad"]),
        }
        return State(state.step + 1, params, opt_state, window), window

    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    jitted = jax.jit(
        step,
        in_shardings=(everywhere, everywhere, meshes.batch_sharding(mesh)),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    return jitted, optimizer
