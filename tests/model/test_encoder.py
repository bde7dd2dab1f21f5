# SPDX-License-Identifier: Apache-2.0
"""The encoder: equal to transformers' XLM-R, closed at document borders, the same unrolled or in bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax.model.dropout import row_keys
from mlm_jax.model.encoder import Encoder, padded_rows

MODEL = cfg.Model(layers=3, width=48, heads=4, mlp_width=96, positions=24)
ROWS = 128


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


def initialized(config=MODEL, unroll=1):
    """An encoder and its parameters, each leaf with values of its own: zeros and ones would hide errors."""
    model = Encoder(config, ROWS, jnp.float32, unroll)
    example = jnp.zeros((1, 24), jnp.int32)

    def init(key):
        return nn.meta.unbox(model.init(key, example, example, example, example[:, :1], method="features"))

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
    before = np.asarray(encode(variables, tokens, positions, segments, keys))
    changed = np.where(segments == 2, 99 - tokens, tokens)
    after = np.asarray(encode(variables, changed, positions, segments, keys))
    outside = segments != 2
    np.testing.assert_array_equal(before[outside], after[outside])
    assert (np.abs(before - after)[~outside].max(axis=-1) > 1e-3).all()  # and every token of the document sees it


def test_what_stands_in_padding_is_not_seen():
    model, variables = initialized()
    tokens, positions, segments = blocks([[10], [3, 4]])
    before = np.asarray(model.apply(variables, tokens, positions, segments))
    after = np.asarray(model.apply(variables, np.where(segments == 0, 77, tokens), positions, segments))
    np.testing.assert_array_equal(before[segments > 0], after[segments > 0])
    assert np.isfinite(before).all()


def test_a_document_is_encoded_as_it_would_be_alone():
    model, variables = initialized()
    tokens, positions, segments = blocks([[7, 9]])
    together = np.asarray(model.apply(variables, tokens, positions, segments))[0, 7:16]
    alone = np.asarray(model.apply(variables, tokens[:, 7:16], positions[:, 7:16], np.ones((1, 9), np.int32)))[0]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_block_of_padding_gives_no_nan_and_no_nan_gradient():
    model, variables = initialized()
    tokens, positions, segments = blocks([[]])

    def total(v):
        return jnp.sum(model.apply(v, tokens, positions, segments) ** 2)

    value, gradient = jax.value_and_grad(total)(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


@pytest.mark.parametrize(("remat", "unroll"), [("none", 3), ("dots", 1), ("full", 3)])
def test_unrolled_and_rematerialised_layers_compute_the_same(remat, unroll):
    tokens, positions, segments = blocks([[24], [10, 8]])
    keys = row_keys(0, jnp.int32(3), jnp.arange(2))

    def gradient(remat, unroll):
        model, variables = initialized(dataclasses.replace(MODEL, remat=remat), unroll=unroll)

        def loss(v):
            return jnp.sum(jnp.sin(model.apply(v, tokens, positions, segments, keys)))

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
            return jnp.sum(model.apply(v, tokens, positions, segments))

        return jax.jit(jax.grad(loss)).lower(variables).compile().memory_analysis().temp_size_in_bytes

    assert temporary("full") < 0.6 * temporary("none")


def test_bfloat16_is_near_float32_and_parameters_stay_float32():
    model, variables = initialized()
    half = Encoder(MODEL, ROWS, jnp.bfloat16)
    tokens, positions, segments = blocks([[24], [10, 8]])
    exact = model.apply(variables, tokens, positions, segments)
    rough = half.apply(variables, tokens, positions, segments)
    assert rough.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(half.init(jax.random.key(0), tokens, positions, segments))} == {
        np.dtype("float32")
    }
    difference = np.abs(np.asarray(exact) - np.asarray(rough, np.float32))
    assert 0 < difference.mean() < 0.03


def test_the_shared_matrix_gets_the_gradients_of_both_its_uses():
    model, variables = initialized()
    tokens, positions, segments = blocks([[24], [10, 8]])
    scored = np.array([[1, 5], [0, 3]], np.int32)

    def both(v):
        features, matrix, bias = model.apply(v, tokens, positions, segments, scored, method="features")
        return jnp.sum(jnp.sin(jnp.einsum("bsw,vw->bsv", features, matrix) + bias[None, None]))

    def apart(v, output):
        features, _, bias = model.apply(v, tokens, positions, segments, scored, method="features")
        return jnp.sum(jnp.sin(jnp.einsum("bsw,vw->bsv", features, output) + bias[None, None]))

    matrix = variables["params"]["embedding"]["token_embedding"]
    first, second = jax.grad(apart, argnums=(0, 1))(variables, matrix)
    got = jax.grad(both)(variables)
    expected = first["params"]["embedding"]["token_embedding"] + second
    np.testing.assert_allclose(got["params"]["embedding"]["token_embedding"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parity
def test_equals_transformers_xlm_roberta():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.XLMRobertaForMaskedLM(
        transformers.XLMRobertaConfig(
            vocab_size=ROWS,
            hidden_size=MODEL.width,
            num_hidden_layers=MODEL.layers,
            num_attention_heads=MODEL.heads,
            intermediate_size=MODEL.mlp_width,
            max_position_embeddings=MODEL.positions + 2,
            type_vocab_size=1,
            layer_norm_eps=MODEL.norm_epsilon,
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # not zeros, ones and 0.02: every parameter has to count
            parameter.add_(0.1 * torch.randn_like(parameter))
    tensors = {name: value.numpy() for name, value in theirs.state_dict().items()}
    variables = {"params": from_theirs(tensors, MODEL)}

    tokens, positions, segments = blocks([[24], [15]])
    with torch.no_grad():
        out = theirs(
            input_ids=torch.from_numpy(tokens).long(),
            attention_mask=torch.from_numpy(segments > 0).long(),
            # Theirs count from padding_idx + 1; the first two rows are not used.
            position_ids=torch.from_numpy(positions + 2).long(),
            output_hidden_states=True,
        )
    model = Encoder(MODEL, ROWS, jnp.float32)
    real = segments > 0
    hidden = model.apply(variables, tokens, positions, segments)
    np.testing.assert_allclose(np.asarray(hidden)[real], out.hidden_states[-1].numpy()[real], atol=1e-4)
    every = np.broadcast_to(np.arange(24, dtype=np.int32), (2, 24))
    features, matrix, bias = model.apply(variables, tokens, positions, segments, every, method="features")
    logits = np.asarray(features) @ np.asarray(matrix).T + np.asarray(bias)
    np.testing.assert_allclose(logits[real], out.logits.numpy()[real], atol=1e-4)


def from_theirs(tensors, config):
    """Our parameters from the state of an XLMRobertaForMaskedLM."""
    width, heads = config.width, config.heads
    prefix = "roberta.encoder.layer.{}."

    def stack(name, shape=None, transpose=True):
        values = [tensors[(prefix + name).format(i)] for i in range(config.layers)]
        values = [v.T if v.ndim == 2 and transpose else v for v in values]
        return np.stack([v.reshape(shape) if shape else v for v in values])

    def norm(name):
        return {"scale": stack(name + ".weight"), "bias": stack(name + ".bias")}

    def qkv(kind, shape):
        parts = [stack(f"attention.self.{p}.{kind}", shape) for p in ("query", "key", "value")]
        return np.stack(parts, axis=-3)

    embeddings = "roberta.embeddings."
    return {
        "embedding": {
            # Their unused type embedding is a constant, which the positions can carry.
            "token_embedding": tensors[embeddings + "word_embeddings.weight"],
            "position_embedding": tensors[embeddings + "position_embeddings.weight"][2:]
            + tensors[embeddings + "token_type_embeddings.weight"],
            "norm": {
                "scale": tensors[embeddings + "LayerNorm.weight"],
                "bias": tensors[embeddings + "LayerNorm.bias"],
            },
        },
        "layers": {
            "attention": {
                "qkv_kernel": qkv("weight", (width, heads, width // heads)),
                "qkv_bias": qkv("bias", (heads, width // heads)),
                "out_kernel": stack("attention.output.dense.weight", (heads, width // heads, width)),
                "out_bias": stack("attention.output.dense.bias"),
            },
            "attention_norm": norm("attention.output.LayerNorm"),
            "mlp": {
                "in_kernel": stack("intermediate.dense.weight"),
                "in_bias": stack("intermediate.dense.bias"),
                "out_kernel": stack("output.dense.weight"),
                "out_bias": stack("output.dense.bias"),
            },
            "mlp_norm": norm("output.LayerNorm"),
        },
        "head": {
            "dense_kernel": tensors["lm_head.dense.weight"].T,
            "dense_bias": tensors["lm_head.dense.bias"],
            "norm": {"scale": tensors["lm_head.layer_norm.weight"], "bias": tensors["lm_head.layer_norm.bias"]},
            "output_bias": tensors["lm_head.bias"],
        },
    }
