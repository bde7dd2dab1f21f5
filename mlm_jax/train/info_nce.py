# SPDX-License-Identifier: Apache-2.0
"""InfoNCE: the cross-entropy of finding each text's partner among all of a batch (van den Oord et al. 2018, equation 4)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from mlm_jax.train.step import Measured, microbatched

CHUNK = 512  # texts that are compared with all others at a time, so that no array is of all with all
NOWHERE = -1e30  # a score that no softmax sees
SMALLEST = 1e-24  # square of the length that a vector is divided by


@dataclass(frozen=True)
class Rule:
    """How vectors are compared; see `config.Contrastive`.

    Attributes:
      dimensions: whose losses are averaged: the first so many of each vector, 0 for all.
    """

    temperature: float = 0.05
    margin: float = 0.0
    symmetric: bool = True
    dimensions: tuple[int, ...] = (0,)


def info_nce(vectors: jax.Array, present: jax.Array, texts: jax.Array, rule: Rule) -> Measured:
    """Look for the second text of each pair, given the first, and the other way round.

    Scores are cosines over the temperature; of a pair's own, the margin is taken first (Feng et al. 2022, equation 2). Wrong
    are all second texts, and all hard negatives (Gao, Yao and Chen 2021, equation 5), but for those that are the right one or the text itself, and those of
    pairs with the same first text. In the other direction hard negatives do not count.

    Args:
      vectors: float32 [pairs, sides, width]: first text, second text, hard negatives of the second.
      present: whether there is such a text, bool [pairs, sides].
      texts: equal where texts are, uint32 [pairs, sides].

    Returns:
      `loss` and `accuracy` (the right text scores highest), (sum over pairs, pairs) each.
    """
    first, second = (0, 1), (1, 0)
    losses, accuracies = [], []
    for number in rule.dimensions:
        kept = vectors[..., :number] if number else vectors
        # Not by the norm, whose gradient at 0 is none: where there is no text there is no vector.
        kept = kept * jax.lax.rsqrt(jnp.maximum(jnp.sum(kept * kept, axis=-1, keepdims=True), SMALLEST))
        for sides in (first, second) if rule.symmetric else (first,):
            loss, correct = _one_way(kept, present, texts, sides, rule)
            losses.append(loss)
            accuracies.append(correct)
    pairs = jnp.sum(present[:, 0] & present[:, 1], dtype=jnp.float32)
    return {"loss": (jnp.mean(jnp.stack(losses)), pairs), "accuracy": (jnp.mean(jnp.stack(accuracies)), pairs)}


def _one_way(
    vectors: jax.Array, present: jax.Array, texts: jax.Array, sides: tuple[int, int], rule: Rule
) -> tuple[jax.Array, jax.Array]:
    """Loss and right answers of looking for the partner of each text of a side, summed over pairs, float32 [] each.

    Args:
      vectors, present, texts: as in `info_nce`, of length 1.
      sides: of the texts that ask, and of their partners.
    """
    asks, partner = sides
    # Candidates, [candidates, ...]: the partners, and then the hard negatives where they are of the partners' side.
    negatives = slice(2, None if partner == 1 else 2)

    def candidates(of: jax.Array) -> jax.Array:
        hard = of[:, negatives]  # [pairs, negatives, ...]
        return jnp.concatenate([of[:, partner], hard.reshape(-1, *hard.shape[2:])])

    found, is_there, found_texts = candidates(vectors), candidates(present), candidates(texts)
    # Of each candidate the text that it is the answer to; a hard negative is the answer to none but, harmlessly, itself.
    answers_to = jnp.concatenate([texts[:, asks], found_texts[len(texts) :]])

    @jax.checkpoint
    def sums(rows: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        mine, right = rows["text"][:, None], rows["partner_text"][:, None]  # [rows, 1]
        theirs, whose = found_texts[None], answers_to[None]  # [1, candidates]
        wrong = is_there[None] & (theirs != right) & (theirs != mine) & (whose != mine)  # [rows, candidates]
        scores = _products("re,ce->rc", rows["vector"], found) / rule.temperature
        scores = jnp.where(wrong, scores, NOWHERE)
        own = _products("re,re->r", rows["vector"], rows["partner"]) / rule.temperature
        with_margin = own - rule.margin / rule.temperature
        highest = jax.lax.stop_gradient(jnp.maximum(scores.max(axis=1), with_margin))  # [rows]
        total = jnp.exp(scores - highest[:, None]).sum(axis=1) + jnp.exp(with_margin - highest)
        loss = jnp.log(total) + highest - with_margin
        return jnp.sum(loss * rows["counts"]), jnp.sum((own >= scores.max(axis=1)) * rows["counts"])

    rows = {
        "vector": vectors[:, asks],
        "partner": vectors[:, partner],
        "text": texts[:, asks],
        "partner_text": texts[:, partner],
        "counts": (present[:, 0] & present[:, 1]).astype(jnp.float32),
    }
    number = len(texts)
    return microbatched(sums, next(n for n in range(1, number + 1) if number % n == 0 and number // n <= CHUNK))(rows)


def _products(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums of products in float32, not rounded to what matrix units are fastest with: float32 [...], [...] → [...]."""
    return jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
