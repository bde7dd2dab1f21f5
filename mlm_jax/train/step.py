# SPDX-License-Identifier: Apache-2.0
"""The two jitted functions: `(state, batch) → (state, metrics)`, and a validation batch's sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlm_jax import mesh as meshes
from mlm_jax import objectives
from mlm_jax.config import Config, Objective
from mlm_jax.model.dropout import row_keys as dropout_row_keys
from mlm_jax.model.encoder import Encoder
from mlm_jax.train.optimizer import make_schedule
from mlm_jax.train.state import State, empty_window
from mlm_jax.vocabulary import Vocabulary

VALIDATION = Objective()  # 15 %, 80/10/10, whatever the training's masks are
VALIDATION_SEED = 15


def make_train_step(
    config: Config,
    model: Encoder,
    optimizer: optax.GradientTransformation,
    vocabulary: Vocabulary,
    starts_word: np.ndarray | None,
    mesh: jax.sharding.Mesh,
    plan: State,
) -> jax.stages.Wrapped:
    """Build the training step for one mesh.

    The loss is the sum over all scored tokens of the global batch over their number, however the batch
    is cut over devices or, by `train.accumulate`, over time.

    Args:
      starts_word: bool [vocabulary.size] for whole-word masking, or None.
      plan: the state's shapes and shardings.

    Returns:
      Jitted step(state, batch of int32 [batch_size, length]) → (state, its window); the state is donated.
    """
    tables = objectives.make_tables(vocabulary, starts_word)
    bound = objectives.scored_bound(config.data.sequence_length, config.objective)
    pieces, batch_size = config.train.accumulate, config.train.batch_size
    schedule = make_schedule(config.optimizer, config.train.steps)
    has_dropout = config.model.dropout > 0 or config.model.attention_dropout > 0

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        rows = jnp.arange(batch_size, dtype=jnp.uint32)
        rate = objectives.mask_rate(config.objective, state.step)
        keys = objectives.row_keys(config.seed, state.step, rows)
        hidden = objectives.hide(keys, batch, rate, config.objective, tables, bound)
        hidden["dropout_keys"] = dropout_row_keys(config.seed, state.step, rows)
        targets = jnp.sum(hidden["weights"])

        def loss_of(params: Any, piece: dict[str, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            keys = piece["dropout_keys"] if has_dropout else None
            loss, correct = objectives.masked_lm_loss(
                model, params, piece, keys, vocabulary.size, config.model.loss_chunk
            )
            return loss.sum() / jnp.maximum(targets, 1), (loss.sum(), correct.sum())

        def gradients(piece: dict[str, jax.Array]) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            return jax.grad(loss_of, has_aux=True)(state.params, piece)

        if pieces == 1:
            grads, (loss, correct) = gradients(hidden)
        else:
            # Every pieces-th row, so that each device cuts up its own rows and nothing moves.
            cut = jax.tree.map(lambda x: x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1), hidden)

            def add(total: Any, piece: dict[str, jax.Array]) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, gradients(piece)), None

            zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), state.params)
            zero = jnp.zeros((), jnp.float32)
            (grads, (loss, correct)), _ = jax.lax.scan(add, (zeros, (zero, zero)), cut)

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)

        is_new = state.step % config.train.log_every == 0
        window = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), empty_window(), state.window)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        window = {
            "loss": window["loss"] + loss,
            "correct": window["correct"] + correct,
            "targets": window["targets"] + targets,
            "tokens": window["tokens"] + jnp.sum(batch["segment_ids"] > 0, dtype=jnp.int32),
            "gradient_norm": window["gradient_norm"] + norm,
            "learning_rate": schedule(state.step),
            "steps": window["steps"] + 1,
            # Kept over windows: once bad, always bad.
            "first_bad": jnp.where((state.window["first_bad"] < 0) & ~finite, state.step, state.window["first_bad"]),
        }
        return State(state.step + 1, params, opt_state, window), window

    shardings = jax.tree.map(lambda leaf: leaf.sharding, plan)
    return jax.jit(
        step,
        in_shardings=(shardings, meshes.batch_sharding(mesh)),
        out_shardings=(shardings, shardings.window),
        donate_argnums=0,
    )


def make_validation_step(
    config: Config, model: Encoder, vocabulary: Vocabulary, mesh: jax.sharding.Mesh, plan: State
) -> Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]:
    """Build the validation step: 15 % of each block hidden, always the same ones, no dropout.

    Returns:
      Jitted step(params, batch with `block_keys`) → loss (nats), correct and targets, summed over each
      block, float32 [batch_size], on every process.
    """
    tables = objectives.make_tables(vocabulary, None)
    bound = objectives.scored_bound(config.data.sequence_length, VALIDATION)

    def step(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        keys = objectives.row_keys(VALIDATION_SEED, 0, batch["block_keys"])
        hidden = objectives.hide(keys, batch, VALIDATION.mask_rate, VALIDATION, tables, bound)
        loss, correct = objectives.masked_lm_loss(model, params, hidden, None, vocabulary.size, config.model.loss_chunk)
        return {"loss": loss, "correct": correct, "targets": hidden["weights"].sum(axis=1)}

    shardings = jax.tree.map(lambda leaf: leaf.sharding, plan.params)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(step, in_shardings=(shardings, meshes.batch_sharding(mesh)), out_shardings=replicated)
