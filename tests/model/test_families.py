# SPDX-License-Identifier: Apache-2.0
"""The families: as large as published, and what makes each of them what it is."""

import dataclasses
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax.interchange.settings import exportable_family
from mlm_jax.model import families
from mlm_jax.model.attention import rotate
from mlm_jax.model.encoder import Encoder, backbone, padded_rows, parameter_shapes
from mlm_jax.model.task_head import transform_of

PUBLISHED = {  # encoder, pieces, languages, parameters of transformers' class of that shape
    "mBERT cased": (families.MBERT, families.MBERT_CASED_VOCABULARY, 1, 178_566_653),
    "mBERT uncased": (families.MBERT, families.MBERT_UNCASED_VOCABULARY, 1, 168_055_961),
    "XLM-15": (families.XLM_15, families.XLM_15_VOCABULARY, 15, 249_071_384),
    "XLM-100": (families.XLM_100, families.XLM_100_VOCABULARY, 1, 571_696_960),
    "XLM-R base": (families.XLMR_BASE, families.XLMR_VOCABULARY, 1, 278_295_186),
    "XLM-R large": (families.XLMR_LARGE, families.XLMR_VOCABULARY, 1, 560_142_482),
    "XLM-R XL": (families.XLMR_XL, families.XLMR_XL_VOCABULARY, 1, 3_482_741_760),
    "XLM-R XXL": (families.XLMR_XXL, families.XLMR_XL_VOCABULARY, 1, 10_712_994_816),
    "ModernBERT base": (families.MODERNBERT_BASE, families.MODERNBERT_VOCABULARY, 1, 149_655_232),
    "ModernBERT large": (families.MODERNBERT_LARGE, families.MODERNBERT_VOCABULARY, 1, 395_881_664),
    "mmBERT small": (families.MMBERT_SMALL, families.MMBERT_VOCABULARY, 1, 140_897_536),
    "mmBERT base": (families.MMBERT_BASE, families.MMBERT_VOCABULARY, 1, 307_786_240),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name):
    model, pieces, languages, expected = PUBLISHED[name]
    shapes = jax.tree.leaves(parameter_shapes(model, pieces, languages))
    padding = (padded_rows(pieces) - pieces) * (model.width + 1)  # embedding and output bias
    assert sum(math.prod(leaf.shape) for leaf in shapes) - padding == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_family(name):
    expected = {
        "mBERT": "bert",
        "XLM-1": "xlm",
        "XLM-R": "xlm-roberta",
        "XLM-R X": "xlm-roberta-xl",
        "ModernBERT": "modernbert",
        "mmBERT": "modernbert",
    }
    model = PUBLISHED[name][0]
    assert families.family_of(model) == expected[max((p for p in expected if name.startswith(p)), key=len)]
    assert exportable_family(model) == families.family_of(model)
    # What fine-tuning stores has no output layer, and is of the same family.
    if not model.next_sentence:
        assert families.family_of(backbone(model)) == families.family_of(model)


def test_one_place_tells_families_apart():
    """Three did, by token types, and three could disagree."""
    package = Path(__file__).parents[2] / "mlm_jax"
    telling = re.compile(r"token_types (==|<|>=?) |not model.token_types")
    found = {path.name for path in package.rglob("*.py") if telling.search(path.read_text())}
    # The embedding has a table or none; the option's own rule; what Hugging Face's classes refuse.
    assert found <= {"families.py", "embedding.py", "config.py", "settings.py"}


def test_heads_follow_the_family():
    for model in (models[0] for models in PUBLISHED.values()):
        family = families.family_of(model)
        expected = {"modernbert": ("norm", "norm"), "xlm": ("none", "none")}.get(family, ("tanh", "none"))
        assert (transform_of(model, True), transform_of(model, False)) == expected


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_transformers_class(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from mlm_jax.interchange.settings import to_settings
    from mlm_jax.vocabulary import with_specials

    model, pieces, languages, expected = PUBLISHED[name]
    words = with_specials(pieces, {"pad": 1, "bos": 0, "eos": 2, "unk": 3, "mask": 4}, set())
    settings = to_settings(model, words, exportable_family(model), [f"l{i}" for i in range(languages)])
    kind = getattr(transformers, settings.pop("architectures")[0])
    settings.pop("model_type")
    with torch.device("meta"):
        theirs = kind(kind.config_class(**settings))
    theirs.tie_weights()
    assert sum(parameter.numel() for parameter in theirs.parameters()) == expected


SMALL = {"layers": 4, "width": 32, "heads": 2, "mlp_width": 48, "positions": 32}
CAUSAL = cfg.Model(**SMALL, causal=True, head="plain")
MODERN = dataclasses.replace(families.MODERNBERT_BASE, **SMALL, window=8)


def made(model):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(model, 100)
    return Encoder(model, 100, jnp.float32), {
        "params": jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    }


def batch_of(lengths=((32,),), seed=0):
    tokens = np.random.default_rng(seed).integers(5, 100, (len(lengths), 32)).astype(np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, parts in enumerate(lengths):
        start = 0
        for number, length in enumerate(parts, 1):
            segments[row, start : start + length] = number
            positions[row, start : start + length] = np.arange(length)
            start += length
    return {"tokens": tokens, "segment_ids": segments, "positions": positions, "token_types": np.zeros_like(tokens)}


@pytest.mark.parametrize("lengths", [((32,),), ((13, 19),)])
def test_a_causal_encoder_sees_nothing_that_comes_after(lengths):
    encoder, variables = made(CAUSAL)
    encode = jax.jit(encoder.apply)
    batch = batch_of(lengths)
    before = np.asarray(encode(variables, batch))
    changed = batch | {"tokens": np.where(np.arange(32)[None] >= 20, 99 - batch["tokens"] % 90, batch["tokens"])}
    after = np.asarray(encode(variables, changed))
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert (np.abs(before - after)[:, 20:].max(axis=-1) > 0).all()


def test_local_layers_see_half_a_window_on_either_side():
    model = dataclasses.replace(MODERN, layers=2)
    encoder, variables = made(model)
    # Layer 0 is global: without its attention what is left is local.
    variables["params"]["layers"]["attention"]["out_kernel"][0] = 0
    batch = batch_of()
    before = np.asarray(encoder.apply(variables, batch))
    changed = batch["tokens"].copy()
    changed[0, 16] = 99 - changed[0, 16] % 90
    differs = np.abs(before - np.asarray(encoder.apply(variables, batch | {"tokens": changed})))[0].max(axis=-1) > 0
    np.testing.assert_array_equal(np.flatnonzero(differs), np.arange(12, 21))


@pytest.mark.parametrize("model", [MODERN, CAUSAL, cfg.Model(**SMALL, norm="pre", embedding_norm=False)])
def test_a_packed_document_is_encoded_as_it_would_be_alone(model):
    encoder, variables = made(model)
    batch = batch_of(((13, 19),))
    together = np.asarray(encoder.apply(variables, batch))[0, 13:]
    alone = {name: feature[:, 13:] for name, feature in batch.items()} | {"segment_ids": np.ones((1, 19), np.int32)}
    np.testing.assert_allclose(together, np.asarray(encoder.apply(variables, alone))[0], atol=2e-5)


def test_rotary_scores_depend_on_distance_only_and_equal_the_papers_formula():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 8)).astype(np.float32)
    frequencies = 10_000.0 ** -(np.arange(0, 8, 2) / 8)

    def turned(x, position):
        angles = jnp.asarray(position * frequencies, jnp.float32).reshape(1, 1, 1, 4)
        return np.asarray(rotate(jnp.asarray(x).reshape(1, 1, 1, 8), angles)).reshape(8)

    near, far = (turned(query, 3 + shift) @ turned(key, 1 + shift) for shift in (0, 1000))
    np.testing.assert_allclose(near, far, rtol=1e-3)
    # Su et al. 2021, equation 13, on complex numbers made of units i and i + half.
    complex_query, complex_key = query[:4] + 1j * query[4:], key[:4] + 1j * key[4:]
    expected = np.real(complex_query * np.conj(complex_key) * np.exp(1j * 2 * frequencies)).sum()
    np.testing.assert_allclose(near, expected, rtol=1e-4)


@pytest.mark.parity
def test_gradients_equal_those_of_transformers_modernbert():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from mlm_jax.interchange.tensors import tensors
    from tests.interchange import peers

    kind, config = peers.cases(transformers)["modernbert"]
    theirs = peers.randomised(torch, kind(config))
    state = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    model = dataclasses.replace(
        families.MODERNBERT_BASE, layers=5, width=48, heads=4, mlp_width=80, positions=24, window=8
    )
    params = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), parameter_shapes(model, peers.SIZE))
    for name, view in tensors(params, model, "modernbert", peers.SIZE).items():
        view[...] = state[name]
    batch = peers.make_batch(model, 0)
    real = batch["segment_ids"] > 0
    encoder = Encoder(model, peers.SIZE, jnp.float32)

    def loss(params):
        features, matrix, bias, _ = encoder.apply({"params": params}, batch, batch["positions"], method="features")
        logits = jnp.einsum("blw,vw->blv", features, matrix[0]) + bias[None, None]
        return jnp.sum(jnp.sin(logits) * real[..., None])

    gradient = jax.tree.map(np.array, jax.jit(jax.grad(loss))(params))
    inputs = {"input_ids": torch.from_numpy(batch["tokens"]).long(), "attention_mask": torch.from_numpy(real).long()}
    (torch.sin(theirs(**inputs).logits) * torch.from_numpy(real)[..., None]).sum().backward()
    expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    for name, found in tensors(gradient, model, "modernbert", peers.SIZE).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found, expected[name], atol=1e-4 * max(scale, 1), err_msg=name)
