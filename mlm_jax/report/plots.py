# SPDX-License-Identifier: Apache-2.0
"""The plots of a run, whose titles say what they show."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from mlm_jax.language_names import label
from mlm_jax.report.run import UNITS, LanguageRow, Run, averaged, language_rows, mean
from mlm_jax.report.svg import BLUE, GREEN, GREY, LINE, ORANGE, PALE

T = TypeVar("T")

WIDTH = 340  # pixels: what a phone has for a figure
ROWS = 30  # languages in a panel
ROW = 15  # pixels
ROOM = 13  # names at the ends of lines, at most
FEW = 30  # points of a line that are marked


@dataclass(frozen=True)
class Drawn:
    """A plot: its panels, which have a title each, and the sentence that describes it."""

    panels: Sequence[Figure]
    caption: str


def figures(run: Run) -> dict[str, Drawn]:
    """Name → what is drawn by step, in the order of the page."""
    made = {"training": Drawn([training(run)], f"Training loss and learning rate, by step.{went_on(run)}")}
    if run.best is not None:
        there = averaged(run.validation[-1])
        named = "; the best and the worst are named" if len(there) > ROOM - 2 else ""
        kind = "language" if run.validation[-1]["languages"] else "pair"
        caption = f"Validation loss of every {kind} {UNITS[run.learns][1]}, by step{named}."
        if run.same_objective_since:
            caption += f" Up to step {run.same_objective_since:,} it is of another objective, and does not compare."
        made["validation"] = Drawn([validation(run)], caption)
    made["throughput"] = Drawn([throughput(run)], "Real tokens per second, by step.")
    return made


def stops(run: Run) -> list[int]:
    """Steps at which the run was stopped and went on."""
    return [step for step in run.continued if step < run.train[-1]["step"]]


def went_on(run: Run) -> str:
    """The sentences about the uprights of its plot."""
    steps = ", ".join(f"{step:,}" for step in stops(run))
    begun = ", ".join(f"{step:,}" for step in run.phases)
    phases = f" Solid uprights: a phase begins, at step {begun}." if begun else ""
    if run.same_objective_since:
        phases += f" Up to step {run.same_objective_since:,} another objective is learned (causal or masked LM), whose losses do not compare."
    return phases + (f" Dashed uprights: stopped and continued, at step {steps}." if steps else "")


def language_figures(run: Run) -> dict[str, Drawn]:
    """Name → what is drawn by language, in the order of the page; of one language nothing."""
    rows = language_rows(run)
    if len(rows) < 2:
        return {}
    made = {}
    if sum(not row.is_pair for row in rows) != 1:
        made["sampling"] = Drawn(sampling(run), "Share of every language in the text, and in what is drawn.")
    made["seen"] = Drawn(seen(rows), "Tokens of every language drawn so far, and how many times its text that is.")
    if sum("gain" in row.scores for row in rows) > 1:
        made["baseline"] = Drawn(baseline(run), "Validation loss of every language against its unigram baseline.")
    return made


def new_axes(title: str, height: float = 240, unit: str = "", width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty plot in the style of the page.

    Args:
      height, width: in pixels of the page.
      unit: of its vertical axis, written above it.
    """
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    figure.suptitle(textwrap.fill(title, 56), x=0.01, ha="left", fontsize=10, fontweight="bold")
    axes = figure.add_subplot()
    style_axes(axes, unit)
    return figure, axes


def style_axes(axes: Axes, unit: str) -> None:
    """Give a panel the style of the page, with the unit of its vertical axis above it."""
    axes.set_title(unit, loc="left", color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def widen(axes: Axes, least: float, low: float = -math.inf, high: float = math.inf) -> None:
    """Let the vertical axis span `least` or more, so that noise is not drawn as a slope; within low and high."""
    bottom, top = axes.get_ylim()
    more = max(0.0, least - (top - bottom)) / 2
    bottom, top = bottom - more, top + more
    if top > high:
        bottom, top = bottom - (top - high), high
    if bottom < low:
        bottom, top = low, min(high, max(top + (low - bottom), low + least))
    axes.set_ylim(bottom, top)


def marker(points: Sequence[object]) -> str | None:
    """Marks what was measured where it is so little that a line between would look like more."""
    return "o" if len(points) <= FEW else None


def loss_unit(run: Run) -> str:
    """What an axis of losses is called."""
    return f"loss, {run.unit}" if run.unit else "loss"


def training(run: Run) -> Figure:
    """Loss by step, with the learning rate in grey."""
    steps = [r["step"] for r in run.train]
    losses = [r["loss"] for r in run.train]
    figure, axes = new_axes(f"Training loss: from {run.say_loss(losses[0]).split()[0]} to {run.say_loss(losses[-1])}")
    axes.plot(steps, losses, color=BLUE, linewidth=1.8, marker=marker(steps), markersize=3)
    widen(axes, 0.05 * max(losses))
    for step in stops(run):
        axes.axvline(step, color=GREY, linewidth=0.8, linestyle="--")
    for step in run.phases:
        axes.axvline(step, color=LINE, linewidth=1.2)
    axes.set_title(loss_unit(run), loc="left", color=BLUE)
    axes.set_xlabel("step")
    axes.locator_params(axis="x", nbins=6)
    rate = axes.twinx()
    rate.plot(steps, [r["learning_rate"] for r in run.train], color=GREY, linewidth=1, linestyle=":")
    rate.set_title("learning rate", loc="right", color=GREY)
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    rate.spines[["top"]].set_visible(False)
    return figure


def validation(run: Run) -> Figure:
    """A line per language, the mean in bold; the best and the worst, or all where there is room, named at their ends."""
    steps = [v["step"] for v in run.validation]
    final = run.validation[-1]["macro_loss"]
    there = averaged(run.validation[-1])
    kind = "languages" if run.validation[-1]["languages"] else "pairs"
    of = f"mean over {kind}" if len(there) > 1 else label(next(iter(there)))
    figure, axes = new_axes(f"Validation loss, {of}: {run.say_loss(final)}", unit=loss_unit(run))
    names = [r["language"] for r in run.sampling if r["language"] in there]
    names.sort(key=lambda n: there[n]["loss"])
    lines: dict[str, list[float]] = {n: [averaged(v)[n]["loss"] for v in run.validation] for n in names}
    unigram = mean([run.unigram.get(n) for n in names])
    taken = (len(names) > 1) + (unigram is not None)
    room = (ROOM - taken) // 2
    named = names if len(names) <= ROOM - taken else [*names[:room], *names[-room:]]
    for name, values in lines.items():
        stands_out = name in named and len(named) < len(names)
        colour = BLUE if len(names) == 1 else GREY if stands_out else PALE
        axes.plot(steps, values, color=colour, linewidth=0.8, marker=marker(steps), markersize=2.5, clip_on=False)
    if len(names) > 1:
        means = [v["macro_loss"] for v in run.validation]
        axes.plot(steps, means, color=BLUE, linewidth=2.6, marker=marker(steps), markersize=4, clip_on=False)
    labels = [(label(n, 16), lines[n][-1], GREY) for n in named]
    if len(names) > 1:
        labels.append(("mean", final, BLUE))
    if unigram is not None:
        axes.axhline(unigram, color=ORANGE, linewidth=1.2, linestyle="--")
        labels.append(("unigram, mean", unigram, ORANGE))
    widen(axes, 0.05 * max(value for values in lines.values() for value in values))
    axes.set_xlim(0 if len(steps) == 1 else None, steps[-1])
    axes.locator_params(axis="x", nbins=5, integer=True)
    label_ends(axes, steps[-1], labels)
    axes.set_xlabel("step")
    return figure


def label_ends(axes: Axes, x: float, labels: Sequence[tuple[str, float, str]]) -> None:
    """(name, value, colour) at the right of their lines, in the lines' order; a thin line leads from each to its own."""
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda item: item[1])
    places = spread([(y - low) / (high - low) for _, y, _ in ordered], 1 / ROOM)
    for (name, y, colour), place in zip(ordered, places, strict=True):
        axes.annotate(
            name, (x, y), xytext=(1.07, place), textcoords="axes fraction", color=colour, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places between 0 and 1, a gap apart and in order, near those that are wanted, which rise."""
    up, down = list(wanted), list(wanted)
    for i in range(1, len(up)):
        up[i] = max(up[i], up[i - 1] + gap)
    for i in range(len(down) - 2, -1, -1):
        down[i] = min(down[i], down[i + 1] - gap)
    places = [(a + b) / 2 for a, b in zip(up, down, strict=True)]
    for i in range(len(places)):
        places[i] = max(places[i], places[i - 1] + gap if i else 0.0)
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], places[i + 1] - gap if i + 1 < len(places) else 1.0)
    return places


def panels(rows: Sequence[T]) -> list[Sequence[T]]:
    """Rows in parts of about the same number, none above ROWS."""
    parts = math.ceil(len(rows) / ROWS)
    size = math.ceil(len(rows) / parts)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def new_rows(title: str, names: Sequence[str], below: float = 50, of: int = 0) -> tuple[Figure, Axes]:
    """An empty plot with a row per language.

    Args:
      below: pixels below the rows.
      of: rows that it has place for, at least as many as there are names.
    """
    of = max(of, len(names))
    figure, axes = new_axes(title, max(120, below + ROW * of))
    axes.grid(visible=False)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(of - 0.4, -0.6)
    return figure, axes


def baseline(run: Run) -> list[Figure]:
    """A dumbbell per language, from the unigram baseline to the model."""
    rows = [r for r in language_rows(run) if "gain" in r.scores]
    rows.sort(key=lambda r: -r.scores["gain"])
    better = sum(r.scores["gain"] > 0 for r in rows)
    values = [r.scores[name] for r in rows for name in ("unigram", "loss")]
    margin = 0.05 * (max(values) - min(values)) or 0.1
    made = []
    for part in panels(rows):
        title = f"The model beats the unigram baseline in {better} of {len(rows)} languages"
        figure, axes = new_rows(title, [r.language for r in part], 65, len(panels(rows)[0]))
        ends = [[r.scores[name] for r in part] for name in ("unigram", "loss")]
        for y, pair in enumerate(zip(*ends, strict=True)):
            axes.plot(pair, [y, y], color=PALE, linewidth=1.6, zorder=1)
        axes.scatter(ends[0], range(len(part)), s=14, color=ORANGE, label="unigram baseline", zorder=2)
        axes.scatter(ends[1], range(len(part)), s=14, color=BLUE, label="model", zorder=2)
        axes.set_xlim(min(values) - margin, max(values) + margin)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("validation loss, nats per token")
        # Within the axes it lay on the last languages.
        figure.legend(loc="outside lower center", ncol=2)
        made.append(figure)
    return made


def sampling(run: Run) -> list[Figure]:
    """Natural against smoothed share of each language, on a logarithmic scale."""
    rows = sorted((r for r in run.sampling if not r["is_pair"]), key=lambda r: -r["natural"])
    if not rows or not any(r["rates"][-1] for r in rows):  # pairs alone
        rows = sorted(run.sampling, key=lambda r: -r["natural"])
    big, small = rows[0], rows[-1]
    natural, drawn = big["natural"] / small["natural"], big["rates"][-1] / max(small["rates"][-1], 1e-12)
    title = (
        f"Sampling turns the ratio of {label(big['language'])} to {label(small['language'])} "
        f"from {natural:,.1f} to {drawn:,.1f}"
    )
    stages = len(big["rates"])
    values = [value for r in rows for value in (r["natural"], *r["rates"]) if value]
    made = []
    for part in panels(rows):
        figure, axes = new_rows(title, [r["language"] for r in part], 65, len(panels(rows)[0]))
        for y, r in enumerate(part):
            there = [value for value in (r["natural"], *r["rates"]) if value]
            axes.plot([min(there), max(there)], [y, y], color=PALE, linewidth=1.6, zorder=1)
        axes.scatter([r["natural"] for r in part], range(len(part)), s=14, color=ORANGE, label="natural", zorder=2)
        for stage in range(stages):
            name = "smoothed" if stages == 1 else f"stage {stage + 1}"
            shares = [r["rates"][stage] or math.nan for r in part]
            alpha = (stage + 1) / stages
            axes.scatter(shares, range(len(part)), s=14, color=BLUE, alpha=alpha, label=name, zorder=2)
        _logarithmic(axes, min(values), max(values))
        axes.set_xlabel(f"share of {run.config['sampling']['count']}, log scale")
        figure.legend(loc="outside lower center", ncol=4)
        made.append(figure)
    return made


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic horizontal axis of shares, in percent."""
    low, high = low / 1.2, high * 1.2
    wider = max(1.0, 5 * low / high) ** 0.5
    axes.set_xscale("log")
    axes.set_xlim(low / wider, high * wider)
    decades = math.log10(high / low)
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def seen(rows: Sequence[LanguageRow]) -> list[Figure]:
    """Tokens drawn per language or pair, and how many times its text that is."""
    rows = sorted(rows, key=lambda r: -r.seen)
    most = max(rows, key=lambda r: r.epochs)
    made = []
    for part in panels(rows):
        title = f"Most repeated: {label(most.language)}, {most.epochs:.1f} times its text"
        figure, axes = new_rows(title, [r.language for r in part], 50, len(panels(rows)[0]))
        axes.barh(range(len(part)), [r.seen for r in part], color=BLUE, height=0.6)
        for y, r in enumerate(part):
            axes.annotate(
                f"{r.epochs:.1f} ×", (r.seen, y), xytext=(4, 0), textcoords="offset points", va="center", color=GREEN
            )
        axes.set_xlim(0, 1.25 * max(rows[0].seen, 1))
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.set_xlabel("tokens seen; × its text")
        made.append(figure)
    return made


def short(value: float) -> str:
    """A number in few letters: 1.5 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"


def throughput(run: Run) -> Figure:
    """Tokens per second, and the share of time spent waiting for input."""
    steps = [r["step"] for r in run.train]
    speeds = [r["tokens_per_second"] for r in run.train]
    steady = sorted(r["tokens_per_second"] for r in run.steady)
    middle = steady[len(steady) // 2]
    waited = mean([r["input_wait"] for r in run.train]) or 0.0
    title = f"{middle:,.0f} tokens per second (median); {waited:.1%} of the time waiting for input"
    figure, axes = new_axes(title, unit="tokens per second")
    axes.plot(steps, speeds, color=BLUE, linewidth=1.6, marker=marker(steps), markersize=3)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("step")
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    return figure
