# SPDX-License-Identifier: Apache-2.0
"""Counted FLOPs against XLA's count of a program that is all matrix products."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax.model.flops import peak_flops, step_flops


@pytest.mark.parametrize(("batch", "length", "scored"), [(2, 64, 10), (3, 32, 32)])
def test_step_flops_are_what_xla_counts_for_the_products(batch, length, scored):
    config, rows = cfg.Model(layers=3, width=64, heads=4, mlp_width=256, positions=64), 512
    width, head = config.width, config.width // config.heads

    def products(tokens, weights):
        """The encoder and its head with everything but the products left out."""
        x = tokens.reshape(batch * length, width)
        for qkv, out, up, down in weights["layers"]:
            q, k, v = ((x @ qkv[i]).reshape(batch, length, config.heads, head) for i in range(3))
            scores = jnp.einsum("blhd,bmhd->bhlm", q, k)
            x = jnp.einsum("bhlm,bmhd->blhd", scores, v).reshape(batch * length, width) @ out
            x = x @ up @ down
        x = x.reshape(batch, length, width)[:, :scored].reshape(batch * scored, width)
        return x @ weights["dense"] @ weights["output"]

    def shape(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    layer = shape(3, width, width), shape(width, width), shape(width, 256), shape(256, width)
    weights = {"layers": [layer] * 3, "dense": shape(width, width), "output": shape(width, rows)}

    def both_ways(tokens, weights):
        out, back = jax.vjp(products, tokens, weights)
        return back(out)

    counted = jax.jit(both_ways).lower(shape(batch, length, width), weights).cost_analysis()["flops"]
    assert step_flops(config, rows, batch, length, scored) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize(("length", "window", "every"), [(64, 16, 3), (10, 128, 2), (32, 1, 1), (33, 7, 4)])
def test_local_layers_count_what_their_window_lets_them_see(length, window, every):
    config = cfg.Model(layers=7, width=64, heads=4, mlp_width=256, positions=64, window=window, global_every=every)
    places = np.arange(length)
    near = (np.abs(places[:, None] - places) <= window // 2).sum()
    pairs = sum(length**2 if number % every == 0 else near for number in range(7))
    everywhere = dataclasses.replace(config, global_every=1)
    less = step_flops(everywhere, 512, 5, length, 3) - step_flops(config, 512, 5, length, 3)
    assert less == 3 * 2 * 5 * 2 * 64 * (7 * length**2 - pairs)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert peak_flops(SimpleNamespace(device_kind=kind)) == peak
