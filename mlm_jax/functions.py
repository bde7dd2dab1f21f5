# SPDX-License-Identifier: Apache-2.0
"""The commands as functions, for Python programs and notebooks: each does what the command does, and returns its table.

They lock the workdir, store the config in it and leave in it what the command leaves. What goes wrong is an exception: `UserError` with the
line that the command would print. No process is ended, and how signals are handled, what is logged and where JAX keeps compiled
programs is afterwards as it was. In a thread that is not the main one a run hears no signals.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from mlm_jax import actions, console, lock, signals
from mlm_jax import config as cfg
from mlm_jax.adapt.config import Adapt
from mlm_jax.commands import find_command
from mlm_jax.cuda_plugin import import_jax
from mlm_jax.errors import Ended, UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.files import said
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality.config import Analyze
from mlm_jax.options import read_arguments, read_config, with_options
from mlm_jax.results import BenchmarkRow, FinetunedRow, ProbeRow
from mlm_jax.start import is_prepared, run_in_own_process, start_from, take_corpus
from mlm_jax.workdir import CALL, own_workdir

Named = str | os.PathLike[str]  # a config's file, its name, or a workdir to go on with
Options = Mapping[str, Any]  # dotted option → value, as on the command line: {"train.steps": 500}
Row = dict[str, Any]


def prepare(config: cfg.Config | Named, options: Options | None = None) -> list[Row]:
    """Train the vocabulary if there is none, and turn the text into blocks, in a process of its own.

    Args:
      config: a config, its file, the name of one that comes with mlm_jax ("quickstart"), or a workdir to go on with.
      options: in place of the config's: {"workdir": "runs/first", "train.steps": 500}.

    Returns:
      A row for each language and pair (`sampling.sampling_table`): language, documents, bytes, tokens, blocks, its natural share, its
      rates of sampling, draws, epochs, unknown (share of the text that the vocabulary cannot write), ...

    Raises:
      UserError: bad input.
    """
    asked: cfg.Config = read("prepare", config, options)
    with called(asked.workdir):
        with contextlib.nullcontext() if is_prepared(asked) else lock.locked(asked.workdir, "prepare"):
            started = start_from(asked)
            own_workdir(started, f"{CALL}prepare(...)", write=not is_prepared(asked))
            take_corpus(started)
            if not is_prepared(asked):
                run_in_own_process("prepare", "--", asked.workdir)
        return sampled(started)


def pretrain(config: cfg.Config | Named, options: Options | None = None) -> list[Row]:
    """Prepare what is missing, then train; continues where the workdir stands.

    Ctrl-C (a notebook's interrupt) finishes the step, saves, and raises KeyboardInterrupt; the same call continues.

    Args:
      config, options: as in `prepare`.

    Returns:
      A row for each language and pair, so far as `train.max_seconds` let it train, as on the run's page (`report.run.LanguageRow`): language, natural, rate, tokens, seen, epochs, unknown,
      and of the last validation loss, perplexity, bits_per_byte, targets, unigram (the loss of piece frequencies alone) and gain.

    Raises:
      UserError: bad input.
    """
    asked: cfg.Config = read("pretrain", config, options)
    with called(asked.workdir):
        from mlm_jax.report.page import write_report
        from mlm_jax.report.run import language_rows, read_run

        with lock.locked(asked.workdir, "pretrain"):
            outcome = actions.pretrain_here(asked, f"{CALL}pretrain(...)", ["--", asked.workdir], first=True)
            if outcome.stopped_by is None:
                write_report(asked.workdir)
        pass_on(outcome.stopped_by)
        rows = [dataclasses.asdict(row) for row in language_rows(read_run(asked.workdir))]
    return [{**row, **row.pop("scores")} for row in rows]


def finetune(config: Finetune | Named, options: Options | None = None) -> list[FinetunedRow]:
    """Train the models of a transfer regime on labelled data, choose among their checkpoints, and test them.

    Args:
      config, options: as in `prepare`; {"init": FOLDER} names the encoder to start from.

    Returns:
      The rows of results.json (`results.FinetunedRow`): one for each model, seed and language.

    Raises:
      UserError: bad input.
    """
    asked: Finetune = read("finetune", config, options)
    with called(asked.workdir):
        from mlm_jax.report.results import write_results_page

        with lock.locked(asked.workdir, "finetune"):
            rows, stopped_by = actions.finetune_here(asked, f"{CALL}finetune(...)", first=True)
            if stopped_by is None:
                write_results_page(asked.workdir)
        pass_on(stopped_by)
    return rows


def evaluate(config: Evaluate | Named, options: Options | None = None) -> list[BenchmarkRow]:
    """Run a suite of benchmarks on an encoder: retrieval, mining, language-model loss, and what is fine-tuned first.

    Args:
      config, options: as in `prepare`; {"init": FOLDER} names the encoder.

    Returns:
      The rows of results.json (`results.BenchmarkRow`): one for each task and language.

    Raises:
      UserError: bad input.
    """
    asked: Evaluate = read("evaluate", config, options)
    with called(asked.workdir):
        from mlm_jax.report.results import write_results_page

        with lock.locked(asked.workdir, "evaluate"):
            rows, stopped_by = actions.evaluate_here(asked, f"{CALL}evaluate(...)")
            if stopped_by is None:
                write_results_page(asked.workdir)
        pass_on(stopped_by)
    return rows


def analyze(config: Analyze | Named, options: Options | None = None) -> list[ProbeRow]:
    """Probe every layer of an encoder for language: plain, centred, normalised and projected.

    Args:
      config, options: as in `prepare`; {"init": FOLDER} names the encoder.

    Returns:
      The rows of results.json (`results.ProbeRow`): one for each probe, layer, transformation and metric.

    Raises:
      UserError: bad input.
    """
    asked: Analyze = read("analyze", config, options)
    with called(asked.workdir):
        from mlm_jax.report.neutrality import write_analysis_page

        with lock.locked(asked.workdir, "analyze"):
            rows = actions.analyze_here(asked, f"{CALL}analyze(...)")
            write_analysis_page(asked.workdir)
    return rows


def adapt(config: Adapt | Named, options: Options | None = None) -> list[Row]:
    """Give an encoder another vocabulary, made from the text of the languages wanted, in a process of its own.

    Args:
      config, options: as in `prepare`; {"init": FOLDER} names the encoder.

    Returns:
      A row for each language: language, documents, bytes, and of its text before and after tokens and unknown (both lists of two), differing, ...

    Raises:
      UserError: bad input.
    """
    asked: Adapt = read("adapt", config, options)
    with called(asked.workdir):
        # The workdir itself has no config.json, which would say that there is a run.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(cfg.config_to_json(asked), encoding="utf-8")
            run_in_own_process("adapt", folder, f"--workdir={asked.workdir}")
        from mlm_jax.adapt.run import FILE
        from mlm_jax.stored import read_json

        found = read_json(epath.Path(asked.workdir) / FILE, dict[str, Any])
    return [{"language": language, **of} for language, of in found["languages"].items()]


def export(workdir: str | os.PathLike[str], folder: str | os.PathLike[str], options: Options | None = None) -> str:
    """Write a run's encoder and tokenizer, or a fine-tuned model, as a folder that transformers and `load` read.

    Args:
      options: of the command `export`: {"step": "last"}.

    Returns:
      The folder.

    Raises:
      UserError: there is no such encoder, or the folder is not empty.
    """
    command = find_command("export")
    arguments = as_arguments(options or {})
    given = read_arguments(command, [*arguments, "--", os.fspath(workdir), os.fspath(folder)])
    with called(os.fspath(folder)):
        command.run(given, arguments)
    return os.fspath(folder)


def read_metrics(workdir: str | os.PathLike[str], as_frame: bool = False) -> Any:
    """What a run has logged: the lines of its metrics.jsonl.

    Args:
      workdir: of `pretrain`, or WORKDIR/models/NAME of `finetune`.
      as_frame: as a pandas DataFrame, where pandas is installed; what a line has per language is a column each, `languages.sw.loss`.

    Returns:
      A list of dicts, each with kind ("train", "validation", ...), step, seconds and what its kind has; or the DataFrame.

    Raises:
      UserError: there is no such run, a line is damaged, or pandas is not there.
    """
    import_jax()
    from mlm_jax.train import metrics

    if not os.path.exists(os.path.join(workdir, "metrics.jsonl")) and "://" not in str(workdir):
        raise UserError(
            f"{workdir}: no metrics.jsonl there; name the workdir of a run, or WORKDIR/models/NAME of finetune"
        )
    rows = metrics.read_metrics(workdir)
    if not as_frame:
        return rows
    try:
        import pandas
    except ImportError as e:
        raise UserError("as_frame: needs pandas; run: pip install pandas") from e
    return pandas.json_normalize(rows)


def load_config(config: Any, options: Options | None = None, command: str = "pretrain") -> Any:
    """The config of a file, a name or a workdir, with options in place of its values, validated: what a command would run with.

    Args:
      config, options: as in `prepare`.
      command: that it is for.

    Returns:
      A frozen dataclass: `config.Config` of prepare and pretrain, `finetune.config.Finetune`, `evaluate.config.Evaluate`, ...

    Raises:
      UserError: bad input.
    """
    return read(command, config, options)


def read(name: str, given: Any, options: Options | None) -> Any:
    """A command's config, with options in place of its values, validated.

    Raises:
      UserError: there is no such config, or an option or a value is wrong.
    """
    command = find_command(name)
    assert command.config is not None
    where = type(given).__name__
    if isinstance(given, str | os.PathLike):
        where = os.fspath(given)
        given = read_config(command, where)
    elif not isinstance(given, command.config):
        raise UserError(
            f"config: {where}, not {command.config.__module__}.{command.config.__name__}; give one, a config's file or its name"
        )
    config = with_options(command, given, as_arguments(options or {}), where)
    if not config.workdir:
        raise UserError('workdir: empty; name one: {"workdir": "runs/mine"}')
    if getattr(config, "hosts", cfg.Hosts()).start != "alone":
        raise UserError(
            f"hosts.start: {config.hosts.start}; a function runs in the process that calls it, alone: start several with mlm-jax {name}"
        )
    return config


def as_arguments(options: Options) -> list[str]:
    """Options as a command line has them.

    Raises:
      UserError: one has no value.
    """
    arguments: list[str] = []
    for option, value in options.items():
        if value is None:
            raise UserError(f"{option}: None; leave it out, or give a value")
        if option == "help":
            raise UserError("help: no such option; docs/options.md lists them")
        several = isinstance(value, tuple | list)
        single = [f"--{option}={value}"] if isinstance(value, str) else [f"--{option}", str(value)]
        arguments += [f"--{option}", *map(str, value)] if several else single
    return arguments


@contextlib.contextmanager
def called(workdir: str) -> Iterator[None]:
    """Do a command's work within another program: what was set for it is as before afterwards, and what goes wrong is an exception.

    Raises:
      UserError: bad input, or a file that cannot be read or written.
      KeyboardInterrupt: Ctrl-C.
    """
    import_jax()
    from mlm_jax.train.compiled import restored

    lock.ends_process = False  # from the first call on it is another program's process
    with signals.kept(), restored():
        try:
            yield
        except Ended as e:
            if e.status == 128 + signal.SIGINT:
                raise KeyboardInterrupt from e
            raise
        except OSError as e:
            raise UserError(said(e, workdir, "then call again: it goes on from what is done")) from e


def pass_on(stopped_by: signal.Signals | None) -> None:
    """Give the signal that stopped a run, which is saved, to whoever handled it before: of Ctrl-C, KeyboardInterrupt. The end of
    `max_seconds` is none."""
    if stopped_by is None:
        return
    at_end = stopped_by is signal.SIGALRM
    console.say(f"stopped by {'max_seconds' if at_end else stopped_by.name}, saved; to continue, call again")
    if not at_end:
        signal.raise_signal(stopped_by)


def sampled(config: cfg.Config) -> list[Row]:
    """The sampling table of a workdir that is prepared."""
    from mlm_jax import manifest, sampling

    streams = manifest.read_manifest(epath.Path(config.workdir) / "corpus").streams
    return sampling.sampling_table(config, sampling.trained_streams(config, streams))
