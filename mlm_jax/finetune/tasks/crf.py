# SPDX-License-Identifier: Apache-2.0
"""A linear-chain CRF over the words of each segment (Lafferty et al. 2001; Lample et al. 2016, section 2.2).

Ours, because no JAX library that is kept up has one: the recursions over packed segments are all there is to it.
Transitions are [tags + 1, tags + 1]: row `tags` is the begin of a sentence, column `tags` its end.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp


def sequence_loss(
    emissions: jax.Array, transitions: jax.Array, targets: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    """Sum over all segments of -log p(tags | words).

    Args:
      emissions: scores of tags, float32 [rows, length, tags].
      transitions: float32 [tags + 1, tags + 1].
      targets: int32 [rows, length]; -1 where there is no word's first piece, which is passed over.
      segment_ids: int32 [rows, length].

    Returns:
      float32 [].
    """
    tags = emissions.shape[-1]
    between, begin, end = transitions[:tags, :tags], transitions[tags, :tags], transitions[:tags, tags]
    rows = emissions.shape[0]

    def step(carry: tuple[jax.Array, ...], at: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], None]:
        # alpha: log-sum over tag sequences of the open segment so far, [rows, tags]; last: its last gold tag, [rows];
        # segment: which one is open, [rows], 0 if none is; log_sums: of the closed segments, [rows]; golds: scores of gold
        # tags, of the closed segments and of the open one so far, [rows].
        alpha, last, segment, log_sums, golds = carry
        emission, target, here = at
        scored = target >= 0
        gold = jnp.maximum(target, 0)
        is_new = scored & (here != segment)
        closes = is_new & (segment > 0)
        log_sums = log_sums + jnp.where(closes, jax.nn.logsumexp(alpha + end[None], axis=-1), 0)
        golds = golds + jnp.where(closes, end[last], 0)
        # [rows, tag before, tag] → [rows, tag]
        goes_on = jax.nn.logsumexp(alpha[:, :, None] + between[None], axis=1) + emission
        begins = begin[None] + emission
        alpha = jnp.where(scored[:, None], jnp.where(is_new[:, None], begins, goes_on), alpha)
        step_score = jnp.where(is_new, begin[gold], between[last, gold])
        own = jnp.take_along_axis(emission, gold[:, None], axis=1)[:, 0]
        golds = golds + jnp.where(scored, step_score + own, 0)
        last, segment = jnp.where(scored, gold, last), jnp.where(scored, here, segment)
        return (alpha, last, segment, log_sums, golds), None

    none = jnp.zeros(rows, jnp.int32)
    start: tuple[jax.Array, ...] = (jnp.zeros((rows, tags)), none, none, jnp.zeros(rows), jnp.zeros(rows))
    columns: tuple[jax.Array, ...] = (
        emissions.swapaxes(0, 1),
        targets.T,
        segment_ids.T,
    )  # the scan goes from left to right: length first
    (alpha, last, segment, log_sums, golds), _ = jax.lax.scan(step, start, columns)
    is_open = segment > 0
    log_sums = log_sums + jnp.where(is_open, jax.nn.logsumexp(alpha + end[None], axis=-1), 0)
    golds = golds + jnp.where(is_open, end[last], 0)
    return jnp.sum(log_sums - golds)


def best_sequence(emissions: np.ndarray, transitions: np.ndarray) -> list[int]:
    """The most probable tags of one sentence (Viterbi).

    Args:
      emissions: of its words, float [words, tags].
      transitions: float [tags + 1, tags + 1].
    """
    tags = emissions.shape[1]
    score = transitions[tags, :tags] + emissions[0]
    back = []
    for emission in emissions[1:]:
        every = score[:, None] + transitions[:tags, :tags]
        back.append(every.argmax(axis=0))
        score = every.max(axis=0) + emission
    tag = int((score + transitions[:tags, tags]).argmax())
    found = [tag]
    for pointers in reversed(back):
        tag = int(pointers[tag])
        found.append(tag)
    return found[::-1]


def marginals(emissions: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Probability of each tag of each word of one sentence (forward-backward), float [words, tags].

    Args:
      emissions: float [words, tags].
      transitions: float [tags + 1, tags + 1].
    """
    tags = emissions.shape[1]
    between = transitions[:tags, :tags]
    forward = [transitions[tags, :tags] + emissions[0]]
    for emission in emissions[1:]:
        forward.append(logsumexp(forward[-1][:, None] + between, axis=0) + emission)
    backward = [transitions[:tags, tags]]
    for emission in emissions[:0:-1]:
        backward.append(logsumexp(between + (emission + backward[-1])[None], axis=1))
    joint = np.asarray(forward) + np.asarray(backward[::-1])
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
