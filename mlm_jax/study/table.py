# SPDX-License-Identifier: Apache-2.0
"""What a study's runs measured, as rows: a run, a seed, a language and a metric each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from etils import epath

from mlm_jax.fairness import gini
from mlm_jax.files import write_whole
from mlm_jax.manifest import read_manifest
from mlm_jax.phases import in_steps
from mlm_jax.results import as_csv, read_results
from mlm_jax.study.config import ALL, MEASURED, OF_ROWS, Measure, Run, Study, runs_of, things
from mlm_jax.train.metrics import Record, read_metrics

FAILED = "failed.txt"  # in the workdir of a run whose last attempt failed: why
AFTER = "aligned words, "  # of `analyze`: the probe of words before and after fine-tuning
METRICS = ("loss", "bits_per_byte", "accuracy", "perplexity")  # of a validation


class Row(TypedDict):
    """A measured value.

    Attributes:
      labels: factor → label; and what it is told apart by besides, of a measure (`Measure.labels`) and of probes (`config.OF_PROBES`).
      step: of the run, when it was measured.
      language: a language's or a pair's code; empty: of all together.
    """

    run: str
    labels: Mapping[str, str]
    seed: int
    step: int
    language: str
    metric: str
    value: float


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
      steps: updates that it is to have.
      seconds: of training.
      validation: the last line of metrics of that kind; None where there is none.
      failed: why its last attempt did, if it did.
    """

    run: Run
    steps: int
    seconds: float
    validation: Record | None
    failed: str = ""

    @property
    def step(self) -> int:
        """Updates up to its last validation."""
        return int(self.validation["step"]) if self.validation else 0

    @property
    def is_finished(self) -> bool:
        """Whether it has all its updates, and a validation of the last."""
        return self.step >= self.steps


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, its standard error (NaN of one seed), and of how many."""

    value: float
    error: float
    seeds: int


@dataclass(frozen=True)
class Results:
    """All that was measured of the runs that are finished.

    Attributes:
      groups: group → its languages, `ALL` among them.
      open: runs that are not trained or not measured to the end.
    """

    rows: Sequence[Row]
    groups: Mapping[str, tuple[str, ...]]
    open: Sequence[Run] = ()

    def by_seed(self, metric: str, group: str = ALL, **labels: str) -> dict[int, float]:
        """Seed → the mean over a group's languages (or one language) of the rows with these labels.

        Names of factors that are no Python names are handed over by `**{"a-b": ...}`. Of checkpoints that are not the last, rows are taken only where `checkpoint` is among
        the labels. A probe's pair of languages ("de-en") is of a group that has the first. Where labels leave a factor open, seeds of which a run is still to
        come are left out, as a mean over some of its values is no mean over all.
        """
        languages = self.groups.get(group, (group,))
        found: dict[int, list[float]] = {}
        taken = set()
        for row in self.rows:
            if row["metric"] != metric or ("checkpoint" in row["labels"]) != ("checkpoint" in labels):
                continue
            language, of_probe = row["language"], "layer" in row["labels"]
            of_group = language in languages or (of_probe and language.partition("-")[0] in languages)
            of_all = group == ALL and (of_probe or not language)
            if (of_group or of_all) and all(row["labels"].get(name) == label for name, label in labels.items()):
                found.setdefault(row["seed"], []).append(row["value"])
                taken.add(row["run"])
        for run in self.open:
            if run.name not in taken and all(run.labels.get(name, label) == label for name, label in labels.items()):
                found.pop(run.seed, None)
        return {seed: float(np.mean(values)) for seed, values in sorted(found.items())}

    def mean(self, metric: str, group: str = ALL, **labels: str) -> Mean | None:
        """The mean over seeds; None where nothing was measured."""
        return mean_of(list(self.by_seed(metric, group, **labels).values()))

    def labels(self, factor: str) -> list[str]:
        """The labels of a factor that some row has, in the order of the rows."""
        return list(dict.fromkeys(row["labels"][factor] for row in self.rows if factor in row["labels"]))


def mean_of(values: Sequence[float]) -> Mean | None:
    """Mean and standard error of the values of seeds."""
    if not values:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Mean(float(np.mean(values)), error, len(values))


def progress_of(run: Run) -> Progress:
    """How far a run is."""
    folder = epath.Path(run.config.workdir)
    records = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    seconds = max((float(r["seconds"]) for r in records), default=0.0)
    failed, steps = folder / FAILED, in_steps(run.config).train.steps
    # Of a run that was taken further by itself, the one of the study.
    validations = [r for r in records if r["kind"] == "validation"]
    last = next((r for r in validations if r["step"] == steps), validations[-1] if validations else None)
    why = failed.read_text().strip() if failed.exists() else ""
    return Progress(run, steps, seconds, last, why)


def is_complete(study: Study, progress: Progress) -> bool:
    """Whether a run is trained and measured, and nothing of it failed."""
    if progress.failed or not progress.is_finished:
        return False
    place = epath.Path(progress.run.config.workdir) / MEASURED
    return all((place / measure.name / "results.json").exists() for measure in study.measures)


def read_study(study: Study) -> tuple[list[Progress], Results]:
    """How far each run of a study is, and what was measured of those that are finished."""
    progress = [progress_of(run) for run in runs_of(study)]
    rows = read_rows(study, progress)
    languages = dict.fromkeys(r["language"] for r in rows if r["language"] and r["metric"] in METRICS)
    groups = {**study.groups, ALL: tuple(x for x in languages if "-" not in x)}
    return progress, Results(rows, groups, [p.run for p in progress if not is_complete(study, p)])


def read_rows(study: Study, progress: Iterable[Progress]) -> list[Row]:
    """The rows of all runs that are finished."""
    found: list[Row] = []
    for run, last in ((p.run, p.validation) for p in progress if p.validation and p.is_finished):
        folder = epath.Path(run.config.workdir)
        for language, scores in {**last["languages"], **last.get("pairs", {})}.items():
            for metric in METRICS:
                if metric in scores:
                    found.append(row(run, int(last["step"]), language, metric, scores[metric]))
        found += of_vocabulary(run, int(last["step"]))
        for measure in study.measures:
            place = folder / MEASURED / measure.name
            if (place / "results.json").exists():
                found += measured(run, int(last["step"]), measure, read_results(place))
    return found


def of_vocabulary(run: Run, step: int) -> list[Row]:
    """How a run's vocabulary cuts held-out text: bytes per token and tokens per document of each language, and the Gini coefficient of the
    latter, which tells how evenly it does where all have the same documents."""
    folder = epath.Path(run.config.workdir) / "corpus"
    held = {s.name: s.validation for s in read_manifest(folder).monolingual if s.validation.documents}
    each = {name: split.tokens / split.documents for name, split in held.items()}
    rows = [row(run, step, name, "tokens_per_document", value) for name, value in each.items()]
    rows += [
        row(run, step, name, "bytes_per_token", split.bytes / max(split.tokens, 1)) for name, split in held.items()
    ]
    return [*rows, row(run, step, "", "gini", gini(list(each.values())))]


def row(run: Run, step: int, language: str, metric: str, value: float, labels: Mapping[str, str] | None = None) -> Row:
    """A row of a run; `labels` besides the run's."""
    return Row(
        run=run.name,
        labels={**run.labels, **(labels or {})},
        seed=run.seed,
        step=step,
        language=language,
        metric=metric,
        value=float(value),
    )


def measured(run: Run, step: int, measure: Measure, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows of `evaluate` ("TASK METRIC"), of `analyze` ("SET PROBE METRIC", with `config.OF_PROBES` as labels) and of `finetune` ("TASK METRIC")."""
    found = []
    for r in rows:
        if "probe" in r:
            labels = {**measure.labels, **{name: str(r[name]) for name in ("layer", "transformation", "pooling")}}
            at = int(r.get("step", step))
            if "step" in r:
                labels["checkpoint"] = str(at)
            probe = r["probe"]
            if probe.startswith(AFTER) and probe != f"{AFTER}before":
                probe = f"{AFTER}after"  # by whatever fine-tuning: the measure's labels say which
            found.append(row(run, at, r["languages"], f"{r['set']} {probe} {r['metric']}", r["value"], labels))
            continue
        named = r["every"] if "every" in r else r["test"]
        of = r["task"] if "every" in r else measure.labels.get("task", measure.name)
        found += [row(run, step, r["language"], f"{of} {m}", v, measure.labels) for m, v in named.items()]
    return found


def write_table(study: Study, rows: Sequence[Row]) -> None:
    """Write results.csv: a line per run, language and metric; the same bytes for the same runs."""
    columns = (OF_ROWS[0], *things(study), *OF_ROWS[1:])
    lines = [{**dict.fromkeys(columns, ""), **r, **r["labels"]} for r in rows]
    write_whole(epath.Path(study.folder) / "results.csv", as_csv(columns, lines))
