# SPDX-License-Identifier: Apache-2.0
"""The commands as functions: what they return and leave, and what they leave alone."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import mlm_jax
from mlm_jax import config as cfg
from mlm_jax import functions, lock
from mlm_jax.adapt.config import Adapt
from mlm_jax.errors import Ended
from mlm_jax.evaluate.config import Evaluate, Pairs, Retrieval
from mlm_jax.report.run import read_run
from mlm_jax.train import fit
from mlm_jax.train.compiled import keep_compiled, restored
from tests.corpora import make_workdir, tiny_config

ON_IMPORT = """
import logging, os, signal, sys, time
handlers = [signal.getsignal(number) for number in range(1, signal.NSIG)]
levels, variables = [logging.getLogger(name).level for name in ("", "absl", "jax")], dict(os.environ)
begin = time.perf_counter()
import mlm_jax
seconds = time.perf_counter() - begin
assert set(mlm_jax.__all__) <= set(dir(mlm_jax)) and mlm_jax.__version__
assert handlers == [signal.getsignal(number) for number in range(1, signal.NSIG)]
assert levels == [logging.getLogger(name).level for name in ("", "absl", "jax")] and variables == dict(os.environ)
heavy = [m for m in ("jax", "flax", "orbax", "tensorflow", "numpy", "tyro", "absl") if m in sys.modules]
assert not heavy, heavy
print(seconds)
"""


def test_importing_takes_no_time_and_changes_nothing():
    run = [sys.executable, "-c", ON_IMPORT]
    times = [float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert min(times) < 0.3


def test_what_is_public_is_there_and_documented():
    for name in mlm_jax.__all__:
        found = getattr(mlm_jax, name)
        assert name == "__version__" or inspect.getdoc(found), name
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = mlm_jax.pretrian
    # Packages that are functions too.
    assert inspect.signature(mlm_jax.finetune) == inspect.signature(functions.finetune)
    importlib.import_module("mlm_jax.finetune.config")
    assert mlm_jax.finetune.config.Finetune and callable(mlm_jax.finetune)
    assert mlm_jax.load_config("quickstart", {"train.steps": 7}).train.steps == 7


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run, as a function made it, and its table."""
    config = make_workdir(tmp_path_factory.mktemp("run") / "run", {"xx": 40, "yy": 20})
    rows = mlm_jax.pretrain(config)
    return config, rows


def test_pretrain_returns_its_table_and_leaves_a_run(run):
    config, rows = run
    assert [row["language"] for row in rows] == ["xx", "yy"]
    last = read_run(config.workdir).validation[-1]["languages"]
    assert all(row["loss"] == last[row["language"]]["loss"] and row["tokens"] > 0 for row in rows)
    there = set(os.listdir(config.workdir))
    assert {"config.json", "started.jsonl", "sampling.json", "checkpoints", "metrics.jsonl", "report"} <= there
    assert lock.NAME not in there
    assert "mlm_jax.pretrain(...)" in Path(config.workdir, "started.jsonl").read_text()
    assert mlm_jax.pretrain(config.workdir) == rows  # nothing is left to train
    with pytest.raises(
        mlm_jax.UserError, match=r"holds a run with another config \(model.layers: 2 there, 3 here\); use"
    ):
        mlm_jax.pretrain(config, {"model.layers": 3})


def test_metrics_are_rows_and_a_frame(run, monkeypatch):
    config, _ = run
    rows = mlm_jax.read_metrics(config.workdir)
    assert rows == [json.loads(line) for line in Path(config.workdir, "metrics.jsonl").read_text().splitlines()]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(mlm_jax.UserError, match="as_frame: needs pandas; run: pip install pandas"):
        mlm_jax.read_metrics(config.workdir, as_frame=True)
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    frame = mlm_jax.read_metrics(config.workdir, as_frame=True)
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(rows)
    validated = frame[frame.kind == "validation"]
    assert validated["languages.xx.loss"].notna().all()
    with pytest.raises(mlm_jax.UserError, match=r"no metrics\.jsonl there"):
        mlm_jax.read_metrics(f"{config.workdir}/corpus")


@pytest.mark.slow
def test_what_the_process_had_set_is_as_before(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    config = make_workdir(tmp_path / "run", {"xx": 20}, train={"steps": 2})

    def settings():
        absl = logging.getLogger("absl")
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        return (
            handlers,
            absl.level,
            list(absl.filters),
            jax.config.jax_compilation_cache_dir,
            jax.config.jax_transfer_guard,
        )

    with restored():  # JAX decides at the first program whether it keeps any
        compilation_cache.reset_cache()
        keep_compiled("", "none")
        jax.jit(lambda x: x * 3)(np.ones(5, np.float32))
    before = settings()
    mlm_jax.pretrain(config)
    assert settings() == before
    assert os.listdir(tmp_path / "run" / "compiled")  # where the command keeps them


@pytest.mark.slow
def test_a_thread_trains_too(tmp_path):
    config = make_workdir(tmp_path / "run", {"xx": 20}, train={"steps": 2})
    found = []
    thread = threading.Thread(target=lambda: found.append(mlm_jax.pretrain(config)))
    thread.start()
    thread.join()
    assert [row["language"] for row in found[0]] == ["xx"]


@pytest.mark.slow
def test_an_interrupt_saves_and_comes_through(tmp_path, monkeypatch):
    config = make_workdir(tmp_path / "run", {"xx": 20})
    real = fit.line_of

    def interrupted(learner, step, *rest):
        signal.raise_signal(signal.SIGINT)
        return real(learner, step, *rest)

    monkeypatch.setattr(fit, "line_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mlm_jax.pretrain(config)
    monkeypatch.undo()
    assert not (tmp_path / "run" / lock.NAME).exists()
    stopped = [row["step"] for row in mlm_jax.read_metrics(config.workdir)][-1]
    assert stopped < config.train.steps
    mlm_jax.pretrain(config)
    assert mlm_jax.read_metrics(config.workdir)[-1]["step"] == config.train.steps


def test_prepare_says_what_its_process_says(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"word{i} and {i * 7} others" for i in range(300)))
    config = tiny_config(str(tmp_path / "run"))
    data = dataclasses.replace(config.data, sources=(cfg.Source("xx", str(tmp_path / "text.txt")),))
    config = dataclasses.replace(config, data=data, vocabulary=cfg.Vocabulary(size=5_000))
    with pytest.raises(mlm_jax.UserError, match=r"vocabulary\.size: 5,?000") as refused:
        mlm_jax.prepare(config)
    assert isinstance(refused.value, Ended) and refused.value.status == 2
    [row] = mlm_jax.prepare(config, {"vocabulary.size": 300})
    assert row["language"] == "xx" and row["documents"] > 200 and row["unknown"] == 0
    assert mlm_jax.prepare(str(tmp_path / "run")) == [row]  # as it is there


def test_evaluate_returns_its_rows(run, tmp_path):
    config, _ = run
    for side in "ab":
        (tmp_path / side).write_text("bdfh cegi\nadgj behk\n")
    suite = Evaluate(
        workdir=str(tmp_path / "suite"),
        init=config.workdir,
        max_length=16,
        retrieval=(Retrieval("same", (Pairs(("xx", "yy"), (str(tmp_path / "a"), str(tmp_path / "b"))),)),),
    )
    [row] = mlm_jax.evaluate(suite)
    assert (row["task"], row["value"], row["examples"]) == ("same", 1.0, 2)
    assert {"results.json", "results.html", "started.jsonl"} <= set(os.listdir(tmp_path / "suite"))


@pytest.mark.slow
def test_adapt_returns_a_row_for_each_language(run, tmp_path):
    config, _ = run
    (tmp_path / "text.txt").write_text("bdfh cegi\nadgj behk\n" * 20)
    sources = (cfg.Source("xx", str(tmp_path / "text.txt")),)
    small = Adapt(workdir=str(tmp_path / "small"), init=config.workdir, data=cfg.Data(sources=sources))
    [row] = mlm_jax.adapt(small)
    assert row["language"] == "xx" and row["documents"] == 40 and row["tokens"][0] == row["tokens"][1] > 0
    encoder, before = mlm_jax.load(small.workdir), mlm_jax.load(config.workdir)
    assert encoder.vocabulary.size < before.vocabulary.size
    np.testing.assert_allclose(encoder.embed(["bdfh"]), before.embed(["bdfh"]), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("no_such", {}, "no_such: no such config file and no config of that name"),
        ("quickstart", {"train.stesp": 4}, "--train.stesp.*: no such option; did you mean --train.steps?"),
        ("quickstart", {"help": True}, "help: no such option"),
        ("quickstart", {"train.steps": 0}, "train.steps: 0 is less than 1"),
        ("quickstart", {"train.steps": None}, "train.steps: None; leave it out, or give a value"),
        (
            "quickstart",
            {"hosts.start": "cluster"},
            "hosts.start: cluster; a function runs in the process that calls it",
        ),
        (cfg.Config(), {}, "data.sources: empty"),
        (Evaluate(), {}, "config: Evaluate, not mlm_jax.config.Config"),
        (7, {}, "config: int, not mlm_jax.config.Config"),
    ],
)
def test_bad_input_is_an_exception_of_one_line(config, options, message):
    with pytest.raises(mlm_jax.UserError, match=message) as refused:
        mlm_jax.pretrain(config, options)
    assert "\n" not in str(refused.value)


def test_options_are_of_the_types_that_python_has():
    config = functions.read(
        "pretrain", "quickstart", {"objective.whole_words": True, "workdir": "-x", "seed": 3, "optimizer.b2": 0.9}
    )
    assert (config.objective.whole_words, config.workdir, config.seed, config.optimizer.b2) == (True, "-x", 3, 0.9)
    assert not functions.read("pretrain", config, {"objective.whole_words": False}).objective.whole_words


def test_a_lock_that_another_took_is_an_exception(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "ends_process", False)
    with lock.locked(tmp_path):
        there = json.loads((tmp_path / lock.NAME).read_text())
        (tmp_path / lock.NAME).write_text(json.dumps(there | {"token": "another's"}))
        with pytest.raises(mlm_jax.UserError, match="has taken over"):
            lock.check()
