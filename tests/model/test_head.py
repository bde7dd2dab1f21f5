# SPDX-License-Identifier: Apache-2.0
"""The chunked cross-entropy against the dense one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax.model.head import cross_entropy


def dense(features, matrix, bias, targets, size):
    """Loss and correctness with all scores at once, by JAX's own log-softmax."""
    scores = (features @ matrix.T + bias[None])[:, :size]
    loss = -jnp.take_along_axis(jax.nn.log_softmax(scores), targets[:, None], axis=1)[:, 0]
    return loss, (jnp.argmax(scores, axis=1) == targets).astype(jnp.float32)


def case(n, width, rows, size, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    features, matrix, bias = (
        (scale * rng.normal(size=shape)).astype(np.float32) for shape in ((n, width), (rows, width), (rows,))
    )
    targets = rng.integers(0, size, n).astype(np.int32)
    targets[:2] = 0, size - 1  # the first id and the last can be targets
    weights = (rng.random(n) < 0.7).astype(np.float32)
    return features, matrix, bias, targets, weights


def one_copy(features, matrix, bias):
    """The arguments as one device has them."""
    return features, matrix[None], bias


@pytest.mark.parametrize(
    ("n", "width", "rows", "size", "chunk"),
    [
        (9, 8, 256, 200, 1_000),  # one chunk
        (9, 8, 256, 256, 256),  # no padding
        (9, 8, 256, 200, 128),  # two, padding in the second
        (9, 8, 384, 300, 160),  # chunks that do not divide the rows
        (9, 8, 640, 130, 128),  # chunks of nothing but padding
        (5, 4, 250_112, 250_002, 32_768),  # XLM-R's vocabulary
        (5, 4, 250_112, 250_002, 300_000),
    ],
)
def test_loss_and_gradients_equal_the_dense_ones(n, width, rows, size, chunk):
    *arguments, targets, weights = case(n, width, rows, size)

    def ours(features, matrix, bias):
        loss, correct = cross_entropy(features, matrix[None], bias, targets, size, chunk)
        return jnp.sum(loss * weights), (loss, correct)

    def theirs(features, matrix, bias):
        loss, correct = dense(features, matrix, bias, targets, size)
        return jnp.sum(loss * weights), (loss, correct)

    (_, (loss, correct)), gradients = jax.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))(*arguments)
    (_, (loss_, correct_)), gradients_ = jax.jit(jax.value_and_grad(theirs, (0, 1, 2), has_aux=True))(*arguments)
    np.testing.assert_allclose(loss, loss_, atol=2e-5, rtol=2e-5)
    np.testing.assert_array_equal(correct, correct_)
    for got, expected in zip(gradients, gradients_, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5, rtol=2e-5)
    for gradient in gradients[1:]:
        assert not np.asarray(gradient)[size:].any()  # of padded rows


@pytest.mark.parametrize("chunk", [64, 1_000])
def test_padded_rows_never_win(chunk):
    features, matrix, bias, targets, _ = case(6, 8, 256, 100)
    bias[100:] = 1e4
    loss, correct = cross_entropy(features, matrix[None], bias, targets, 100, chunk)
    expected, correct_ = dense(features, matrix, bias, targets, 100)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_array_equal(correct, correct_)


@pytest.mark.parametrize("chunk", [64, 1_000])
def test_correct_is_scored(chunk):
    features, matrix, bias, _, _ = case(50, 8, 256, 200)
    best = jnp.argmax((features @ matrix.T + bias)[:, :200], axis=1).astype(jnp.int32)
    assert cross_entropy(features, matrix[None], bias, best, 200, chunk)[1].sum() == 50
    assert cross_entropy(features, matrix[None], bias, (best + 1) % 200, 200, chunk)[1].sum() == 0


@pytest.mark.parametrize("chunk", [64, 1_000])
def test_large_scores_overflow_nothing(chunk):
    features, matrix, bias, targets, weights = case(6, 8, 256, 200, scale=100.0)

    def total(*arguments):
        return jnp.sum(cross_entropy(*one_copy(*arguments), targets, 200, chunk)[0] * weights)

    value, gradients = jax.value_and_grad(total, (0, 1, 2))(features, matrix, bias)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("chunk", [64, 1_000])
def test_weight_zero_gives_exactly_no_gradient(chunk):
    features, matrix, bias, targets, _ = case(6, 8, 256, 200)

    def total(*arguments):
        return jnp.sum(cross_entropy(*one_copy(*arguments), targets, 200, chunk)[0] * jnp.zeros(6))

    for gradient in jax.grad(total, (0, 1, 2))(features, matrix, bias):
        assert not np.asarray(gradient).any()


def test_bfloat16_features_sum_in_float32():
    features, matrix, bias, targets, _ = case(64, 32, 4_096, 4_000, scale=0.3)
    loss, _ = cross_entropy(features.astype(jnp.bfloat16), matrix[None], bias, targets, 4_000, 512)
    assert loss.dtype == jnp.float32
    expected, _ = dense(features, matrix, bias, targets, 4_000)
    # Rounding of the inputs only; sums of 4,000 terms in bfloat16 would be out by far more.
    np.testing.assert_allclose(loss, expected, atol=0.03)


def test_no_more_scores_at_once_than_a_chunk():
    features, matrix, bias, targets, _ = case(512, 8, 65_536, 65_536)

    def temporary(chunk):
        def total(*arguments):
            return jnp.sum(cross_entropy(*one_copy(*arguments), targets, 65_536, chunk)[0])

        compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(features, matrix, bias).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    all_scores = 512 * 65_536 * 4
    assert temporary(65_536) >= all_scores
    assert temporary(4_096) < all_scores / 4
