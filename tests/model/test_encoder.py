# SPDX-License-Identifier: Apache-2.0
"""The encoder: closed at document borders, the same unrolled or in bfloat16."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.model.dropout import row_keys
from mlm_jax.model.encoder import Encoder, example_batch, make_encoder, padded_rows
from mlm_jax.plan.compile import activations

MODEL = cfg.Model(layers=3, width=48, heads=4, mlp_width=96, positions=24)
ROWS = 128
CHECKOUT = Path(__file__).parents[2]


def blocks(lengths, vocabulary=100, seed=0):
    """A batch in which block i holds documents of lengths[i], the rest of 24 places being padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, vocabulary, (len(lengths), 24)).astype(np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, documents in enumerate(lengths):
        start = 0
        for number, length in enumerate(documents, 1):
            segments[row, start : start + length] = number
            positions[row, start : start + length] = np.arange(length)
            start += length
    return np.where(segments > 0, tokens, 0), positions, segments


def as_batch(tokens, positions, segments):
    return {"tokens": tokens, "positions": positions, "segment_ids": segments}


def initialized(config=MODEL, unroll=1):
    """An encoder and its parameters, each leaf with values of its own: zeros and ones would hide errors."""
    model = Encoder(config, ROWS, jnp.float32, unroll)
    scored = jnp.zeros((1, 1), jnp.int32)

    def init(key):
        return nn.meta.unbox(model.init(key, example_batch(24), scored, method="features"))

    leaves, tree = jax.tree.flatten(jax.eval_shape(init, jax.random.key(0)))
    rng = np.random.default_rng(1)
    leaves = [0.1 * rng.normal(size=leaf.shape) for leaf in leaves]
    return model, jax.tree.unflatten(tree, [leaf.astype(np.float32) for leaf in leaves])


def test_padded_rows():
    assert [padded_rows(n) for n in (1, 128, 129, 250_002)] == [128, 128, 256, 250_112]


def test_changing_one_document_changes_no_other_bit():
    model, variables = initialized()
    keys = row_keys(0, jnp.int32(0), jnp.arange(2))
    encode = jax.jit(model.apply)
    tokens, positions, segments = blocks([[7, 9, 5], [24]])
    before = np.asarray(encode(variables, as_batch(tokens, positions, segments), keys))
    changed = np.where(segments == 2, 99 - tokens, tokens)
    after = np.asarray(encode(variables, as_batch(changed, positions, segments), keys))
    outside = segments != 2
    np.testing.assert_array_equal(before[outside], after[outside])
    assert (np.abs(before - after)[~outside].max(axis=-1) > 1e-3).all()  # and every token of the document sees it


def test_what_stands_in_padding_is_not_seen():
    model, variables = initialized()
    tokens, positions, segments = blocks([[10], [3, 4]])
    before = np.asarray(model.apply(variables, as_batch(tokens, positions, segments)))
    after = np.asarray(model.apply(variables, as_batch(np.where(segments == 0, 77, tokens), positions, segments)))
    np.testing.assert_array_equal(before[segments > 0], after[segments > 0])
    assert np.isfinite(before).all()


def test_a_document_is_encoded_as_it_would_be_alone():
    model, variables = initialized()
    tokens, positions, segments = blocks([[7, 9]])
    together = np.asarray(model.apply(variables, as_batch(tokens, positions, segments)))[0, 7:16]
    alone = np.asarray(
        model.apply(variables, as_batch(tokens[:, 7:16], positions[:, 7:16], np.ones((1, 9), np.int32)))
    )[0]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_block_of_padding_gives_no_nan_and_no_nan_gradient():
    model, variables = initialized()
    tokens, positions, segments = blocks([[]])

    def total(v):
        return jnp.sum(model.apply(v, as_batch(tokens, positions, segments)) ** 2)

    value, gradient = jax.value_and_grad(total)(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


@pytest.mark.parametrize(("remat", "unroll"), [("none", 3), ("dots", 1), ("full", 3)])
def test_unrolled_and_rematerialised_layers_compute_the_same(remat, unroll):
    tokens, positions, segments = blocks([[24], [10, 8]])
    keys = row_keys(0, jnp.int32(3), jnp.arange(2))

    def gradient(remat, unroll):
        model, variables = initialized(dataclasses.replace(MODEL, remat=remat), unroll=unroll)

        def loss(v):
            return jnp.sum(jnp.sin(model.apply(v, as_batch(tokens, positions, segments), keys)))

        return jax.jit(jax.grad(loss))(variables)

    expected, got = gradient("none", 1), gradient(remat, unroll)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), expected, got)


@pytest.mark.parametrize("unroll", [1, 8])
def test_rematerialisation_saves_memory(unroll):
    tokens, positions, segments = (np.tile(x, (32, 1)) for x in blocks([[24]]))

    def temporary(remat):
        config = dataclasses.replace(MODEL, layers=8, remat=remat)
        model, variables = initialized(config, unroll=unroll)

        def loss(v):
            return jnp.sum(model.apply(v, as_batch(tokens, positions, segments)))

        return jax.jit(jax.grad(loss)).lower(variables).compile().memory_analysis().temp_size_in_bytes

    assert temporary("full") < 0.6 * temporary("none")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_mask_and_no_scores_are_stored_for_the_backward_pass(dtype):
    """In the compiled program: what is stored of all layers is stacked, [layers, ...]."""
    rows, length = 2, 24
    model, variables = initialized(dataclasses.replace(MODEL, layers=5, dtype=dtype.__name__))
    model = model.clone(dtype=jnp.dtype(dtype))
    tokens, positions, segments = blocks([[24], [10, 8]])
    keys = row_keys(0, jnp.int32(3), jnp.arange(rows))

    def loss(v):
        return jnp.sum(jnp.sin(model.apply(v, as_batch(tokens, positions, segments), keys)).astype(jnp.float32))

    text = jax.jit(jax.grad(loss)).lower(variables).compile().as_text()
    shapes = {(kind, tuple(map(int, shape.split(",")))) for kind, shape in re.findall(r"\b(\w+)\[(5,[\d,]+)\]", text)}
    assert any(shape[1:3] == (rows, length) for _, shape in shapes)  # what is stored is found
    assert not [shape for kind, shape in shapes if kind == "pred" and len(shape) > 2]
    assert not [shape for _, shape in shapes if shape.count(length) > 1]


@pytest.mark.parametrize("attention", ["xla", "flash"])
def test_xlmr_base_stores_two_gib_of_sixteen_blocks(attention):
    config = cfg.load_config(str(CHECKOUT / "configs/xlmr_base.py"))
    config = cfg.with_sections(config, train={"batch_size": 16}, model={"dtype": "bfloat16", "attention": attention})
    assert activations(config, meshes.make_mesh(cfg.Mesh(), 16, jax.devices()[:1]), "tpu") < 1.7 * 2**30


def test_bfloat16_is_near_float32_and_parameters_stay_float32():
    model, variables = initialized()
    half = Encoder(MODEL, ROWS, jnp.bfloat16)
    tokens, positions, segments = blocks([[24], [10, 8]])
    exact = model.apply(variables, as_batch(tokens, positions, segments))
    rough = half.apply(variables, as_batch(tokens, positions, segments))
    assert rough.dtype == jnp.bfloat16
    assert {
        leaf.dtype for leaf in jax.tree.leaves(half.init(jax.random.key(0), as_batch(tokens, positions, segments)))
    } == {np.dtype("float32")}
    difference = np.abs(np.asarray(exact) - np.asarray(rough, np.float32))
    assert 0 < difference.mean() < 0.03


def test_the_shared_matrix_gets_the_gradients_of_both_its_uses():
    model, variables = initialized()
    tokens, positions, segments = blocks([[24], [10, 8]])
    scored = np.array([[1, 5], [0, 3]], np.int32)

    def both(v):
        features, matrix, bias, _ = model.apply(v, as_batch(tokens, positions, segments), scored, method="features")
        return jnp.sum(jnp.sin(jnp.einsum("bsw,vw->bsv", features, matrix[0]) + bias[None, None]))

    def apart(v, output):
        features, _, bias, _ = model.apply(v, as_batch(tokens, positions, segments), scored, method="features")
        return jnp.sum(jnp.sin(jnp.einsum("bsw,vw->bsv", features, output) + bias[None, None]))

    matrix = variables["params"]["embedding"]["token_embedding"]
    first, second = jax.grad(apart, argnums=(0, 1))(variables, matrix)
    got = jax.grad(both)(variables)
    expected = first["params"]["embedding"]["token_embedding"] + second
    np.testing.assert_allclose(got["params"]["embedding"]["token_embedding"], expected, atol=1e-4, rtol=1e-4)


def test_one_place_builds_encoders():
    built = [
        path for path in (CHECKOUT / "mlm_jax").rglob("*.py") if re.search(r"(?<!class )\bEncoder\(", path.read_text())
    ]
    assert [path.name for path in built] == ["encoder.py"]


def test_encoder_for_the_devices_that_are_here():
    here, there = make_encoder(MODEL, ROWS), make_encoder(MODEL, ROWS, platform="tpu")
    assert (here.dtype, here.unroll) == (jnp.float32, MODEL.layers)
    assert (there.dtype, there.unroll) == (jnp.bfloat16, 1)
    assert make_encoder(MODEL, ROWS, dtype="bfloat16").dtype == jnp.bfloat16
    assert here.config == MODEL
    lower = make_encoder(MODEL, ROWS, layers=2)
    assert (lower.config.layers, lower.config.head, lower.unroll) == (2, "none", 2)
    assert make_encoder(MODEL, ROWS, layers=0).unroll == 1
    assert make_encoder(MODEL, ROWS, training=False).unroll == 1
    assert make_encoder(MODEL, ROWS, languages=0).languages == 1
