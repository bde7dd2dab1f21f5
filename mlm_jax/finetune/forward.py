# SPDX-License-Identifier: Apache-2.0
"""The functions of a batch that fine-tuning and prediction share: hidden states, and the head's scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.tasks import task_kind
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.encoder import make_encoder
from mlm_jax.model.families import family_of
from mlm_jax.model.task_head import TaskHead, transform_of

Params = dict[str, Any]


def make_head(config: Finetune, model: cfg.Model, outputs: int, dtype: jnp.dtype) -> TaskHead:
    """The head of a task on an encoder."""
    of_texts = not task_kind(config.task).of_tokens
    return TaskHead(model, outputs, transform_of(model, of_texts), config.task.dropout, dtype)


def params_of_head(config: Finetune, head: TaskHead, pretrained: Params, seed: int) -> Params:
    """A head's first parameters, NumPy arrays; BERT's pooler, where the encoder has one, begins its dense layer."""
    key = jax.random.key(seed, impl="threefry2x32")
    made = nn.meta.unbox(head.init(key, jnp.zeros((1, 1, head.config.width), head.dtype))["params"])
    params: Params = jax.tree.map(np.asarray, made)
    pooler = pretrained.get("pooler", {})
    if head.transform == "tanh" and family_of(head.config) == "bert" and "dense_kernel" in pooler:
        params |= {name: pooler[name] for name in ("dense_kernel", "dense_bias")}
    return params | task_kind(config.task).extra_params(config.task, head.outputs)


def hidden_states(
    model: cfg.Model,
    sizes: tuple[int, int],
    freeze: int,
    trained: Params,
    frozen: Params,
    dtype: jnp.dtype,
    batch: PackedBatch,
    keys: jax.Array,
) -> jax.Array:
    """An encoder's output in training, [rows, length, width]: no gradient enters what is frozen.

    Args:
      sizes: rows in use of the token embedding that the batch's tokens point into, and of the language embedding.
      freeze: see `Optimizer.freeze`.
      trained, frozen: of `parameters.Partition`.
      keys: dropout keys, uint32 [rows].
    """
    size, languages = sizes
    below = max(freeze, 0)
    above = model.layers - below
    if freeze < 0:
        whole = make_encoder(model, size, languages, dtype.name, model.layers)
        return whole.apply({"params": trained}, batch, keys)  # type: ignore[return-value]  # flax types `apply` as if it could return variables too
    lower = make_encoder(model, size, languages, dtype.name, below)
    residual, _ = lower.apply({"params": frozen}, batch, keys, method="embed")  # type: ignore[misc]  # flax types `apply` as if it could return variables too
    if below:
        residual = lower.apply({"params": frozen}, residual, batch, keys, method="run_layers")
    residual = jax.lax.stop_gradient(residual)
    if above:
        upper = make_encoder(model, size, languages, dtype.name, above)
        residual = upper.apply({"params": trained}, residual, batch, keys, below, method="run_layers")
    return residual.normed


def scores(
    config: Finetune, head: TaskHead, params: Params, hidden: jax.Array, batch: PackedBatch, keys: Any
) -> jax.Array:
    """The head's scores, float32: [rows, slots, outputs] of texts, [rows, length, outputs] of tokens."""
    read = task_kind(config.task).vectors(hidden, batch, config.task)
    return head.apply({"params": params}, read, keys)  # type: ignore[return-value]  # flax types `apply` as if it could return variables too
