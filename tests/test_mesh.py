# SPDX-License-Identifier: Apache-2.0
"""The mesh, and where every parameter lies on it: a change of `tests/golden/shardings.json` is to be read."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.model.encoder import Encoder, example_batch

GOLDEN = Path(__file__).parent / "golden" / "shardings.json"
MODEL = cfg.Model(layers=2, width=32, heads=4, mlp_width=64, positions=16)


def boxed(model=None):
    model = model or Encoder(MODEL, 256, jnp.float32)
    scored = jnp.zeros((1, 3), jnp.int32)
    return jax.eval_shape(
        lambda key: model.init(key, example_batch(16), scored, method="features")["params"], jax.random.key(0)
    )


@pytest.mark.parametrize(
    ("sizes", "devices", "shape"),
    [
        (cfg.Mesh(), 8, (8, 1, 1)),
        (cfg.Mesh(data=2, fsdp=-1, tensor=2), 8, (2, 2, 2)),
        (cfg.Mesh(data=1, fsdp=4, tensor=2), 8, (1, 4, 2)),
        (cfg.Mesh(), 1, (1, 1, 1)),
    ],
)
def test_axes(sizes, devices, shape):
    mesh = meshes.make_mesh(sizes, 8, jax.devices()[:devices])
    assert mesh.axis_names == ("data", "fsdp", "tensor") and mesh.devices.shape == shape
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("sizes", "batch_size", "said"),
    [
        (cfg.Mesh(data=3), 24, "mesh: data 3, fsdp 1, tensor 1 do not multiply to the 8 devices"),
        (cfg.Mesh(data=-1, fsdp=3), 24, "do not multiply to the 8 devices"),
        (cfg.Mesh(), 12, "train.batch_size: 12 blocks at once"),
        (cfg.Mesh(data=2, fsdp=2, tensor=2), 6, "use a multiple of 4"),
    ],
)
def test_what_does_not_fit_is_refused(sizes, batch_size, said):
    with pytest.raises(UserError, match=said) as error:
        meshes.make_mesh(sizes, batch_size)
    assert "\n" not in str(error.value)


def test_every_parameter_lies_where_the_golden_file_says():
    mesh = meshes.make_mesh(cfg.Mesh(data=2, fsdp=2, tensor=2), 8)
    placed = meshes.shardings(mesh, boxed())
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): list(sharding.spec)
        for path, sharding in jax.tree_util.tree_leaves_with_path(placed)
    }
    if os.environ.get("UPDATE_GOLDEN"):
        lines = [f" {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found)]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert found == json.loads(GOLDEN.read_text())


def test_every_axis_of_every_parameter_has_a_rule_and_every_rule_a_use():
    everything = dataclasses.replace(
        MODEL, gated=True, token_types=2, language_embedding=True, pooler=True, next_sentence=True
    )
    tree = boxed(Encoder(everything, 256, jnp.float32, languages=3))
    names = [leaf.names for leaf in jax.tree.leaves(tree, is_leaf=lambda x: hasattr(x, "names"))]
    for axes, leaf in zip(names, jax.tree.leaves(nn.meta.unbox(tree)), strict=True):
        assert len(axes) == leaf.ndim
    used = {name for axes in names for name in axes}
    ruled = {name for name, _ in meshes.RULES}
    assert used <= ruled
    assert {name for name in ruled - used if not name.startswith("act_")} == set()


def test_a_misspelt_axis_is_an_error():
    tree = {"kernel": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((4, 4), jnp.float32), ("embed", "mpl"))}
    with pytest.raises(ValueError, match="mpl"):
        meshes.shardings(meshes.make_mesh(cfg.Mesh(), 8), tree)


@pytest.mark.parametrize(
    "sizes", [cfg.Mesh(), cfg.Mesh(data=1, fsdp=8), cfg.Mesh(data=2, fsdp=2, tensor=2), cfg.Mesh(data=2, tensor=4)]
)
def test_the_encoder_computes_the_same_on_every_mesh(sizes):
    model = Encoder(MODEL, 256, jnp.float32)
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 250, (8, 16)).astype(np.int32)
    segments = np.where(np.arange(16) < 9, 1, 2) * np.ones_like(tokens)
    positions = np.broadcast_to(np.arange(16, dtype=np.int32), tokens.shape)
    scored = np.tile(np.array([1, 4, 12], np.int32), (8, 1))
    shapes = nn.meta.unbox(boxed())
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.2, shapes)

    def loss(params, tokens, positions, segments, scored):
        batch = {"tokens": tokens, "positions": positions, "segment_ids": segments}
        features, matrix, bias, _ = model.apply({"params": params}, batch, scored, method="features")
        return jnp.sum(jnp.sin(jnp.einsum("bsw,vw->bsv", features, matrix[0]) + bias[None, None])) / 100

    batch = tokens, positions, segments, scored
    expected = jax.jit(jax.value_and_grad(loss))(params, *batch)
    mesh = meshes.make_mesh(sizes, 8)
    placed = meshes.shardings(mesh, boxed())
    over = meshes.batch_sharding(mesh)
    assert over.spec == PartitionSpec(("data", "fsdp"))
    with meshes.mesh_context(mesh):
        step = jax.jit(jax.value_and_grad(loss), in_shardings=(placed, over, over, over, over))
        got = step(jax.device_put(params, placed), *(jax.device_put(x, over) for x in batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), expected, got)
