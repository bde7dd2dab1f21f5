# SPDX-License-Identifier: Apache-2.0
"""Attention's kernels against the plain products, forward and backward; which is chosen, and what is refused."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.model import attention_kernels as kernels
from mlm_jax.model.attention import make_context

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


def segments():
    """Blocks of one document, of three with padding, and of padding alone: int32 [3, LENGTH]."""
    rows = np.zeros((3, LENGTH), np.int32)
    rows[0] = 1
    for number, (start, end) in enumerate(((0, 5), (5, 150), (150, 220)), 1):
        rows[1, start:end] = number
    return jnp.asarray(rows)


def outcome(kernel, config, is_global, dtype):
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
@pytest.mark.parametrize("layer", LAYERS)
def test_flash_is_asked_for_the_same(layer, dtype, tolerance):
    is_global, settings = LAYERS[layer]
    config = dataclasses.replace(MODEL, **settings)
    expected = outcome("xla", config, is_global, dtype)
    for got, want in zip(outcome("flash", config, is_global, dtype), expected, strict=True):
        # Of the largest value: bfloat16 has eight bits, whatever the value.
        np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("layer", LAYERS)
def test_cudnn_is_asked_for_the_same(layer, monkeypatch):
    """cuDNN itself needs its GPU: what it is asked is answered by JAX's plain implementation of the same function."""
    plain = functools.partial(jax.nn.dot_product_attention)
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, **k: plain(*a, **k | {"implementation": "xla"}))
    is_global, settings = LAYERS[layer]
    config = dataclasses.replace(MODEL, **settings)
    expected = outcome("xla", config, is_global, jnp.float32)
    for got, want in zip(outcome("cudnn", config, is_global, jnp.float32), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("kernel", "calls"), [("cudnn", "__cudnn$fmhaScaleBiasSoftmax"), ("flash", "gpu.triton")])
def test_gpu_kernels_are_lowered_without_a_gpu(kernel, calls, monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as fused

    # What it asks of the machine, as an H100 with cuDNN 9.10 answers; its checks of shapes and types stay.
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda capability: False)
    monkeypatch.setattr(kernels, "platform", lambda: "cuda")
    # Triton's lowering asks which GPU it is for; cuDNN's takes no mesh without devices.
    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    mesh = AbstractMesh((1,), ("data",), abstract_device=device)
    context = jax.sharding.use_abstract_mesh(mesh) if kernel == "flash" else contextlib.nullcontext()
    shape = jax.ShapeDtypeStruct((2, 12, 512, 64), jnp.bfloat16)
    config = cfg.Model(attention_dropout=0.0)

    def total(query, key, value, ids):
        context = make_context(config, ids, ids)
        return jnp.sum(kernels.attend(kernel, config, query, key, value, context, jnp.bool_(True), None))

    step = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    with context:
        traced = step.trace(shape, shape, shape, jax.ShapeDtypeStruct((2, 512), jnp.int32))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count(calls) >= 2  # forward and backward
    assert "x512x512xf32" not in text


@pytest.mark.parametrize(
    ("platform", "dtype", "settings", "length", "dropped", "kernel"),
    [
        ("cpu", jnp.float32, {}, 512, False, "xla"),
        ("tpu", jnp.bfloat16, {}, 512, False, "flash"),
        ("tpu", jnp.bfloat16, {}, 512, True, "flash"),
        ("tpu", jnp.bfloat16, {}, 500, False, "flash"),
        ("tpu", jnp.bfloat16, {}, 100, True, "xla"),
        ("tpu", jnp.float32, {"global_every": 3}, 512, False, "flash"),
        ("gpu", jnp.bfloat16, {"global_every": 3}, 512, False, "cudnn"),
        ("cuda", jnp.bfloat16, {}, 512, True, "flash"),
        ("gpu", jnp.float32, {}, 512, False, "flash"),
        ("gpu", jnp.bfloat16, {}, 511, False, "flash"),
        ("gpu", jnp.bfloat16, {"attention": "flash"}, 512, False, "flash"),
        ("tpu", jnp.bfloat16, {"attention": "xla"}, 512, False, "xla"),
        ("gpu", jnp.float32, {"heads": 2, "width": 512}, 512, True, "xla"),
        ("tpu", jnp.bfloat16, {"attention": "splash"}, 512, False, "flash"),
    ],
)
def test_the_platform_chooses(platform, dtype, settings, length, dropped, kernel, monkeypatch):
    monkeypatch.setattr(kernels, "platform", lambda: platform)
    assert kernels.choose(cfg.Model(**settings), dtype, length, dropped) == kernel


@pytest.mark.parametrize(
    ("settings", "length", "dropped", "message"),
    [
        ({"attention": "cudnn"}, 512, False, "cudnn runs on NVIDIA GPUs only"),
    ],
)
def test_a_kernel_that_cannot_is_refused(settings, length, dropped, message):
    with pytest.raises(UserError, match=message):
        kernels.choose(cfg.Model(**settings), jnp.float32, length, dropped)


@pytest.mark.parametrize("kernel", cfg.FORMER_ATTENTION)
def test_what_was_a_kernel_is_refused_with_what_is_one(kernel):
    data = cfg.Data((cfg.Source("*", "text/{language}.txt"),))
    model = cfg.Model(attention=kernel, attention_dropout=0.0)
    with pytest.raises(
        UserError, match=rf"model\.attention: {kernel}, .* is no more; set model\.attention flash or auto"
    ):
        cfg.validate_pretraining(cfg.Config(data=data, model=model))
