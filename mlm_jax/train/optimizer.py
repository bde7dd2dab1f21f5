# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules and AdamW."""

from __future__ import annotations

from collections.abc import Callable
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
    Where `warmup_share` is not 0 that is its share of `steps`, at least 1.
    inverse_sqrt is peak * sqrt(warmup / step) (Vaswani et al. 2017); wsd holds the peak until
    `decay_steps` before the end and then falls as 1 - sqrt (Hägele et al. 2024).

    Args:
      config: schedule, peak, warm-up and final share.
      steps: updates of the whole run.
    """
    peak, end = config.learning_rate, config.learning_rate * config.final_share
    warmup = max(1, round(config.warmup_share * steps)) if config.warmup_share else config.warmup_steps

    def after_warmup(step: jax.Array) -> jax.Array:
        if config.schedule == "constant":
            return jnp.float32(peak)
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
    """The configured optimizer with clipping by the global norm, weight decay on `DECAYED` only and layer-wise rates."""
    schedule = make_schedule(config, steps)
    if config.name == "stable_adamw":
        made = stable_adamw(schedule, config.b1, config.b2, config.epsilon, config.weight_decay)
    else:
        made = optax.adamw(
            schedule, config.b1, config.b2, config.epsilon, weight_decay=config.weight_decay, mask=decayed
        )
    if config.clip_norm:
        made = optax.chain(optax.clip_by_global_norm(config.clip_norm), made)
    if config.layer_decay != 1:
        made = optax.chain(made, optax.stateless(layer_decay(config.layer_decay)))
    return made


def layer_decay(factor: float) -> Callable[[Any, Any], Any]:
    """Scale updates by factor ** (layers above), the embeddings' as those of a layer below all others."""

    def scale(updates: dict[str, Any], params: Any = None) -> dict[str, Any]:
        out = dict(updates)
        layers = 0
        if "layers" in updates:
            layers = len(jax.tree.leaves(updates["layers"])[0])
            powers = factor ** jnp.arange(layers - 1, -1, -1, dtype=jnp.float32)
            out["layers"] = jax.tree.map(lambda u: u * powers.reshape(-1, *[1] * (u.ndim - 1)), updates["layers"])
        if "embedding" in updates:
            out["embedding"] = jax.tree.map(lambda u: u * factor**layers, updates["embedding"])
        return out

    return scale


def decayed(params: Any) -> Any:
    """Which parameters are decayed: a tree of bool."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1].endswith(DECAYED), params)


def _names(path: Any) -> list[str]:
    # Inside a flax box, where one is, the path goes on with the box's field.
    return [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]


def stable_adamw(
    schedule: optax.Schedule, b1: float, b2: float, epsilon: float, weight_decay: float
) -> optax.GradientTransformation:
    """AdamW whose learning rate falls, parameter by parameter, when gradients outgrow their average.

    The rate is schedule / max(1, RMS), with RMS the root of the mean of g² / max(v, epsilon²) over a
    parameter, for gradient g and bias-corrected second moment v (Wortsman et al. 2023, algorithm 2). Each of
    the stacked layers has its own.
    """
    adam = optax.scale_by_adam(b1, b2, epsilon)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, after = adam.update(grads, state, params)
        moments = optax.tree.bias_correction(after.nu, b2, after.count)
        rate = schedule(state.count)

        def scale(path: Any, u: jax.Array, g: jax.Array, v: jax.Array, p: jax.Array, decay: bool) -> jax.Array:
            axes = tuple(range(1 if "layers" in _names(path) else 0, g.ndim))
            rms = jnp.sqrt(jnp.mean(g * g / jnp.maximum(v, epsilon**2), axis=axes, keepdims=True))
            return -rate / jnp.maximum(1, rms) * (u + weight_decay * p if decay else u)

        scaled = jax.tree_util.tree_map_with_path(scale, updates, grads, moments, params, decayed(params))
        return scaled, after

    return optax.GradientTransformation(adam.init, update)
