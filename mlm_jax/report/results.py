# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation or a fine-tuning experiment: tasks × languages, and the curves of its models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from etils import epath
from matplotlib.figure import Figure

from mlm_jax.evaluate.run import LOWER_IS_BETTER, from_experiment, summary, unknown_source
from mlm_jax.files import listed, write_whole
from mlm_jax.language_names import label
from mlm_jax.report.plots import marker, new_axes, widen
from mlm_jax.report.provenance import provenance
from mlm_jax.report.rendering import Cell, Plot, Table, language_cell, plot_of, render
from mlm_jax.report.svg import BLUE, SERIES, styled
from mlm_jax.report.texts import isolated
from mlm_jax.results import BenchmarkRow, benchmark_cautions, read_results, standard_error
from mlm_jax.stored import fitting, read_json
from mlm_jax.train.metrics import read_metrics


class Sourced(TypedDict):
    """Of a stored config of `evaluate` or `finetune`."""

    source: str


@styled
def write_results_page(workdir: epath.PathLike) -> epath.Path:
    """Write results.html into a workdir of `evaluate` or `finetune`.

    Raises:
      UserError: it has no results yet.
    """
    with fitting(f"{workdir}: results.json, config.json, metrics.jsonl"):
        return _write_results_page(epath.Path(workdir))


def _write_results_page(folder: epath.Path) -> epath.Path:
    found: list[Any] = isolated(read_results(folder))
    rows: list[BenchmarkRow] = from_experiment(found[0]["regime"], found) if found and "regime" in found[0] else found
    config = isolated(read_json(folder / "config.json", Sourced))
    source = config["source"]
    tasks, languages = (
        list(dict.fromkeys(found)) for found in ([r["task"] for r in rows], [r["language"] for r in rows])
    )
    what = f"{len(tasks)} tasks in {len(languages)} languages"
    if len(tasks) == 1:
        what = f"{tasks[0].replace('_', '-')}, {rows[0]['metric'].replace('_', ' ')}"
    page = render(
        "results.html",
        title=f"{isolated(folder.name)}: {what}",
        lead=headline(rows, source),
        table=results_table(rows, source),
        tokens=tokens_table(rows),
        cautions=[*benchmark_cautions(rows), *unknown_source(rows, source)],
        plots=curves(folder),
        protocols=protocols(rows),
        provenance=provenance(folder, config),
    )
    write_whole(folder / "results.html", page)
    return folder / "results.html"


def headline(rows: Sequence[BenchmarkRow], source: str) -> str:
    """Each task's mean and transfer gap, in words."""
    metric = {r["task"]: r["metric"] for r in rows}
    parts = []
    for task, found in summary(rows, source, {}).items():
        gap = ""
        if "gap" in found and metric[task] not in LOWER_IS_BETTER:
            side = "above" if found["gap"] >= 0 else "below"
            gap = f", {source} {100 * abs(found['gap']):.1f} {side} the others"
            if abs(found["gap"]) < gap_noise([r for r in rows if r["task"] == task], source):
                gap = f", {source} as the others within the noise"
        if metric[task] in LOWER_IS_BETTER:
            parts.append(f"{task}: {found['mean']:.3f} {metric[task].replace('_', ' ')} on average")
        else:
            parts.append(f"{task}: {100 * found['mean']:.1f} {metric[task].replace('_', ' ')} on average{gap}")
    return "; ".join(parts) + "."


def gap_noise(rows: Sequence[BenchmarkRow], source: str) -> float:
    """Two standard errors of a task's transfer gap, by the numbers of its examples: of a value that is a share of them, about that."""
    errors = {r["language"]: standard_error(r["value"], r["examples"]) for r in rows}
    others = [error for language, error in errors.items() if language != source]
    return 2 * math.hypot(errors[source], math.hypot(*others) / len(others))


def results_table(rows: Sequence[BenchmarkRow], source: str) -> Table:
    """Languages × tasks, shaded by value."""
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    languages = list(dict.fromkeys(r["language"] for r in rows))
    by = {(r["task"], r["language"]): r["value"] for r in rows}
    metric = {r["task"]: r["metric"] for r in rows}
    spans = {task: [r["value"] for r in rows if r["task"] == task] for task in tasks}

    def cell(task: str, language: str) -> Cell:
        if (task, language) not in by:
            return Cell("")
        value, low, high = by[task, language], min(spans[task]), max(spans[task])
        if high == low:  # none is the better
            return Cell(shown(value, metric[task]), value)
        share = (value - low) / (high - low)
        share = 1 - share if metric[task] in LOWER_IS_BETTER else share
        return Cell(shown(value, metric[task]), value, 0.1 + 0.9 * share)

    found = summary(rows, source, {})
    feet = [("mean", "mean"), *([(f"{source} − others", "gap")] if any("gap" in f for f in found.values()) else [])]
    return Table(
        heads=["language", *(f"{t.replace('_', '-')}\n{metric[t].replace('_', ' ')}" for t in tasks)],
        rows=[[language_cell(x), *(cell(task, x) for task in tasks)] for x in languages],
        foot=[
            [Cell(label), *(Cell(shown(found[t][name], metric[t]) if name in found[t] else "") for t in tasks)]
            for label, name in feet
        ],
    )


def tokens_table(rows: Sequence[BenchmarkRow]) -> Table | None:
    """Tokens per sentence of parallel text, languages × tasks, and their Gini coefficient where there is one; None of results without."""
    by = {(r["task"], r["language"]): r["every"] for r in rows if "tokens" in r["every"]}
    tasks, languages = (list(dict.fromkeys(key[i] for key in by)) for i in (0, 1))
    ginis = {task: every["gini"] for (task, _), every in by.items() if "gini" in every}

    def cell(every: Mapping[str, float]) -> Cell:
        if not every:
            return Cell("")
        return Cell(f"{every['tokens']:.1f}", every["tokens"], note=f"{every['tokens_other']:.1f}")

    foot = [Cell("Gini"), *(Cell(f"{ginis[task]:.3f}" if task in ginis else "") for task in tasks)]
    if not by:
        return None
    return Table(
        heads=["language", *(task.replace("_", "-") for task in tasks)],
        rows=[[language_cell(x), *(cell(by.get((task, x), {})) for task in tasks)] for x in languages],
        foot=[foot] if ginis else [],
    )


def shown(value: float, metric: str) -> str:
    """A value as tables have it: percent, or as it is."""
    return f"{value:.3f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f}"


def protocols(rows: Sequence[BenchmarkRow]) -> list[dict[str, str]]:
    """What was done, task by task: task, settings, examples."""
    out = []
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task]
        settings = ", ".join(
            f"{name.replace('_', ' ')} {' '.join(map(_said, value)) if isinstance(value, list) else _said(value)}"
            for name, value in mine[0]["protocol"].items()
        )
        examples = ", ".join(f"{r['language']} {r['examples']:,}" for r in mine)
        out.append({"task": task, "settings": settings, "examples": examples})
    return out


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def curves(folder: epath.Path) -> list[Plot]:
    """Of each model its training loss, and its metric on the dev set of each language."""
    out = []
    for number, model in enumerate(sorted(listed(folder / "models"))):
        with fitting(str(model / "metrics.jsonl")):
            records = isolated(read_metrics(model))
            train = [r for r in records if r["kind"] == "train"]
            dev = [r for r in records if r["kind"] == "dev"]
            if not train:
                continue
            first, last = train[0]["loss"], train[-1]["loss"]
            figure, axes = new_axes(
                f"{isolated(model.name)}: training loss from {first:.2f} to {last:.2f}", unit="training loss"
            )
            steps = [r["step"] for r in train]
            axes.plot(steps, [r["loss"] for r in train], color=BLUE, marker=marker(steps), markersize=3)
            axes.set_xlabel("update")
            axes.locator_params(axis="x", integer=True, nbins=6)
            widen(axes, 0.05 * max(r["loss"] for r in train))
            out.append(plot_of([figure], "Training loss by update.", f"loss{number}"))
            if dev:
                figure = on_dev(isolated(model.name), dev)
                out.append(plot_of([figure], "The metric on each dev set, by update.", f"dev{number}"))
    return out


def on_dev(name: str, dev: Sequence[dict[str, Any]]) -> Figure:
    """A model's metric on the dev set of each language, by update."""
    metric = dev[0]["metric"]
    scale = 1 if metric in LOWER_IS_BETTER else 100
    title = f"{name}: {metric.replace('_', ' ')} on dev"
    figure, axes = new_axes(title, unit=metric.replace("_", " ") + (", %" if scale == 100 else ""))
    steps = [r["step"] for r in dev]
    for i, language in enumerate(dev[-1]["languages"]):
        values = [scale * r["languages"][language][metric] for r in dev]
        style = ("-", "--", ":")[i // len(SERIES) % 3]
        axes.plot(
            steps,
            values,
            style,
            color=SERIES[i % len(SERIES)],
            marker=marker(steps),
            markersize=3,
            label=label(language),
        )
    if scale == 100:
        widen(axes, 5, 0, 100)
    axes.set_xlabel("update")
    axes.locator_params(axis="x", integer=True, nbins=6)
    figure.legend(loc="outside lower center", ncol=2)
    return figure
