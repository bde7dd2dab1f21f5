# SPDX-License-Identifier: Apache-2.0
"""The CRF against every sequence of tags there is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax.finetune.tasks.crf import best_sequence, marginals, sequence_loss


def score(emissions, transitions, tags):
    n = transitions.shape[0] - 1
    total = transitions[n, tags[0]] + transitions[tags[-1], n]
    total += sum(transitions[a, b] for a, b in itertools.pairwise(tags))
    return total + sum(emission[tag] for emission, tag in zip(emissions, tags, strict=True))


def every(emissions, transitions):
    tags = emissions.shape[1]
    sequences = list(itertools.product(range(tags), repeat=len(emissions)))
    return sequences, np.array([score(emissions, transitions, s) for s in sequences])


@pytest.mark.parametrize("words", [1, 2, 5])
def test_decoding_and_marginals_equal_brute_force(words):
    rng = np.random.default_rng(words)
    emissions, transitions = rng.normal(size=(words, 3)), rng.normal(size=(4, 4))
    sequences, scores = every(emissions, transitions)
    assert best_sequence(emissions, transitions) == list(sequences[scores.argmax()])
    chances = np.exp(scores - np.logaddexp.reduce(scores))
    expected = np.zeros((words, 3))
    for sequence, chance in zip(sequences, chances, strict=True):
        expected[np.arange(words), list(sequence)] += chance
    np.testing.assert_allclose(marginals(emissions, transitions), expected, atol=1e-12)


def test_the_loss_of_packed_sentences_is_the_sum_of_each_ones_negative_log_probability():
    rng = np.random.default_rng(0)
    emissions, transitions = rng.normal(size=(2, 12, 3)).astype(np.float32), rng.normal(size=(4, 4)).astype(np.float32)
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 12], np.int32)
    targets = np.where(rng.random((2, 12)) < 0.6, rng.integers(0, 3, (2, 12)), -1).astype(np.int32)
    targets[segments == 0] = -1
    expected = 0.0
    for row, segment in ((0, 1), (0, 2), (1, 1)):
        words = np.flatnonzero((segments[row] == segment) & (targets[row] >= 0))
        _, scores = every(emissions[row, words], transitions)
        expected += np.logaddexp.reduce(scores) - score(emissions[row, words], transitions, targets[row, words])
    found = sequence_loss(*map(jnp.asarray, (emissions, transitions, targets, segments)))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # A gradient step along it raises the gold sequence's probability: it is the loss that training uses.
    grads = jax.grad(lambda e: sequence_loss(e, jnp.asarray(transitions), jnp.asarray(targets), jnp.asarray(segments)))
    assert np.isfinite(np.asarray(grads(jnp.asarray(emissions)))).all()


def test_a_row_without_words_costs_nothing():
    none = jnp.full((1, 4), -1, jnp.int32)
    assert float(sequence_loss(jnp.ones((1, 4, 2)), jnp.ones((3, 3)), none, jnp.zeros((1, 4), jnp.int32))) == 0
