# SPDX-License-Identifier: Apache-2.0
"""The two jitted functions: `(state, batch) → (state, metrics)`, and a validation batch's sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mlm_jax import mesh as meshes
from mlm_jax import objectives
from mlm_jax.config import Config
from mlm_jax.model.dropout import row_keys as dropout_row_keys
from mlm_jax.model.encoder import Encoder
from mlm_jax.train.optimizer import make_schedule
from mlm_jax.train.state import State, empty_window
from mlm_jax.vocabulary import Vocabulary

VALIDATION = objectives.MASKED_LM  # whatever the training's masks are
VALIDATION_SEED = 15


def make_train_step(
    config: Config,
    model: Encoder,
    optimizer: optax.GradientTransformation,
    vocabulary: Vocabulary,
    tables: objectives.Tables,
    mesh: jax.sharding.Mesh,
    plan: State,
) -> jax.stages.Wrapped:
    """Build the training step for one mesh.

    The loss is the sum over all scored tokens of the global batch over their number, however the batch
    is cut over devices or, by `train.accumulate`, over time; with next-sentence prediction the same of the
    sentence pairs is added.

    Args:
      tables: `objectives.make_tables`.
      plan: the state's shapes and shardings.

    Returns:
      Jitted step(state, batch of `mixture.batch_shapes`) → (state, its window); the state is donated.
    """
    bound = objectives.scored_bound(config.data.sequence_length, config.objective)
    pieces, batch_size = config.train.accumulate, config.train.batch_size
    schedule = make_schedule(config.optimizer, config.train.steps)
    rates = (config.model.dropout, config.model.attention_dropout, config.model.attention_out_dropout)

    def step(state: State, batch: objectives.Batch) -> tuple[State, dict[str, jax.Array]]:
        if config.model.causal:
            scored = objectives.predict_next(batch)
        else:
            rate = objectives.mask_rate(config.objective, state.step)
            keys = objectives.training_keys(config.seed, state.step, batch, config.objective)
            scored = objectives.hide(keys, batch, rate, config.objective, tables, bound)
        rows = jnp.arange(batch_size, dtype=jnp.uint32)
        scored["dropout_keys"] = dropout_row_keys(config.seed, state.step, rows)
        targets = jnp.maximum(jnp.sum(scored["weights"]), 1)
        pairs = jnp.maximum(jnp.sum(batch["next_sentence"] >= 0), 1)

        def loss_of(params: Any, piece: objectives.Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
            keys = piece["dropout_keys"] if max(rates) > 0 else None
            sums = objectives.score(model, params, piece, keys, vocabulary.size, config.model.loss_chunk)
            sums = {name: value.sum() for name, value in sums.items()}
            return sums["loss"] / targets + sums["pair_loss"] / pairs, sums

        def gradients(piece: objectives.Batch) -> tuple[Any, dict[str, jax.Array]]:
            return jax.grad(loss_of, has_aux=True)(state.params, piece)

        if pieces == 1:
            grads, sums = gradients(scored)
        else:
            # Every pieces-th row, so that each device cuts up its own rows and nothing moves.
            cut = jax.tree.map(lambda x: x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1), scored)

            def add(total: Any, piece: objectives.Batch) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, gradients(piece)), None

            zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), state.params)
            no_sums = {name: jnp.zeros((), jnp.float32) for name in objectives.SUMS}
            (grads, sums), _ = jax.lax.scan(add, (zeros, no_sums), cut)

        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)

        is_new = state.step % config.train.log_every == 0
        window = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), empty_window(), state.window)
        finite = jnp.isfinite(sums["loss"] + sums["pair_loss"]) & jnp.isfinite(norm)
        window = {
            **{name: window[name] + value for name, value in sums.items()},
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
) -> Callable[[Any, objectives.Batch], dict[str, jax.Array]]:
    """Build the validation step: 15 % of each block hidden, always the same ones, no dropout; causal: every token.

    Returns:
      Jitted step(params, batch of `mixture.batch_shapes`) → `objectives.SUMS`, over each block, float32
      [batch_size], on every process.
    """
    tables = objectives.make_tables(vocabulary)
    bound = objectives.scored_bound(config.data.sequence_length, VALIDATION)

    def step(params: Any, batch: objectives.Batch) -> dict[str, jax.Array]:
        if config.model.causal:
            scored = objectives.predict_next(batch)
        else:
            keys = objectives.row_keys(VALIDATION_SEED, 0, batch["block_key"])
            scored = objectives.hide(keys, batch, VALIDATION.mask_rate, VALIDATION, tables, bound)
        return objectives.score(model, params, scored, None, vocabulary.size, config.model.loss_chunk)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, plan.params)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(step, in_shardings=(shardings, meshes.batch_sharding(mesh)), out_shardings=replicated)
