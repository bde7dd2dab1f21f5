# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation or a fine-tuning experiment: tasks × languages, and the curves of its models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
from etils import epath

from mlm_jax.evaluate.run import LOWER_IS_BETTER, from_experiment, summary
from mlm_jax.files import read_json, write_whole
from mlm_jax.report.plots import BLUE, new_axes, png
from mlm_jax.report.rendering import Cell, Plot, Table, render
from mlm_jax.results import BenchmarkRow, benchmark_cautions, read_results
from mlm_jax.train.metrics import read_metrics


def write_results_page(workdir: epath.PathLike) -> epath.Path:
    """Write results.html into a workdir of `evaluate` or `finetune`.

    Raises:
      UserError: it has no results yet.
    """
    folder = epath.Path(workdir)
    found: list[Any] = read_results(folder)
    rows: list[BenchmarkRow] = from_experiment(found[0]["regime"], found) if found and "regime" in found[0] else found
    config = read_json(folder / "config.json")
    source = config["source"]
    tasks, languages = (
        list(dict.fromkeys(found)) for found in ([r["task"] for r in rows], [r["language"] for r in rows])
    )
    what = f"{len(tasks)} tasks in {len(languages)} languages"
    if len(tasks) == 1:
        what = f"{tasks[0].replace('_', '-')}, {rows[0]['metric'].replace('_', ' ')}"
    page = render(
        "results.html",
        title=f"{folder.name}: {what}",
        lead=headline(rows, source),
        table=results_table(rows, source),
        cautions=benchmark_cautions(rows),
        plots=curves(folder),
        protocols=protocols(rows),
    )
    write_whole(folder / "results.html", page)
    return folder / "results.html"


def headline(rows: Sequence[BenchmarkRow], source: str) -> str:
    """Each task's mean and transfer gap, in words."""
    metric = {r["task"]: r["metric"] for r in rows}
    parts = []
    for task, found in summary(rows, source, {}).items():
        gap = (
            f", {source} {100 * abs(found['gap']):.1f} {'above' if found['gap'] >= 0 else 'below'} the others"
            if "gap" in found
            else ""
        )
        if metric[task] in LOWER_IS_BETTER:
            parts.append(f"{task}: {found['mean']:.3f} {metric[task].replace('_', ' ')} on average")
        else:
            parts.append(f"{task}: {100 * found['mean']:.1f} {metric[task].replace('_', ' ')} on average{gap}")
    return "; ".join(parts) + "."


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
        share = (value - low) / (high - low) if high > low else 0.5
        return Cell(shown(value, metric[task]), value, 1 - share if metric[task] in LOWER_IS_BETTER else share)

    found = summary(rows, source, {})
    feet = [("mean", "mean"), (f"{source} − others", "gap")]
    return Table(
        heads=["language", *(f"{t.replace('_', '-')}\n{metric[t].replace('_', ' ')}" for t in tasks)],
        rows=[[Cell(x, x), *(cell(task, x) for task in tasks)] for x in languages],
        foot=[
            [Cell(label), *(Cell(shown(found[t][name], metric[t]) if name in found[t] else "") for t in tasks)]
            for label, name in feet
        ],
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
    """A plot of each model: its training loss, and its metric on the dev set of each language."""
    out = []
    models = sorted((folder / "models").iterdir()) if (folder / "models").exists() else []
    for model in models:
        records = read_metrics(model)
        train = [r for r in records if r["kind"] == "train"]
        dev = [r for r in records if r["kind"] == "dev"]
        if not train:
            continue
        figure, axes = new_axes(f"{model.name}: loss {train[0]['loss']:.2f} to {train[-1]['loss']:.2f}")
        axes.plot([r["step"] for r in train], [r["loss"] for r in train], color=BLUE)
        axes.set_xlabel("update")
        axes.set_ylabel("training loss")
        if dev:
            right = axes.twinx()
            right.set_prop_cycle(color=list(matplotlib.colormaps["Dark2"](range(1, 8))))
            for language in dev[-1]["languages"]:
                values = [100 * r["languages"][language][r["metric"]] for r in dev]
                right.plot(
                    [r["step"] for r in dev], values, marker="o", markersize=3, linestyle="--", label=f"dev {language}"
                )
            right.set_ylabel(f"{dev[0]['metric'].replace('_', ' ')} on dev, %")
            right.legend(fontsize=7, frameon=False, loc="center right")
        caption = f"{model.name}: training loss by update" + (", and the metric on each dev set" if dev else "")
        out.append(Plot(png(figure), caption))
    return out
