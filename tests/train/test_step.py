# SPDX-License-Identifier: Apache-2.0
"""The training step on every mesh of eight devices: the same losses, nothing of the vocabulary's size moved, all split alike."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.input.mixture import batch_shapes
from mlm_jax.model.encoder import padded_rows
from mlm_jax.plan import program, topology
from mlm_jax.plan.compile import compile_step
from mlm_jax.train.pretraining import build, pretraining_step
from mlm_jax.vocabulary import Vocabulary

WORDS = Vocabulary(500, 0, 1, 2, 3, 4, tuple(range(5)), "")
ROWS, WIDTH, STEPS = padded_rows(WORDS.size), 32, 3
MESHES = [(d, f, 8 // d // f) for d in (1, 2, 4, 8) for f in (1, 2, 4, 8) if 8 % (d * f) == 0]
QUICK = ((1, 8, 1), (2, 2, 2))  # of those, in the default suite


def config_of(mesh, **model):
    shape = {
        "layers": 2,
        "width": WIDTH,
        "heads": 8,
        "mlp_width": 64,
        "positions": 16,
        "loss_chunk": 128,
        "dtype": "float32",
    }
    return cfg.Config(
        data=cfg.Data(sources=(cfg.Source("*", "none"),), sequence_length=16),
        model=cfg.Model(**shape | model),
        optimizer=cfg.Optimizer(learning_rate=1e-2, warmup_steps=2),
        train=cfg.Train(steps=10, batch_size=16, log_every=1),
        mesh=cfg.Mesh(*mesh),
    )


def batches(config):
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        batch = {n: np.zeros(s, k) for n, (s, k) in batch_shapes(config.train.batch_size, 16).items()}
        tokens = rng.integers(5, WORDS.size, batch["tokens"].shape, dtype=np.int32)
        positions = np.broadcast_to(np.arange(16, dtype=np.int32), tokens.shape)
        yield batch | {"tokens": tokens, "segment_ids": np.ones_like(tokens), "positions": positions}


def train(config, start=None, devices=None):
    """Losses of a few steps from a state (or from seed), the program, and the states at the beginning and the end."""
    mesh = meshes.make_mesh(config.mesh, config.train.batch_size, devices)
    training = build(config, WORDS, 1, mesh, platform="tpu")
    plan, step = training.abstract_state, pretraining_step(config, training, mesh)
    if start is None:
        start = jax.device_get(training.initialize())
    state, losses = jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, plan)), []
    with meshes.mesh_context(mesh):
        placed = [jax.device_put(batch, meshes.batch_sharding(mesh)) for batch in batches(config)]
        # The partitioned program is what is tested; LLVM need not make it fast.
        compiled = step.lower(plan, {}, placed[0]).compile(compiler_options={"xla_backend_optimization_level": 0})
        for batch in placed:
            state, window = compiled(state, {}, batch)
            losses.append(float(window["loss"][0] / window["loss"][1]))
    return losses, compiled.as_text(), start, state


@pytest.fixture(scope="module")
def alone():
    return train(config_of((1, 1, 1)), devices=jax.devices()[:1])


@pytest.mark.parametrize(
    "mesh", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MESHES], ids=str
)
def test_every_mesh_gives_the_same_losses_and_moves_no_vocabulary(mesh, alone):
    losses, text, _, state = train(config_of(mesh), alone[2])
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    for got, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(alone[3].params), strict=True):
        np.testing.assert_allclose(got, expected, atol=3e-5)
    assert_no_vocabulary_moves(text, mesh)
    assert_optimizer_lies_as_its_parameters(state)


@pytest.mark.parametrize("mesh", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str)
def test_gradients_are_summed_over_data_once_per_update(mesh, alone):
    """Of as many microbatches as rows allow, in the compiled program."""
    config = config_of(mesh)
    pieces = config.train.batch_size // (mesh[0] * mesh[1])
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=pieces))
    losses, text, _, state = train(config, alone[2])
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    for got, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(alone[3].params), strict=True):
        np.testing.assert_allclose(got, expected, atol=3e-5)
    over_data = {tuple(i * 8 // mesh[0] for i in range(mesh[0]))}  # devices of the first group along data
    sums = [c for c in program.read(text).collectives if c.kind == "all-reduce" and c.group in over_data]
    held = sum(np.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(state.params))
    # Of float32 gradients, and some sums of losses.
    assert 0 <= sum(c.bytes * c.times for c in sums) - 4 * held < 200


@pytest.mark.parametrize(("asked", "bytes_each"), [("auto", 2), ("bfloat16", 2), ("float32", 4)])
def test_gradients_cross_the_links_in_the_type_asked_for(asked, bytes_each):
    """Read from a TPU's program of bfloat16 products."""
    pytest.importorskip("libtpu")
    config = config_of((4, 1, 1), dtype="bfloat16")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, gradient_sum=asked))
    compiled = compile_step(config, meshes.make_mesh(config.mesh, 16, topology.devices(topology.parse("v5e:2x2"))))
    sums = [c for c in program.read(compiled.program).collectives if c.kind == "all-reduce" and len(c.group) == 4]
    assert 0 <= sum(c.bytes * c.times for c in sums) - bytes_each * compiled.parameters < 200


@pytest.mark.slow
def test_rounded_gradients_train_alike(alone):
    """On eight CPU devices, where they are rounded and then summed in float32."""
    config = config_of((8, 1, 1))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, gradient_sum="bfloat16"))
    losses, text, *_ = train(config, alone[2])
    np.testing.assert_allclose(losses, alone[0], rtol=1e-3)
    assert losses != alone[0] and f"bf16[{ROWS},{WIDTH}]" in text


@pytest.mark.slow
def test_muon_gives_the_same_losses_on_every_mesh():
    """Its matrices are split by width and by heads; the products of its iteration bring the parts together."""
    muon = cfg.Optimizer(name="muon", learning_rate=1e-2, warmup_steps=2)
    first = dataclasses.replace(config_of((1, 1, 1)), optimizer=muon)
    losses, _, start, end = train(first, devices=jax.devices()[:1])
    for mesh in ((1, 8, 1), (1, 4, 2), (2, 2, 2)):
        split, _, _, state = train(dataclasses.replace(config_of(mesh), optimizer=muon), start)
        np.testing.assert_allclose(split, losses, rtol=1e-5)
        for got, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(end.params), strict=True):
            np.testing.assert_allclose(got, expected, atol=3e-5)
        assert_optimizer_lies_as_its_parameters(state, with_one=4)  # a momentum alone for the layers' kernels


@pytest.mark.parametrize("chunk", [128, 10_000])
def test_one_device_reads_the_embedding_where_it_lies(chunk):
    """XLA copies a donated array that is read by a gather with clamped ids before it is written over."""
    _, text, _, _ = train(config_of((1, 1, 1), loss_chunk=chunk), devices=jax.devices()[:1])
    assert not re.findall(rf"f32\[{ROWS},{WIDTH}\]\S* copy\(%state_", text)


def assert_no_vocabulary_moves(text, mesh, width=WIDTH):
    """No collective gathers the vocabulary, in rows or in scores, and one alone, where devices hold copies, sums its gradient."""
    data, fsdp, tensor = mesh
    found = program.read(text).collectives
    assert found or mesh == (1, 1, 1)
    local = ROWS // tensor * (width // fsdp)
    summed = 0
    for c in found:
        for shape in c.shapes:
            if c.kind == "all-gather":
                assert ROWS not in shape or len(shape) == 1, (c.kind, shape)  # the bias alone is gathered, by fsdp
            if int(np.prod(shape)) >= local and (ROWS // tensor) in shape and len(shape) > 1:
                assert c.kind == "all-to-all" or (c.kind == "all-reduce" and len(c.group) == data), (
                    c.kind,
                    shape,
                    c.group,
                )
                summed += c.kind == "all-reduce"
    assert summed == (data > 1)


def assert_optimizer_lies_as_its_parameters(state, with_one=0):
    """Each moment has the shape and the sharding of its parameter; so many parameters have one, the others two."""
    wanted = {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        name = next((n for n in wanted if jax.tree_util.keystr(path).endswith(n)), None)
        if name is not None:
            assert leaf.sharding == wanted[name].sharding and leaf.shape == wanted[name].shape, name
            seen.add(jax.tree_util.keystr(path))
    assert len(seen) == 2 * len(wanted) - with_one


@pytest.mark.parametrize("mesh", [(2, 2, 2), pytest.param((1, 2, 4), marks=pytest.mark.slow)], ids=str)
def test_a_vocabulary_of_one_chunk_gives_the_same_losses(mesh, alone):
    losses, text, _, _ = train(config_of(mesh, loss_chunk=10_000), alone[2])
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    assert_no_vocabulary_moves(text, mesh)
