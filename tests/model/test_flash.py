# SPDX-License-Identifier: Apache-2.0
"""Our flash attention against the plain products, interpreted on CPUs; and by the compilers of TPUs and GPUs where they are here."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.model import attention_kernels as kernels
from mlm_jax.model import flash
from mlm_jax.model.attention import make_context
from mlm_jax.model.dropout import dropout, row_keys, site_keys
from mlm_jax.model.encoder import Encoder, example_batch

PROGRAMS = {"tpu": True, "gpu": False}  # whether it is the mirrored one


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch, request):
    """Tiles of 32, so that short blocks have several: a loop in each kernel, and places beyond its first tile."""
    if "compiler_takes" not in request.node.name:
        monkeypatch.setattr(flash, "tile_size", lambda length, mirrored: 32)


def segments(length, rows=2):
    """A row of one document, and rows of three with padding after them and one token of it between: int32 [rows, length]."""
    ids = np.ones((rows, length), np.int32)
    ids[1:] = 0
    for number, (start, end) in enumerate(((0, 0.1), (0.1, 0.6), (0.65, 0.85)), 1):
        ids[1:, int(start * length) : int(end * length)] = number
    return jnp.asarray(ids)


def inputs(ids, head, heads=2, dtype=jnp.float32):
    """Queries, keys, values and the gradient of the output, [rows, heads, length, head]; and dropout's keys, [rows]."""
    rng = np.random.default_rng(0)
    arrays = (rng.normal(size=(ids.shape[0], heads, ids.shape[1], head)) for _ in range(4))
    return [jnp.asarray(x, dtype) for x in arrays], row_keys(5, jnp.int32(7), jnp.arange(len(ids), dtype=jnp.uint32))


def with_slopes(attention, arrays):
    """The output of a function of (query, key, value), and their gradients."""
    *qkv, slope = arrays
    out, back = jax.vjp(attention, *qkv)
    return out, *back(slope)


def plain(arrays, ids, keys, window, rate=0.0, causal=False):
    """By the plain products in float32."""
    places = jnp.arange(ids.shape[1])
    seen = (ids[:, None, :, None] == ids[:, None, None, :]) & (jnp.abs(places[:, None] - places[None]) <= window)[
        None, None
    ]
    seen = seen & (places[:, None] >= places[None])[None, None] if causal else seen
    config = cfg.Model(attention_dropout=rate)
    arrays = [x.astype(jnp.float32) for x in arrays]
    return with_slopes(lambda q, k, v: kernels.xla(config, q, k, v, seen, keys), arrays)


def ours(arrays, ids, keys, window, rate=0.0, causal=False, mirrored=True):
    """By the kernels; a window of the block's length is none."""
    window = None if isinstance(window, int) and window >= ids.shape[1] else jnp.int32(window)
    options = {"causal": causal, "rate": rate, "mirrored": mirrored, "interpret": True}
    return with_slopes(lambda q, k, v: flash.flash(q, k, v, ids, site_keys(keys, 0), window, **options), arrays)


def assert_close(expected, got, tolerance):
    for want, have in zip(expected, got, strict=True):
        want, have = np.asarray(want), np.asarray(have, np.float32)
        # Of the largest value: bfloat16 has eight bits, whatever the value.
        np.testing.assert_allclose(have, want, rtol=0, atol=tolerance * max(1, np.abs(want).max()))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("length", "window", "dtype", "options"),
    [
        (100, 100, "float32", {"rate": 0.1}),
        pytest.param(64, 64, "float32", {"rate": 0.5, "causal": True}, marks=pytest.mark.slow),
        (75, 40, "float32", {"rate": 0.1, "causal": True}),
        (7, 7, "float32", {}),
        (75, 9, "bfloat16", {"rate": 0.1}),
    ],
)
def test_it_agrees_with_the_plain_products(program, length, window, dtype, options):
    """The dropped units too: with others, weights would differ by their whole value."""
    ids = segments(length)
    arrays, keys = inputs(ids, 16, dtype=dtype)
    run = jax.jit(lambda *given: ours(*given, window, mirrored=PROGRAMS[program], **options))
    got = run(arrays, ids, keys)
    assert {x.dtype for x in got} == {jnp.dtype(dtype)}
    assert_close(plain(arrays, ids, keys, window, **options), got, {"float32": 1e-5, "bfloat16": 1e-2}[dtype])


def test_it_agrees_with_tiles_as_on_a_tpu(monkeypatch):
    monkeypatch.undo()
    ids = segments(200)
    arrays, keys = inputs(ids, 16)
    assert_close(plain(arrays, ids, keys, 90, 0.1), ours(arrays, ids, keys, 90, 0.1), 1e-5)


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_drops_the_same_units(program):
    """With values that are a unit matrix the output is the weights: where they are 0 is compared with dropout of ones."""
    length, heads, rate = 40, 2, 0.3
    ids, query = segments(length), jnp.zeros((2, heads, length, length))
    keys = site_keys(row_keys(1, jnp.int32(2), jnp.arange(2, dtype=jnp.uint32)), 0)
    value = jnp.broadcast_to(jnp.eye(length), query.shape)
    options = {"rate": rate, "mirrored": PROGRAMS[program], "interpret": True}
    weights = jax.jit(lambda q, v: flash.flash(q, q, v, ids, keys, **options))(query, value)
    kept = np.asarray(dropout(jnp.ones(query.shape), rate, keys)) > 0
    seen = np.asarray(ids[:, None, :, None] == ids[:, None, None, :])
    np.testing.assert_array_equal(np.asarray(weights) > 0, kept & seen)
    assert 0.25 < 1 - kept.mean() < 0.35
    # The same heads as the last of five, on another device.
    later = jax.jit(lambda q, v: flash.flash(q, q, v, ids, keys, None, 2, **options))(query, value)
    all_kept = np.asarray(dropout(jnp.ones((2, heads + 2, length, length)), rate, keys)) > 0
    np.testing.assert_array_equal(np.asarray(later) > 0, all_kept[:, 2:] & seen)


@functools.cache
def both():
    """One program for all examples: rows of 75 tokens."""
    return jax.jit(lambda *given: (plain(*given, 0.1), ours(*given, 0.1)))


@settings(max_examples=30)
@given(ids=st.lists(st.integers(0, 3), min_size=75, max_size=75), window=st.integers(0, 80))
def test_any_segments_in_any_order(ids, window):
    """A segment may be in several pieces: which tiles are left out never changes what is computed."""
    ids = jnp.asarray([ids], jnp.int32)
    arrays, keys = inputs(ids, 16, heads=1)
    assert_close(*both()(arrays, ids, keys, jnp.int32(window)), 1e-5)


def test_it_visits_no_tile_that_nothing_is_seen_of():
    """Three documents of two, one and five tiles of 32; then with a window; then causal."""
    ids = jnp.asarray(np.repeat([[1, 1, 2, 3, 3, 3, 3, 3]], 32, axis=1))
    fixed = flash.Settings(256, 1.0, False, False, 0.0, 32, 32, True, True)

    def visited(window=0, of_queries=True, **changed):
        return flash._visited(dataclasses.replace(fixed, **changed), ids, jnp.int32(window), of_queries)[0].tolist()

    assert visited() == [[0, 2]] * 2 + [[2, 3]] + [[3, 8]] * 5
    assert visited(20, local=True) == [[0, 2]] * 2 + [[2, 3], [3, 5], [3, 6], [4, 7], [5, 8], [6, 8]]
    assert visited(causal=True) == [[0, 1], [0, 2], [2, 3], [3, 4], [3, 5], [3, 6], [3, 7], [3, 8]]
    assert visited(causal=True, of_queries=False) == [[0, 2], [1, 2], [2, 3], [3, 8], [4, 8], [5, 8], [6, 8], [7, 8]]


def loss_and_gradient(attention, mesh_shape, devices):
    """Of a whole encoder with dropout everywhere, over a mesh."""
    length = 40
    config = cfg.Model(
        width=64,
        heads=4,
        layers=2,
        mlp_width=32,
        positions=length,
        global_every=2,
        window=16,
        position_embedding="rotary",
    )
    ids = jnp.concatenate([segments(length, 4)] * 2)
    batch = dict.fromkeys(example_batch(length), jnp.broadcast_to(jnp.arange(length), ids.shape))
    batch |= {"segment_ids": ids, "tokens": jnp.arange(8 * length).reshape(8, length) % 90}
    scored = jnp.zeros((1, 1), jnp.int32)
    model = Encoder(dataclasses.replace(config, attention=attention), 100, jnp.float32)
    variables = nn.meta.unbox(model.init(jax.random.key(0), example_batch(length), scored, method="features"))
    keys = row_keys(3, jnp.int32(1), jnp.arange(8, dtype=jnp.uint32))
    mesh = meshes.make_mesh(mesh_shape, 8, jax.devices()[:devices])
    with meshes.mesh_context(mesh):
        rows = meshes.batch_sharding(mesh)
        run = jax.jit(jax.value_and_grad(lambda v, b, k: jnp.sum(jnp.sin(3 * model.apply(v, b, keys=k)))))
        return jax.device_get(run(variables, jax.device_put(batch, rows), jax.device_put(keys, rows)))


def test_what_is_dropped_does_not_depend_on_the_mesh():
    """Rows over two devices, heads over four."""
    ids = segments(40, 4)
    (*qkv, _), keys = inputs(ids, 8, heads=4)
    config = cfg.Model(width=32, heads=4, positions=40, attention_dropout=0.3)
    context, is_global = make_context(config, ids, ids), jnp.bool_(True)

    def outcome(kernel, shape, devices):
        mesh = meshes.make_mesh(shape, 4, jax.devices()[:devices])
        with meshes.mesh_context(mesh):
            run = jax.jit(lambda *given: kernels.attend(kernel, config, *given, is_global, keys))
            return jax.device_get(run(*jax.device_put((*qkv, context), meshes.batch_sharding(mesh))))

    expected = outcome("xla", cfg.Mesh(), 1)
    for shape, devices in ((cfg.Mesh(), 1), (cfg.Mesh(data=2, tensor=4), 8), (cfg.Mesh(fsdp=2, tensor=1), 2)):
        np.testing.assert_allclose(outcome("flash", shape, devices), expected, atol=1e-5)


@pytest.mark.slow
def test_an_encoder_with_dropout_learns_the_same_over_any_mesh():
    """Which units are dropped depends neither on how rows nor on how heads are divided over devices."""
    expected = loss_and_gradient("xla", cfg.Mesh(), 1)
    for shape, devices in ((cfg.Mesh(), 1), (cfg.Mesh(data=2, tensor=4), 8)):
        got = loss_and_gradient("flash", shape, devices)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6), got, expected)


@pytest.mark.parametrize("version", ["v5e", "v6e"])
def test_the_tpu_compiler_takes_it(version, monkeypatch):
    """Forward and backward of local and global layers of a pod that is not here, heads divided; 500 tokens are no whole tiles."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    where = {"chip_config_name": "default", "chips_per_host_bounds": (2, 2, 1), "num_slices": 1}
    pod = topologies.get_topology_desc(platform="tpu", topology_name=f"{version}:2x2", **where)
    text, chosen = compiled(meshes.make_mesh(cfg.Mesh(data=2, tensor=2), 4, pod.devices), {})
    assert chosen == {"flash"}
    assert text.count('custom_call_target="tpu_custom_call"') == 2  # forward; backward
    # No scores in memory.
    assert "512,512]" not in text and "500,500]" not in text


@pytest.mark.slow
def test_the_gpu_compiler_takes_it():
    """The same for four H100, by three kernels."""
    pytest.importorskip("jax_cuda12_plugin")
    from mlm_jax.plan import topology

    devices = topology.devices(topology.parse("h100:4"))
    text, chosen = compiled(meshes.make_mesh(cfg.Mesh(data=2, tensor=2), 4, devices), {"xla_gpu_autotune_level": 0})
    assert chosen == {"flash"}
    assert text.count('custom_call_target="__gpu$xla.gpu.triton"') == 3
    assert "512,512]" not in text and "500,500]" not in text


def compiled(mesh, compiler_options):
    """(Text of the compiled gradient with dropout for a mesh, which kernels were chosen)."""
    config = cfg.Model(width=256, heads=4, global_every=3, window=128)
    qkv, seeds = jax.ShapeDtypeStruct((4, 4, 500, 64), jnp.bfloat16), jax.ShapeDtypeStruct((4,), jnp.uint32)
    chosen = set()

    def total(query, key, value, ids, is_global, seeds):
        context = make_context(config, ids, ids)
        chosen.add(kernels.choose(config, query.dtype, ids.shape[1], True))
        out = kernels.attend(*chosen, config, query, key, value, context, is_global, seeds)
        return jnp.sum(out.astype(jnp.float32) ** 2)

    with meshes.mesh_context(mesh):
        step = jax.jit(jax.grad(total, argnums=(0, 1, 2)), in_shardings=jax.NamedSharding(mesh, jax.P()))
        given = (qkv, qkv, qkv, jax.ShapeDtypeStruct((4, 500), jnp.int32), jax.ShapeDtypeStruct((), jnp.bool_), seeds)
        return step.lower(*given).compile(compiler_options=compiler_options).as_text(), chosen
