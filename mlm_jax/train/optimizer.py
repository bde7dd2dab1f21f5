# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules and AdamW."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mlm_jax import config as cfg

# Last names of parameters that are decayed: matrices and embeddings, not biases and norm scales.
# By name and not by rank, because scanned layers give norm scales a second axis.
DECAYED = ("kernel", "embedding")  # endings, as in `qkv_kernel`


def make_schedule(config: cfg.Optimizer, steps: int) -> optax.Schedule:
    """Learning rate at an update, counted from 0: linear warm-up, then the configured shape.

    The first update already has a rate above 0 and the peak is reached at update `warmup_steps`.
    inverse_sqrt is peak * sqrt(warmup / step) (Vaswani et al. 2017); wsd holds the peak until
    `decay_steps` before the end and then falls as 1 - sqrt (Hägele et al. 2024).

    Args:
      config: schedule, peak, warm-up and final share.
      steps: updates of the whole run.
    """
    peak, end = config.learning_rate, config.learning_rate * config.final_share
    warmup = config.warmup_steps

    def after_warmup(step: jax.Array) -> jax.Array:
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
        if config.schedule == "linear":
            return peak + (end - peak) * progress
        if config.schedule == "cosine":
            return end + (peak - end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        if config.schedule == "inverse_sqrt":
            return peak * jnp.sqrt(max(warmup, 1) / jnp.maximum(step, max(warmup, 1)))
        decay = jnp.clip((step - (steps - config.decay_steps)) / config.decay_steps, 0, 1)
        return end + (peak - end) * (1 - jnp.sqrt(decay))

    def schedule(count: jax.Array) -> jax.Array:
        step = jnp.asarray(count, jnp.float32) + 1
        warming = peak * step / max(warmup, 1)
        return jnp.where(step < warmup, warming, after_warmup(step)).astype(jnp.float32)

    return schedule


def make_optimizer(config: cfg.Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW with clipping by the global norm; weight decay on `DECAYED` only."""

    def is_decayed(path: Any, _: Any) -> bool:
        # Inside a flax box, where one is, the path goes on with the box's field.
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        return names[-1].endswith(DECAYED)

    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(is_decayed, params)

    adamw = optax.adamw(
        make_schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    if not config.clip_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
