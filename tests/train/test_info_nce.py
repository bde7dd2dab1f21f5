# SPDX-License-Identifier: Apache-2.0
"""InfoNCE against a computation in float64 NumPy, pair by pair: loss, gradient, margin, hard negatives, equal texts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax.train import info_nce as module
from mlm_jax.train.info_nce import Rule, info_nce

PAIRS, SIDES, WIDTH = 12, 4, 8


def drawn(seed=0):
    """Vectors, presence and texts of pairs, some of which share a text or are not there."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(PAIRS, SIDES, WIDTH))
    vectors[:, 1] += vectors[:, 0]  # so that some are found
    texts = np.arange(PAIRS * SIDES, dtype=np.uint32).reshape(PAIRS, SIDES)
    texts[3, 0] = texts[2, 0]  # one question with two answers
    texts[5, 1] = texts[4, 1]  # one answer to two questions
    texts[7, 1] = texts[6, 0]  # an answer that is a question elsewhere
    texts[8, 2] = texts[8, 1]  # a hard negative that is the answer
    texts[9, 2] = texts[10, 1]  # ... and one that is another's
    present = np.ones((PAIRS, SIDES), bool)
    present[11] = False
    present[::2, 3] = present[1::3, 2] = False
    return vectors, present, texts


def by_hand(vectors, present, texts, rule):
    """The mean of the losses and of the right answers, a pair and a candidate at a time."""
    losses, right = [], []
    for number in rule.dimensions:
        kept = vectors[..., : number or WIDTH]
        kept = kept / np.linalg.norm(kept, axis=-1, keepdims=True)
        for asks, answers in ((0, 1), (1, 0)) if rule.symmetric else ((0, 1),):
            for i in range(PAIRS):
                if not present[i, :2].all():
                    continue
                own, others = kept[i, asks] @ kept[i, answers], []
                for j in range(PAIRS):
                    for side in range(SIDES):
                        if side == answers:
                            excused = texts[j, asks] == texts[i, asks]
                        elif side >= 2 and answers == 1:
                            excused = False
                        else:
                            continue
                        same = texts[j, side] in (texts[i, answers], texts[i, asks])
                        if present[j, side] and not same and not excused:
                            others.append(kept[i, asks] @ kept[j, side])
                scores = np.array([own - rule.margin, *others]) / rule.temperature
                losses.append(np.log(np.exp(scores).sum()) - scores[0])
                right.append(own >= max(others))
    return np.mean(losses), np.mean(right)


RULES = [
    Rule(0.05),
    Rule(0.1, margin=0.3),
    Rule(0.2, symmetric=False),
    Rule(0.1, 0.1, dimensions=(0, 2, 5)),
]


@pytest.mark.parametrize("chunk", [512, 4])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_loss_accuracy_and_gradient_are_those_by_hand(rule, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    vectors, present, texts = drawn()

    def mean(x):
        found = info_nce(x, jnp.asarray(present), jnp.asarray(texts), rule)
        return found["loss"][0] / found["loss"][1], found

    (loss, found), gradient = jax.value_and_grad(mean, has_aux=True)(jnp.asarray(vectors, jnp.float32))
    wanted, right = by_hand(vectors, present, texts, rule)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert found["loss"][1] == PAIRS - 1 and float(found["accuracy"][0]) / (PAIRS - 1) == pytest.approx(right, rel=1e-6)
    # The gradient along some directions, by central differences in float64.
    rng, step = np.random.default_rng(1), 1e-6
    for _ in range(5):
        along = rng.normal(size=vectors.shape)
        ends = [by_hand(vectors + sign * step * along, present, texts, rule)[0] for sign in (1, -1)]
        assert np.vdot(gradient, along) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4)
    assert not np.asarray(gradient)[~present].any()


def test_torch_has_the_same_cross_entropy():
    """Without equal texts, hard negatives and margin the loss is what everybody writes in one line."""
    torch = pytest.importorskip("torch")
    vectors = np.random.default_rng(0).normal(size=(6, 2, WIDTH)).astype(np.float32)
    texts = jnp.arange(12, dtype=jnp.uint32).reshape(6, 2)

    def loss(x):
        return info_nce(x, jnp.ones((6, 2), bool), texts, Rule(0.07))["loss"][0] / 6

    ours = jax.value_and_grad(loss)(jnp.asarray(vectors))
    theirs = torch.tensor(vectors, requires_grad=True)
    a, b = (torch.nn.functional.normalize(theirs[:, i], dim=-1) for i in (0, 1))
    entropy = [torch.nn.functional.cross_entropy(x, torch.arange(6)) for x in (a @ b.T / 0.07, b @ a.T / 0.07)]
    (sum(entropy) / 2).backward()
    assert ours[0] == pytest.approx(sum(entropy).item() / 2, rel=1e-5)
    np.testing.assert_allclose(ours[1], theirs.grad, atol=1e-6)


def test_copies_of_a_pair_are_no_wrong_answers():
    """A batch with each pair twice has the loss of the batch with each once."""
    vectors, present, texts = drawn()
    once, twice = (
        info_nce(
            jnp.asarray(np.tile(vectors, (n, 1, 1)), jnp.float32),
            jnp.asarray(np.tile(present & (np.arange(SIDES) < 2), (n, 1))),
            jnp.asarray(np.tile(texts, (n, 1))),
            Rule(0.05),
        )["loss"]
        for n in (1, 2)
    )
    # Each wrong answer counts twice in the sum under the logarithm, and the right one once.
    assert twice[1] == 2 * once[1]
    alone = info_nce(
        jnp.asarray(np.tile(vectors[:1], (9, 1, 1)), jnp.float32),
        jnp.ones((9, SIDES), bool),
        jnp.zeros((9, SIDES), jnp.uint32),
        Rule(0.05),
    )
    assert alone["loss"][0] == pytest.approx(0, abs=1e-5) and alone["accuracy"][0] == 9


def test_a_pair_alone_costs_nothing_and_has_a_finite_gradient():
    present = jnp.zeros((4, 2), bool).at[0].set(True)
    vectors = jnp.zeros((4, 2, WIDTH)).at[0].set(1.0)

    def loss(x):
        return info_nce(x, present, jnp.arange(8, dtype=jnp.uint32).reshape(4, 2), Rule(0.01))["loss"][0]

    value, gradient = jax.value_and_grad(loss)(vectors)
    assert value == 0 and np.isfinite(gradient).all()
