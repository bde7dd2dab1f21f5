# SPDX-License-Identifier: Apache-2.0
"""`study --runner slurm`, through the real slurm.sh, against stand-ins for sbatch and Python."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from mlm_jax import cli
from mlm_jax.options import parse
from mlm_jax.study import cost, run, slurm
from mlm_jax.study.slurm import ranges
from tests.launch.stand_ins import Launch

FILE = """\
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.study.config import Measure, Study, vary
from tests.corpora import tiny_config


def get_config():
    return Study(
        base=tiny_config("", train={"steps": 4, "batch_size": 8, "validate_every": 4}),
        factors=(vary("sampling.exponent", 1.0, 0.3),),
        seeds=(0, 1, 2),
        measures=(Measure("none", Evaluate()),),
        runner="slurm",
        text="my text",
    )
"""
SBATCH = "--gpus-per-node=1 --comment='two words'"


@pytest.fixture
def prepared(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs' corpora were prepared, at each call; in a folder with study.py, where `launch` has the programs."""
    monkeypatch.chdir(launch.checkout)
    Path("my study.py").write_text(FILE)
    for name, value in launch.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "SCRIPT", launch.checkout / "launch/slurm.sh")
    counts: list[int] = []
    monkeypatch.setattr(run, "prepare", lambda study, runs: counts.append(len(runs)))
    return counts


def finish(name: str, measured: bool = True, runs: str = "runs") -> None:
    """A run's metrics as of its last update, and what was measured of it."""
    folder = Path("runs/my study", runs, name)
    (folder / "measured/none").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "validation", "step": 4, "seconds": 1.0}) + "\n")
    if measured:
        (folder / "measured/none/results.json").write_text("[]")


def study(*options: str) -> int:
    return cli.main(["study", "my study.py", *options])


def test_the_runs_that_are_left_are_an_array_and_the_report_comes_after_it(
    launch: Launch, prepared: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    finish("exponent-1--seed-1", runs="limit_3/runs")  # where those of --limit 3 are
    finish("exponent-0.3--seed-0", measured=False, runs="limit_3/runs")
    finish("exponent-1--seed-0")
    assert study("--sbatch", SBATCH, "--limit", "3", "--topology", "v5e-4") == 0
    assert prepared == [6]
    first, second = (line for line in launch.log.read_text().splitlines() if line.startswith("sbatch"))
    words = ["--gpus-per-node=1", "--comment=two words"]
    assert re.findall("<(.*?)>", first)[-3:] == [*words, "--array=0,2-5"]
    assert re.findall("<(.*?)>", second)[-3:] == [*words, "--dependency=afterany:17"]
    # What the last job does; the tasks of the array do the same but for their own --only and --run, which slurm.sh gives.
    told = shlex.split(Path(f"{launch.log}.job").read_text().splitlines()[-1])
    file = str(launch.checkout / "my study.py")
    assert told[:5] == ["exec", "bash", str(slurm.SCRIPT), "study", file] and told[-2:] == ["--only", "report"]
    assert "--sbatch" not in told and "--topology" not in told
    there = parse("study", [*told[4:], "--runner", "here"])
    assert (there.workdir, there.text, there.seeds, there.limit) == ("runs/my study", "my text", (0, 1, 2), 3)
    assert (there.runner, there.only, there.sbatch, there.run) == ("here", "report", "", "")
    said = capfd.readouterr()
    assert "job 17; its logs, one per task: tail -F mlm_jax-17_*.log" in said.out
    assert said.out.endswith("job 17: the report, when they have ended\n") and not said.err


@pytest.mark.parametrize(
    ("options", "array", "reports"),
    [
        (["--run", "3"], "--array=3", False),
        (["--only", "runs"], "--array=0-5", False),
        (["--only", "prepare"], "", False),
    ],
)
def test_only_what_is_asked_for_is_submitted(
    launch: Launch, prepared: list[int], options: list[str], array: str, reports: bool
) -> None:
    assert study(*options) == 0
    calls = launch.log.read_text().splitlines() if launch.log.exists() else []
    submitted = [line for line in calls if line.startswith("sbatch")]
    assert len(submitted) == bool(array) + reports and all(f"<{array}>" in line for line in submitted)
    assert prepared


def test_a_study_that_is_finished_submits_nothing_and_gets_its_report_here(
    launch: Launch, prepared: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlm_jax.actions.report_study", lambda study: print("the report"))
    for exponent in ("1", "0.3"):
        for seed in range(3):
            finish(f"exponent-{exponent}--seed-{seed}")
    assert study() == 0
    assert capsys.readouterr().out == "every run is finished; none is submitted\nthe report\n"
    assert not launch.log.exists()


def test_within_a_job_it_is_submitted_all_the_same(
    launch: Launch, prepared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert study() == 0
    assert launch.log.read_text().count("sbatch") == 2


def test_a_dry_run_prints_the_calls_and_submits_nothing(
    launch: Launch, prepared: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "seconds_per_update", lambda config: 1.0)
    finish("exponent-1--seed-0")
    assert study("--dry-run", "--sbatch", SBATCH) == 0
    first, second = (shlex.split(line) for line in capsys.readouterr().out.splitlines()[-2:])
    start = ["bash", str(slurm.SCRIPT), "--gpus-per-node=1", "--comment=two words"]
    assert first[:6] == [*start, "--array=1-5", "study"]
    assert second[:6] == [*start, "--dependency=afterany:JOB", "study"] and second[-1] == "report"
    assert not launch.log.exists() and not prepared


def no_sbatch(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    (launch.programs / "sbatch").unlink()
    monkeypatch.setenv("PATH", str(launch.programs))


def no_script(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "SCRIPT", launch.checkout / "none.sh")


def nothing(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("sbatch", "missing", "expected"),
    [
        ("", no_sbatch, "runner: sbatch is not here; call this on a login node of a SLURM cluster"),
        ("", no_script, "runner: slurm needs launch/slurm.sh, which an installed package does not have"),
        ("--time 2:00:00", nothing, "sbatch: 2:00:00: write its options --name=value"),
        ("-p x", nothing, "sbatch: -p: write its options --name=value"),
        ("--array=0-5%2", nothing, "sbatch: --array is made of the runs that are left"),
        ("--comment='a", nothing, "sbatch: --comment='a: No closing quotation"),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_anything_is_prepared(
    launch: Launch,
    prepared: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sbatch: str,
    missing: Callable[[Launch, pytest.MonkeyPatch], None],
    expected: str,
) -> None:
    missing(launch, monkeypatch)
    assert study("--sbatch", sbatch) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {expected}") and said.count("\n") == 1
    assert not prepared and not launch.log.exists() and not Path("runs").exists()


def test_what_slurm_refuses_is_said_once(
    launch: Launch, prepared: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SBATCH_EXIT", "1")
    assert study() == 2
    assert capfd.readouterr().err == (
        "sbatch: error: invalid partition\nerror: sbatch refused the job; what it says is above\n"
    )


def test_numbers_as_an_array_has_them() -> None:
    assert ranges([0, 2, 3, 4, 7, 9, 10]) == "0,2-4,7,9-10"
