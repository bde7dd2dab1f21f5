# SPDX-License-Identifier: Apache-2.0
"""What a study is: a base config, the factors in which its runs differ, what is measured of each, and what is drawn and concluded."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.fields import MAY_CHANGE, AtLeast
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality.config import Analyze
from mlm_jax.phases import lengths
from mlm_jax.study.texts import Texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlm_jax.report.rendering import Table

BASE = cfg.Config()
TEXT = "{text}"  # in a config's paths: the folder of `Texts`
RUN = "{run}"  # in a measure's: the run's workdir
MEASURED = "measured"  # in the workdir of a run: a folder per `Measure`
# What rows of `analyze` are told apart by, besides the factors: `checkpoint` has the updates, of rows through pretraining.
OF_PROBES = ("layer", "transformation", "pooling", "checkpoint")
OF_ROWS = ("run", "seed", "step", "language", "metric", "value")  # columns that every table of results has
ALL = "all"  # of `Curve.groups`: the mean over all languages


@dataclass(frozen=True)
class Value:
    """One value of a factor.

    Attributes:
      label: in tables, figures and the names of runs.
      options: dotted option of `config.Config` → its value.
      change: what options cannot say: the config → the config with this value.
      at: its place on a horizontal axis; None: the label's, where that is a number.
    """

    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[cfg.Config], cfg.Config] | None = None
    at: float | None = None

    @property
    def place(self) -> float | None:
        """Its place on a horizontal axis, where it has one."""
        if self.at is not None:
            return self.at
        try:
            return float(self.label)
        except ValueError:
            return None


@dataclass(frozen=True)
class Factor:
    """What runs differ in.

    Attributes:
      values: two or more.
      of_vocabulary: whether it is the vocabulary's too, where it is of `sampling`: each value then has a corpus of its own.
    """

    name: str
    values: tuple[Value, ...]
    of_vocabulary: bool = False


def vary(option: str, *values: Any, name: str = "", of_vocabulary: bool = False) -> Factor:
    """A factor of one dotted option; its name is the option's last word unless given."""
    shown = [f"{x:g}" if isinstance(x, float) else str(x) for x in values]
    made = tuple(Value(label, {option: x}) for label, x in zip(shown, values, strict=True))
    return Factor(name or option.rpartition(".")[2], made, of_vocabulary)


@dataclass(frozen=True)
class Measure:
    """What is measured of each run when it is finished, in the order of the study's `measures`.

    Attributes:
      name: of its folder, measured/NAME in the run's workdir.
      config: its workdir and init are set; in its paths {text} is the folder of the study's texts, and {run} the run's workdir, so that {run}/measured/NAME
        is what an earlier measure left.
      labels: what its rows are told apart by, beside the run's factors: as {"task": "names", "frozen": "2"}. Metrics of what is fine-tuned begin with `task`, or else
        with the measure's name.
    """

    name: str
    config: Evaluate | Analyze | Finetune
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """A figure: a metric over a factor.

    Attributes:
      metric: of the table: bits_per_byte, loss, accuracy, or what is measured besides: "TASK METRIC" of `evaluate`, "SET PROBE METRIC" of `analyze`, "TASK METRIC" of
        what is fine-tuned.
      over: the factor on the horizontal axis; or what measures have labels of, and probes: layer, transformation, pooling, checkpoint.
      lines: what has a line each: "group" (`groups` of the study), "language", or another such thing.
      title: empty: made of the above.
      where: label of each other thing that rows are told apart by: {"layer": "2", "pooling": "mean"}; of factors that are not named the mean is drawn.
      groups: of those of the study, which are drawn, empty: all; of other lines than groups the one that they are of, empty: all languages.
    """

    metric: str
    over: str
    lines: str = "group"
    title: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """A figure that is no curve, with its data; `name` is of its file."""

    name: str
    figure: Figure
    caption: str
    table: Table


@dataclass(frozen=True)
class Study:
    """A study: runs that differ in the factors' values, for each of the seeds."""

    workdir: Annotated[str, MAY_CHANGE] = ""
    """Folder of the study; empty: runs/NAME-OF-CONFIG."""
    only: Annotated[Literal["all", "prepare", "runs", "report"], MAY_CHANGE] = "all"
    """all: corpora, runs that are not finished, what is measured of them, and the page; prepare: the corpora, and with `run` its workdir, for another machine to train; runs: all but the page; report: the
    page, of what there is."""
    run: Annotated[str, MAY_CHANGE] = ""
    """One run alone, by its name, or by its number from 0 (`SLURM_ARRAY_TASK_ID`); empty: all."""
    jobs: Annotated[int, AtLeast(1), MAY_CHANGE] = 1
    """Runs that are trained at a time here, each on its share of the cores: small encoders take less time so. What each says is in runs/NAME.txt."""
    runner: Annotated[Literal["here", "slurm"], MAY_CHANGE] = "here"
    """here: runs are trained here; slurm: corpora are prepared here, then each run that is not finished is a task of an array, and
    the page a job after them."""
    sbatch: Annotated[str, MAY_CHANGE] = ""
    """What sbatch is told of every job, as one string, e.g. "--partition=gpu --gpus-per-node=1 --time=2:00:00"."""
    topology: Annotated[str, MAY_CHANGE] = ""
    """Accelerators that --dry-run tells the time of, as `plan` names them, e.g. v5e-16 or h100:8; empty: of updates here."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of every run, where it is not auto (`model.dtype`)."""
    limit: Annotated[int, AtLeast(0), MAY_CHANGE] = 0
    """Updates of each run, at most, to try the study out, which is then in limit_N, a folder of its own; 0: as many as it says."""
    text: str = "text"
    """Folder that `texts` are taken of, with {language}.tsv or .tsv.gz of a key, a tab and a paragraph per line; the same key is a translation."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs: each combination of values is trained with every one of them."""
    title: tyro.conf.Suppress[str] = ""
    question: tyro.conf.Suppress[str] = ""
    paper: tyro.conf.Suppress[str] = ""
    texts: tyro.conf.Suppress[Texts | None] = None
    base: tyro.conf.Suppress[cfg.Config] = BASE
    factors: tyro.conf.Suppress[tuple[Factor, ...]] = ()
    choose: tyro.conf.Suppress[Callable[[Mapping[str, str]], bool] | None] = None
    measures: tyro.conf.Suppress[tuple[Measure, ...]] = ()
    groups: tyro.conf.Suppress[Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    curves: tyro.conf.Suppress[tuple[Curve, ...]] = ()
    draw: tyro.conf.Suppress[Callable[[Any], list[Drawn]] | None] = None  # `table.Results` → figures that are no curves
    conclude: tyro.conf.Suppress[Callable[[Any], list[Any]] | None] = None  # `table.Results` → `findings.Finding`s

    @property
    def folder(self) -> str:
        """Where runs, results and the page are: runs of `limit` updates are no beginning of the others, whose learning rates fall later."""
        return f"{self.workdir}/limit_{self.limit}" if self.limit else self.workdir


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
      labels: factor → label of its value.
      corpus: key of the corpus that it shares with others: runs with the same have the same `data` and `vocabulary`.
    """

    name: str
    labels: Mapping[str, str]
    seed: int
    config: cfg.Config
    corpus: str


def with_options(config: cfg.Config, options: Mapping[str, Any], where: str) -> cfg.Config:
    """The config with dotted options replaced.

    Raises:
      UserError: there is no such option.
    """
    for name, value in options.items():
        section, dot, option = name.rpartition(".")
        holder = getattr(config, section, None) if dot else config
        if holder is None or "." in section or not hasattr(holder, option):
            raise UserError(f"{where}: there is no option {name}; docs/options.md has them")
        config = cfg.with_sections(config, **{section: {option: value}}) if dot else replace(config, **{option: value})
    return config


def apply(value: Value, config: cfg.Config, where: str) -> cfg.Config:
    """The config with a factor's value.

    Raises:
      UserError: it has an option that there is not, or its function fails.
    """
    with of_file(f"{where}: {value.label}"):
        config = with_options(config, value.options, where)
        made = value.change(config) if value.change else config
    if not isinstance(made, cfg.Config):
        raise UserError(
            f"{where}: {value.label}: its function returns {type(made).__name__}; have it return the config"
        )
    return made


@contextlib.contextmanager
def of_file(what: str) -> Iterator[None]:
    """While something that a study's file defines is computed.

    Raises:
      UserError: it fails.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{what} fails ({type(e).__name__}: {e}); mend the study's file") from e


def placed(study: Study, config: Any, run: str = "") -> Any:
    """A config (or a part of one) with the folder of the study's texts, and a run's workdir, in its paths."""
    folder = text_folder(study) if study.texts is not None else TEXT

    def put(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(TEXT, folder).replace(RUN, run or RUN)
        if isinstance(value, tuple):
            return tuple(map(put, value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: put(getattr(value, f.name)) for f in dataclasses.fields(value)})
        return value

    return put(config)


def text_folder(study: Study) -> str:
    """Where the text lies that a study takes."""
    assert study.texts is not None
    return f"{study.workdir}/text/{study.texts.digest}"


def digest(config: cfg.Config, of_vocabulary: bool) -> str:
    """A short name of what a config's corpus is made by.

    Args:
      of_vocabulary: whether the rates of drawing languages are, by which a vocabulary's sample is drawn.
    """
    stored = json.loads(cfg.config_to_json(config))
    parts = [
        stored["data"],
        stored["vocabulary"],
        lengths(config),
        *([stored["sampling"]] if of_vocabulary else []),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def runs_of(study: Study) -> list[Run]:
    """The runs of a study, seeds together, in the order of the factors' values."""
    found = []
    for values in itertools.product(*(factor.values for factor in study.factors)):
        labels = {factor.name: value.label for factor, value in zip(study.factors, values, strict=True)}
        with of_file("choose"):
            if study.choose is not None and not study.choose(labels):
                continue
        config = study.base
        for factor, value in zip(study.factors, values, strict=True):
            config = apply(value, config, f"factor {factor.name}")
        if study.dtype != "auto":
            config = cfg.with_sections(config, model={"dtype": study.dtype})
        if study.limit:
            config = cfg.with_sections(config, train={"steps": min(study.limit, config.train.steps)})
        own = any(f.of_vocabulary for f in study.factors)
        corpus = digest(config, own)
        for seed in study.seeds:
            name = "--".join([*(f"{factor}-{label}" for factor, label in labels.items()), f"seed-{seed}"])
            name = name.replace("/", "_").replace(" ", "_")
            made = replace(placed(study, config), seed=seed, workdir=f"{study.folder}/runs/{name}")
            found.append(Run(name, labels, seed, made, corpus))
    return found


def things(study: Study) -> list[str]:
    """What a study's rows are told apart by: its factors, what its measures have labels of, and what probes have."""
    probes = OF_PROBES if any(isinstance(measure.config, Analyze) for measure in study.measures) else ()
    labels = dict.fromkeys(x for measure in study.measures for x in measure.labels)
    return [*(factor.name for factor in study.factors), *labels, *probes]


def chosen(study: Study, runs: list[Run]) -> list[Run]:
    """The runs that `study.run` names.

    Raises:
      UserError: there is none of this name or number.
    """
    if not study.run:
        return runs
    if study.run.isdecimal() and int(study.run) < len(runs):
        return [runs[int(study.run)]]
    found = [run for run in runs if run.name == study.run]
    if not found:
        raise UserError(
            f"run: {study.run}: no such run; --dry-run lists the {len(runs):,} there are, by name and number from 0"
        )
    return found
