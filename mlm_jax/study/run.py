# SPDX-License-Identifier: Apache-2.0
"""A study's runs: their corpora, the training of each, what is measured of it, in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from mlm_jax import children, console
from mlm_jax import config as cfg
from mlm_jax.console import duration
from mlm_jax.errors import Ended, UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.fields import differences
from mlm_jax.files import make_folder, write_whole
from mlm_jax.finetune.config import Finetune
from mlm_jax.lock import environment_of_children, locked
from mlm_jax.neutrality.config import Analyze
from mlm_jax.signals import handling, heard
from mlm_jax.start import is_prepared, run_in_own_process
from mlm_jax.stored import read_json
from mlm_jax.study.config import MEASURED, Measure, Run, Study, chosen, placed, runs_of, text_folder
from mlm_jax.study.table import FAILED, is_complete, progress_of
from mlm_jax.study.texts import take
from mlm_jax.workdir import has_saved, holds_another, warn_of_newer

GIVEN = "study.json"  # in the workdir of a run or a measure: its config as the study had it when it began, which commands complete in config.json
COMMANDS: dict[type, str] = {Evaluate: "evaluate", Analyze: "analyze", Finetune: "finetune"}


def corpus_of(study: Study, run: Run) -> epath.Path:
    """The workdir of the corpus that a run shares with others."""
    return epath.Path(study.workdir) / "corpora" / run.corpus


def prepare(study: Study, runs: Sequence[Run]) -> None:
    """Prepare each corpus that is not there, by the first run that has it.

    Raises:
      UserError: one cannot be prepared.
    """
    if study.texts is not None:
        take(study.texts, study.text, epath.Path(text_folder(study)))
    elif study.text != Study.text:
        console.warn(f"text: {study.text} is not read: the study's file takes no texts of a folder (Study.texts)")
    for key in dict.fromkeys(run.corpus for run in runs):
        run = next(run for run in runs if run.corpus == key)
        folder = corpus_of(study, run)
        config = dataclasses.replace(run.config, workdir=str(folder), seed=study.base.seed)
        if is_prepared(config):
            warn_of_newer(folder / "corpus" / "manifest.json", cfg.text_files(config.data))
            continue
        console.say(f"corpus {key}: {', '.join(f'{name} {label}' for name, label in run.labels.items())}")
        store(config)
        run_in_own_process("prepare", "--", str(folder))


def refuse_changed(study: Study) -> None:
    """Refuse runs and measures that have saved something with another config than the study has by now.

    Raises:
      UserError: naming the folder, and what differs.
    """
    for run in chosen(study, runs_of(study)):
        configs = [of_run(study, run), *(of_measure(study, run, measure) for measure in study.measures)]
        for config in configs:
            folder = epath.Path(config.workdir)
            if not (folder / GIVEN).exists() or not has_saved(folder):
                continue
            was = read_json(folder / GIVEN, dict[str, Any], "remove this folder, and the study makes it anew")
            # A study that was moved, as from a cluster, has its old place in its paths.
            before = str(was.get("workdir", "")).removesuffix(config.workdir.removeprefix(study.workdir))
            was = json.loads(
                json.dumps(was).replace(json.dumps(f"{before}/")[:-1], json.dumps(f"{study.workdir}/")[:-1])
            )
            different = [
                d
                for d in differences(was, config)
                if d.name == "train.steps" or not d.may_change or d.may_change.onwards
            ]
            if different:
                raise UserError(
                    f"{holds_another(config.workdir, different)}; remove that folder, and the study makes it anew, or use another --workdir"
                )


def of_run(study: Study, run: Run) -> cfg.Config:
    """The config that a run is trained with."""
    return dataclasses.replace(run.config, corpus=str(corpus_of(study, run)))


def of_measure(study: Study, run: Run, measure: Measure) -> Any:
    """The config that a run is measured with."""
    folder = epath.Path(run.config.workdir)
    place = str(folder / MEASURED / measure.name)
    return dataclasses.replace(placed(study, measure.config, str(folder)), workdir=place, init=str(folder))


def store(config: Any) -> None:
    """Store the config of a workdir that a command is to begin or to go on with; what nothing is saved of may be mended."""
    folder = epath.Path(config.workdir)
    if not has_saved(folder):
        make_folder(folder)
        write_whole(folder / GIVEN, cfg.config_to_json(config))
        write_whole(folder / "config.json", cfg.config_to_json(config))


def train(study: Study, run: Run) -> None:
    """Train a run to its end, and measure it; what is done is not done again.

    Raises:
      Ended: it failed, or was stopped.
    """
    folder = epath.Path(run.config.workdir)
    before = progress_of(run)
    if not before.is_finished:
        store(of_run(study, run))
        run_in_own_process("pretrain", "--", str(folder), "--train.steps", str(run.config.train.steps))
    for measure in study.measures:
        place = folder / MEASURED / measure.name
        if (place / "results.json").exists() and not before.failed:  # what failed after its results goes on from them
            continue
        store(of_measure(study, run, measure))
        run_in_own_process(COMMANDS[type(measure.config)], "--", str(place))


def run_study(study: Study, arguments: Sequence[str] = ()) -> list[str]:
    """Do what `study.only` says, of all runs or of one.

    Args:
      arguments: of the command, with which others of it are started where `study.jobs` is above 1.

    Returns:
      The names of the runs that failed.

    Raises:
      Ended: it was stopped; the same command goes on.
    """
    runs = runs_of(study)
    mine = chosen(study, runs)
    if study.only == "report":
        return []
    with locked(study.workdir, "study", group="study" if study.run else ""):
        prepare(study, mine)
    if study.only == "prepare":
        # What another machine trains, by pretrain; SLURM's jobs do it themselves.
        if study.run and study.runner == "here":
            for run in mine:
                store(of_run(study, run))
                run_in_own_process("prepare", "--", run.config.workdir)
        return []
    if study.jobs > 1 and not study.run:
        train_several(study, runs, arguments)
    else:
        for number, run in enumerate(mine, 1):
            console.say(f"run {number} of {len(mine)}: {run.name} ({state_of(run)})")
            train_or_note(study, run)
    return [run.name for run in mine if not is_done(study, run)]


def state_of(run: Run) -> str:
    """How far a run is, in a word or three."""
    before = progress_of(run)
    return "done" if before.is_finished else f"from update {before.step:,}" if before.step else "new"


def train_or_note(study: Study, run: Run) -> None:
    """Train and measure a run; one that fails leaves a note of it.

    Raises:
      Ended: it was stopped.
    """
    note = epath.Path(run.config.workdir) / FAILED
    try:
        train(study, run)
        note.unlink(missing_ok=True)
    except Ended as e:
        if e.status >= 128:
            raise  # stopped, not failed: the same command goes on
        make_folder(note.parent)
        why = str(e) or f"its command ended with status {e.status}"
        write_whole(note, f"{why}\n")
        console.warn(f"{run.name} failed: {why}; the others go on")


def train_several(study: Study, runs: Sequence[Run], arguments: Sequence[str]) -> None:
    """Train runs `study.jobs` at a time, by a process of this command each, on a share of the cores; it says what it says in runs/NAME.txt.

    Raises:
      Ended: they were stopped.
    """
    waiting = [number for number, run in enumerate(runs) if not is_done(study, run)]
    console.say(f"{len(runs) - len(waiting)} of {len(runs)} runs are done; {study.jobs} at a time")
    make_folder(epath.Path(study.folder) / "runs")
    began, at_first = time.monotonic(), sum(map(updates_left, runs))
    working: dict[
        int, tuple[subprocess.Popen[bytes], int]
    ] = {}  # share of the cores → its process, and the run's number
    sent: list[int] = []

    def send(number: int, frame: object) -> None:
        sent.append(number)
        for process, _ in working.values():
            process.send_signal(number)

    with handling(dict.fromkeys(heard(), send)):
        while working or (waiting and not sent):
            for share in set(range(study.jobs)) - set(working):
                if waiting and not sent:
                    number = waiting.pop(0)
                    console.say(f"run {number + 1} of {len(runs)}: {runs[number].name} ({state_of(runs[number])})")
                    working[share] = (start_alone(study, runs[number], number, share, arguments), number)
            for share, (process, number) in tuple(working.items()):
                status = process.poll()
                if status is None:
                    continue
                del working[share]
                to_do = [updates_left(run) for run in runs]
                made = at_first - sum(to_do)
                ahead = sum(to_do[n] for n in (*waiting, *(n for _, n in working.values())))
                how = "done" if not status else "stopped" if sent or status < 0 else "failed; the others go on"
                left = f", about {duration((time.monotonic() - began) * ahead / made)} left" if made and ahead else ""
                after = left if waiting and not sent else ""
                console.say(f"run {number + 1} of {len(runs)}: {runs[number].name}: {how}{after}")
            time.sleep(0.2)
    if sent:
        raise Ended(128 + sent[0])


def updates_left(run: Run) -> int:
    """Updates that a run has still to make, by its last validation."""
    progress = progress_of(run)
    return max(progress.steps - progress.step, 0)


def bind(process: int, jobs: int, share: int) -> None:
    """Bind a process (0: this one's further threads) to one of so many shares of this one's cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process, cores[share::jobs] or cores)


def is_done(study: Study, run: Run) -> bool:
    """Whether a run is trained and measured, and nothing of it failed."""
    return is_complete(study, progress_of(run))


def start_alone(study: Study, run: Run, number: int, share: int, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start this command for one run, on one of `study.jobs` shares of the cores where the system can bind a process to them."""
    command = [sys.executable, "-m", "mlm_jax", "study", *arguments]
    command += ["--run", str(number), "--only", "runs", "--jobs", "1", "--workdir", study.workdir]
    environment = os.environ | children.environment() | environment_of_children()
    with open(f"{study.folder}/runs/{run.name}.txt", "ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    bind(process.pid, study.jobs, share)
    return process
