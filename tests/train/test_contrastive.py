# SPDX-License-Identifier: Apache-2.0
"""Contrastive training: a batch that is cut learns what the whole one does, in the memory of its pieces; runs go on as all do."""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.encode.read import read_pretrained
from mlm_jax.input.mixture import batch_shapes
from mlm_jax.manifest import read_manifest
from mlm_jax.plan import program
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.report.page import write_report
from mlm_jax.report.run import summary_table
from mlm_jax.sampling import sampling_table, trained_streams
from mlm_jax.train.contrastive import find_texts, trained_vectors
from mlm_jax.train.metrics import read_metrics
from mlm_jax.train.pretraining import build, train
from mlm_jax.train.step import FLOAT32, compared_gradient
from mlm_jax.vocabulary import Vocabulary
from mlm_jax.workdir import own_workdir, write_text
from tests.corpora import logged, make_pair_workdir

WORDS = Vocabulary(200, 0, 1, 2, 3, 4, tuple(range(5)), "")
LENGTH, SIDES = 16, 2
FAST = {"xla_backend_optimization_level": 0}  # to compile


def config_of(batch_size, mesh=(1, 1, 1), length=LENGTH, **model):
    shape = {"layers": 2, "width": 16, "heads": 2, "mlp_width": 32, "positions": length, "head": "none"} | model
    return cfg.Config(
        data=cfg.Data(
            parallel=(cfg.Parallel(("en", "de"), ("none",)),),
            sequence_length=length,
            packing="pairs",
            pairs_per_block=2,
        ),
        model=cfg.Model(**shape),
        objective=cfg.Objective(learn="contrastive"),
        contrastive=cfg.Contrastive(matryoshka=(4,)),
        train=cfg.Train(batch_size=batch_size),
        mesh=cfg.Mesh(*mesh),
    )


def batch_of(config, seed=0):
    """Blocks of two pairs of texts of four tokens, of which the second pair of some blocks is not there."""
    rng = np.random.default_rng(seed)
    rows = config.train.batch_size
    batch = {n: np.zeros(s, k) for n, (s, k) in batch_shapes(rows, LENGTH).items()}
    segments = np.tile(np.repeat(np.arange(1, 5, dtype=np.int32), 4), (rows, 1))
    segments[::3, 8:] = 0
    tokens = np.where(segments > 0, rng.integers(5, WORDS.size, segments.shape, dtype=np.int32), 0)
    tokens[5, :4] = tokens[4, :4]  # one text in two blocks
    return batch | {
        "tokens": tokens,
        "segment_ids": segments,
        "positions": np.tile(np.arange(4, dtype=np.int32), (rows, 4)),
    }


def gradient(config, accumulate, lower=False):
    """The gradient and what was measured of a batch at the first step, with dropout; or the program."""
    number = int(np.prod([config.mesh.data, config.mesh.fsdp, config.mesh.tensor]))
    mesh = meshes.make_mesh(config.mesh, config.train.batch_size // accumulate, jax.devices()[:number])
    training = build(config, WORDS, 1, mesh)
    objective, places = training.learning.objective, jax.tree.map(lambda x: x.sharding, training.abstract_state.params)

    def found(params, batch):
        batch = objective.prepare(jnp.int32(7), batch)
        return compared_gradient(objective, (params, {}), batch, mesh, accumulate, FLOAT32)

    jitted = jax.jit(found, in_shardings=(places, meshes.batch_sharding(mesh)))
    with meshes.mesh_context(mesh):
        if lower:
            shapes = batch_shapes(config.train.batch_size, config.data.sequence_length)
            batch = {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}
            return jitted.lower(training.abstract_state.params, batch).compile(compiler_options=FAST)
        params = jax.device_put(jax.device_get(training.initialize().params), places)
        batch = jax.device_put(batch_of(config), meshes.batch_sharding(mesh))
        return jax.device_get(jitted(params, batch))


@pytest.fixture(scope="module")
def whole():
    return gradient(config_of(16), 1)


@pytest.mark.parametrize(
    ("mesh", "accumulate"),
    [
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (((1, 1, 1), 4), ((2, 1, 1), 1), ((2, 1, 1), 4), ((1, 2, 2), 2))
        ),
        ((2, 2, 1), 4),
    ],
    ids=str,
)
def test_a_cut_batch_has_the_whole_ones_gradient(whole, mesh, accumulate):
    """GradCache, across devices and microbatches, with the same units dropped."""
    grads, measured = gradient(config_of(16, mesh), accumulate)
    for got, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(whole[0]), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6 * max(1, np.abs(expected).max()))
    for name, (total, pairs) in whole[1].items():
        np.testing.assert_allclose(measured[name], (total, pairs), rtol=1e-6)
    assert whole[1]["loss"][1] == 16 * 2 - 6


@pytest.mark.slow
def test_thousands_of_pairs_take_the_memory_of_one_microbatch():
    """Read from compiled programs: what 4,096 rows of one pair each need beside parameters, in 128 pieces and in one."""

    def temporary(rows, accumulate):
        config = config_of(rows, length=64, layers=1, width=64, heads=4, mlp_width=256)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, pairs_per_block=1))
        return gradient(config, accumulate, lower=True).memory_analysis().temp_size_in_bytes

    one, cut, uncut = temporary(32, 1), temporary(4_096, 128), temporary(4_096, 1)
    # Vectors, their gradients and copies of the batch are of all rows; scores are of CHUNK texts with all.
    of_rows = 4_096 * (6 * SIDES * 64 * 4 + 8 * 64 * 4) + 4 * 512 * 4_096 * 4
    assert cut < one + of_rows and uncut > 40 * one


@pytest.mark.slow
def test_only_a_cut_batch_is_represented_twice():
    """Counted in the compiled programs: backward is twice the forward's products, and forward is there once or twice."""

    def flops(accumulate):
        return program.read(gradient(config_of(16), accumulate, lower=True).as_text()).flops

    config = config_of(16)
    model = config.model
    tokens = config.train.batch_size * LENGTH
    forward = 2 * tokens * model.layers * (4 * model.width**2 + 2 * model.width * model.mlp_width)
    forward += 2 * 2 * tokens * LENGTH * model.width * model.layers  # attention
    assert 3 * forward < flops(1) < 3.7 * forward
    assert 0.9 * forward < flops(2) - flops(1) < 1.2 * forward


def test_equal_texts_have_equal_numbers():
    config = config_of(16)
    batch = batch_of(config)
    found = find_texts(batch, 4)
    assert found["texts"][5, 0] == found["texts"][4, 0]
    numbers = np.asarray(found["texts"])[np.asarray(found["valid"])]
    assert len(np.unique(numbers)) == len(numbers) - 1
    assert np.asarray(found["starts"])[1].tolist() == [0, 4, 8, 12]
    turned = batch | {"tokens": batch["tokens"][:, ::-1]}  # the same tokens in another order are another text
    assert not np.isin(np.asarray(find_texts(turned, 4)["texts"])[1], numbers).any()


@pytest.mark.slow
def test_a_run_learns_goes_on_bit_for_bit_and_on_other_devices(tmp_path):
    """Of batches of one stream each."""
    contrastive = {"batches": "by_stream", "temperature": 0.1}
    options = {
        "steps": 24,
        "log_every": 1,
        "validate_every": 8,
        "save_every": 8,
        "keep_last": 9,
        "validation_blocks": 4,
    }
    whole = make_pair_workdir(
        tmp_path / "whole",
        {"de": 60, "sw": 20},
        train=options,
        contrastive=contrastive,
        optimizer={"learning_rate": 5e-3},
    )
    own_workdir(whole)
    assert train(whole, jax.devices()[:1]).step == 24
    records = logged(whole.workdir)
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.3
    validation = records[-1]
    assert set(validation["pairs"]) == {"en-de", "en-sw"} and validation["pairs"]["en-de"]["pairs"] == 8
    assert validation["macro_loss"] == pytest.approx(np.mean([v["loss"] for v in validation["pairs"].values()]))
    of_step = [{k for k, n in (r["blocks"]).items() if n} for r in records if r["kind"] == "train"]
    assert len(of_step[0]) == 1 and len(of_step[-1]) == 2

    for name, devices, accumulate in (("again", 1, 1), ("moved", 2, 2)):
        workdir = tmp_path / name
        shutil.copytree(whole.workdir, workdir)
        for step in (16, 24):
            shutil.rmtree(workdir / "checkpoints" / str(step))
        other = cfg.with_sections(dataclasses.replace(whole, workdir=str(workdir)), train={"accumulate": accumulate})
        assert train(other, jax.devices()[:devices]).step == 24
        if devices == 1:
            assert logged(workdir) == records
        np.testing.assert_allclose([r["loss"] for r in logged(workdir) if r["kind"] == "train"], losses, rtol=1e-3)

    pretrained = read_pretrained(whole.workdir)
    assert pretrained.vectors == SentenceVectors() and pretrained.model.head == "none"

    # The page and the table say what was learned.
    streams = read_manifest(tmp_path / "whole" / "corpus").streams
    rows = sampling_table(whole, trained_streams(whole, streams))
    write_text(whole.workdir, "sampling.json", json.dumps(rows))
    page = write_report(whole.workdir).read_text()
    shares = [v["accuracy"] for v in validation["pairs"].values()]
    assert f"{np.mean(shares):.1%} find their partner" in page and "nats per text" in page and "15 % mask" not in page
    assert "among the other held-out texts" in page and "unigram loss" not in page
    assert re.search(r"mean +\d\.\d{3} +[01]\.\d{3}$", summary_table(whole.workdir))


@pytest.mark.slow
def test_a_run_that_is_stopped_says_so_and_has_pairs_in_its_lines(tmp_path):
    config = make_pair_workdir(tmp_path / "run", {"de": 60}, train={"max_seconds": 1e-9, "log_every": 1})
    assert train(config, jax.devices()[:1]).stopped_by is signal.SIGALRM
    (record,) = [r for r in read_metrics(config.workdir) if r["kind"] == "train"]
    assert 8 < record["pairs"] <= 16 and "perplexity" not in record
    assert Path(config.workdir, "checkpoints", "1").exists()


def test_prefixes_become_prompts():
    pair = cfg.Parallel(("en", "en"), ("none",), prefixes=("query: ", "passage: "))
    config = cfg.Config(data=cfg.Data(parallel=(pair,)), contrastive=cfg.Contrastive(pooling="first"))
    assert trained_vectors(config) == SentenceVectors("first", prompts={"query": "query: ", "passage": "passage: "})
