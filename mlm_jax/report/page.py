# SPDX-License-Identifier: Apache-2.0
"""A run's page: one self-contained HTML file, with the plots inlined."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from mlm_jax.config import flat_options
from mlm_jax.console import duration
from mlm_jax.files import make_folder, write_whole
from mlm_jax.report.plots import Drawn, figures, language_figures, short
from mlm_jax.report.provenance import provenance
from mlm_jax.report.rendering import Cell, Plot, Table, language_cell, plot_of, render
from mlm_jax.report.run import (
    SCORES,
    UNITS,
    Run,
    averaged,
    averaged_scores,
    fairness_note,
    language_rows,
    mean,
    read_run,
)
from mlm_jax.report.svg import png, styled
from mlm_jax.report.texts import isolated
from mlm_jax.stored import fitting

# Field → heading, form, and how wide a page has to be for it: 0 a phone, 1 a tablet, 2 a desk.
COLUMNS = {
    "language": ("language", "{}", 0),
    "natural": ("natural\nshare", "{:.4f}", 2),
    "rate": ("smoothed\nshare", "{:.4f}", 2),
    "tokens": ("tokens", "{:,.0f}", 2),
    "seen": ("tokens\nseen", "{:,.0f}", 2),
    "epochs": ("epochs", "{:.1f}", 1),
    "bytes_per_token": ("bytes per\ntoken", "{:.2f}", 2),
    "tokens_per_document": ("held-out tokens\nper document", "{:,.1f}", 2),
    "unknown": ("unknown", "{:.1%}", 1),
}
# The same of what a validation says.
SCORE_COLUMNS = {
    "targets": ("targets", "{:,}", 1),
    "loss": ("validation\nloss", "{:.3f}", 0),
    "accuracy": ("found", "{:.1%}", 0),
    "pairs": ("among\npairs", "{:,}", 1),
    "perplexity": ("perplexity", "{:,.1f}", 2),
    "bits_per_byte": ("bits per\nbyte", "{:.3f}", 1),
    "unigram": ("unigram\nloss", "{:.3f}", 0),
    "gain": ("gained", "{:+.3f}", 0),
}


@styled
def write_report(workdir: epath.PathLike) -> epath.Path:
    """Write `report/index.html` and its plots as PNG, and return the page's path.

    Raises:
      UserError: there is no run in the workdir.
    """
    with fitting(f"{workdir}: config.json, sampling.json, metrics.jsonl"):
        return _write_report(epath.Path(workdir))


def _write_report(workdir: epath.Path) -> epath.Path:
    read = read_run(workdir)
    run = dataclasses.replace(read, **{name: isolated(value) for name, value in vars(read).items()})
    folder = workdir / "report"
    make_folder(folder)
    pairs = sum(row["is_pair"] for row in run.sampling)
    counted = {"language": len(run.sampling) - pairs, "pair": pairs}
    of = " and ".join(_count(number, what) for what, number in counted.items() if number)
    causal, (_, how, per) = run.config["model"]["causal"], UNITS[run.learns]
    steps, done = run.config["train"]["steps"], run.train[-1]["step"]
    progress = f"{done:,} steps" if done >= steps else f"{done:,} of {steps:,} steps"
    page = render(
        "run.html",
        title=f"{run.name}: an encoder of {of}",
        lead=f"{progress} in {duration(run.train[-1]['seconds'])} of training. {_finding(run)}",
        cards=_cards(run),
        pairs=pairs,
        plots=_written(folder, figures(run)),
        language_plots=_written(folder, language_figures(run)),
        unit=f"{'in nats ' if run.unit else ''}per {'token, each predicted from those before it' if causal else f'{per}, {how}'}",
        unigram=bool(run.unigram),
        table=_table(run),
        fairness=fairness_note(run),
        provenance=provenance(workdir, run.config, done),
        options={name: json.dumps(value, ensure_ascii=False) for name, value in flat_options(run.config).items()},
    )
    write_whole(folder / "index.html", page)
    return folder / "index.html"


def _written(folder: epath.Path, drawn: Mapping[str, Drawn]) -> list[Plot]:
    """Plots as a page has them, and in the folder as PNG, a file a panel."""
    plots = []
    for name, plot in drawn.items():
        for number, panel in enumerate(plot.panels, 1):
            write_whole(folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png"), png(panel))
        plots.append(plot_of(plot.panels, plot.caption, name))
    return plots


def _finding(run: Run) -> str:
    """The headline in a sentence."""
    if run.learns == "contrastive" and run.best is not None:
        shares = [scores["accuracy"] for scores in averaged(run.validation[-1]).values()]
        return f"Of the held-out texts {float(np.mean(shares)):.1%} find their partner, mean over pairs of languages."
    if run.learns != "language_model" and run.best is not None:
        first, best = run.validation[0], run.best
        return (
            f"Validation loss ({run.learns}) is {run.say_loss(best['macro_loss'])} at step {best['step']:,}, "
            f"from {run.say_loss(first['macro_loss'])} at step {first['step']:,}."
        )
    found = [row.scores for row in language_rows(run) if "gain" in row.scores]
    if not found:
        return "Nothing was held out to validate on."
    better = sum(scores["gain"] > 0 for scores in found)
    loss, unigram = (float(np.mean([scores[name] for scores in found])) for name in ("loss", "unigram"))
    if len(found) == 1:
        return f"Validation loss is {loss:.2f} nats per token; piece frequencies alone give {unigram:.2f}."
    return (
        f"Validation loss is {loss:.2f} nats per token, mean over languages; piece frequencies alone give {unigram:.2f}. "
        f"The model is below them in {better} of {len(found)} languages."
    )


def _cards(run: Run) -> list[tuple[str, str]]:
    """(figure, what it is) of each card."""
    last = run.validation[-1] if run.validation else None
    speeds = sorted(r["tokens_per_second"] for r in run.steady)
    languages = sum(not row["is_pair"] for row in run.sampling)
    number, kind = (languages, "language") if languages else (len(run.sampling), "pair")
    cards = [
        (f"{number}", kind if number == 1 else f"{kind}s"),
        (short(sum(run.tokens_seen().values())), "tokens seen"),
        (f"{speeds[len(speeds) // 2]:,.0f}", "tokens per second, median"),
    ]
    if last is not None and run.best is not None:
        cards[1:1] = [
            (
                f"{last['macro_loss']:.3g}" if last["macro_loss"] < 1 else f"{last['macro_loss']:.3f}",
                "validation loss, mean",
            ),
            (f"{run.best['step']:,}", "best step"),
        ]
        if run.unigram:
            cards[2:2] = [(f"{mean(list(run.unigram.values())):.3f}", "unigram loss, mean")]
    if last is not None and last["macro_bits_per_byte"] is not None:
        cards.append((f"{last['macro_bits_per_byte']:.2f}", "bits per byte, mean"))
    if run.steady[-1]["mfu"] is not None:
        cards.append((f"{run.steady[-1]['mfu']:.1%}", "model FLOPs utilisation"))
    return cards


def _table(run: Run) -> Table:
    rows, columns = language_rows(run), COLUMNS | {name: SCORE_COLUMNS[name] for name in SCORES[run.learns]}
    validated = averaged_scores(rows)
    means = {
        name: mean([found.get(name) for found in validated])
        for name in ("loss", "accuracy", "perplexity", "bits_per_byte", "unigram", "gain")
    }

    def cells(row: Mapping[str, Any]) -> list[Cell]:
        found = [(row.get(name), form) for name, (_, form, _) in columns.items()]
        return [Cell("" if value is None else form.format(value), value) for value, form in found]

    return Table(
        heads=[head for head, _, _ in columns.values()],
        rows=[[language_cell(row.language), *cells(vars(row) | row.scores)[1:]] for row in rows],
        foot=[cells({"language": "mean", **means})] if len(validated) > 1 else [],
        widths=[width for _, _, width in columns.values()],
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
