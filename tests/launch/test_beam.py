# SPDX-License-Identifier: Apache-2.0
"""beam.sh: Beam's own environment, and what runs in it."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.launch.stand_ins import CHECKOUT, Launch

OLDER = {"numpy", "pillow", "protobuf", "pyarrow", "python-dateutil"}
OPTIONS = "--runner=DataflowRunner --project=it's"


@pytest.mark.parametrize(
    ("action", "extras", "older", "option"),
    [
        ("curate", "curate,beam", OLDER, "--runner"),
        ("prepare", "prepare,beam,beam-prepare", OLDER | {"sentencepiece"}, "--data.runner"),
    ],
)
def test_an_environment_of_its_own_with_older_packages(
    launch: Launch, action: str, extras: str, older: set[str], option: str
) -> None:
    asked = ["configs/quickstart.py", "--workdir", "gs://bucket/a run", "--beam_options", OPTIONS]
    status, calls, stderr = launch.run("launch/beam.sh", action, *asked)
    assert status == 0, stderr
    venv, pip, run = calls
    assert venv == "venv of 3.12"
    constraints = launch.checkout / f".venv-beam-{action}" / "constraints.txt"
    assert f"<-c> <{constraints}> <-e> <{launch.checkout}[{extras}]>" in pip
    said = "".join(f" <{word}>" for word in [asked[0], option, "beam", *asked[1:]])
    assert run == f"mlm_jax <{action}>{said} in {launch.checkout}"
    # All pins but those: each of them is one of constraints.txt.
    pins, all_pins = (path.read_text().splitlines() for path in (constraints, launch.checkout / "constraints.txt"))
    assert {line.split("==")[0] for line in set(all_pins) - set(pins)} == older
    assert set(pins) < set(all_pins)
    assert not (launch.checkout / ".venv").exists()
    # A second call does without pip.
    _, calls, _ = launch.run("launch/beam.sh", action, *asked)
    assert calls == [run]


def test_a_dry_run_prints_what_a_shell_reads_back(launch: Launch) -> None:
    asked = ["configs/quickstart.py", "--beam_options", OPTIONS]
    status, calls, stderr = launch.run("launch/beam.sh", "--dry-run", "curate", *asked)
    assert (status, calls, stderr) == (0, [], "")
    assert not (launch.checkout / ".venv-beam-curate").exists()
    venv, sed, pip, run = (shlex.split(line) for line in launch.stdout.splitlines())
    assert (venv[2], sed[0], pip[2], run[2:4]) == ("venv", "sed", "pip", ["mlm_jax", "curate"])
    assert run[-4:] == [*asked[:1], "--runner", "beam", *asked[1:]][-4:]


def test_the_image_of_the_workers_installs_and_runs_nothing(launch: Launch) -> None:
    status, calls, stderr = launch.run("launch/beam.sh", "install", "curate")
    assert status == 0, stderr
    assert [call.split()[0] for call in calls] == ["venv", "pip"]
    image = (CHECKOUT / "launch" / "beam.Dockerfile").read_text()
    assert "launch/beam.sh install curate" in image
    # The workers' Beam is the one that launches.
    first, last = re.findall(r"apache-beam\[gcp\]>=([\d.]+),<([\d.]+)", (CHECKOUT / "setup.py").read_text())[0]
    (version,) = re.findall(r"_sdk:([\d.]+)", image)
    assert version.startswith(f"{first}.") and last == f"2.{int(first.split('.')[1]) + 1}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what is to be done: bash launch/beam.sh curate|prepare CONFIG.py"),
        (["configs/quickstart.py"], "name what is to be done: bash launch/beam.sh curate|prepare CONFIG.py"),
        (["curate"], "name a config file: bash launch/beam.sh curate CONFIG.py"),
        (["curate", "none.py"], "none.py: no such config file, neither here nor in "),
        (["install"], "name what for: bash launch/beam.sh install curate|prepare"),
    ],
)
def test_what_is_missing_is_said_in_one_line(launch: Launch, arguments: list[str], said: str) -> None:
    status, calls, stderr = launch.run("launch/beam.sh", *arguments)
    assert (status, calls) == (2, [])
    assert stderr.startswith(f"error: {said}") and stderr.count("\n") == 1
