# SPDX-License-Identifier: Apache-2.0
"""What a factor's values change of several metrics, against one of them, in panels of one figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from mlm_jax.report.plots import style_axes
from mlm_jax.report.rendering import Cell, Table
from mlm_jax.report.svg import GREY, SERIES
from mlm_jax.report.texts import isolated
from mlm_jax.study.config import ALL
from mlm_jax.study.findings import difference
from mlm_jax.study.table import Mean, Results

WIDTH, PANEL = 4.7, 1.7  # inches


@dataclass(frozen=True)
class Line:
    """A metric, of rows with these labels, over a group of languages."""

    metric: str
    where: Mapping[str, str] = field(default_factory=dict)
    group: str = ALL


def changes(
    results: Results, title: str, panels: Mapping[str, Mapping[str, Line]], over: str, first: str, scale: float = 1.0
) -> tuple[Figure, Table] | None:
    """A panel per thing that is told (its heading), a line per name, over a factor: differences from one of its labels, means over
    seeds in pairs, with bars of two standard errors; with the same numbers as a table. None where nothing was measured.

    Args:
      first: the label that others are compared with.
      scale: what differences are multiplied by where they are shown.
    """
    labels = [first, *(x for x in results.labels(over) if x != first)]
    found = {
        (heading, name): {
            at: apart
            for at in labels
            if (apart := difference(results, line.metric, {**line.where, over: at}, {**line.where, over: first}, line.group))
        }
        for heading, lines in panels.items()
        for name, line in lines.items()
    }  # fmt: skip
    if not any(found.values()):
        return None
    figure = Figure(figsize=(WIDTH, PANEL * len(panels) + 1.2), layout="constrained")
    figure.suptitle(isolated(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (heading, lines) in zip(every, panels.items(), strict=True):
        style_axes(axes, isolated(heading))
        axes.axhline(0, color=GREY, linewidth=0.8)
        for i, name in enumerate(lines):
            points = found[heading, name]
            # Beside each other, so that no bar hides another.
            x = [labels.index(at) + 0.06 * (i - (len(lines) - 1) / 2) for at in points]
            y = [scale * apart.value for apart in points.values()]
            bars = [2 * scale * apart.error if apart.seeds > 1 else 0.0 for apart in points.values()]
            axes.errorbar(
                x, y, bars, color=SERIES[i % len(SERIES)], marker="o", markersize=3, capsize=2, linewidth=1.4, label=isolated(name)
            )  # fmt: skip
    every[-1].set_xticks(range(len(labels)), [isolated(x) for x in labels])
    every[-1].set_xlabel(isolated(over))
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncol=3)

    def cell(at: str, points: Mapping[str, Mean]) -> Cell:
        if at not in points:
            return Cell("")
        value, error = scale * points[at].value, scale * points[at].error
        return Cell(f"{value:+.2f}", value, note=f"± {error:.2f}" if points[at].seeds > 1 else "")

    heads = ["change", *(f"{over} {x}" for x in labels[1:])]
    rows = [
        [Cell(f"{heading}, {name}", f"{heading}, {name}"), *(cell(at, points) for at in labels[1:])]
        for (heading, name), points in found.items()
    ]
    return figure, Table(heads, rows)
