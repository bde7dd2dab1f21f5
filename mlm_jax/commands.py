# SPDX-License-Identifier: Apache-2.0
"""The commands, as values: a new one is its function in `actions` and one entry of `COMMANDS`."""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlm_jax import actions
from mlm_jax import config as cfg
from mlm_jax.adapt.config import Adapt, validate_adaptation
from mlm_jax.curate.config import Curate, validate_curation
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate, validate_evaluation
from mlm_jax.finetune.config import Finetune, validate_finetuning
from mlm_jax.formats import WITH_FIELDS
from mlm_jax.neutrality.config import Analyze, validate_analysis
from mlm_jax.plan.config import Plan
from mlm_jax.study.config import Study
from mlm_jax.study.refuse import validate_study


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
      formats: what it reads and writes, for its page.
      example: a command line, for its page.
      arguments: names of what stands in its command line, where there is no config file.
      optional: groups of arguments after those, each of which may be left out with those behind it ("copy NAME", "FILE").
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
    formats: str = ""
    example: str = ""
    arguments: tuple[str, ...] = ("CONFIG.py", "[--dotted.option value ...]")
    optional: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether the same command goes on from what it has done, and does not begin again."""
        return self.name in ("prepare", "embed") or (self.report is not None and self.name != "adapt")

    @property
    def needs_arguments(self) -> bool:
        """Whether it has no config file, and cannot do without arguments."""
        return self.config is None and bool(self.arguments)

    @property
    def usage(self) -> str:
        """Its command line."""
        options = (f"[{option} {value}]" for option, (value, _) in self.options.items())
        groups = "".join(f" [{group}" for group in self.optional).lstrip() + "]" * len(self.optional)
        flags = (f"[{flag}]" for flag in self.flags)
        return " ".join(("mlm-jax", self.name, *self.arguments, *filter(None, [groups]), *options, *flags))

    @property
    def page(self) -> str:
        """What `mlm-jax COMMAND --help` prints."""
        page = f"usage: {self.usage}\n\n{inspect.getdoc(self.run) or self.summary}"
        formats = textwrap.fill(f"Formats: {self.formats}", 140, break_long_words=False, break_on_hyphens=False)
        page += f"\n\n{formats}\n\nExample:\n\n    {self.example}"
        if self.config is None:
            return page
        return (
            f"{page}\n\nCONFIG.py is a config file, the name of one that mlm-jax configs lists, or a workdir to go on with.\n"
            f"mlm-jax {self.name} CONFIG.py --help lists every option with the config's values as defaults."
        )


def report(config: Any, arguments: list[str]) -> int:
    """Write the run's page into its workdir, and print its table.

    The page is report/index.html of pretrain and curate, results.html of finetune and evaluate, neutrality.html of analyze.
    """
    write = command_of(config).report
    assert write is not None
    write(config)
    return 0


PACKED = "compressed or not (.gz, .bz2, .xz, .zst)"
TEXT = (
    f".txt with a document per line or paragraph, {', '.join(WITH_FIELDS)} by a field, {PACKED}; folders that Hugging Face's datasets saved; "
    "tfds:, hf:, seqio: and sample: sources; local, gs:// or s3://"
)
TABLES = f"{', '.join(WITH_FIELDS)}, {PACKED}"
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
        formats=f"reads .warc, .wet, .html, .txt and {TABLES}; writes .jsonl.zst per language",
        example="mlm-jax curate web --inputs 'crawl/*.warc.gz' --workdir corpus",
    ),
    Command(
        "prepare",
        "train the vocabulary if there is none, and turn the text into blocks",
        actions.prepare,
        cfg.Config,
        validate=cfg.validate_pretraining,
        flags=("--check",),
        formats=f"reads {TEXT}; writes TFRecord, which SeqIO and T5X read too, and a SentencePiece model or tokenizer.json",
        example="mlm-jax prepare quickstart",
    ),
    Command(
        "pretrain",
        "prepare what is missing, then train; continues where the workdir stands",
        actions.pretrain,
        cfg.Config,
        validate=cfg.validate_pretraining,
        report=actions.report_pretraining,
        formats=f"reads {TEXT}; writes checkpoints of Orbax, metrics.jsonl, TensorBoard's log and report/index.html",
        example="mlm-jax pretrain quickstart --train.steps 600 --workdir runs/first",
    ),
    Command(
        "finetune",
        "train a classifier, tagger or span finder on labelled data, and test it in every language",
        actions.finetune,
        Finetune,
        validate=validate_finetuning,
        report=actions.report_finetuning,
        formats=f"reads {TABLES}; CoNLL (.conll, .conllu, .iob2, ...) for tags, SQuAD's .json for answers; tfds: and hf: data sets; writes "
        "results.json, .csv and .html",
        example="mlm-jax finetune own_tags --init runs/quickstart --data.max_length 64",
    ),
    Command(
        "evaluate",
        "an encoder on a suite of cross-lingual benchmarks: a table of tasks × languages",
        actions.evaluate,
        Evaluate,
        validate=validate_evaluation,
        report=actions.report_evaluation,
        formats=f"reads .txt with aligned lines, {TABLES} by a field (PATH#FIELD), and what finetune reads; writes results.json, .csv and .html",
        example="mlm-jax evaluate small --init runs/quickstart",
    ),
    Command(
        "analyze",
        "what an encoder's layers know of language: identification, retrieval, word alignment, plain and centred",
        actions.analyze,
        Analyze,
        validate=validate_analysis,
        report=actions.report_analysis,
        formats="reads .txt with aligned lines, word alignments (i-j) and .tsv with judged translations; writes results.json, .csv and neutrality.html",
        example="mlm-jax analyze neutrality --init runs/quickstart --max_length 64",
    ),
    Command(
        "adapt",
        "another vocabulary for an encoder: only the pieces that your languages need, or new ones",
        actions.adapt,
        Adapt,
        validate=validate_adaptation,
        report=actions.report_adaptation,
        formats="reads text as pretrain does; writes a workdir with vocabulary/, initial.safetensors, initial.json and adapt.json",
        example="mlm-jax adapt adapt/trim --init FOLDER --workdir runs/small",
    ),
    Command(
        "study",
        "runs that differ in one thing, trained, measured, drawn and compared with what papers found",
        actions.study,
        Study,
        validate=validate_study,
        flags=("--dry-run",),
        report=actions.report_study,
        formats="reads a folder of {language}.tsv (or .tsv.gz) with a key, a tab and a paragraph per line (--text); writes results.csv, report/index.html and a workdir per run",
        example="mlm-jax study studies/smoothing --text FOLDER --dry-run",
    ),
    Command(
        "plan",
        "compile the training step for TPUs that are not here: memory, collectives, FLOPs, predicted speed",
        actions.plan,
        cfg.Config,
        widen=lambda config: Plan(**vars(config)),
        validate=cfg.validate_pretraining,
        formats="reads the config alone; writes nothing",
        example="mlm-jax plan xlmr_base --topology v5e:4x4",
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
        formats="reads a workdir; writes .html and .png",
        example="mlm-jax report runs/quickstart",
    ),
    Command(
        "import",
        "make a workdir that starts from the folder's encoder (or a run's)",
        actions.import_folder,
        formats="reads .safetensors with config.json and a tokenizer.json, SentencePiece model or vocab.txt; or a run's workdir",
        example="mlm-jax import xlm-roberta-base runs/start",
        arguments=("FOLDER", "WORKDIR"),
        options={**EXCHANGE, "--layers": ("1,3,...", "")},
    ),
    Command(
        "export",
        "write a run's encoder and tokenizer, or what finetune made, as a folder",
        actions.export_run,
        formats="writes config.json, .safetensors, tokenizer.json and README.md, as transformers and tokenizers read them",
        example="mlm-jax export runs/quickstart exported",
        arguments=("WORKDIR", "FOLDER"),
        options={
            **EXCHANGE,
            "--differing": ("N", "0"),
            "--as": ("hugging-face|sentence-transformers", "hugging-face"),
            **actions.VECTORS,
            "--push": ("NAME/REPO", ""),
        },
    ),
    Command(
        "embed",
        "turn a file of text into vectors, with a run's encoder or a folder's",
        actions.embed,
        formats=f"reads .txt with a text per line, and FILE#FIELD of {TABLES}; writes .npy, .parquet or .jsonl",
        example='mlm-jax embed runs/mine texts.txt vectors.npy --prompt "query: "',
        arguments=("RUN_OR_FOLDER", "FILE", "OUT"),
        options=actions.EMBED | EXCHANGE,
    ),
    Command(
        "predict",
        "label a file of text with what finetune made, as JSON lines",
        actions.predict,
        formats=f"reads .txt with a text per line, {TABLES}, CoNLL and SQuAD's .json; writes JSON lines",
        example="mlm-jax predict runs/own_tags texts.txt labels.jsonl --language sw",
        arguments=("WORKDIR", "FILE", "OUT"),
        options={
            "--model": ("NAME", ""),
            "--language": ("CODE", ""),
            "--words": ("trained|spaces", "trained"),
            **actions.MESH,
        },
    ),
    Command(
        "configs",
        "list the configs that come with mlm_jax, or copy one to change it",
        actions.list_configs,
        formats="writes a .py file",
        example="mlm-jax configs copy own_text mine.py",
        arguments=(),
        optional=("copy NAME", "FILE"),
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

CONFIG.py defines get_config(), or is the name of one that comes with mlm_jax (mlm-jax configs). A workdir in its place goes on with what
it was made by.
mlm-jax --version prints the version.
mlm-jax COMMAND --help says what a command does and reads, with an example.
mlm-jax COMMAND CONFIG.py --help lists every option with the config's values as defaults; docs/options.md has them all.

Others, without a config:
{others}
"""
