# SPDX-License-Identifier: Apache-2.0
"""local.sh and test.sh, and what all launch scripts share."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.stand_ins import CHECKOUT, Launch, make_python


def test_local_makes_an_environment_installs_and_pretrains(launch: Launch) -> None:
    status, calls, stderr = launch.run("launch/local.sh", "configs/quickstart.py", "--workdir", "my run")
    assert status == 0, stderr
    venv, pip, run = calls
    assert venv == "venv of 3.12"
    assert pip.startswith("pip <install>")
    assert f"<-c> <{launch.checkout}/constraints.txt> <-e> <{launch.checkout}[prepare,sample]>" in pip
    assert run == f"mlm_jax <pretrain> <configs/quickstart.py> <--workdir> <my run> in {launch.checkout}"


def test_a_second_run_does_without_pip(launch: Launch) -> None:
    launch.run("launch/local.sh", "configs/quickstart.py")
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py")
    assert [c.split()[0] for c in calls] == ["mlm_jax"]


@pytest.mark.parametrize("changed", ["setup.py", "constraints.txt"])
def test_another_requirement_is_installed(launch: Launch, changed: str) -> None:
    launch.run("launch/local.sh", "configs/quickstart.py")
    with open(launch.checkout / changed, "a") as file:
        file.write("# changed\n")
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py")
    assert [c.split()[0] for c in calls] == ["pip", "mlm_jax"]


def test_a_moved_checkout_is_installed_again(launch: Launch) -> None:
    launch.run("launch/local.sh", "configs/quickstart.py")
    launch.checkout = launch.checkout.rename(launch.checkout.with_name("elsewhere"))
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py")
    assert [c.split()[0] for c in calls] == ["pip", "mlm_jax"]


def test_an_installation_that_failed_is_tried_again(launch: Launch) -> None:
    status, calls, stderr = launch.run("launch/local.sh", "configs/quickstart.py", PIP_EXIT="1")
    assert status == 2
    assert not any(c.startswith("mlm_jax") for c in calls)
    assert "error: the installation failed" in stderr
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py")
    assert [c.split()[0] for c in calls] == ["pip", "mlm_jax"]


def test_an_environment_whose_python_is_gone_is_made_anew(launch: Launch) -> None:
    launch.run("launch/local.sh", "configs/quickstart.py")
    (launch.checkout / ".venv/bin/python").unlink()
    status, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py")
    assert status == 0
    assert calls[0] == "venv of 3.12"


def test_a_config_is_found_here_first_then_in_the_checkout(launch: Launch, tmp_path: Path) -> None:
    here = tmp_path / "some where"
    here.mkdir()
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py", cwd=here)
    assert calls[-1] == f"mlm_jax <pretrain> <{launch.checkout}/configs/quickstart.py> in {here}"
    (here / "configs").mkdir()
    (here / "configs/quickstart.py").touch()
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py", cwd=here)
    assert calls[-1] == f"mlm_jax <pretrain> <configs/quickstart.py> in {here}"


def test_a_missing_config_is_refused_before_anything_is_installed(launch: Launch) -> None:
    for missing in ("configs/none.py", "/none.py"):
        status, calls, stderr = launch.run("launch/local.sh", missing)
        assert status != 0
        assert calls == []
        assert stderr.startswith(f"error: {missing}: no such config file")
        assert stderr.count("\n") == 1


def test_local_without_a_config_says_how_it_is_used(launch: Launch) -> None:
    status, calls, stderr = launch.run("launch/local.sh")
    assert (status, calls) == (2, [])
    assert "bash launch/local.sh configs/quickstart.py" in stderr


def test_the_exit_status_is_the_run_s(launch: Launch) -> None:
    assert launch.run("launch/local.sh", "configs/quickstart.py", RUN_EXIT="7")[0] == 7
    assert launch.run("launch/test.sh", RUN_EXIT="7")[0] == 7
    assert launch.run(".ci/run", RUN_EXIT="7")[0] == 7


def test_a_signal_reaches_the_run(launch: Launch, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with launch.start("launch/local.sh", "configs/quickstart.py", WAIT=str(started)) as process:
        for _ in range(600):
            if started.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)  # to the script's process alone, as a scheduler does
        process.communicate(timeout=30)
    assert started.exists()
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PYTHON": "/no/such/python"}, "error: PYTHON=/no/such/python is not Python 3.11, 3.12 or 3.13"),
        ({"UNSUITABLE": "1"}, "is not Python 3.11, 3.12 or 3.13"),
        ({"NO_VENV": "1"}, "cannot make virtual environments; on Debian: apt install python3-venv"),
    ],
)
def test_a_python_that_will_not_do_is_refused_in_one_line(
    launch: Launch, environment: dict[str, str], expected: str
) -> None:
    status, calls, stderr = launch.run("launch/local.sh", "configs/quickstart.py", **environment)
    assert status == 2
    assert calls == []
    assert expected in stderr
    assert stderr.count("\n") == 1


def test_no_python_at_all_is_refused_in_one_line(launch: Launch, tmp_path: Path) -> None:
    programs = tmp_path / "few programs"
    programs.mkdir()
    for name in ("bash", "dirname", "cat", "cksum"):
        (programs / name).symlink_to(str(shutil.which(name)))
    status, calls, stderr = launch.run("launch/local.sh", "configs/quickstart.py", PYTHON="", PATH=str(programs))
    assert (status, calls) == (2, [])
    assert stderr.startswith("error: no Python 3.11, 3.12 or 3.13 found")
    assert stderr.count("\n") == 1


def test_the_newest_suitable_python_is_taken(launch: Launch, tmp_path: Path) -> None:
    programs = tmp_path / "few programs"
    programs.mkdir()
    # 3.13 is there and does not run, as a shim of a version manager that has no such version.
    (programs / "python3.13").write_text("#!/bin/sh\nexit 127\n")
    (programs / "python3.13").chmod(0o755)
    make_python(programs / "python3.12", "3.12")
    make_python(programs / "python3.11", "3.11")
    path = f"{programs}:{os.environ['PATH']}"
    _, calls, stderr = launch.run("launch/local.sh", "configs/quickstart.py", PYTHON="", PATH=path)
    assert calls[0] == "venv of 3.12", stderr


def test_tests_run_on_cpu_without_the_slow_ones(launch: Launch) -> None:
    status, calls, stderr = launch.run("launch/test.sh", "-k", "a b")
    assert status == 0, stderr
    assert f"<{launch.checkout}[prepare,sample,test]>" in calls[1]
    assert calls[2:] == [f"pytest <-m> <not slow> <-k> <a b> in {launch.checkout}"]


def test_ci_runs_everything_from_anywhere(launch: Launch, tmp_path: Path) -> None:
    status, calls, stderr = launch.run(".ci/run", cwd=tmp_path, CI="true")
    assert status == 0, stderr
    assert f"<{launch.checkout}[prepare,sample,test,parity,plan,plan-gpu,hf,curate]>" in calls[1]
    assert "<--no-build-isolation>" in calls[-2] and "<seqeval==1.2.2>" in calls[-2]
    options = "<-m> <slow or not slow> <-n> <2> <--dist> <loadfile> <--no-loadscope-reorder> <--durations=100>"
    assert calls[-1] == f"pytest {options} in {launch.checkout}"


def test_who_asks_for_parity_gets_it(launch: Launch) -> None:
    _, calls, _ = launch.run("launch/test.sh", "--parity")
    assert f"<{launch.checkout}[prepare,sample,test,parity]>" in calls[1]
    assert "--parity" not in calls[-1]


def test_another_python_makes_another_environment(launch: Launch, tmp_path: Path) -> None:
    launch.run("launch/local.sh", "configs/quickstart.py")
    make_python(tmp_path / "newer", "3.13")
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py", PYTHON=str(tmp_path / "newer"))
    assert calls[0] == "venv of 3.13"
    # Without PYTHON, the environment that is there will do.
    _, calls, _ = launch.run("launch/local.sh", "configs/quickstart.py", PYTHON="")
    assert [c.split()[0] for c in calls] == ["mlm_jax"]


def test_shellcheck() -> None:
    # The program beside this Python, as the other style tools, or the system's.
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed; it comes with the [test] extra")
    scripts = [*CHECKOUT.glob("launch/*.sh"), CHECKOUT / ".ci/run"]
    done = subprocess.run([program, "-x", *scripts], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["launch/local.sh", "launch/gpu.sh"])
def test_a_dry_run_prints_what_a_shell_reads_back(launch: Launch, script: str) -> None:
    asked = ["configs/quickstart.py", "--workdir", 'it\'s a "run" of $5']
    status, calls, stderr = launch.run(script, "--dry-run", *asked, NO_GPU="1")
    assert (status, calls, stderr) == (0, [], "")
    assert not (launch.checkout / ".venv").exists()
    printed = [shlex.split(line) for line in launch.stdout.splitlines()]
    assert [line[2] for line in printed[:2]] == ["venv", "pip"]
    assert printed[2][-len(asked) :] == asked


def test_a_dry_run_of_the_tests(launch: Launch) -> None:
    status, calls, _ = launch.run("launch/test.sh", "--dry-run", "--parity", "-k", "a b")
    assert (status, calls) == (0, [])
    printed = [shlex.split(line) for line in launch.stdout.splitlines()]
    assert [line[2] for line in printed[:-1]] == ["venv", "pip", "pip", "pip"]
    assert printed[-1][:2] == ["env", "JAX_PLATFORMS=cpu"] and printed[-1][-2:] == ["-k", "a b"]


def test_every_requirement_is_pinned(tmp_path: Path) -> None:
    """Whatever setup.py names, constraints.txt gives an exact version of on the Pythons we support."""
    names = subprocess.run(
        [sys.executable, "-c", REQUIREMENTS], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    pins = [line.split(";") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    assert all("==" in pin[0] for pin in pins)
    assert len(names) > 20
    assert {name.lower() for name in names} <= {pin[0].split("==")[0] for pin in pins}


REQUIREMENTS = """
import re, runpy, setuptools
def setup(install_requires, extras_require, **_):
    for name in ("beam", "beam-prepare"):
        del extras_require[name]  # it holds packages back, and has an environment of its own
    for requirement in [*install_requires, *sum(extras_require.values(), [])]:
        print(re.match(r"[A-Za-z0-9_.-]+", requirement)[0])
setuptools.setup = setup
runpy.run_path("setup.py")
"""
