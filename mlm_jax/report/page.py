# SPDX-License-Identifier: Apache-2.0
"""A run's page: one self-contained HTML file, with the plots inlined."""

from __future__ import annotations

import html
import json
from typing import Any

from etils import epath

from mlm_jax.config import flatten
from mlm_jax.files import write_whole
from mlm_jax.report.plots import figures, inline, png
from mlm_jax.report.run import Run, language_rows, mean, read_run

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f23; --soft: #5c6670; --line: #dfe4e8; --card: #f6f8fa; --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #343b43; --card: #1d2227; --page: #14181c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Noto Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p { margin: 0 0 1rem; color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.card { background: var(--card); border-radius: .6rem; padding: .75rem .9rem; }
.card b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.card span { color: var(--soft); font-size: .82rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem; align-items: start; }
figure { margin: 0; background: #ffffff; border: 1px solid var(--line); border-radius: .6rem; padding: .5rem; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: #5c6670; font-size: .82rem; padding: .25rem .4rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
th { cursor: pointer; color: var(--soft); font-weight: 600; }
tr.mean td { font-weight: 700; }
summary { cursor: pointer; padding: .4rem 0; }
code { font-size: .82rem; overflow-wrap: anywhere; }
"""

SORT = """
document.querySelectorAll('th').forEach((head, column) => head.addEventListener('click', () => {
  const body = head.closest('table').tBodies[0], value = row => row.cells[column].dataset.value;
  const up = head.dataset.up !== '1';
  head.dataset.up = up ? '1' : '0';
  [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)], n = Number(x) - Number(y);
    return (Number.isNaN(n) ? x.localeCompare(y) : n) * (up ? 1 : -1);
  }).forEach(row => body.append(row));
}));
"""

COLUMNS = {
    "language": ("language", "{}"),
    "natural": ("natural share", "{:.4f}"),
    "rate": ("smoothed share", "{:.4f}"),
    "tokens": ("tokens", "{:,.0f}"),
    "seen": ("tokens seen", "{:,.0f}"),
    "epochs": ("epochs", "{:.1f}"),
    "loss": ("validation loss", "{:.3f}"),
    "perplexity": ("perplexity", "{:,.1f}"),
    "bits_per_byte": ("bits a byte", "{:.3f}"),
    "unigram": ("unigram loss", "{:.3f}"),
    "gain": ("gained", "{:+.3f}"),
}


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Write `report/index.html` and its plots as PNG, and return the page's path.

    Raises:
      UserError: there is no run in the workdir.
    """
    run = read_run(workdir)
    folder = epath.Path(workdir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    for name, (figure, caption) in figures(run).items():
        image = png(figure, dpi=150)
        write_whole(folder / f"{name}.png", image)
        plots.append(inline(image, caption, f"{figure.axes[0].get_title(loc='left')}. {caption}"))
    write_whole(folder / "index.html", _page(run, plots))
    return folder / "index.html"


def _page(run: Run, plots: list[str]) -> str:
    pairs = sum(row["is_pair"] for row in run.sampling)
    among = f" and {pairs} pairs" if pairs else ""
    title = html.escape(f"{run.name}: a multilingual encoder in {len(run.sampling) - pairs} languages{among}")
    scored = (
        "a token, each from those before it"
        if run.config["model"]["causal"]
        else "a hidden token, at a fixed 15 % mask"
    )
    steps = run.config["train"]["steps"]
    done = run.train[-1]["step"]
    progress = f"{done:,} steps" if done >= steps else f"{done:,} of {steps:,} steps"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>\n<h1>{title}</h1>"
        f"<p>{progress} in {_duration(run.train[-1]['seconds'])} of training. {html.escape(_finding(run))}</p>"
        f'\n<div class="cards">{_cards(run)}</div>\n<h2>Curves</h2><div class="plots">{"".join(plots)}</div>\n'
        f"<h2>Languages</h2><p>Click a heading to sort. Losses are in nats {scored}; the "
        "unigram loss is that of the language's own piece frequencies.</p>"
        f'<div class="scroll"><table>{_table(run)}</table></div>\n'
        f"<h2>Config</h2><details><summary>{len(flatten(run.config))} options</summary>{_config(run)}</details>\n"
        f"<script>{SORT}</script></body></html>\n"
    )


def _finding(run: Run) -> str:
    """The headline in a sentence."""
    rows = [row for row in language_rows(run) if row["gain"] is not None]
    if not rows:
        return "Nothing was held out to validate on."
    better = sum(row["gain"] > 0 for row in rows)
    loss, unigram = mean([row["loss"] for row in rows]), mean([row["unigram"] for row in rows])
    return (
        f"Validation loss is {loss:.2f} nats a token, mean over languages; piece frequencies alone give {unigram:.2f}. "
        f"The model is below them in {better} of {len(rows)} languages."
    )


def _cards(run: Run) -> str:
    last = run.validation[-1] if run.validation else None
    speeds = sorted(r["tokens_per_second"] for r in run.train)
    cards = [
        (f"{sum(not row['is_pair'] for row in run.sampling)}", "languages"),
        (f"{sum(run.tokens_seen().values()) / 1e6:,.1f} M", "tokens seen"),
        (f"{speeds[len(speeds) // 2]:,.0f}", "tokens a second, median"),
    ]
    if last is not None and run.best is not None:
        cards[1:1] = [
            (f"{last['macro_loss']:.3f}", "validation loss, mean"),
            (f"{mean(list(run.unigram.values())) or float('nan'):.3f}", "unigram loss, mean"),
            (f"{last['macro_bits_per_byte']:.2f}", "bits a byte, mean"),
            (f"{run.best['step']:,}", "best step"),
        ]
    if run.train[-1]["mfu"] is not None:
        cards.append((f"{run.train[-1]['mfu']:.1%}", "model FLOPs utilisation"))
    return "".join(f'<div class="card"><b>{value}</b><span>{label}</span></div>' for value, label in cards)


def _table(run: Run) -> str:
    rows = language_rows(run)
    head = "".join(f"<th>{label}</th>" for label, _ in COLUMNS.values())
    body = "".join(
        "<tr>" + "".join(_cell(row[name], form) for name, (_, form) in COLUMNS.items()) + "</tr>" for row in rows
    )
    validated = [row for row in rows if row["loss"] is not None and not row["is_pair"]]
    means = {n: mean([row[n] for row in validated]) for n in ("loss", "perplexity", "bits_per_byte", "unigram", "gain")}
    foot = "".join(_cell(means.get(n, "mean" if n == "language" else None), form) for n, (_, form) in COLUMNS.items())
    return f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot><tr class="mean">{foot}</tr></tfoot>'


def _cell(value: Any, form: str) -> str:
    shown = "" if value is None else form.format(value)
    return f'<td data-value="{html.escape(str("" if value is None else value))}">{html.escape(shown)}</td>'


def _config(run: Run) -> str:
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in flatten(run.config).items()]
    return "".join(f"<div><code>{html.escape(line)}</code></div>" for line in lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
