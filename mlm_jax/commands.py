# SPDX-License-Identifier: Apache-2.0
"""The commands, as values: a new one is its function in `actions` and one entry of `COMMANDS`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlm_jax import actions
from mlm_jax import config as cfg
from mlm_jax.curate.config import Curate, validate_curation
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate, validate_evaluation
from mlm_jax.finetune.config import Finetune, validate_finetuning
from mlm_jax.neutrality.config import Analyze, validate_analysis
from mlm_jax.plan.config import Plan


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
      name: as it is typed.
      summary: what it does, for the list of commands.
      run: does it, given its config (or a dict of its arguments and options) and the command line after its name; returns
        the exit status. Its docstring is the command's page.
      config: type that its config file returns; None: it has `arguments` instead.
      also: other types that the file may return.
      widen: makes of the file's config one with options of the command's own.
      validate: refuses a config that cannot work, before anything is loaded.
      report: writes the page of such a config's workdir and prints its table, for the command `report`.
      arguments: names of what stands in its command line, where there is no config file.
      options: option → what its value is, and its default, where there is no config file.
      flags: what may stand beside the options, without a value, where there is a config file.
    """

    name: str
    summary: str
    run: Callable[[Any, list[str]], int]
    config: type | None = None
    also: tuple[type, ...] = ()
    widen: Callable[[Any], Any] = lambda config: config
    validate: Callable[[Any], None] = lambda config: None
    report: Callable[[Any], None] | None = None
    arguments: tuple[str, ...] = ("CONFIG.py", "[--dotted.option value ...]")
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether the same command goes on from what it has done, and does not begin again."""
        return self.report is not None or self.name == "prepare"

    @property
    def usage(self) -> str:
        """Its command line."""
        options = (f"[{option} {value}]" for option, (value, _) in self.options.items())
        return " ".join(("mlm-jax", self.name, *self.arguments, *options, *(f"[{flag}]" for flag in self.flags)))

    @property
    def page(self) -> str:
        """What `mlm-jax COMMAND --help` prints."""
        page = f"usage: {self.usage}\n\n{inspect.getdoc(self.run) or self.summary}"
        if self.config is None:
            return page
        return (
            f"{page}\n\nmlm-jax {self.name} CONFIG.py --help lists every option with the config's values as defaults."
        )


def report(config: Any, arguments: list[str]) -> int:
    """Write the run's page into its workdir, and print its table.

    The page is report/index.html of pretrain and curate, results.html of finetune and evaluate, neutrality.html of analyze.
    """
    write = command_of(config).report
    assert write is not None
    write(config)
    return 0


EXCHANGE = {"--step": ("best|last|N", "best"), "--model": ("NAME", ""), **actions.MESH}
# A page of results is the one of the first command here that has both its config's type and a report.
WITH_CONFIG = (
    Command(
        "curate",
        "web archives or other text → a clean, deduplicated corpus of every language in them",
        actions.curate,
        Curate,
        validate=validate_curation,
        flags=("--dry-run",),
        report=actions.report_curation,
    ),
    Command(
        "prepare",
        "train the vocabulary if there is none, and turn the text into blocks",
        actions.prepare,
        cfg.Config,
        validate=cfg.validate_pretraining,
        flags=("--check",),
    ),
    Command(
        "pretrain",
        "prepare what is missing, then train; continues where the workdir stands",
        actions.pretrain,
        cfg.Config,
        validate=cfg.validate_pretraining,
        report=actions.report_pretraining,
    ),
    Command(
        "finetune",
        "train a classifier, tagger or span finder on labelled data, and test it in every language",
        actions.finetune,
        Finetune,
        validate=validate_finetuning,
        report=actions.report_finetuning,
    ),
    Command(
        "evaluate",
        "an encoder on a suite of cross-lingual benchmarks: a table of tasks × languages",
        actions.evaluate,
        Evaluate,
        validate=validate_evaluation,
        report=actions.report_evaluation,
    ),
    Command(
        "analyze",
        "what an encoder's layers know of language: identification, retrieval, word alignment, plain and centred",
        actions.analyze,
        Analyze,
        validate=validate_analysis,
        report=actions.report_analysis,
    ),
    Command(
        "plan",
        "compile the training step for TPUs that are not here: memory, collectives, FLOPs, predicted speed",
        actions.plan,
        cfg.Config,
        widen=lambda config: Plan(**vars(config)),
        validate=cfg.validate_pretraining,
    ),
)
COMMANDS = (
    *WITH_CONFIG,
    Command(
        "report",
        "write the run's page: curves, tables, plots",
        report,
        cfg.Config,
        also=tuple(command.config for command in WITH_CONFIG if command.config and command.report),
        validate=lambda config: command_of(config).validate(config),
    ),
    Command(
        "import",
        "make a workdir that starts from the folder's encoder (or a run's)",
        actions.import_folder,
        arguments=("FOLDER", "WORKDIR"),
        options={**EXCHANGE, "--layers": ("1,3,...", "")},
    ),
    Command(
        "export",
        "write a run's encoder and tokenizer, or what finetune made, as a folder",
        actions.export_run,
        arguments=("WORKDIR", "FOLDER"),
        options={**EXCHANGE, "--differing": ("N", "0"), "--push": ("NAME/REPO", "")},
    ),
    Command(
        "predict",
        "label a file of text with what finetune made, as JSON lines",
        actions.predict,
        arguments=("WORKDIR", "FILE", "OUT"),
        options={
            "--model": ("NAME", ""),
            "--language": ("CODE", ""),
            "--words": ("trained|spaces", "trained"),
            **actions.MESH,
        },
    ),
)


def find_command(name: str) -> Command:
    """The command of a name.

    Raises:
      UserError: there is none; the nearest is named.
    """
    names = [command.name for command in COMMANDS]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(names)}"
        raise UserError(f"{name}: no such command; {hint}")
    return COMMANDS[names.index(name)]


def command_of(config: Any) -> Command:
    """The command that makes the workdir of a config, and whose report it gets."""
    return next(c for c in WITH_CONFIG if c.config and isinstance(config, c.config) and c.report)


def usage() -> str:
    """What `mlm-jax --help` prints."""
    with_config = "\n".join(f"  {c.name:<9} {c.summary}" for c in COMMANDS if c.config)
    others = "\n".join(f"  {c.usage}\n      {c.summary}" for c in COMMANDS if not c.config)
    return f"""\
mlm-jax: pretrain multilingual text encoders in JAX

usage: mlm-jax COMMAND CONFIG.py [--dotted.option value ...]
       python -m mlm_jax COMMAND CONFIG.py [--dotted.option value ...]

commands:
{with_config}

CONFIG.py defines get_config(); those that come with mlm_jax are in configs/. A workdir in its place goes on with what it was made by.
mlm-jax --version prints the version.
mlm-jax COMMAND CONFIG.py --help lists every option with the config's values as defaults; docs/options.md has them all.

To and from Hugging Face folders, and with what finetune made:
{others}
"""
