# SPDX-License-Identifier: Apache-2.0
"""Several runs of one curation at once, as the tasks of a SLURM array: the same bytes as of one, whoever is killed; and who is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("py3langid")
pytest.importorskip("fastwarc")

from mlm_jax import cli, lock
from mlm_jax.curate import run
from mlm_jax.files import make_folder
from mlm_jax.options import parse
from tests.curate.test_run import content, curate, documents, write_apart, write_config

# Many small jobs of a small input.
PROGRAM = """
import sys
from mlm_jax.curate import run
run.JOB_BYTES, run.GROWTH, run.POLL = 1, 3000, 0.2
from mlm_jax.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_apart(tmp_path / "in", documents(300), 12)
    return write_config(tmp_path, workdir="one", inputs=("in/*.gz",), shard_bytes=40_000)


def start(config, *options):
    command = [sys.executable, "-c", PROGRAM, "curate", config, "--workdir", "many", "--workers", "1", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def has_begun():
    return any(Path("many").glob("work/*/read/*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_three_at_once_of_which_one_is_killed_give_the_same_bytes(config, tmp_path, seed):
    curate(config, "--workers", 1)
    expected = content("one")
    tasks = [start(config, "--shared", "True") for _ in range(3)]
    while not has_begun():
        time.sleep(0.05)
        assert all(task.poll() is None for task in tasks)
    time.sleep(random.Random(seed).uniform(0, 2))
    tasks[seed].send_signal(signal.SIGKILL)
    tasks.append(start(config, "--shared", "True"))  # as one that comes late
    said = [task.communicate(timeout=240) for task in tasks]
    assert [task.returncode for task in tasks if task is not tasks[seed]] == [0, 0, 0], said
    assert tasks[seed].returncode in (0, -signal.SIGKILL)
    assert content("many") == expected
    assert not Path("many/work").exists() and not Path("many/running.json").exists()
    assert sum("report: many/report/index.html" in out for out, _ in said) <= 1


def test_those_of_one_curation_share_the_work_and_others_are_refused(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "PATIENCE", 2.0)
    monkeypatch.setattr(run, "POLL", 0.1)
    config = [config, "--workdir", "many", "--workers", "1"]
    chosen = parse("curate", [*config, "--shared", "True"])
    with lock.locked("many", "curate", group=run.identity(chosen, run.input_sizes(chosen))) as new:
        assert new
        for options in ([], ["--shared", "True", "--duplicates.near", "False"]):
            assert cli.main(["curate", *config, *options]) == 2
            assert "many: mlm-jax curate is at work here, process" in capsys.readouterr().err
        # It joins, takes over what one did that is gone, and waits for what one does that lives.
        work = run.begin(chosen, run.input_sizes(chosen))
        gone = dataclasses.replace(lock.this_process(), pid=2**22 + 1)
        make_folder(work.path("read", 0, "claim").parent)
        work.path("read", 0, "claim").write_text(json.dumps(dataclasses.asdict(gone)))
        elsewhere = dataclasses.replace(gone, host="elsewhere")
        make_folder(work.path("copies", 0, "claim").parent)
        work.path("copies", 0, "claim").write_text(json.dumps(dataclasses.asdict(elsewhere)))
        since = time.monotonic()
        assert cli.main(["curate", *config, "--shared", "True"]) == 0
        assert time.monotonic() - since > 2
        assert "report: many/report/index.html" in capsys.readouterr().out
        assert cli.main(["curate", *config, "--shared", "True"]) == 0  # comes when all is done
        assert "many: the corpus is there" in capsys.readouterr().out
    curate(config[0], "--workers", 1)
    assert content("many") == content("one")


def test_what_an_unfinished_run_with_other_options_wrote_goes(config, tmp_path):
    for name in ("xx/00000.jsonl.zst", "en/00009.jsonl.zst"):
        make_folder((Path("one/corpus") / name).parent)
        (Path("one/corpus") / name).write_bytes(b"")
    make_folder("one/work/0123456789abcdef/write")
    curate(config, "--workers", 1)
    assert sorted({path.name for path in Path("one/corpus").iterdir()}) == ["de", "en", "es"]
    assert not Path("one/corpus/en/00009.jsonl.zst").exists() and not Path("one/work").exists()
