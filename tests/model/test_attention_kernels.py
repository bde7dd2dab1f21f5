# SPDX-License-Identifier: Apache-2.0
"""Attention's kernels against the plain products, forward and backward; splash by the TPU compiler where it is here."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.model import attention_kernels as kernels
from mlm_jax.model.attention import make_context
from mlm_jax.model.encoder import Encoder, example_batch

LENGTH, HEAD = 256, 16
MODEL = cfg.Model(width=2 * HEAD, heads=2, positions=LENGTH, attention_dropout=0.0)
# What a layer may be: whether it is a local one, and the model's other settings.
LAYERS = {
    "whole": (True, {}),
    "causal": (True, {"causal": True}),
    "local": (False, {"global_every": 3, "window": 64}),
    "narrow": (False, {"global_every": 3, "window": 7}),
    "global among local": (True, {"global_every": 3, "window": 64}),
    "causal and local": (False, {"global_every": 3, "window": 64, "causal": True}),
}
CASES = [(kernel, layer) for kernel in ("triton", "splash") for layer in LAYERS if kernel == "splash" or layer in ("whole", "causal")]


def segments():
    """Blocks of one document, of three with padding, and of padding alone: int32 [3, LENGTH]."""
    rows = np.zeros((3, LENGTH), np.int32)
    rows[0] = 1
    for number, (start, end) in enumerate(((0, 5), (5, 150), (150, 220)), 1):
        rows[1, start:end] = number
    return jnp.asarray(rows)


def outcome(kernel, config, is_global, dtype, length=LENGTH):
    """Attention's output and the gradients of query, key and value of a sum of it, float32 each."""
    rng = np.random.default_rng(0)
    ids = segments()
    qkv = [jnp.asarray(rng.normal(size=(3, 2, LENGTH, HEAD)), dtype) for _ in range(3)]
    slope = jnp.asarray(rng.normal(size=(3, 2, LENGTH, HEAD)), jnp.float32)
    places = jnp.broadcast_to(jnp.arange(LENGTH), ids.shape)

    @jax.jit
    def run(is_global, *qkv):
        context = make_context(config, ids, places)

        def total(*qkv):
            out = kernels.attend(kernel, config, *qkv, context, is_global, None)
            return jnp.sum(out.astype(jnp.float32) * slope), out

        gradients, out = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*qkv)
        return out, gradients

    out, gradients = run(jnp.bool_(is_global), *qkv)
    assert out.dtype == dtype
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize(("kernel", "layer"), CASES)
def test_kernels_agree_with_the_plain_products(kernel, layer, dtype, tolerance):
    is_global, settings = LAYERS[layer]
    config = dataclasses.replace(MODEL, **settings)
    expected = outcome("xla", config, is_global, dtype)
    for got, want in zip(outcome(kernel, config, is_global, dtype), expected, strict=True):
        # Of the largest value: bfloat16 has eight bits, whatever the value.
        print(kernel, layer, dtype.__name__, np.abs(got - want).max() / np.abs(want).max())
        np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max())
