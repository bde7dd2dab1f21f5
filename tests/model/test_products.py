# SPDX-License-Identifier: Apache-2.0
"""What bfloat16 means on a CPU: rounded operands, float32 sums and activations, forward, backward and in the compiled program."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.finetune.forward import hidden_states
from mlm_jax.model.encoder import apply_encoder, make_encoder
from mlm_jax.model.head import cross_entropy
from mlm_jax.model.products import BFLOAT16, FLOAT32, product
from mlm_jax.train.pretraining import build, pretraining_step
from tests.model.test_head import case
from tests.train.test_step import WORDS, batches, config_of

SIZES = {"b": 2, "l": 6, "e": 8, "c": 3, "h": 2, "d": 4, "m": 10, "q": 6, "k": 6, "n": 5, "v": 12}
MODEL = cfg.Model(layers=3, width=32, heads=4, mlp_width=64, positions=32, dropout=0.0, attention_dropout=0.0)


@pytest.mark.parametrize(
    "letters", ["ble,echd->cbhld", "bhqd,bhkd->bhqk", "bhqk,bhkd->bhqd", "bhld,hde->ble", "ble,em->blm", "ne,ve->nv"]
)
def test_operands_are_rounded_and_sums_are_not(letters):
    rng = np.random.default_rng(0)
    left, right, out = re.split(",|->", letters)
    x, y, slope = (
        rng.normal(size=[SIZES[letter] for letter in name]).astype(np.float32) for name in (left, right, out)
    )
    got, pull = jax.vjp(lambda x, y: product(letters, x, y, BFLOAT16), jnp.asarray(x), jnp.asarray(y))
    slopes = pull(jnp.asarray(slope))
    # The same in float64: what is left is the rounding of sums, not of operands.
    x, y, slope = (np.asarray(jnp.asarray(array).astype(BFLOAT16), np.float64) for array in (x, y, slope))
    for ours, exact in zip(
        (got, *slopes),
        (
            np.einsum(letters, x, y),
            np.einsum(f"{out},{right}->{left}", slope, y),
            np.einsum(f"{left},{out}->{right}", x, slope),
        ),
        strict=True,
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [FLOAT32, BFLOAT16])
def test_activations_as_narrow_as_operands_are_multiplied_as_ever(kind):
    x, y = jnp.ones((4, 8), kind), jnp.ones((8, 3))

    def text(function):
        return jax.jit(function).lower(x, y).as_text(debug_info=False)

    assert text(lambda x, y: product("ab,bc->ac", x, y, kind)) == text(
        lambda x, y: jnp.einsum("ab,bc->ac", x, y.astype(kind))
    )


@pytest.mark.parametrize("n", [64, 65])  # what is odd cannot be halved
@pytest.mark.parametrize("chunk", [512, 4_096])
def test_cross_entropy_of_rounded_features(n, chunk):
    *arguments, targets, weights = case(n, 32, 4_096, 4_000, scale=0.3)

    def total(features, matrix, bias, dtype):
        return jnp.sum(cross_entropy(features, matrix[None], bias, targets, 4_000, chunk, dtype)[0] * weights)

    exact, slopes = jax.value_and_grad(total, (0, 1, 2))(*arguments, None)
    rough, rough_slopes = jax.value_and_grad(total, (0, 1, 2))(*arguments, BFLOAT16)
    assert rough.dtype == jnp.float32 and 0 < abs(rough - exact) < 1e-3 * exact
    for one, other in zip(rough_slopes, slopes, strict=True):
        assert one.dtype == jnp.float32
        assert np.linalg.norm(one - other) < 1e-2 * np.linalg.norm(other)


def trained(**model):
    """Losses and gradient norms of a few steps on one device, and the compiled step's text."""
    config = config_of((1, 1, 1), **model)
    mesh = meshes.make_mesh(config.mesh, config.train.batch_size, jax.devices()[:1])
    training = build(config, WORDS, 1, mesh)
    step, state, found = pretraining_step(config, training, mesh), training.initialize(), []
    with meshes.mesh_context(mesh):
        for batch in batches(config):
            state, window = step(state, {}, jax.device_put(batch, meshes.batch_sharding(mesh)))
            found.append((float(window["loss"][0] / window["loss"][1]), float(window["gradient_norm"])))
        batch = jax.device_put(next(batches(config)), meshes.batch_sharding(mesh))
        return np.array(found), step.lower(state, {}, batch).compile().as_text()


def products_of(text):
    """Of a compiled program's text: the types of each product's operands and result, and what it costs (multiplications)."""
    found = []
    for part in re.split(r"\n\n", text):
        types = dict(re.findall(r"(?:%|\b)([\w.-]+)(?: =|:) (\w+\[[\d,]*\])", part))
        for result, left, right, axes in re.findall(
            r"= (\w+\[[\d,]*\])\S* dot\(%?([\w.-]+), %?([\w.-]+)\), .*?lhs_contracting_dims=\{([\d,]*)\}", part
        ):
            sizes = [[int(n) for n in re.findall(r"\d+", kind.split("[")[1])] for kind in (result, types[left])]
            summed = np.prod([sizes[1][int(axis)] for axis in axes.split(",")])
            kinds = tuple(kind.split("[")[0] for kind in (types[left], types[right], result))
            found.append((kinds, int(np.prod(sizes[0]) * summed)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"gated": True, "position_embedding": "rotary", "norm": "pre"}])
def test_losses_are_near_float32s_and_the_processor_multiplies_bfloat16(settings):
    exact, _ = trained(**settings)
    rough, text = trained(**settings, dtype="bfloat16")
    assert 0 < np.abs(rough[:, 0] - exact[:, 0]).max() < 2e-3
    np.testing.assert_allclose(rough[:, 1], exact[:, 1], rtol=1e-2)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        pytest.skip("the processor cannot multiply bfloat16")
    found = products_of(text)
    wanted = sum(cost for kinds, cost in found if kinds == ("bf16", "bf16", "f32"))
    # The rest are products with a vector: the gradient of the output layer's bias.
    assert wanted > 0.98 * sum(cost for _, cost in found), found


def test_activations_are_float32_on_a_cpu_only():
    here, there = (make_encoder(MODEL, 300, dtype="bfloat16", platform=platform) for platform in (None, "tpu"))
    assert (here.dtype, here.activations) == (BFLOAT16, FLOAT32)
    assert (there.dtype, there.activations) == (BFLOAT16, BFLOAT16)
    assert make_encoder(MODEL, 300).activations == FLOAT32


@pytest.mark.slow
def test_vectors_and_what_a_task_reads_are_near_float32s():
    batch = {name: jnp.ones((2, 16), jnp.int32) for name in ("positions", "segment_ids", "token_types", "language_ids")}
    batch |= {"tokens": jnp.arange(32, dtype=jnp.int32).reshape(2, 16), "positions": jnp.arange(16)[None].repeat(2, 0)}
    whole = make_encoder(MODEL, 300)
    params = jax.jit(lambda key: whole.init(key, batch, jnp.zeros((2, 1), jnp.int32), method="features"))(
        jax.random.key(0)
    )["params"]
    params = jax.tree.map(lambda leaf: leaf.value, params, is_leaf=lambda leaf: hasattr(leaf, "value"))
    vectors = [
        apply_encoder(make_encoder(MODEL, 300, dtype=dtype, layers=3, training=False), params, batch)
        for dtype in ("float32", "bfloat16")
    ]
    tuned = [
        hidden_states(MODEL, (300, 1), -1, params, {}, kind, batch, jnp.zeros(2, jnp.uint32))
        for kind in (FLOAT32, BFLOAT16)
    ]
    for exact, rough in (vectors, tuned):
        assert exact.dtype == rough.dtype == jnp.float32
        assert 0 < np.abs(exact - rough).max() < 0.05 and np.abs(exact - rough).mean() < 5e-3
