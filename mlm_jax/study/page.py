# SPDX-License-Identifier: Apache-2.0
"""A study's page: what came out against the paper, its figures with their data, and its runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from etils import epath
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mlm_jax.console import format_table
from mlm_jax.errors import did_you_mean
from mlm_jax.files import make_folder, write_whole
from mlm_jax.language_names import label
from mlm_jax.report.plots import marker, new_axes
from mlm_jax.report.provenance import provenance
from mlm_jax.report.rendering import Cell, Table, plot_of, render
from mlm_jax.report.svg import SERIES, png, styled
from mlm_jax.report.texts import isolated
from mlm_jax.study.config import ALL, Curve, Study, Value, of_file
from mlm_jax.study.findings import Finding
from mlm_jax.study.table import Progress, Results

# Metrics that are shown as they are (by their last word); others are shares.
NO_SHARES = (
    *("loss", "bits_per_byte", "perplexity", "tokens_per_document", "bytes_per_token", "gini", "tokens"),
    *("tokens_other", "aligned", "random", "margin"),
)
CHARACTER = 0.022  # of a horizontal axis, that a character of a label takes
STYLES = ("-", "--", ":", "-.")


def findings_of(study: Study, results: Results) -> list[Finding]:
    """What the study concludes of what there is."""
    with of_file("conclude"):
        found = study.conclude(results) if study.conclude is not None and results.rows else []
        if not isinstance(found, list) or not all(isinstance(finding, Finding) for finding in found):
            raise TypeError("it returns something else than a list of Finding, as findings.lower makes them")
    return found


@styled
def write_study_page(
    study: Study, progress: Sequence[Progress], results: Results, findings: Sequence[Finding]
) -> epath.Path:
    """Write report/index.html and its figures as PNG; returns the page's path.

    Args:
      progress, results: of `read_study`.
      findings: of `findings_of`.
    """
    folder = epath.Path(study.folder) / "report"
    make_folder(folder)
    plots, tables = [], []
    for number, curve in enumerate(study.curves):
        found = drawn(study, results, curve)
        if not found:
            continue
        figure = figure_of(study, results, curve, found)
        write_whole(folder / f"{number + 1}-{curve.metric.replace(' ', '-').replace('/', '-')}.png", png(figure))
        plots.append(plot_of([figure], caption(study, curve, found), f"curve{number}"))
        tables.append(data_table(curve, found))
    with of_file("draw"):
        own = study.draw(results) if study.draw is not None else []
    for made in own:
        write_whole(folder / f"{made.name}.png", png(made.figure))
        plots.append(plot_of([made.figure], made.caption, made.name))
        tables.append(made.table)
    title = isolated(study.title or epath.Path(study.workdir).name)
    page = render(
        "study.html",
        title,
        study.question,
        paper=study.paper,
        findings=[(finding.sentence, finding.holds) for finding in findings],
        cautions=cautions(study, progress, results),
        figures=list(zip(plots, tables, strict=True)),
        runs=runs_table(study, progress),
        provenance=provenance(epath.Path(study.workdir), {}),
    )
    write_whole(folder / "index.html", page)
    return folder / "index.html"


# line → label of the value on the horizontal axis → (mean, standard error, seeds)
Found = dict[str, dict[str, tuple[float, float, int]]]


def drawn(study: Study, results: Results, curve: Curve) -> Found:
    """The points of a curve; of the factors that it does not name the mean over all their values."""
    if curve.lines == "group":
        lines = {name: {"group": name} for name in curve.groups or results.groups}
    elif curve.lines == "language":
        lines = {name: {"group": name} for name in results.groups[ALL]}
    else:
        lines = {x: {curve.lines: x} for x in results.labels(curve.lines)}
    rows = [r for r in results.rows if r["metric"] == curve.metric and curve.where.items() <= dict(r["labels"]).items()]
    results = replace(results, rows=rows)
    places = places_of(study, results, curve.over)
    found: Found = {}
    for name, chosen in lines.items():
        group = chosen.get("group", curve.groups[0] if curve.groups else ALL)
        labels = {**curve.where, **{k: v for k, v in chosen.items() if k != "group"}}
        for place in places:
            mean = results.mean(curve.metric, group, **labels, **{curve.over: place})
            if mean is not None:
                found.setdefault(name, {})[place] = (mean.value, mean.error, mean.seeds)
    return found


def places_of(study: Study, results: Results, name: str) -> dict[str, float | None]:
    """Label → its place on a horizontal axis, if it has one: of a factor, or of what measures are told apart by."""
    factor = next((f for f in study.factors if f.name == name), None)
    if factor is not None:
        return {value.label: value.place for value in factor.values}
    found = {label: Value(label).place for label in results.labels(name)}
    if all(place is not None for place in found.values()):
        found = dict(sorted(found.items(), key=lambda item: item[1] or 0.0))
    return found


def scale_of(metric: str) -> float:
    """What values are multiplied by where they are shown."""
    return 1.0 if metric.split()[-1] in NO_SHARES else 100.0


def unit_of(metric: str) -> str:
    """A metric's name, with its unit."""
    return metric.replace("_", " ") + ("" if scale_of(metric) == 1 else ", %")


def title_of(curve: Curve) -> str:
    """A figure's title: its own, or its metric and what it is drawn over, and what has a line each where that is no group."""
    each = "" if curve.lines == "group" else f" and {curve.lines}"
    return curve.title or f"{curve.metric.replace('_', ' ')} by {curve.over}{each}"


def figure_of(study: Study, results: Results, curve: Curve, found: Found) -> Figure:
    """A line per group, language or value of a factor, with bars of two standard errors."""
    there = {label for points in found.values() for label in points}
    places = {label: at for label, at in places_of(study, results, curve.over).items() if label in there}
    numeric = all(place is not None for place in places.values())
    xs = {name: (place if numeric and place is not None else i) for i, (name, place) in enumerate(places.items())}
    scale = scale_of(curve.metric)
    figure, axes = new_axes(isolated(title_of(curve)), unit=unit_of(curve.metric))
    for i, (name, points) in enumerate(found.items()):
        style, colour = STYLES[i // len(SERIES) % len(STYLES)], SERIES[i % len(SERIES)]
        x = [xs[at] for at in points]
        y = [scale * value for value, _, _ in points.values()]
        error = [2 * scale * e if not math.isnan(e) else 0.0 for _, e, _ in points.values()]
        shown = label(name) if curve.lines == "language" else name
        if curve.lines not in ("language", "group"):  # a factor's value says little without its name
            shown = f"{curve.lines} {name}"
        axes.errorbar(
            x,
            y,
            error,
            fmt=style,
            color=colour,
            marker=marker(x) or "o",
            markersize=3,
            capsize=2,
            linewidth=1.4,
            label=isolated(shown),
        )
    if numeric:
        values = sorted(xs.values())
        steps = {round(after - before, 9) for before, after in itertools.pairwise(values)}
        as_logs = len(steps) > 1 and values[0] > 0 and values[-1] / values[0] >= 8
        if as_logs:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_minor_locator(NullLocator())
        at = apart({name: math.log(x) if as_logs else x for name, x in xs.items()})
        axes.set_xticks(list(xs.values()), [name if name in at else "" for name in xs])
    else:
        axes.set_xticks(list(xs.values()), [isolated(name) for name in xs], rotation=20 if len(xs) > 3 else 0)
    axes.set_xlabel(isolated(curve.over.replace("_", " ")))
    figure.legend(loc="outside lower center", ncol=2 if len(found) < 12 else 3)
    return figure


def apart(places: dict[str, float]) -> set[str]:
    """Labels that can stand beside each other at these places of an axis: the last, and from there those that leave room for it."""
    low, high = min(places.values()), max(places.values())
    kept: list[str] = []
    for name, x in sorted(places.items(), key=lambda item: -item[1]):
        room = CHARACTER * (high - low) * (len(name) + len(kept[-1]) + 2) / 2 if kept else 0.0
        if not kept or places[kept[-1]] - x >= room:
            kept.append(name)
    return set(kept)


def caption(study: Study, curve: Curve, found: Found) -> str:
    """What a figure shows."""
    seeds = {seeds for points in found.values() for _, _, seeds in points.values()}
    bars = " Bars: two standard errors." if max(seeds) > 1 else ""
    counted = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{min(seeds)}"
    group = curve.groups[0] if curve.groups else ALL
    of = "" if curve.lines in ("group", "language") else f" of {'all languages' if group == ALL else group}"
    return f"{unit_of(curve.metric)}{of} by {curve.over}: means over {counted} seed{'s' * (max(seeds) > 1)}.{bars}"


def data_table(curve: Curve, found: Found) -> Table:
    """The numbers of a figure."""
    scale = scale_of(curve.metric)
    labels = list(dict.fromkeys(label for points in found.values() for label in points))

    def cell(points: dict[str, tuple[float, float, int]], at: str) -> Cell:
        if at not in points:
            return Cell("")
        value, error, _ = points[at]
        spread = "" if math.isnan(error) else f"± {scale * error:.3f}" if scale == 1 else f"± {scale * error:.1f}"
        return Cell(f"{value:.3f}" if scale == 1 else f"{scale * value:.1f}", value, note=spread)

    heads = [curve.lines, *(f"{curve.over} {x}" for x in labels)]
    return Table(heads, [[Cell(name, name), *(cell(points, at) for at in labels)] for name, points in found.items()])


def cautions(study: Study, progress: Sequence[Progress], results: Results) -> list[str]:
    """What readers have to know of the numbers, a sentence each."""
    tried = f"tried out with {study.limit:,} updates per run (--limit), which tell nothing of languages"
    return [*([tried] if study.limit else []), *unfinished(progress), *unmeasured(study, results)]


def unfinished(progress: Sequence[Progress]) -> list[str]:
    """Runs that are missing, stopped or failed, a sentence each kind."""
    failed = [p.run.name for p in progress if p.failed and not p.is_finished]
    unmeasured = [p.run.name for p in progress if p.failed and p.is_finished]
    left = [p.run.name for p in progress if not p.is_finished and not p.failed]
    said = []
    if failed:
        said.append(f"{len(failed)} of {len(progress)} runs failed, and are in no figure: {', '.join(failed)}")
    if unmeasured:
        said.append(
            f"{len(unmeasured)} of {len(progress)} runs are trained, but not all of them was measured: {', '.join(unmeasured)}"
        )
    further = [p.run.name for p in progress if p.step > p.steps]
    if further:
        said.append(
            f"{len(further)} of {len(progress)} runs have more updates than the study says, and were not validated after those: {', '.join(further)}"
        )
    if left:
        said.append(
            f"{len(left)} of {len(progress)} runs are not finished, and are in no figure: {', '.join(left[:8])}{' …' if len(left) > 8 else ''}"
        )
    return said


def unmeasured(study: Study, results: Results) -> list[str]:
    """What the study names and no run has measured: metrics of curves and languages of groups, a sentence each."""
    if not results.rows:
        return []
    metrics = list(dict.fromkeys(row["metric"] for row in results.rows))
    languages = {x for row in results.rows for x in (row["language"], *row["language"].split("-"))}
    said = [
        f"no run has measured {curve.metric}, which a figure is of{did_you_mean(curve.metric, metrics)}"
        for curve in study.curves
        if curve.metric not in metrics
    ]
    for name, group in study.groups.items():
        missing = [x for x in group if x not in languages]
        if missing:
            said.append(f"no run has measured {', '.join(missing)}, which group {name} has")
    return said


def runs_table(study: Study, progress: Sequence[Progress]) -> Table:
    """A row per run."""
    names = [factor.name for factor in study.factors]

    def state(p: Progress) -> str:
        return "failed" if p.failed else "finished" if p.is_finished else "not begun" if not p.step else "not finished"

    rows = [
        [
            *(Cell(p.run.labels[name], p.run.labels[name]) for name in names),
            Cell(str(p.run.seed), p.run.seed),
            Cell(state(p)),
            Cell(f"{p.step:,}", p.step),
            Cell(f"{p.seconds:,.0f}", p.seconds),
        ]
        for p in progress
    ]
    return Table([*names, "seed", "state", "updates", "seconds"], rows, widths=[0] * len(names) + [0, 0, 1, 1])


def study_table(study: Study, progress: Sequence[Progress], results: Results, findings: Sequence[Finding]) -> str:
    """What came out, as text: each curve's numbers, and the findings; arguments as in `write_study_page`."""
    parts = []
    for curve in study.curves:
        found = drawn(study, results, curve)
        if found:
            table = data_table(curve, found)
            cells = [[f"{c.shown} {c.note}".strip() for c in row] for row in table.rows]
            parts.append(f"{title_of(curve)}: {unit_of(curve.metric)}\n{format_table(list(table.heads), cells)}")
    parts += [finding.sentence for finding in findings]
    parts += [f"caution: {said}" for said in cautions(study, progress, results)]
    return "\n\n".join(parts) or "no run is finished yet"
