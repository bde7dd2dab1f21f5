# SPDX-License-Identifier: Apache-2.0
"""The jitted step of every training: `(state, frozen parameters, batch) → (state, window)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from mlm_jax import mesh as meshes
from mlm_jax.train.state import Params, State, Window

Batch = dict[str, jax.Array]  # each [rows, ...]
Measured = dict[str, tuple[jax.Array, jax.Array]]  # name → (sum, weight), float32 [] each
Tree = TypeVar("Tree")
FLOAT32 = jnp.dtype(jnp.float32)


@dataclass(frozen=True)
class Objective:
    """What a step minimises, as pure functions.

    Attributes:
      prepare: (update, whole batch) → the batch that `loss` reads: masked, say, and with the rows' dropout keys. All that
        is random is drawn here, so that nothing depends on how the batch is cut.
      loss: (trained parameters, frozen parameters, microbatch) → name → (sum, weight) over the microbatch. What a
        name that ends in `loss` stands for is minimised: the sum over the whole batch divided by its weight there.
        The others, accuracies say, are logged. No weight depends on a parameter.
      comparison: where a row's loss depends on the other rows of the batch: how. `loss` then is of whole batches.
    """

    # Each learner has a batch type of its own, which its functions share.
    prepare: Callable[[jax.Array, Any], Any]
    loss: Callable[[Params, Params, Any], Measured]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Comparison:
    """A loss in two stages, of which the second needs the whole batch, and no parameters.

    Attributes:
      represent: (trained parameters, frozen parameters, microbatch) → vectors [rows, ...] or a tree of them, each row's of it alone.
      compare: (vectors of the whole batch, the whole batch) → what `Objective.loss` returns.
    """

    represent: Callable[[Params, Params, Any], Any]
    compare: Callable[[Any, Any], Measured]


def comparing(prepare: Callable[[jax.Array, Any], Any], comparison: Comparison) -> Objective:
    """The objective of a comparison."""

    def loss(params: Params, frozen: Params, batch: Any) -> Measured:
        return comparison.compare(comparison.represent(params, frozen, batch), batch)

    return Objective(prepare, loss, comparison)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    abstract_state: State,
    abstract_frozen: Params,
    mesh: jax.sharding.Mesh,
    log_every: int,
    accumulate: int = 1,
    sum_dtype: jnp.dtype = FLOAT32,
) -> jax.stages.Wrapped:
    """Build the training step for one mesh.

    Args:
      schedule: the optimizer's learning rate, for the line of metrics.
      abstract_state, abstract_frozen: shapes, dtypes and shardings of the state and of the frozen parameters.
      log_every: steps per line of metrics.
      accumulate: microbatches that the batch is cut into.
      sum_dtype: of the gradients while they are summed over the data axis.

    Returns:
      Jitted step(state, frozen parameters, batch) → (state, its window); the state is donated.
    """

    find = separate_gradient if objective.comparison is None else compared_gradient

    def step(state: State, frozen: Params, batch: Batch) -> tuple[State, Window]:
        batch = objective.prepare(state.step, batch)  # each [rows, ...]
        # Gradients have the parameters' shapes and shardings.
        grads, measured = find(objective, (state.params, frozen), batch, mesh, accumulate, sum_dtype)
        # Clipping, schedule and decay are the optimizer's; `updates` is what is added to the parameters.
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        tokens = jnp.sum(batch["segment_ids"] > 0, dtype=jnp.int32)  # padding has segment 0
        window = _add_up(state, measured, optax.tree.norm(grads), tokens, schedule, log_every)
        return State(state.step + 1, params, opt_state, window), window

    def sharding(tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf: leaf.sharding, tree)

    # Stated, and not left to XLA: the new state has to lie as the old one, whose memory it takes.
    shardings = sharding(abstract_state)
    return jax.jit(
        step,
        in_shardings=(shardings, sharding(abstract_frozen), meshes.batch_sharding(mesh)),
        out_shardings=(shardings, shardings.window),
        donate_argnums=0,
    )


def separate_gradient(
    objective: Objective,
    params: tuple[Params, Params],
    batch: Batch,
    mesh: jax.sharding.Mesh,
    accumulate: int,
    sum_dtype: jnp.dtype,
) -> tuple[Params, Measured]:
    """The gradient of a loss to which each row adds by itself, and what was measured.

    Args:
      params: trained and frozen ones.
      batch: prepared, [rows, ...].
      accumulate, sum_dtype: see `make_train_step`.
    """
    is_cut = accumulate > 1 or mesh.shape["data"] > 1
    # A loss is the mean over the whole batch however it is cut, so every microbatch divides by the batch's weights.
    # They hang on no parameter: XLA drops the rest of this call.
    weights = _weights(objective.loss(*params, batch)) if is_cut else None

    def mean_loss(params: Params, frozen: Params, weights: Any, microbatch: Batch) -> tuple[jax.Array, Measured]:
        measured = objective.loss(params, frozen, microbatch)
        return _mean(measured, weights), measured

    # All float32: products round parameters to the compute dtype, and their cotangents come back as float32.
    def gradient(shared: tuple[Any, ...], rows: Batch) -> tuple[Params, Measured]:
        return microbatched(lambda microbatch: jax.grad(mean_loss, has_aux=True)(*shared, microbatch), accumulate)(rows)

    # Over `data` gradients are summed once, after the microbatches; XLA sums them over the devices of fsdp, which hold a part of
    # each, as they come.
    return meshes.on_own_rows(gradient, mesh, sum_dtype)((*params, weights), batch)


def compared_gradient(
    objective: Objective,
    params: tuple[Params, Params],
    batch: Batch,
    mesh: jax.sharding.Mesh,
    accumulate: int,
    sum_dtype: jnp.dtype,
) -> tuple[Params, Measured]:
    """The same of a loss that compares the rows of the whole batch.

    A batch that is cut is represented a microbatch at a time, of which the vectors are kept alone; the loss' gradient with regard to
    them is computed once; and then each microbatch, represented again with the same dropout, takes its part of that on to the parameters
    (GradCache, Gao et al. 2021, section 3.2).
    """
    comparison = objective.comparison
    assert comparison is not None

    def mean_loss(vectors: Any) -> tuple[jax.Array, Measured]:
        measured = comparison.compare(vectors, batch)
        return _mean(measured, None), measured

    if accumulate == 1:  # over all devices at once, so that nothing is represented twice
        return jax.grad(lambda trained: mean_loss(comparison.represent(trained, params[1], batch)), has_aux=True)(
            params[0]
        )
    cut = _cut(batch, accumulate)
    vectors = _joined(jax.lax.map(lambda microbatch: comparison.represent(*params, microbatch), cut))
    wanted, measured = jax.grad(mean_loss, has_aux=True)(vectors)  # each as its vectors, [rows, ...]

    def along(params: Params, frozen: Params, rows: tuple[Batch, Any]) -> jax.Array:
        """A sum whose gradient is the loss': the vectors of rows times the loss' gradient with regard to them."""
        return optax.tree.vdot(comparison.represent(params, frozen, rows[0]), rows[1])

    def gradient(shared: tuple[Params, Params], rows: tuple[Batch, Any]) -> tuple[Params, dict[str, Any]]:
        return microbatched(lambda microbatch: jax.grad(along)(*shared, microbatch), accumulate)(rows), {}

    return meshes.on_own_rows(gradient, mesh, sum_dtype)(params, (batch, wanted))[0], measured


def is_loss(name: str) -> bool:
    """Whether a (sum, weight) pair of this name is minimised."""
    return name.endswith("loss")


def microbatched(function: Callable[[Any], Tree], count: int) -> Callable[[Any], Tree]:
    """Accumulate a function of a batch, a gradient say, over microbatches, of which one at a time is in memory.

    Args:
      count: microbatches; it divides the rows of the batch.

    Returns:
      The function of a whole batch that sums what `function` returns of each microbatch.
    """
    if count == 1:
        return function

    def accumulated(batch: Any) -> Tree:
        cut = _cut(batch, count)
        first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), cut)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))

        # A loop and not an unrolled sum: the activations of one microbatch are freed before the next begins.
        def add(total: Tree, microbatch: Any) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, function(microbatch)), None

        return jax.lax.scan(add, zeros, cut)[0]

    return accumulated


def _cut(batch: Tree, count: int) -> Tree:
    """A batch's arrays, [rows, ...], in microbatches, [count, rows / count, ...], of the same dtypes."""
    # Every count-th row, so that each device cuts up its own rows and nothing moves.
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)


def _joined(cut: Tree) -> Tree:
    """What `_cut` cut, [count, rows / count, ...] → [rows, ...], of the same dtypes."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), cut)


def _mean(measured: Measured, weights: dict[str, jax.Array] | None) -> jax.Array:
    """The loss, float32 []: sums over the weights of the whole batch, or over their own."""
    whole = _weights(measured) if weights is None else weights
    losses = [total / jnp.maximum(whole[name], 1) for name, (total, _) in measured.items() if is_loss(name)]
    return sum(losses[1:], losses[0])


def _weights(measured: Measured) -> dict[str, jax.Array]:
    return {name: weight for name, (_, weight) in measured.items()}


def _add_up(
    state: State, measured: Measured, norm: jax.Array, tokens: jax.Array, schedule: optax.Schedule, log_every: int
) -> Window:
    """The state's window with a step added, or a new one where the last line of metrics was the step before."""
    # Sums and not means: a line of metrics divides once, whatever the microbatches and steps it stands for.
    pairs = {name: jnp.stack(pair) for name, pair in measured.items()}  # float32 [2] each
    added = {**pairs, "gradient_norm": norm, "tokens": tokens, "steps": jnp.ones((), jnp.int32)}
    is_new = state.step % log_every == 0
    window = {name: jnp.where(is_new, 0, state.window[name]) + value for name, value in added.items()}
    loss = sum((pair[0] for name, pair in pairs.items() if is_loss(name)), jnp.zeros(()))
    # Kept in the state, so that no step waits for the host to look at its loss.
    bad = (state.window["first_bad"] < 0) & ~(jnp.isfinite(loss) & jnp.isfinite(norm))
    return window | {
        "learning_rate": schedule(state.step),
        "first_bad": jnp.where(bad, state.step, state.window["first_bad"]),  # once bad, always bad
    }
