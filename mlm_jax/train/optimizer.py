# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules, AdamW and its relatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mlm_jax import config as cfg
from mlm_jax.model.axes import Axes

MUON_MOMENTUM = 0.95  # Jordan et al. 2024
MUON_RMS = 0.2  # of a matrix' step at learning rate 1, as AdamW's are: one rate for both (Liu et al. 2025, section 2.2)

Tree = Any  # of arrays, or of what stands for them, in the shape of the parameters: nested dicts


def make_schedule(config: cfg.Optimizer, steps: int) -> optax.Schedule:
    """Learning rate at an update, counted from 0: linear warm-up, then the configured shape.

    The first update already has a rate above 0 and the peak is reached at update `warmup_steps`.
    `warmup_share`, where it is not 0, gives the warm-up as a share of `steps` instead, at least one update.
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
        # Updates are counted from 1 here, so that the first has a rate: optax's own schedules begin with 0.
        step = jnp.asarray(count, jnp.float32) + 1
        warming = peak * step / max(warmup, 1)
        return jnp.where(step < warmup, warming, after_warmup(step)).astype(jnp.float32)

    return schedule


def endless_warmup(config: cfg.Optimizer, steps: int, unit: str = "updates") -> str:
    """What to say where a run is over before its warm-up is, so that the learning rate never comes to its peak; empty where it does.

    Args:
      steps: of the whole run, in the unit of `warmup_steps`.
      unit: what those are.
    """
    if config.warmup_share or config.warmup_steps < max(steps, 2):
        return ""
    return f"optimizer.warmup_steps: {config.warmup_steps:,} of {steps:,} {unit} would all warm up; set optimizer.warmup_share, e.g. 0.1"


def make_optimizer(config: cfg.Optimizer, steps: int, axes: Tree) -> optax.GradientTransformation:
    """The configured optimizer, with clipping by the global norm, weight decay of matrices and layer-wise rates.

    Args:
      steps: updates of the whole run.
      axes: of the parameters that are trained, a tree of `Axes` (`model.axes.parameter_axes`).
    """
    schedule = make_schedule(config, steps)
    if config.name == "stable_adamw":
        made = stable_adamw(config, schedule, axes)
    else:
        matrices = jax.tree.map(lambda leaf: leaf.is_matrix, axes)
        made = optax.adamw(
            schedule, config.b1, config.b2, config.epsilon, weight_decay=config.weight_decay, mask=matrices
        )
    if config.name == "muon":
        made = muon(config, schedule, made, axes)
    if config.layer_decay != 1:
        made = optax.chain(made, optax.stateless(layer_decay(config.layer_decay, axes)))
    # Checkpoints hold the state nested as the transformations are. Clipping is outermost, so that one can be continued with it
    # set, or no longer set: `Checkpoints` puts its empty state before the others or takes it away.
    if config.clip_norm:
        made = optax.chain(optax.clip_by_global_norm(config.clip_norm), made)
    return made


def layer_decay(factor: float, axes: Tree) -> Callable[[Tree, Tree], Tree]:
    """Scale updates by factor ** (layers above), the embeddings' as those of a layer below all others."""

    def scale(updates: Tree, params: Tree = None) -> Tree:
        depths = {
            u.shape[a.layers[0]]
            for u, a in zip(jax.tree.leaves(updates), jax.tree.leaves(axes), strict=True)
            if a.layers
        }
        layers = max(depths, default=0)

        def of_leaf(update: jax.Array, leaf: Axes) -> jax.Array:
            if leaf.layers:
                powers = factor ** jnp.arange(layers - 1, -1, -1, dtype=jnp.float32)  # [layers]
                return update * powers.reshape(-1, *[1] * (update.ndim - 1))
            return update * factor**layers if leaf.place == "embedding" else update

        return jax.tree.map(of_leaf, updates, axes)

    return scale


def stable_adamw(config: cfg.Optimizer, schedule: optax.Schedule, axes: Tree) -> optax.GradientTransformation:
    """AdamW whose learning rate falls, parameter by parameter, when gradients outgrow their average.

    The rate is schedule / max(1, RMS), with RMS the root of the mean of g² / max(v, epsilon²) over a
    parameter, for gradient g and bias-corrected second moment v (Wortsman et al. 2023, algorithm 2). Each of
    the stacked layers has its own.
    """
    adam = optax.scale_by_adam(config.b1, config.b2, config.epsilon)

    def update(grads: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        updates, after = adam.update(grads, state, params)
        # Adam's own correction is inside `updates`; the RMS needs the corrected second moment itself.
        moments = optax.tree.bias_correction(after.nu, config.b2, after.count)
        rate = schedule(state.count)

        def scale(u: jax.Array, g: jax.Array, v: jax.Array, p: jax.Array, leaf: Axes) -> jax.Array:
            # One number per layer, [layers, 1, ...]: a layer whose gradient outgrew its average slows no other.
            within = tuple(axis for axis in range(g.ndim) if axis not in leaf.layers)
            rms = jnp.sqrt(jnp.mean(g * g / jnp.maximum(v, config.epsilon**2), axis=within, keepdims=True))
            return -rate / jnp.maximum(1, rms) * (u + config.weight_decay * p if leaf.is_matrix else u)

        return jax.tree.map(scale, updates, grads, moments, params, axes), after

    return optax.GradientTransformation(adam.init, update)


def muon(
    config: cfg.Optimizer, schedule: optax.Schedule, adamw: optax.GradientTransformation, axes: Tree
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the kernels of the layers; embeddings, heads, biases and norms by AdamW.

    A step of Muon is the momentum's nearest orthogonal matrix, nearly. Every stacked matrix is one by itself: of a layer's
    queries, keys and values, say, each has [embed] for its input and [heads, head] for its output.
    """

    def numbers(leaf: Axes) -> Any:
        return optax.contrib.MuonDimensionNumbers(leaf.inputs, leaf.outputs) if leaf.is_hidden else optax.MaskedNode()

    hidden = optax.contrib.muon(
        schedule,
        beta=MUON_MOMENTUM,
        weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=jax.tree.map(numbers, axes),
        consistent_rms=MUON_RMS,
    )
    # Two optimizers beside each other, each with a state for its own parameters only.
    labels = jax.tree.map(lambda leaf: "muon" if leaf.is_hidden else "adamw", axes)
    return optax.partition({"muon": hidden, "adamw": adamw}, labels)
