# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation or a fine-tuning experiment: tasks × languages, and the curves of its models."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import matplotlib
from etils import epath

from mlm_jax.evaluate.run import LOWER_IS_BETTER, from_experiment, summary
from mlm_jax.files import read_json, write_whole
from mlm_jax.report.page import SORT, STYLE
from mlm_jax.report.plots import BLUE, inline, new_axes, png
from mlm_jax.results import BenchmarkRow, read_results
from mlm_jax.train.metrics import read_metrics

SHADES = """
td.shade { background: color-mix(in srgb, #1a7f9c calc(var(--share) * 55%), var(--page)); }
"""


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
    title = html.escape(
        f"{folder.name}: {len({r['task'] for r in rows})} tasks in {len({r['language'] for r in rows})} languages"
    )
    if len({r["task"] for r in rows}) == 1:
        title = html.escape(
            f"{folder.name}: {rows[0]['task'].replace('_', '-')}, {rows[0]['metric'].replace('_', ' ')}"
        )
    plots = "".join(inline(image, caption) for caption, image in curves(folder))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{SHADES}</style></head><body>\n<h1>{title}</h1><p>{html.escape(headline(rows, source))}</p>"
        f"<h2>Results</h2><p>A row a language; the stronger the colour, the better within a task. Click a heading to sort.</p>"
        f'<div class="scroll"><table>{results_table(rows, source)}</table></div>'
        + (f'<h2>Training</h2><div class="plots">{plots}</div>' if plots else "")
        + f"<h2>Protocol</h2>{protocols(rows)}<script>{SORT}</script></body></html>\n"
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


def results_table(rows: Sequence[BenchmarkRow], source: str) -> str:
    """Languages × tasks, shaded by value."""
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    languages = list(dict.fromkeys(r["language"] for r in rows))
    by = {(r["task"], r["language"]): r for r in rows}
    metric = {r["task"]: r["metric"] for r in rows}
    head = "<th>language</th>" + "".join(
        f"<th>{html.escape(t.replace('_', '-'))}<br>{html.escape(metric[t].replace('_', ' '))}</th>" for t in tasks
    )
    spans = {t: [r["value"] for r in rows if r["task"] == t] for t in tasks}

    def cell(task: str, language: str) -> str:
        if (task, language) not in by:
            return '<td data-value=""></td>'
        value, low, high = by[task, language]["value"], min(spans[task]), max(spans[task])
        share = (value - low) / (high - low) if high > low else 0.5
        share = 1 - share if metric[task] in LOWER_IS_BETTER else share
        return f'<td class="shade" style="--share:{share:.2f}" data-value="{value}">{shown(value, metric[task])}</td>'

    body = "".join(
        f'<tr><td data-value="{html.escape(x)}">{html.escape(x)}</td>' + "".join(cell(t, x) for t in tasks) + "</tr>"
        for x in languages
    )
    found = summary(rows, source, {})
    feet = [("mean", "mean"), (f"{source} − others", "gap")]
    foot = "".join(
        f'<tr class="mean"><td>{html.escape(label)}</td>'
        + "".join(f"<td>{shown(found[t][name], metric[t]) if name in found[t] else ''}</td>" for t in tasks)
        + "</tr>"
        for label, name in feet
    )
    return f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot>"


def shown(value: float, metric: str) -> str:
    """A value as tables have it: percent, or as it is."""
    return f"{value:.3f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f}"


def protocols(rows: Sequence[BenchmarkRow]) -> str:
    """What was done, task by task."""
    out = []
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task]
        protocol = mine[0]["protocol"].items()
        said = ", ".join(
            f"{name.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in protocol
        )
        counts = ", ".join(f"{r['language']} {r['examples']:,}" for r in mine)
        out.append(f"<p><b>{html.escape(task)}</b>: {html.escape(said)}. Examples: {html.escape(counts)}.</p>")
    return "".join(out)


def curves(folder: epath.Path) -> list[tuple[str, bytes]]:
    """(caption, PNG) of each model: its training loss, and its dev metric in each language."""
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
        out.append((caption, png(figure)))
    return out
