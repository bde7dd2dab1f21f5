# SPDX-License-Identifier: Apache-2.0
"""Heads of fine-tuned encoders: scores of a text's labels, of a word's tags, of an answer's first and last token."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.dropout import dropout
from mlm_jax.model.families import family_of
from mlm_jax.model.layers import LayerNorm, gelu, matrix, zeros
from mlm_jax.model.products import product

Transform = Literal["none", "tanh", "norm"]
TRANSFORMS: tuple[Transform, ...] = ("none", "tanh", "norm")
Pooling = Literal["mean", "first", "max"]


def transform_of(model: cfg.Model, whole_texts: bool) -> Transform:
    """What a family has before the output layer, as its published classes do.

    Args:
      whole_texts: the head reads a vector per text, not one per token.

    Returns:
      norm: dense, GELU and norm (ModernBERT); tanh: dense and tanh, for texts (BERT's pooler, XLM-R); none (XLM, and
      tokens).
    """
    family = family_of(model)
    if family == "modernbert":
        return "norm"
    return "tanh" if whole_texts and family != "xlm" else "none"


class TaskHead(nn.Module):
    """A linear layer, after the family's transformation.

    Attributes:
      config: the encoder's.
      outputs: scores per vector.
      transform: see `transform_of`.
      rate: of dropout, before the linear layer.
      dtype: that products are computed in; scores are float32.
    """

    config: cfg.Model
    outputs: int
    transform: Transform
    rate: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """[batch, vectors, width], and dropout keys uint32 [batch] or None → float32 [batch, vectors, outputs]."""
        config, dtype = self.config, self.dtype
        width, std = config.width, config.initializer_std
        if self.transform != "none":
            kernel = matrix(self, "dense_kernel", ("embed", "embed_out"), (width, width), std)
            x = product("bsw,wv->bsv", x, kernel, dtype)  # [batch, vectors, width]
            if config.bias or self.transform == "tanh":
                x = x + zeros(self, "dense_bias", ("embed_out",), (width,), x.dtype)[None, None]
            if self.transform == "tanh":
                x = jnp.tanh(x)
            else:
                x = LayerNorm(config.norm_epsilon, config.bias, name="norm")(gelu(x))
        x = dropout(x, self.rate, keys)
        kernel = matrix(self, "output_kernel", ("embed", "class"), (width, self.outputs), std)
        # Scores are float32 whatever `dtype`: the softmax of the loss needs it.
        bias = zeros(self, "output_bias", ("class",), (self.outputs,), jnp.dtype(jnp.float32))
        return product("bsw,wc->bsc", x, kernel, dtype, jnp.dtype(jnp.float32)) + bias[None, None]


def pool(hidden: jax.Array, starts: jax.Array, segment_ids: jax.Array, how: Pooling) -> jax.Array:
    """A vector for each segment of each row.

    Args:
      hidden: float [batch, length, width].
      starts: places of the segments' first tokens, int32 [batch, slots].
      segment_ids: int32 [batch, length]; slot i holds segment i + 1.
      how: the first token, the mean of all, or each unit's greatest value.

    Returns:
      [batch, slots, width], of the type of `hidden`; of a slot without a segment finite numbers that mean nothing.
    """
    if how == "first":
        return jnp.take_along_axis(hidden, starts[:, :, None], axis=1)
    slots = jnp.arange(1, starts.shape[1] + 1)
    member = segment_ids[:, None, :] == slots[None, :, None]  # [batch, slots, length]
    if how == "max":
        lowest = jnp.finfo(hidden.dtype).min
        # A slot at a time, as [batch, slots, length, width] would not fit.
        of_slots = [jnp.where(member[:, i, :, None], hidden, lowest).max(axis=1) for i in range(starts.shape[1])]
        return jnp.stack(of_slots, axis=1)
    weights = member.astype(hidden.dtype)
    total = jnp.einsum("bsl,blw->bsw", weights, hidden)  # [batch, slots, width]
    return total / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1)
