# SPDX-License-Identifier: Apache-2.0
"""gpu.sh and slurm.sh, against stand-ins for nvidia-smi, sbatch and srun."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.stand_ins import CHECKOUT, Launch

RUN = ["configs/quickstart.py", "--workdir", "a 'run'"]


def test_gpu_installs_jax_for_cuda_and_pretrains(launch: Launch) -> None:
    status, calls, stderr = launch.run("launch/gpu.sh", *RUN)
    assert (status, stderr) == (0, "")
    assert f"<{launch.checkout}[prepare,sample,gpu]>" in calls[1]
    assert calls[2] == f"mlm_jax <pretrain> <configs/quickstart.py> <--workdir> <a 'run'> in {launch.checkout}"
    found = launch.run_environment()
    assert found["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.9"
    assert found["XLA_FLAGS"] == "--xla_gpu_enable_latency_hiding_scheduler=true"
    assert found["NCCL_DEBUG"] == "WARN"


def test_what_is_set_wins(launch: Launch) -> None:
    launch.run("launch/gpu.sh", *RUN, XLA_PYTHON_CLIENT_MEM_FRACTION="0.5", XLA_FLAGS="--a=1 --b=2", NCCL_DEBUG="INFO")
    found = launch.run_environment()
    assert found["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"
    assert found["XLA_FLAGS"].endswith(" --a=1 --b=2")  # the last one counts
    assert found["NCCL_DEBUG"] == "INFO"


def test_another_cuda_is_kept_out(launch: Launch, tmp_path: Path) -> None:
    folders = {name: tmp_path / f"lib {name}" for name in ("driver", "cuda", "fabric")}
    for folder, library in zip(folders.values(), ("libcuda.so.1", "libcudnn.so.8", "libfabric.so"), strict=True):
        folder.mkdir()
        (folder / library).touch()
    launch.run("launch/gpu.sh", *RUN, LD_LIBRARY_PATH=":".join(map(str, folders.values())))
    assert launch.run_environment()["LD_LIBRARY_PATH"] == f"{folders['driver']}:{folders['fabric']}"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"NO_GPU": "1"}, "nvidia-smi finds no GPU; without one: bash launch/local.sh"),
        ({"DRIVER": "470.82.01"}, "NVIDIA driver 470.82.01 is too old for CUDA 12; update it to 525 or later"),
        ({"JAX_GPUS": "0"}, "JAX sees 0 of 8 GPUs; what it says is above; free them"),
        ({"JAX_GPUS": "8", "CUDA_VISIBLE_DEVICES": "0,1"}, "JAX sees 8 of 2 GPUs"),
    ],
)
def test_a_host_whose_gpus_cannot_be_used_is_refused(
    launch: Launch, environment: dict[str, str], expected: str
) -> None:
    status, calls, stderr = launch.run("launch/gpu.sh", *RUN, **environment)
    assert status == 2
    assert not any(c.startswith("mlm_jax") for c in calls)
    assert expected in stderr.splitlines()[-1]
    assert stderr.count("error: ") == 1


def test_some_of_the_gpus_are_enough_when_asked_for(launch: Launch) -> None:
    assert launch.run("launch/gpu.sh", *RUN, JAX_GPUS="2", CUDA_VISIBLE_DEVICES="0,1")[0] == 0


def test_this_jax_knows_the_flags() -> None:
    """XLA ends the process at a flag it does not know."""
    flags = re.findall(r"--xla\w+=\w+", (CHECKOUT / "launch/gpu.sh").read_text())
    assert flags
    environment = os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", "import jax; jax.numpy.zeros(1)"], env=environment, check=True)


def submitted(launch: Launch, *arguments: str) -> tuple[list[str], str]:
    """The options of sbatch and the script it got."""
    status, calls, stderr = launch.run("launch/slurm.sh", *arguments)
    assert status == 0, stderr
    return re.findall("<(.*?)>", calls[-1]), Path(f"{launch.log}.job").read_text()


def test_slurm_installs_once_and_submits_itself(launch: Launch) -> None:
    options, script = submitted(launch, "--nodes=4", "--gpus-per-node=8", "--comment=two words", *RUN)
    assert options[-3:] == ["--nodes=4", "--gpus-per-node=8", "--comment=two words"]  # after ours, so that they win
    assert "--ntasks-per-node=1" in options and "--signal=TERM@300" in options and "--requeue" in options
    assert shlex.split(script.splitlines()[-1]) == [
        "exec",
        "bash",
        f"{launch.checkout}/launch/slurm.sh",
        f"{launch.checkout}/configs/quickstart.py",
        "--workdir",
        "a 'run'",
    ]
    assert "job 17; its log: tail -F mlm_jax-17.log" in launch.stdout


def test_the_job_runs_one_process_a_node(launch: Launch, tmp_path: Path) -> None:
    _, script = submitted(launch, "--nodes=2", *RUN)
    job = tmp_path / "spooled"
    job.write_text(script)
    environment = launch.environment | {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "32", "CUDA_VISIBLE_DEVICES": "0"}
    launch.log.write_text("")
    done = subprocess.run(
        ["bash", job], cwd=launch.checkout, env=environment | {"JAX_GPUS": "1"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    srun, *runs = launch.log.read_text().splitlines()
    assert srun.startswith("srun <--ntasks-per-node=1> <--kill-on-bad-exit=1> <--label> <bash>")
    assert srun.endswith(" cpus 32")
    config = launch.checkout / "configs/quickstart.py"
    assert (
        runs
        == [f"mlm_jax <pretrain> <{config}> <--workdir> <a 'run'> <--hosts.start> <cluster> in {launch.checkout}"] * 2
    )  # and nothing is installed: it was, before


def test_a_failing_node_is_named_and_the_job_fails(launch: Launch) -> None:
    status, _, stderr = launch.run("launch/slurm.sh", *RUN, SLURM_JOB_ID="17", FAIL_NODE="1")
    assert status == 3
    assert "node1: task 1: Exited with exit code 3" in stderr and "node0" not in stderr


def test_slurm_dry_run(launch: Launch) -> None:
    status, calls, _ = launch.run("launch/slurm.sh", "--dry-run", "--nodes=2", *RUN)
    assert (status, calls) == (0, [])
    assert [line.split()[0] for line in launch.stdout.splitlines()[2:]] == ["sbatch", "#!/usr/bin/env", "exec", "EOF"]
    launch.run("launch/slurm.sh", "--dry-run", *RUN, SLURM_JOB_ID="17")
    assert shlex.split(launch.stdout)[0] == "srun"
    assert shlex.split(launch.stdout)[-4:] == [*RUN[1:], "--hosts.start", "cluster"]


def test_slurm_curates_by_an_array_of_tasks(launch: Launch, tmp_path: Path) -> None:
    options, script = submitted(launch, "--array=0-63", "--cpus-per-task=16", "curate", *RUN)
    assert options[-2:] == ["--array=0-63", "--cpus-per-task=16"]
    assert "--output=mlm_jax-%A_%a.log" in options and "--requeue" in options
    assert "job 17; its logs, one per task: tail -F mlm_jax-17_*.log" in launch.stdout
    assert "<-e>" in launch.log.read_text() and f"<{launch.checkout}[curate]>" in launch.log.read_text()
    job = tmp_path / "spooled"
    job.write_text(script)
    launch.log.write_text("")
    environment = launch.environment | {"SLURM_JOB_ID": "18", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "16"}
    done = subprocess.run(["bash", job], cwd=launch.checkout, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    srun, *runs = launch.log.read_text().splitlines()
    assert srun.startswith("srun <--ntasks=1> <") and srun.endswith(" cpus 16")
    config = launch.checkout / "configs/quickstart.py"
    expected = f"mlm_jax <curate> <{config}> <--shared> <True> <--workers> <16> <--workdir> <a 'run'>"
    assert set(runs) == {f"{expected} in {launch.checkout}"}  # and nothing is installed: it was, before


def test_slurm_trains_a_studys_runs_by_an_array_of_tasks(launch: Launch, tmp_path: Path) -> None:
    options, script = submitted(launch, "--array=0,3-5", "--gpus-per-node=1", "study", *RUN)
    assert options[-2:] == ["--array=0,3-5", "--gpus-per-node=1"]
    assert "--output=mlm_jax-%A_%a.log" in options and "--signal=TERM@300" in options
    assert "stop it, saved: scancel --signal=TERM 17; the same command continues it" in launch.stdout
    assert f"<{launch.checkout}[prepare,sample,gpu]>" in launch.log.read_text()
    job = tmp_path / "spooled"
    job.write_text(script)

    def ran(**environment: str) -> tuple[str, set[str]]:
        launch.log.write_text("")
        environment = (
            launch.environment | {"SLURM_JOB_ID": "18", "CUDA_VISIBLE_DEVICES": "0", "JAX_GPUS": "1"} | environment
        )
        done = subprocess.run(["bash", job], cwd=launch.checkout, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        srun, *runs = launch.log.read_text().splitlines()
        return srun, set(runs)

    srun, runs = ran(SLURM_ARRAY_TASK_ID="3", SLURM_GPUS_ON_NODE="1")
    assert srun.startswith("srun <--ntasks=1> <bash>")
    config = launch.checkout / "configs/quickstart.py"
    whole = f"mlm_jax <study> <{config}> <--workdir> <a 'run'> <--runner> <here>"
    assert runs == {
        f"{whole} <--only> <runs> <--run> <3> in {launch.checkout}"
    }  # and nothing is installed: it was, before
    assert launch.run_environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.9"
    assert "MLM_JAX_COMMAND" not in launch.run_environment()
    # A job that is no task of an array does what it is told: the report.
    assert ran(SLURM_JOB_GPUS="0")[1] == {f"{whole} in {launch.checkout}"}


def test_a_study_may_do_without_gpus(launch: Launch, tmp_path: Path) -> None:
    _, script = submitted(launch, "--array=0-1", "--partition=gpu-or-not", "--cpus-per-task=4", "study", *RUN)
    assert f"<{launch.checkout}[prepare,sample]>" in launch.log.read_text()
    job = tmp_path / "spooled"
    job.write_text(script)
    launch.log.write_text("")
    environment = launch.environment | {"SLURM_JOB_ID": "18", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "4"}
    done = subprocess.run(["bash", job], cwd=launch.checkout, env=environment | {"NO_GPU": "1"}, check=False)
    assert done.returncode == 0
    srun, *runs = launch.log.read_text().splitlines()
    assert srun.endswith(" cpus 4") and not any("pip" in run for run in runs)
    assert runs[0].endswith(f"<--only> <runs> <--run> <1> in {launch.checkout}")


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, "error: name a config file: bash launch/slurm.sh configs/quickstart.py"),
        (["--nodes", "4", *RUN], {}, "error: 4: no config file; options of sbatch come before it"),
        (["none.py"], {}, "error: none.py: no such config file"),
        (RUN, {"SBATCH_EXIT": "1"}, "error: sbatch refused the job; what it says is above"),
    ],
)
def test_what_cannot_be_submitted_is_refused(
    launch: Launch, arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    status, _, stderr = launch.run("launch/slurm.sh", *arguments, **environment)
    assert status == 2
    assert stderr.splitlines()[-1].startswith(expected)


def test_without_slurm_it_says_so(launch: Launch) -> None:
    (launch.programs / "sbatch").unlink()
    status, calls, stderr = launch.run("launch/slurm.sh", *RUN)
    assert (status, calls) == (2, [])
    assert stderr == "error: sbatch is not here; call this on a login node of a SLURM cluster\n"
