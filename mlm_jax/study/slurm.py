# SPDX-License-Identifier: Apache-2.0
"""A study under SLURM, by launch/slurm.sh: an array with a task per run that is not finished, and the report after it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import tyro

from mlm_jax import console
from mlm_jax.errors import Ended, UserError
from mlm_jax.fields import types_of
from mlm_jax.study.config import Study, chosen, runs_of
from mlm_jax.study.run import is_done

SCRIPT = Path(__file__).parents[2] / "launch" / "slurm.sh"
OF_SUBMITTING = ("runner", "sbatch", "topology", "only", "run", "jobs")  # options that its jobs are not given


def require_slurm(study: Study) -> None:
    """Refuse to submit where that cannot work, before anything is prepared.

    Raises:
      UserError: there is no launch/slurm.sh or no sbatch here, or `sbatch` cannot be handed on.
    """
    launch(study)
    if shutil.which("sbatch") is None:
        raise UserError("runner: sbatch is not here; call this on a login node of a SLURM cluster")


def sbatch_options(study: Study) -> list[str]:
    """What sbatch is told of every job.

    Raises:
      UserError: it is not of the form --name=value, or says which tasks there are.
    """
    try:
        words = shlex.split(study.sbatch)
    except ValueError as e:
        raise UserError(f"sbatch: {study.sbatch}: {e}; quote its values as in a shell") from e
    for word in words:
        if not word.startswith("--"):
            raise UserError(f"sbatch: {word}: write its options --name=value")
        if word.split("=")[0] == "--array":
            raise UserError(
                "sbatch: --array is made of the runs that are left; to have fewer at once: scontrol update JobId=JOB ArrayTaskThrottle=N"
            )
    return words


def unfinished(study: Study) -> list[int]:
    """The numbers of the runs that are left, of those that `study.run` chooses."""
    runs = runs_of(study)
    wanted = {run.name for run in chosen(study, runs)}
    return [number for number, run in enumerate(runs) if run.name in wanted and not is_done(study, run)]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as sbatch's --array has them: 0,2-4."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def launch(study: Study) -> list[str]:
    """How every call of launch/slurm.sh begins: with the options of sbatch.

    Raises:
      UserError: there is no launch/slurm.sh, or `sbatch` cannot be handed on.
    """
    if not SCRIPT.exists():
        raise UserError(
            "runner: slurm needs launch/slurm.sh, which an installed package does not have; run this in a checkout of mlm_jax"
        )
    return ["bash", str(SCRIPT), *sbatch_options(study)]


def what(study: Study, path: str) -> list[str]:
    """What a job is told to do: the study with its options as they are here, of the file, the command line and defaults.

    Args:
      path: the study's config file.
    """
    words = ["study", os.path.realpath(path)]
    for name, (_, notes) in types_of(Study).items():
        if tyro.conf.Suppress not in notes and name not in OF_SUBMITTING:
            value = getattr(study, name)
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def array_command(study: Study, path: str) -> list[str]:
    """The call of launch/slurm.sh for the runs that are left; empty where none is."""
    numbers = unfinished(study)
    return [*launch(study), f"--array={ranges(numbers)}", *what(study, path)] if numbers else []


def report_command(study: Study, path: str, job: str) -> list[str]:
    """The call of launch/slurm.sh for the report, of what there is when the tasks of `job` have ended; empty where none is wanted."""
    if study.only != "all" or study.run:
        return []
    return [*launch(study), f"--dependency=afterany:{job}", *what(study, path), "--only", "report"]


def commands(study: Study, path: str) -> list[list[str]]:
    """What `submit` would call."""
    array = array_command(study, path)
    return [call for call in (array, report_command(study, path, "JOB")) if call] if array else []


def submit(study: Study, path: str) -> bool:
    """Submit the runs that are left, whose corpora are prepared, and the report after them.

    Returns:
      Whether a run was left.

    Raises:
      Ended: SLURM refused, for a reason that launch/slurm.sh has printed.
    """
    if not (array := array_command(study, path)):
        console.say("every run is finished; none is submitted")
        return False
    job = _submit(array, said=True)
    if report := report_command(study, path, job):
        console.say(f"job {_submit(report)}: the report, when they have ended")
    return True


def _submit(command: Sequence[str], said: bool = False) -> str:
    """The number of the job; what launch/slurm.sh says is printed as it comes."""
    # Within a job SLURM's variables describe that one; launch/slurm.sh would start the study in it.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    job = ""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if match := re.match(r"job (\d+);", line):
                job = match[1]
            if said:
                console.say(line.rstrip("\n"))
    if process.returncode or not job:
        raise Ended(2)
    return job
