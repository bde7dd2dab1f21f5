# SPDX-License-Identifier: Apache-2.0
"""A study's runs: their corpora, the training of each, what is measured of it, in processes of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import Ended
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.files import make_folder, write_whole
from mlm_jax.lock import locked
from mlm_jax.start import is_prepared, run_in_own_process
from mlm_jax.study.config import Run, Study, chosen, placed, runs_of, text_folder
from mlm_jax.study.table import FAILED, progress_of
from mlm_jax.study.texts import take


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
    for key in dict.fromkeys(run.corpus for run in runs):
        run = next(run for run in runs if run.corpus == key)
        folder = corpus_of(study, run)
        config = dataclasses.replace(run.config, workdir=str(folder), seed=study.base.seed)
        if is_prepared(config):
            continue
        console.say(f"corpus {key}: {', '.join(f'{name} {label}' for name, label in run.labels.items())}")
        store(config)
        run_in_own_process("prepare", "--", str(folder))


def store(config: Any) -> None:
    """Store the config of a workdir that a command is to go on with, where there is none: it says itself what may not change."""
    folder = epath.Path(config.workdir)
    if not (folder / "config.json").exists():
        make_folder(folder)
        write_whole(folder / "config.json", cfg.config_to_json(config))


def train(study: Study, run: Run) -> None:
    """Train a run to its end, and measure it; what is done is not done again.

    Raises:
      Ended: it failed, or was stopped.
    """
    folder = epath.Path(run.config.workdir)
    if not progress_of(run).is_finished:
        store(dataclasses.replace(run.config, corpus=str(corpus_of(study, run))))
        run_in_own_process("pretrain", "--", str(folder), "--train.steps", str(run.config.train.steps))
    for number, measure in enumerate(study.measures):
        place = folder / "measured" / str(number)
        if (place / "results.json").exists():
            continue
        config = dataclasses.replace(placed(study, measure), workdir=str(place), init=str(folder))
        store(config)
        command = "evaluate" if isinstance(measure, Evaluate) else "analyze"
        run_in_own_process(command, "--", str(place))


def run_study(study: Study) -> list[str]:
    """Do what `study.only` says, of all runs or of one.

    Returns:
      The names of the runs that failed.
    """
    runs = runs_of(study)
    mine = chosen(study, runs)
    failed = []
    if study.only in ("all", "prepare", "runs"):
        with locked(study.workdir, "study", group="study" if study.run else ""):
            prepare(study, mine)
        if study.only == "prepare":
            return []
        for number, run in enumerate(mine, 1):
            note = epath.Path(run.config.workdir) / FAILED
            before = progress_of(run)
            state = "done" if before.is_finished else f"from update {before.step:,}" if before.step else "new"
            console.say(f"run {number} of {len(mine)}: {run.name} ({state})")
            try:
                train(study, run)
                note.unlink(missing_ok=True)
            except Ended as e:
                if e.status >= 128:
                    raise  # stopped, not failed: the same command goes on
                make_folder(note.parent)
                write_whole(note, f"its command ended with status {e.status}\n")
                failed.append(run.name)
                console.warn(f"{run.name} failed; the others go on")
    return failed
