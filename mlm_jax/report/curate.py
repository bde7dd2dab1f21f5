# SPDX-License-Identifier: Apache-2.0
"""The page of a curated corpus: where the documents went, the thresholds on their histograms, sizes per language, samples."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlm_jax.console import format_table
from mlm_jax.curate.counts import in_bucket, reasons_of
from mlm_jax.curate.perplexity import BUCKETS, SCORE
from mlm_jax.files import make_folder, write_whole
from mlm_jax.language_names import label
from mlm_jax.report.plots import new_axes, new_rows, panels, short
from mlm_jax.report.provenance import provenance
from mlm_jax.report.rendering import Cell, Plot, Table, language_cell, plot_of, render
from mlm_jax.report.svg import BLUE, GREY, ORANGE, SERIES, styled
from mlm_jax.report.texts import isolated
from mlm_jax.stored import fitting, read_json

# GiB of text per language in CC-100 (Conneau et al. 2020, table 6); both scripts of Chinese and both encodings of Burmese together.
CC100 = {
    "af": 1.3, "am": 0.8, "ar": 28.0, "as": 0.1, "az": 6.5, "be": 4.3, "bg": 57.5, "bn": 8.4, "br": 0.1, "bs": 0.1,
    "ca": 10.1, "cs": 16.3, "cy": 0.8, "da": 45.6, "de": 66.6, "el": 46.9, "en": 300.8, "eo": 0.9, "es": 53.3,
    "et": 6.1, "eu": 2.0, "fa": 111.6, "fi": 54.3, "fr": 56.8, "fy": 0.2, "ga": 0.5, "gd": 0.1, "gl": 2.9, "gu": 1.9,
    "ha": 0.3, "he": 31.6, "hi": 20.2, "hr": 20.5, "hu": 58.4, "hy": 5.5, "id": 148.3, "is": 3.2, "it": 30.2,
    "ja": 69.3, "jv": 0.2, "ka": 9.1, "kk": 6.4, "km": 1.5, "kn": 3.3, "ko": 54.2, "ku": 0.4, "ky": 1.2, "la": 2.5,
    "lo": 0.6, "lt": 13.7, "lv": 8.8, "mg": 0.2, "mk": 4.8, "ml": 7.6, "mn": 3.0, "mr": 2.8, "ms": 8.5, "my": 2.0,
    "ne": 3.8, "nl": 29.3, "no": 49.0, "om": 0.1, "or": 0.6, "pa": 0.8, "pl": 44.6, "ps": 0.7, "pt": 49.1, "ro": 61.4,
    "ru": 278.0, "sa": 0.3, "sd": 0.4, "si": 3.6, "sk": 23.2, "sl": 10.3, "so": 0.4, "sq": 5.4, "sr": 9.1, "su": 0.1,
    "sv": 85.0, "sw": 1.6, "ta": 12.2, "te": 4.7, "th": 71.7, "tl": 3.1, "tr": 20.9, "ug": 0.4, "uk": 84.6, "ur": 5.7,
    "uz": 0.7, "vi": 137.3, "xh": 0.1, "yi": 0.3, "zh": 63.5,
}  # fmt: skip
SHOWN = 12  # reasons that have a colour or a row of their own
DRAWN = 8  # histograms that are shown: of what took most documents


@styled
def write_curation_page(workdir: epath.PathLike) -> epath.Path:
    """Write report/index.html into a workdir of `curate`.

    Raises:
      UserError: it has no corpus yet.
    """
    with fitting(f"{workdir}: curate.json"):
        return _write_curation_page(epath.Path(workdir))


def _write_curation_page(folder: epath.Path) -> epath.Path:
    found: dict[str, Any] = isolated(read_json(folder / "curate.json", dict[str, Any]))
    config = isolated(read_json(folder / "config.json", dict[str, Any]))
    plots = [
        plot_of(funnel(found), "What is left after each step, of all languages.", "funnel"),
        *(
            [plot_of([reasons(found)], "Of the documents that went, by reason.", "reasons")]
            if reasons_of(found["steps"])
            else []
        ),
        plot_of(sizes(found), "Text per language, before and after.", "sizes"),
    ]
    page = render(
        "curate.html",
        title=f"{isolated(folder.name)}: a corpus of {count(len(last(found)), 'language')}",
        lead=finding(found),
        table=languages_table(found),
        plots=plots,
        thresholds=threshold_plots(found),
        buckets=buckets_table(found),
        untold=untold(found),
        samples=found["samples"],
        damaged=found["damaged"],
        provenance=provenance(folder, config),
    )
    make_folder(folder / "report")
    write_whole(folder / "report" / "index.html", page)
    return folder / "report" / "index.html"


def last(found: Mapping[str, Any]) -> dict[str, list[int]]:
    """Language → documents and bytes of the corpus."""
    passed: dict[str, list[int]] = found["steps"][-1]["passed"]
    return passed


def totals(found: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """(name, documents, bytes) after each step."""
    for step in found["steps"]:
        documents, size = (sum(pair[i] for pair in step["passed"].values()) for i in (0, 1))
        yield step["name"], documents, size


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_units(unit: str, value: float, place: int) -> str:
    """A number at a tick of an axis."""
    return f"{short(value)}{unit}"


def finding(found: Mapping[str, Any]) -> str:
    """What is left and what most went for, in a sentence."""
    (_, documents, size), *_, (_, left, kept) = totals(found)
    most = reasons_of(found["steps"]).most_common(3)
    why = f"; most went as {', '.join(f'{reason} ({number:,})' for reason, number in most)}" if most else ""
    return f"{left:,} of {count(documents, 'document')} are left, {short(kept)}B of {short(size)}B of text{why}."


def funnel(found: Mapping[str, Any]) -> list[Figure]:
    """Documents, and bytes, after each step."""
    rows = list(totals(found))
    made = []
    for name, colour, unit in (("documents", BLUE, ""), ("text", ORANGE, "B")):
        values = [size if unit else documents for _, documents, size in rows]
        share = values[-1] / max(values[0], 1)
        figure, axes = new_rows(
            f"{100 * share:.3g} % of the {name} {'is' if unit else 'are'} left", [r[0] for r in rows], 50
        )
        draw_bars(axes, values, colour, unit, 1.22)
        axes.set_xlabel(f"{name}, after each step")
        made.append(figure)
    return made


def draw_bars(axes: Axes, values: Sequence[int], colour: str, unit: str, room: float) -> None:
    """A bar per row, with its figure behind it.

    Args:
      values: of which the first is the largest.
      room: width of the axis, of the largest.
    """
    axes.barh(range(len(values)), values, color=colour, height=0.6)
    for y, value in enumerate(values):
        shown = f"{short(value)}{unit}"
        axes.annotate(shown, (value, y), xytext=(4, 0), textcoords="offset points", va="center", color=GREY)
    axes.set_xlim(0, room * max(values[0], 1))
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(functools.partial(in_units, unit))


def reasons(found: Mapping[str, Any]) -> Figure:
    """Documents that went, by reason."""
    rows = reasons_of(found["steps"]).most_common(SHOWN)
    figure, axes = new_rows(f"Most went as {rows[0][0]}", [reason for reason, _ in rows], 50)
    draw_bars(axes, [number for _, number in rows], BLUE, "", 1.18)
    axes.set_xlabel("documents")
    return figure


def sizes(found: Mapping[str, Any]) -> list[Figure]:
    """A dumbbell per language, from the text that was read to that of the corpus."""
    read = found["steps"][0]["passed"]
    rows = sorted(last(found).items(), key=lambda item: -item[1][1])
    made = []
    for part in panels(rows):
        figure, axes = new_rows(f"Most text: {label(rows[0][0])}", [name for name, _ in part], 65, len(panels(rows)[0]))
        before = [read.get(name, [0, 0])[1] or np.nan for name, _ in part]
        after = [size for _, (_, size) in part]
        for y, pair in enumerate(zip(before, after, strict=True)):
            axes.plot(pair, [y, y], color=GREY, linewidth=1.2, zorder=1)
        axes.scatter(before, range(len(part)), s=14, color=ORANGE, label="read", zorder=2)
        axes.scatter(after, range(len(part)), s=14, color=BLUE, label="in the corpus", zorder=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{short(value)}B")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("UTF-8 bytes of text, log scale")
        figure.legend(loc="outside lower center", ncol=2)
        made.append(figure)
    return made


def languages_table(found: Mapping[str, Any]) -> Table:
    """Per language the documents after each step, the text that is left, and CC-100's."""
    steps = found["steps"]
    names = sorted(steps[0]["passed"], key=lambda name: -last(found).get(name, [0, 0])[1])
    rows = []
    for name in names:
        after = [step["passed"].get(name, [0, 0]) for step in steps]
        left = after[-1][1] / max(after[0][1], 1)
        published = CC100.get(name.split("_")[0])
        rows.append(
            [
                language_cell(name),
                *(Cell(f"{documents:,}", documents) for documents, _ in after),
                Cell(f"{short(after[-1][1])}B", after[-1][1]),
                Cell(f"{100 * left:.1f} %", left, left),
                Cell(f"{published:,.1f}" if published else "", published),
            ]
        )
    heads = ["language", *(f"documents\n{step['name']}" for step in steps), "text", "text left", "CC-100\nGiB"]
    middle = [1] * (len(steps) - 2)
    return Table(heads, rows, widths=[0, 1, *middle, 0, 0, 0, 2])


def buckets_table(found: Mapping[str, Any]) -> Table | None:
    """Per language with clean text where its buckets end, and the documents of each in the corpus; None: there is no such language."""
    noted = found["steps"][-1]["noted"]
    rows = []
    for name, rules in found["rules"]["languages"].items():
        if cuts := rules["perplexity"]:
            counts = [noted.get(in_bucket(name, bucket), 0) for bucket in BUCKETS]
            cells = [Cell(f"{cut:,.1f}", cut) for cut in cuts] + [Cell(f"{number:,}", number) for number in counts]
            rows.append([language_cell(name), *cells])
    heads = ["language", "head below", "tail from", *(f"documents\n{bucket}" for bucket in BUCKETS)]
    return Table(heads, rows, widths=[0, 1, 1, 0, 0, 0]) if rows else None


def untold(found: Mapping[str, Any]) -> list[str]:
    """Languages of the corpus that have no buckets, for want of clean text."""
    return [label(name) for name in sorted(last(found)) if not found["rules"]["languages"][name]["perplexity"]]


def threshold_plots(found: Mapping[str, Any]) -> Sequence[Plot]:
    """The histograms that thresholds were derived from, of the largest languages."""
    made: dict[str, Any] = found["rules"].get("histograms", {})
    plots = []
    worked = [
        "confidence",
        SCORE,
        *(reason for reason, _ in reasons_of(found["steps"]).most_common() if reason in made),
    ]
    for number, (measure, by_language) in enumerate((name, made[name]) for name in worked[:DRAWN] if name in made):
        figure, axes = new_axes(measure, unit="share of documents")
        for colour, (language, drawn) in zip(SERIES, by_language.items(), strict=False):
            edges, counts = np.asarray(drawn["edges"]), np.asarray(drawn["counts"], float)
            axes.stairs(counts / max(counts.sum(), 1), edges, color=colour, label=label(language))
            for threshold in drawn["thresholds"]:
                axes.axvline(threshold, color=colour, linewidth=0.9, linestyle=":")
        axes.legend()
        caption = (
            "Dotted: where a language's head ends and its tail begins."
            if measure == SCORE
            else "Dotted: the threshold derived for the language."
        )
        plots.append(plot_of([figure], caption, f"threshold{number}"))
    return plots


def table(workdir: epath.PathLike) -> str:
    """The languages of a curated corpus as text: documents after each step, the text that is left.

    Raises:
      UserError: it has no corpus yet.
    """
    with fitting(f"{workdir}: curate.json"):
        found = read_json(epath.Path(workdir) / "curate.json", dict[str, Any])
        made = languages_table(found)
        heads = [head.replace("\n", " ") for head in made.heads[:-1]]
        rows = [[row[0].note or row[0].shown, *(cell.shown for cell in row[1:-1])] for row in made.rows]
        return f"{format_table(heads, rows)}\n{finding(found)}"
