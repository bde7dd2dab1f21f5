# SPDX-License-Identifier: Apache-2.0
"""How far a student's representations are from its teacher's, as pure functions: attention relations, hidden states, vectors of texts."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from mlm_jax.model.products import product
from mlm_jax.model.task_head import Pooling, pool
from mlm_jax.train.state import Params

Distance = Literal["mse", "cosine"]
HIDDEN = -1e30  # score of a token that is not seen; finite, so that its product with a probability of 0 is 0
SMALLEST = 1e-12  # length of a vector, at least


def read_by_attention(layers: Params, number: int, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The queries, keys and values that a layer makes of what it reads, before positions rotate them.

    Args:
      layers: stacked parameters, [layers, ...].
      number: of the layer, from 0.
      x: what it reads, [batch, length, embed].
      dtype: of the product's operands.

    Returns:
      [3, batch, length, width], heads side by side, of the dtype of x.
    """
    attention = layers["attention"]
    qkv = product("ble,echd->cblhd", x, attention["qkv_kernel"][number], dtype)  # [3, batch, length, heads, head]
    if "qkv_bias" in attention:
        qkv = qkv + attention["qkv_bias"][number][:, None, None].astype(qkv.dtype)
    return qkv.reshape(*qkv.shape[:3], -1)


def relation_divergence(teacher: jax.Array, student: jax.Array, segment_ids: jax.Array, heads: int) -> jax.Array:
    """How far the student's relations between tokens are from the teacher's (MiniLM v2, Wang et al. 2021, section 3.1).

    A token's relation is softmax(a · aᵀ / √size) over the tokens of its segment, of the queries with queries, keys with keys and
    values with values, each cut anew into as many relation heads on both sides, whatever their own heads and widths.

    Args:
      teacher, student: of `read_by_attention`, [3, batch, length, width]; the widths may differ.
      segment_ids: int32 [batch, length].
      heads: relation heads, which divide both widths.

    Returns:
      Per row the sum over its tokens of KL(teacher ‖ student), averaged over heads and summed over the three, float32 [batch].
    """
    seen = segment_ids[:, :, None] == segment_ids[:, None, :]  # [batch, length, length]
    log_p, log_q = (_log_relations(x, seen, heads) for x in (teacher, student))
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)  # [3, batch, heads, length]
    of_tokens = jnp.mean(jnp.sum(divergence, axis=0), axis=1)  # [batch, length]
    return jnp.sum(of_tokens * (segment_ids > 0), axis=1)


def _log_relations(x: jax.Array, seen: jax.Array, heads: int) -> jax.Array:
    """float32 [3, batch, heads, length, length], queries before keys."""
    split = x.astype(jnp.float32).reshape(*x.shape[:-1], heads, -1)  # [3, batch, length, heads, size]
    scores = jnp.einsum("cblhd,cbmhd->cbhlm", split, split) / math.sqrt(split.shape[-1])
    return jax.nn.log_softmax(jnp.where(seen[None, :, None], scores, HIDDEN), axis=-1)


def distance(teacher: jax.Array, student: jax.Array, how: Distance) -> jax.Array:
    """How far vectors are from each other, [..., width] each → float32 [...].

    Args:
      how: mse: the mean of the squared differences of their units; cosine: one minus their cosine.
    """
    teacher, student = teacher.astype(jnp.float32), student.astype(jnp.float32)
    if how == "mse":
        return jnp.mean((teacher - student) ** 2, axis=-1)
    lengths = [jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1), SMALLEST)) for x in (teacher, student)]
    return 1 - jnp.sum(teacher * student, axis=-1) / (lengths[0] * lengths[1])


def text_vectors(hidden: jax.Array, segment_ids: jax.Array, slots: int, how: Pooling) -> tuple[jax.Array, jax.Array]:
    """A vector for each segment of each row.

    Args:
      hidden: [batch, length, width].
      segment_ids: int32 [batch, length]; slot i is segment i + 1.
      slots: segments of a row, at most.

    Returns:
      float32 [batch, slots, width], and whether there is such a segment, bool [batch, slots].
    """
    member = segment_ids[:, None, :] == jnp.arange(1, slots + 1)[None, :, None]  # [batch, slots, length]
    starts = jnp.argmax(member, axis=-1).astype(jnp.int32)
    return pool(hidden.astype(jnp.float32), starts, segment_ids, how), jnp.any(member, axis=-1)


def vector_distance(
    teacher: jax.Array, student: jax.Array, there: jax.Array, sides: int, how: Distance
) -> tuple[jax.Array, jax.Array]:
    """How far the student's vectors are from the teacher's, of a text and of its translation from that of the text (Reimers and Gurevych 2020,
    section 2).

    Args:
      teacher, student: of `text_vectors`, [batch, slots, width].
      there: bool [batch, slots].
      sides: 1: each text is by itself; else as many slots in a row are of a pair: its source, its translation, and others, which are not looked at.

    Returns:
      Per row the sum of the distances, and how many there are, float32 [batch] each.
    """
    rows = teacher.shape[0]
    teacher, student = (x.reshape(rows, -1, sides, x.shape[-1]) for x in (teacher, student))
    there = there.reshape(rows, -1, sides)
    counted = (there[:, :, :2] & there[:, :, :1]).astype(jnp.float32)  # [batch, pairs, 1 or 2]
    of_texts = distance(teacher[:, :, :1], student[:, :, :2], how)
    return jnp.sum(of_texts * counted, axis=(1, 2)), jnp.sum(counted, axis=(1, 2))
