# SPDX-License-Identifier: Apache-2.0
"""Phases: parts of a run with blocks, batches and options of their own, and numbers in tokens."""

import contextlib
import dataclasses
import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax.config import (
    Config,
    Data,
    Model,
    Objective,
    Optimizer,
    Phase,
    Sampling,
    Source,
    Stage,
    Train,
    config_to_json,
    validate_pretraining,
)
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.fields import differences
from mlm_jax.manifest import read_manifest
from mlm_jax.phases import growing_batches, in_steps, largest, lengths, part_at, parts_of
from mlm_jax.report.run import read_run
from mlm_jax.sampling import sampling_table
from mlm_jax.start import with_positions
from mlm_jax.train import fit
from mlm_jax.train.metrics import read_metrics
from mlm_jax.train.optimizer import make_schedule
from mlm_jax.train.pretraining import train
from mlm_jax.vocabulary import read_vocabulary
from tests.corpora import logged, make_corpus, make_workdir
from tests.train.test_loop import assert_same_tree, checkpoint

SIZES = {"de": 40, "en": 90, "sw": 7}
PHASES = (
    Phase(3, batch_size=8),
    Phase(5, sequence_length=32, batch_size=4, rope_theta=160_000.0, learning_rate=5e-4),
    Phase(9, batch_size=6),
)


def workdir(folder):
    """A run over three languages at 16 and 32 tokens, with a stage that begins within a phase."""
    config = make_workdir(
        folder,
        SIZES,
        model={"layers": 1, "position_embedding": "rotary", "rope_theta": 10_000.0, "positions": 32},
        sampling={"stages": (Stage(6, 0.0),)},
        objective={"mask_rate_schedule": ((7, 0.3),)},
        train={"steps": 12, "batch_size": 4, "phases": PHASES, "log_every": 2, "accumulate": 2}
        | {"validate_every": 100, "save_every": 100, "keep_last": 100},
    )
    make_corpus(folder / "corpus_32", SIZES, 32, 100, read_vocabulary(folder / "vocabulary").sha256, seed=1)
    return config


def stopping_at(step):
    """A stand-in for `catch_stop` that stops a run once it has reached a step."""

    @contextlib.contextmanager
    def catch_stop(max_seconds, start=0):
        yield lambda at: signal.SIGTERM if at == step else None

    return catch_stop


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run."""
    config = workdir(tmp_path_factory.mktemp("phases") / "whole")
    assert train(config, jax.devices()[:1]).step == 12
    # What `pretrain` leaves besides.
    rows = sampling_table(config, read_manifest(f"{config.workdir}/corpus").streams)
    (Path(config.workdir) / "sampling.json").write_text(json.dumps(rows))
    (Path(config.workdir) / "config.json").write_text(config_to_json(config))
    return config


@pytest.mark.slow
def test_stopped_in_each_phase_and_continued_is_bit_for_bit_the_unbroken_run(whole, tmp_path, monkeypatch):
    broken, one = workdir(tmp_path / "broken"), jax.devices()[:1]
    for step in (2, 3, 4, 6, 10):  # the third is the end of a phase itself
        with monkeypatch.context() as stopping:
            stopping.setattr(fit, "catch_stop", stopping_at(step))
            assert train(broken, one).step == step
    assert train(broken, one).step == 12
    assert logged(broken.workdir) == logged(whole.workdir)
    for step in (3, 5, 9, 12):  # each phase ends with a checkpoint
        assert_same_tree(checkpoint(broken.workdir, step), checkpoint(whole.workdir, step))


@pytest.mark.slow
def test_a_run_logs_what_each_phase_draws_and_at_which_rate(whole):
    lines = [r for r in read_metrics(whole.workdir) if r["kind"] == "train"]
    steps = [r["step"] for r in lines]
    assert steps == [2, 3, 4, 5, 6, 8, 9, 10, 12]
    batches, sizes = [4] * 3 + [8] * 2 + [4] * 4 + [6] * 3, [16] * 5 + [32] * 7
    blocks, places = np.cumsum(batches), np.cumsum(np.multiply(batches, sizes))
    assert [sum(r["blocks"].values()) for r in lines] == [blocks[step - 1] for step in steps]
    assert [sum(r["places"].values()) for r in lines] == [places[step - 1] for step in steps]
    first, second = (make_schedule(dataclasses.replace(whole.optimizer, learning_rate=x), 12) for x in (1e-3, 5e-4))
    wanted = [float((first if step <= 5 else second)(step - 1)) for step in steps]
    np.testing.assert_allclose([r["learning_rate"] for r in lines], wanted, rtol=1e-6)
    run = read_run(whole.workdir)
    assert run.phases == [3, 5, 9] and sum(run.tokens_seen().values()) == pytest.approx(places[-1])


@pytest.mark.slow
def test_a_checkpoint_is_read_as_its_last_update_had_it(whole):
    for step, theta, trained in ((5, 10_000.0, 16), (9, 160_000.0, 32), (12, 160_000.0, 32)):
        found = read_pretrained(whole.workdir, str(step))
        assert (found.model.rope_theta, found.model.positions, found.trained) == (theta, 32, trained)


@pytest.mark.slow
def test_a_corpus_that_is_not_the_one_trained_on_is_refused(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole.workdir, folder)
    make_corpus(folder / "corpus_32", SIZES, 32, 100, read_vocabulary(folder / "vocabulary").sha256, seed=2, shards=3)
    longer = dataclasses.replace(whole, workdir=str(folder), train=dataclasses.replace(whole.train, steps=14))
    with pytest.raises(UserError, match=r"trained with another manifest_32 "):
        train(longer, jax.devices()[:1])


@pytest.mark.slow
def test_a_phase_may_change_the_objective_and_the_best_checkpoint_is_of_the_last(tmp_path, monkeypatch, capsys):
    """Causal LM, then masked LM: the parameters go on; the losses of the two do not compare."""
    made = {
        "model": {"layers": 1, "causal": True},
        "train": {"steps": 8, "phases": (Phase(4, causal=False),), "log_every": 2}
        | {"validate_every": 2, "save_every": 2, "keep_last": 1},
    }
    both = make_workdir(tmp_path / "both", SIZES, **made)
    one = jax.devices()[:1]
    with monkeypatch.context() as stopping:
        stopping.setattr(fit, "catch_stop", stopping_at(3))
        train(both, one)
    assert train(both, one).step == 8
    said = capsys.readouterr().out
    assert "of 16, causal LM" in said and "of 16, masked LM" in said
    # The first part is that of a causal run, and the last begins with its parameters.
    causal = make_workdir(tmp_path / "causal", SIZES, **made | {"train": made["train"] | {"phases": ()}})
    train(causal, one)
    lines = {name: logged(config.workdir) for name, config in (("both", both), ("causal", causal))}
    first = {name: [r for r in rows if r["step"] <= 4] for name, rows in lines.items()}
    assert first["both"] == first["causal"] and lines["both"] != lines["causal"]
    (Path(both.workdir) / "config.json").write_text(config_to_json(both))
    rows = sampling_table(both, read_manifest(f"{both.workdir}/corpus").streams)
    (Path(both.workdir) / "sampling.json").write_text(json.dumps(rows))
    run = read_run(both.workdir)
    masked = {v["step"]: v["macro_loss"] for v in run.validation if v["step"] > 4}
    assert set(masked) == {6, 8} and run.same_objective_since == 4
    best = min(masked, key=masked.get)
    assert run.best["step"] == best
    found = read_pretrained(both.workdir)
    assert found.step == best and not found.model.causal
    assert read_pretrained(both.workdir, "last").step == 8


def run_config(**sections):
    return Config(data=Data(sources=(Source("*", "x"),), sequence_length=8), **sections)


def test_options_hold_from_their_phase_on_and_a_run_without_phases_is_its_own_part():
    config = run_config(train=Train(batch_size=4, phases=PHASES, steps=7))
    parts = parts_of(config)
    assert [(p.start, p.end) for p in parts] == [(0, 3), (3, 5), (5, 7)]
    assert [p.config.train.batch_size for p in parts] == [4, 8, 4]
    assert [p.config.data.sequence_length for p in parts] == [8, 8, 32]
    assert [p.corpus for p in parts] == ["corpus", "corpus", "corpus_32"]
    assert {p.config.model.positions for p in parts} == {32} == {with_positions(config).model.positions}
    assert parts[2].config.model.rope_theta == 160_000 and part_at(config, 6) == parts[2] == part_at(config, 100)
    assert (
        parts[2].config.optimizer.learning_rate == 5e-4 and lengths(config) == (8, 32) and largest(config) == parts[2]
    )
    alone = run_config(train=Train(batch_size=4, steps=7))
    assert parts_of(alone)[0].config is alone and in_steps(alone) is alone


def test_smaller_batches_are_computed_in_fewer_pieces():
    phases = (Phase(1, batch_size=8), Phase(2, batch_size=24), Phase(3, sequence_length=16), Phase(4, batch_size=5))
    config = run_config(train=Train(batch_size=4, phases=phases, accumulate=12, steps=9))
    # The largest is 24 blocks of 16 in 12 pieces, of 32 tokens.
    assert [(p.tokens, p.config.train.accumulate) for p in parts_of(config)] == [
        (32, 1), (64, 2), (192, 6), (384, 12), (80, 5),
    ]  # fmt: skip


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 50), st.sampled_from([8, 16, 64])), max_size=5),
    st.integers(1, 60_000),
    st.lists(st.integers(0, 60_000), min_size=3, max_size=3),
)
def test_tokens_become_the_first_step_before_which_they_were_trained_on(batch, gaps, total, others):
    starts = np.cumsum([gap + 5_000 for gap, _, _ in gaps]).tolist()
    phases = tuple(
        Phase(start, sequence_length=length, batch_size=size)
        for start, (_, size, length) in zip(starts, gaps, strict=True)
    )
    decay = min(others[0], total)
    config = run_config(
        train=Train(batch_size=batch, phases=phases, steps=total, unit="tokens"),
        optimizer=Optimizer(schedule="wsd", warmup_steps=others[1], decay_steps=decay),
        objective=Objective(mask_rate_schedule=((others[2], 0.2),)),
    )
    found = in_steps(config)
    assert found.train.unit == "steps" and in_steps(found) is found

    # Step by step, as the run goes.
    step, tokens, reached = 0, 0, {}
    wanted = sorted({*starts, total, others[1], others[2], total - decay})
    of = lambda tokens: [(batch, 8), *((p.batch_size, p.sequence_length) for p in phases if p.start <= tokens)][-1]  # noqa: E731
    while wanted:
        while wanted and wanted[0] <= tokens:
            reached[wanted.pop(0)] = step
        rows, length = of(tokens)
        step, tokens = step + 1, tokens + rows * length
    assert [p.start for p in found.train.phases] == [reached[start] for start in starts]
    assert found.train.steps == reached[total]
    assert found.optimizer.warmup_steps == reached[others[1]]
    assert found.objective.mask_rate_schedule == ((reached[others[2]], 0.2),)
    assert found.optimizer.decay_steps == (reached[total] - reached[total - decay] if decay else 0)


def test_batches_grow_evenly_over_updates():
    config = in_steps(
        run_config(train=Train(steps=10**6, unit="tokens", batch_size=8, phases=growing_batches(8, 40, 4, 64_000, 8)))
    )
    parts = parts_of(config)
    assert [p.config.train.batch_size for p in parts] == [8, 16, 24, 32, 40]
    assert len({p.end - p.start for p in parts[:-1]}) == 1
    assert sum((p.end - p.start) * p.tokens for p in parts[:-1]) == 64_000


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (run_config(train=Train(phases=(Phase(5), Phase(5)))), r"train.phases: starts \[5, 5\] must increase"),
        (run_config(train=Train(phases=(Phase(0),))), r"train.phases: starts \[0\] must increase"),
        (run_config(train=Train(phases=(Phase(5, batch_size=0),))), r"train.phases\[0\].batch_size: 0 is less than 1"),
        (run_config(train=Train(phases=(Phase(5, rope_theta=1e4),))), r"train.phases\[0\]: a rope_theta, but .* learned"),
        (
            run_config(train=Train(phases=(Phase(5, causal=True),)), objective=Objective(learn="distillation")),
            r"train.phases\[0\].causal: True, but objective.learn distillation needs an encoder",
        ),
        (
            run_config(train=Train(phases=(Phase(5, 600),)), model=Model(positions=512)),
            r"train.phases\[0\].sequence_length: 600 is beyond model.positions 512",
        ),
    ],
)  # fmt: skip
def test_phases_that_cannot_be_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        validate_pretraining(config)


def test_plan_takes_the_phase_with_most_tokens_per_batch_or_the_one_named():
    from mlm_jax.plan.config import Plan
    from mlm_jax.plan.run import phase_of

    config = Plan(**vars(run_config(train=Train(batch_size=4, phases=PHASES, steps=20))))
    assert phase_of(config).train == parts_of(config)[3].config.train
    assert phase_of(dataclasses.replace(config, phase=2)).train.batch_size == 8
    with pytest.raises(UserError, match="phase: 7, but the run has 4, counted from 1"):
        phase_of(dataclasses.replace(config, phase=7))


def test_starts_within_one_batch_are_refused():
    stages = Sampling(stages=(Stage(100, 0.3), Stage(101, 0.2)))
    with pytest.raises(UserError, match=r"sampling.stages: two begin at step 4; their starts, in tokens"):
        in_steps(run_config(train=Train(unit="tokens", batch_size=4), sampling=stages))


def test_phases_are_fixed_once_a_run_has_saved():
    config = run_config(train=Train(phases=PHASES))
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, phases=PHASES[:2]))
    assert [d.may_change for d in differences(json.loads(config_to_json(config)), other)] == [None]
