# SPDX-License-Identifier: Apache-2.0
"""The plots of a run, each a matplotlib figure whose title says what it shows."""

from __future__ import annotations

import io
import textwrap

import matplotlib

matplotlib.use("Agg")  # no display, whatever the machine has

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlm_jax.report.run import Run, language_rows, mean

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY, PALE = "#0072b2", "#d55e00", "#009e73", "#555555", "#b8c4cc"
MANY = 24  # languages from which on only some are named


def figures(run: Run) -> dict[str, tuple[Figure, str]]:
    """Name → figure and the sentence that describes it, in the order of the page."""
    made = {"training": (training(run), "Training loss and learning rate, by step.")}
    if run.best is not None:
        made["validation"] = (validation(run), "Validation loss of every language at a fixed 15 % mask, by step.")
    made["sampling"] = (sampling(run), "Share of every language in the text, and in what is drawn.")
    made["seen"] = (seen(run), "Tokens of every language drawn so far.")
    made["throughput"] = (throughput(run), "Real tokens per second, by step.")
    if run.best is not None:  # last, because it is as tall as there are languages
        made["baseline"] = (baseline(run), "Validation loss of every language against its unigram baseline.")
    return made


def new_axes(title: str, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty plot in the style of the page, `height` inches tall."""
    # Narrow, so that its letters are not too small on a phone.
    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(textwrap.fill(title, 56), loc="left", fontsize=10, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def png(figure: Figure, dpi: int = 120) -> bytes:
    """A figure as a PNG file."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    return image.getvalue()


def training(run: Run) -> Figure:
    """Loss by step, with the learning rate below it in grey."""
    steps = [r["step"] for r in run.train]
    losses = [r["loss"] for r in run.train]
    figure, axes = new_axes(f"Training loss fell from {losses[0]:.2f} to {losses[-1]:.2f} nats per token")
    axes.plot(steps, losses, color=BLUE, linewidth=1.8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per masked token)", color=BLUE)
    rate = axes.twinx()
    rate.plot(steps, [r["learning_rate"] for r in run.train], color=GREY, linewidth=1, linestyle=":")
    rate.set_ylabel("learning rate", color=GREY)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.spines[["top"]].set_visible(False)
    return figure


def validation(run: Run) -> Figure:
    """A line per language, the macro average in bold, a few named at their ends."""
    steps = [v["step"] for v in run.validation]
    final = run.validation[-1]["macro_loss"]
    figure, axes = new_axes(f"Validation loss, mean over languages: {final:.2f} nats per token", 3.4)
    names = [r["language"] for r in sorted(run.sampling, key=lambda r: -r["natural"])]
    names = [n for n in names if n in run.validation[-1]["languages"]]
    lines: dict[str, list[float]] = {n: [v["languages"][n]["loss"] for v in run.validation] for n in names}
    for values in lines.values():
        axes.plot(steps, values, color=PALE, linewidth=0.8, marker="o" if len(steps) == 1 else None, markersize=3)
    axes.plot(steps, [v["macro_loss"] for v in run.validation], color=BLUE, linewidth=2.6, marker="o", markersize=4)
    unigram = mean([run.unigram.get(n) for n in names])
    if unigram is not None:
        axes.axhline(unigram, color=ORANGE, linewidth=1.2, linestyle="--")
        axes.annotate("unigram baseline", (0, unigram), xycoords=("axes fraction", "data"), color=ORANGE, fontsize=8,
                      xytext=(3, 3), textcoords="offset points")  # fmt: skip
    labelled = {"mean": (final, BLUE)}
    few = names if len(names) <= 8 else [names[round(i * (len(names) - 1) / 5)] for i in range(6)]
    labelled |= {n: (lines[n][-1], GREY) for n in few}
    _label_ends(axes, steps[-1], labelled)
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss (nats)")
    return figure


def _label_ends(axes: Axes, x: float, labels: dict[str, tuple[float, str]]) -> None:
    """Names at the right of their lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.045
    place = low - gap
    for name, (y, colour) in sorted(labels.items(), key=lambda item: item[1][0]):
        place = max(y, place + gap)
        axes.annotate(name, (x, y), xytext=(1.01, (place - low) / (high - low)), textcoords="axes fraction",
                      color=colour, fontsize=8, va="center", annotation_clip=False)  # fmt: skip


def baseline(run: Run) -> Figure:
    """A dumbbell per language, from the unigram baseline to the model."""
    rows = [r for r in language_rows(run) if "gain" in r.scores]
    rows.sort(key=lambda r: -r.scores["gain"])
    unigram, loss = ([r.scores[name] for r in rows] for name in ("unigram", "loss"))
    better = sum(r.scores["gain"] > 0 for r in rows)
    title = f"The model beats the unigram baseline in {better} of {len(rows)} languages"
    figure, axes = new_axes(title, max(2.4, 0.8 + 0.155 * len(rows)))
    axes.grid(visible=False)
    axes.grid(axis="x", color="#e6e9ec", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [r.language for r in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for y, ends in enumerate(zip(unigram, loss, strict=True)):
        axes.plot(ends, [y, y], color=PALE, linewidth=1.6, zorder=1)
    axes.scatter(unigram, range(len(rows)), s=14, color=ORANGE, label="unigram baseline", zorder=2)
    axes.scatter(loss, range(len(rows)), s=14, color=BLUE, label="model", zorder=2)
    axes.set_xlabel("validation loss (nats per token)")
    # Within the axes it lay on the last languages.
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncol=2)
    return figure


def sampling(run: Run) -> Figure:
    """Natural against smoothed share, on a logarithmic scale."""
    rows = sorted((r for r in run.sampling if not r["is_pair"]), key=lambda r: -r["natural"])
    if not rows or not any(r["rates"][-1] for r in rows):  # pairs alone
        rows = sorted(run.sampling, key=lambda r: -r["natural"])
    big, small = rows[0], rows[-1]
    natural, drawn = big["natural"] / small["natural"], big["rates"][-1] / max(small["rates"][-1], 1e-12)
    title = f"Sampling narrows the gap of {big['language']} to {small['language']} from {natural:,.0f} to {drawn:,.0f} times"
    figure, axes = new_axes(title if len(rows) > 1 else "One language: nothing to smooth")
    x = range(len(rows))
    axes.plot(x, [r["natural"] for r in rows], color=ORANGE, linewidth=1.6, marker=".", label="natural share")
    stages = len(rows[0]["rates"])
    for stage in range(stages):
        label = "smoothed share" if stages == 1 else f"smoothed, stage {stage + 1}"
        values = [r["rates"][stage] or float("nan") for r in rows]
        axes.plot(x, values, color=BLUE, alpha=(stage + 1) / stages, linewidth=1.6, marker=".", label=label)
    axes.set_yscale("log")
    every = max(1, len(rows) // MANY + 1)
    axes.set_xticks(list(x)[::every], [r["language"] for r in rows][::every], rotation=90, fontsize=7)
    axes.set_ylabel(f"share ({run.config['sampling']['count']}; log scale)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def seen(run: Run) -> Figure:
    """Tokens drawn per language, and how many times its text that is."""
    rows = sorted(language_rows(run), key=lambda r: -r.seen)
    most = max(rows, key=lambda r: r.epochs)
    figure, axes = new_axes(f"Most repeated: {most.language}, {most.epochs:.1f} times its text")
    x = range(len(rows))
    axes.bar(x, [r.seen for r in rows], color=BLUE, width=0.8)
    axes.set_ylabel("tokens seen", color=BLUE)
    every = max(1, len(rows) // MANY + 1)
    axes.set_xticks(list(x)[::every], [r.language for r in rows][::every], rotation=90, fontsize=7)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    epochs = axes.twinx()
    epochs.plot(x, [r.epochs for r in rows], color=GREEN, linewidth=0, marker=".", markersize=5)
    epochs.set_ylabel("epochs", color=GREEN)
    epochs.set_ylim(bottom=0)
    epochs.spines[["top"]].set_visible(False)
    return figure


def throughput(run: Run) -> Figure:
    """Tokens per second, and the share of time spent waiting for input."""
    speeds = [r["tokens_per_second"] for r in run.train]
    middle = sorted(speeds)[len(speeds) // 2]
    waited = mean([r["input_wait"] for r in run.train]) or 0.0
    figure, axes = new_axes(f"{middle:,.0f} tokens per second (median); {waited:.1%} of the time waiting for input")
    axes.plot([r["step"] for r in run.train], speeds, color=BLUE, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("tokens per second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure
