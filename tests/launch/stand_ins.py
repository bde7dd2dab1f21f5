# SPDX-License-Identifier: Apache-2.0
"""What the launch scripts find instead of Python, a GPU, SLURM and Google's cloud; all record what they are asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

# A Python as far as the scripts can see: it answers their questions about itself, makes a `.venv` of itself, and
# writes the arguments of pip, uv, mlm_jax and pytest to $LOG, one call a line.
PYTHON = """\
#!/bin/bash
case "$1 $2 $3" in
    "-c import sys"*exit*) exit "${UNSUITABLE:-0}" ;;
    "-c import venv"*) exit "${NO_VENV:-0}" ;;
    "-c import jax"*) echo "${JAX_GPUS:-8}"; exit ;;
    "-c "*) echo "NAME"; exit ;;
    "-m venv "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "venv of NAME" >>"$LOG"; exit ;;
    "-m uv "*) [[ $* == *find* ]] && echo "$UV_PYTHON" ;;
esac
shift
call="$1$(printf ' <%s>' "${@:2}") in $PWD"
echo "$call" >>"$LOG"  # in one write: workers write at once
case "$1" in
    uv) exit ;;
    pip) exit "${PIP_EXIT:-0}" ;;
    mlm_jax)
        env >"$LOG.environment"
        echo "training"
        if [[ -n $WAIT ]]; then trap 'echo saved; exit 143' TERM; touch "$WAIT"; while :; do sleep 0.05; done; fi ;;
esac
exit "${RUN_EXIT:-0}"
"""

# Eight GPUs.
NVIDIA_SMI = """\
#!/bin/bash
[[ -z $NO_GPU ]] || { echo "nvidia-smi: no devices were found" >&2; exit 6; }
case "$*" in
    *driver_version*) for i in {1..8}; do echo "${DRIVER:-550.54.15}"; done ;;
    *list-gpus*) for i in {1..8}; do echo "GPU $i"; done ;;
esac
"""

# Records, keeps the script, and runs it as a job would be run.
SBATCH = """\
#!/bin/bash
echo "sbatch$(printf ' <%s>' "$@")" >>"$LOG"
[[ -z $SBATCH_EXIT ]] || { echo "sbatch: error: invalid partition" >&2; exit "$SBATCH_EXIT"; }
cat >"$LOG.job"
echo "17;cluster"
"""

# Runs the command once a node, on two nodes, and names the one that fails as srun does.
SRUN = """\
#!/bin/bash
echo "srun$(printf ' <%s>' "$@") cpus ${SRUN_CPUS_PER_TASK:-}" >>"$LOG"
while [[ $1 == -* ]]; do shift; done
status=0
for node in 0 1; do
    [[ $FAIL_NODE == "$node" ]] && export RUN_EXIT=3
    "$@" || { status=$?; echo "srun: error: node$node: task $node: Exited with exit code $status" >&2; }
done
exit "$status"
"""


def make_program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def make_python(path: Path, name: str) -> Path:
    return make_program(path, PYTHON.replace("NAME", name))


class Launch:
    """A checkout with the real launch scripts, in a folder with a space in its name, and stand-ins for the rest."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "a check out"
        self.log = folder / "log"
        self.python = make_python(folder / "the python", "3.12")
        self.programs = folder / "programs"
        self.cloud = folder / "cloud"
        self.stdout = ""
        for made in (self.checkout / "configs", self.checkout / "mlm_jax", self.programs, self.cloud):
            made.mkdir(parents=True)
        for name in ("launch", ".ci"):
            shutil.copytree(CHECKOUT / name, self.checkout / name)
        for name in ("setup.py", "constraints.txt", "README.md"):
            shutil.copy(CHECKOUT / name, self.checkout)
        (self.checkout / "configs/quickstart.py").touch()
        make_program(self.programs / "nvidia-smi", NVIDIA_SMI)
        make_program(self.programs / "sbatch", SBATCH)
        make_program(self.programs / "srun", SRUN)
        for name in ("gcloud", "sudo", "hostname", "systemd-run", "systemctl", "curl"):
            cloud = Path(__file__).with_name("cloud.py")
            make_program(self.programs / name, f'#!/bin/sh\nexec "{sys.executable}" -IS "{cloud}" {name} "$@"\n')
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "PYTHON": str(self.python),
            "CLOUD": str(self.cloud),
            "CLOUDSDK_CORE_PROJECT": "project",
            "POLL": "0",
        }

    def start(self, script: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", self.checkout / script, *arguments],
            cwd=cwd or self.checkout,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: str, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> tuple[int, list[str], str]:
        """The exit status, the stand-ins' calls and stderr; stdout is in `self.stdout`."""
        self.log.write_text("")
        with self.start(script, *arguments, cwd=cwd, **environment) as process:
            self.stdout, stderr = process.communicate(timeout=60)
        return process.returncode, self.log.read_text().splitlines(), stderr

    def run_environment(self) -> dict[str, str]:
        """The environment of the last run."""
        return dict(
            line.split("=", 1) for line in Path(f"{self.log}.environment").read_text().splitlines() if "=" in line
        )


# A TPU pod, in cloud.py's cloud.
POD = ["mypod", "--zone", "us-central1-a"]
NEW = [*POD, "--type", "v5litepod-16"]
RUN = ["configs/quickstart.py", "--workdir", "gs://bucket/it's a $run"]
RESOURCE = "projects/project/locations/us-central1-a/queuedResources/mypod"


def worker(pod: Launch, number: int) -> Path:
    return pod.cloud / f"mypod-w-{number}"


def requests(calls: list[str], program: str, word: str) -> list[str]:
    return [c for c in calls if c.startswith(program) and word in c]


def await_file(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not come")


def await_call(pod: Launch, part: str, times: int = 1) -> None:
    for _ in range(600):
        if pod.log.read_text().count(part) >= times:
            return
        time.sleep(0.05)
    raise AssertionError(f"{part} is not called")
