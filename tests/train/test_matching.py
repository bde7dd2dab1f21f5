# SPDX-License-Identifier: Apache-2.0
"""Distances between a student and a teacher against NumPy in float64, written from the papers; gradients by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax.train.matching import (
    distance,
    read_by_attention,
    relation_divergence,
    text_vectors,
    vector_distance,
)

SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 0, 0, 0]], np.int32)
HEADS = 3


def relations(x, segments, heads):
    """softmax(A Aᵀ / √d) of one row, head and segment at a time: name → [tokens, tokens]."""
    size = x.shape[-1] // heads
    found = {}
    for c, row, head in np.ndindex(x.shape[0], x.shape[1], heads):
        for segment in set(segments[row]) - {0}:
            a = x[c, row, segments[row] == segment, head * size : (head + 1) * size].astype(np.float64)
            scores = np.exp(a @ a.T / np.sqrt(size))
            found[c, row, head, segment] = scores / scores.sum(axis=1, keepdims=True)
    return found


def divergence(teacher, student, segments, heads):
    """Equation 3 of Wang et al. 2021 without the division by tokens, float64 [rows]."""
    out = np.zeros(len(segments))
    p, q = (relations(x, segments, heads) for x in (teacher, student))
    for key in p:
        out[key[1]] += np.sum(p[key] * np.log(p[key] / q[key])) / heads
    return out


def random(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_relations_and_their_gradient():
    teacher, student = random((3, 2, 8, 12), (3, 2, 8, 6))
    teacher, student = 2 * teacher, 2 * student
    value = jax.jit(lambda s: relation_divergence(teacher, s, SEGMENTS, HEADS))
    expected = divergence(teacher, student, SEGMENTS, HEADS)
    np.testing.assert_allclose(value(student), expected, rtol=1e-5)
    gradient = np.asarray(jax.grad(lambda s: jnp.sum(value(s)))(student))
    assert np.all(gradient[:, SEGMENTS == 0] == 0)
    for index in [(0, 0, 0, 0), (0, 0, 4, 5), (1, 0, 2, 3), (1, 1, 4, 2), (2, 0, 6, 1), (2, 1, 0, 0)]:
        step = np.zeros(student.shape)
        step[index] = 1e-4
        ends = [divergence(teacher, student + side * step, SEGMENTS, HEADS).sum() for side in (1, -1)]
        np.testing.assert_allclose(gradient[index], (ends[0] - ends[1]) / 2e-4, rtol=1e-4, atol=1e-5)


def test_equal_relations_are_no_loss_whatever_the_width():
    [x] = random((3, 2, 8, 6))
    np.testing.assert_allclose(relation_divergence(x, x, SEGMENTS, 2), 0, atol=1e-6)
    # A rotation of a head's units, and units of zeros beside them, leave every product as it is but for the scale of 1 / √size.
    turned = x[..., [1, 0, 2, 4, 3, 5]]
    np.testing.assert_allclose(relation_divergence(x, turned, SEGMENTS, 2), 0, atol=1e-6)
    wide = np.sqrt(np.sqrt(2)) * np.concatenate([x[..., :3], 0 * x[..., :3], x[..., 3:], 0 * x[..., :3]], axis=-1)
    np.testing.assert_allclose(relation_divergence(x, wide, SEGMENTS, 2), 0, atol=1e-6)


def test_what_attention_reads_is_the_layers_own_product():
    kernel, bias, x = random((4, 6, 3, 2, 3), (4, 3, 2, 3), (2, 8, 6))
    layers = {"attention": {"qkv_kernel": kernel, "qkv_bias": bias}}
    found = np.asarray(read_by_attention(layers, 2, jnp.asarray(x), jnp.dtype(jnp.float32)))
    for part in range(3):
        expected = x @ kernel[2][:, part].reshape(6, 6) + bias[2][part].reshape(6)
        np.testing.assert_allclose(found[part], expected, rtol=1e-4, atol=1e-5)
    del layers["attention"]["qkv_bias"]
    assert read_by_attention(layers, 0, jnp.asarray(x), jnp.dtype(jnp.float32)).shape == (3, 2, 8, 6)


@pytest.mark.parametrize("how", ["mse", "cosine"])
def test_distances(how):
    a, b = random((2, 8, 6), (2, 8, 6))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    expected = np.mean((a - b) ** 2, axis=-1) if how == "mse" else 1 - (a * b).sum(axis=-1) / lengths
    np.testing.assert_allclose(distance(a, b, how), expected, rtol=1e-4)
    np.testing.assert_allclose(distance(a, a, how), 0, atol=1e-6)
    # Of nothing there are numbers, and gradients.
    zero = jnp.zeros((1, 6))
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(distance(zero, x, how)))(zero)))


@pytest.mark.parametrize("how", ["mean", "first", "max"])
def test_a_texts_vector_is_of_its_segment(how):
    [hidden] = random((2, 8, 4))
    found, there = text_vectors(jnp.asarray(hidden), SEGMENTS, 3, how)
    np.testing.assert_array_equal(there, [[True, True, False], [True, False, False]])
    for row, slot in ((0, 0), (0, 1), (1, 0)):
        of = hidden[row, SEGMENTS[row] == slot + 1]
        expected = {"mean": of.mean(axis=0), "first": of[0], "max": of.max(axis=0)}[how]
        np.testing.assert_allclose(found[row, slot], expected, rtol=1e-5, atol=1e-6)


def test_a_translation_learns_its_sources_vector():
    teacher, student = random((1, 6, 4), (1, 6, 4))
    there = np.array([[True, True, True, True, True, False]])
    total, number = vector_distance(teacher, student, there, 3, "mse")
    # Pairs of three: source, translation and one that is nobody's translation; the second pair has two texts.
    pairs = [(0, 0), (0, 1), (3, 3), (3, 4)]
    expected = sum(np.mean((teacher[0, a] - student[0, b]) ** 2) for a, b in pairs)
    np.testing.assert_allclose(total, [expected], rtol=1e-5)
    assert float(number[0]) == 4
    total, number = vector_distance(teacher, student, there, 1, "mse")
    np.testing.assert_allclose(total, [np.mean((teacher - student)[0, :5] ** 2, axis=-1).sum()], rtol=1e-5)
    assert float(number[0]) == 5
    # A text whose source is missing teaches nothing.
    assert vector_distance(teacher, student, ~there, 2, "mse")[1].tolist() == [0]
