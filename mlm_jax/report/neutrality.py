# SPDX-License-Identifier: Apache-2.0
"""The page of an analysis: headline, layer curves, heat maps, tree, map, and worked word alignments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from mlm_jax.files import write_whole
from mlm_jax.language_names import label
from mlm_jax.neutrality.config import MORE, TRANSFORMATIONS
from mlm_jax.neutrality.headlines import SHOWN, fairness_of, headlines, read_cautions, transformations_of
from mlm_jax.report.plots import WIDTH, new_axes, widen
from mlm_jax.report.provenance import provenance
from mlm_jax.report.rendering import Cell, Table, language_cell, plot_of, render
from mlm_jax.report.svg import AMBER, BLUE, GREEN, GREY, ORANGE, PINK, SERIES, SKY, styled
from mlm_jax.report.texts import isolated
from mlm_jax.results import ANEW, ProbeRow, read_results, standard_error
from mlm_jax.stored import fitting, read_json

ORDER: tuple[str, ...] = (*TRANSFORMATIONS, *MORE)
COLOURS = dict(zip(ORDER, (GREY, BLUE, GREEN, ORANGE, PINK, SKY, AMBER), strict=True))
MARKERS = ("o", "^", "s")
WITH_NUMBERS = 12  # languages up to which a heat map has numbers
LINES = {"mean": "-", "first": ":", "words": "-"}


@styled
def write_analysis_page(workdir: epath.PathLike) -> epath.Path:
    """Write neutrality.html into a workdir of `analyze`.

    Raises:
      UserError: it has no results yet.
    """
    with fitting(f"{workdir}: results.json, figures.json, config.json"):
        return _write_analysis_page(epath.Path(workdir))


def _write_analysis_page(folder: epath.Path) -> epath.Path:
    rows: list[ProbeRow] = isolated(read_results(folder))
    drawn = isolated(read_json(folder / "figures.json", dict[str, dict[str, Any]], ANEW))
    config = isolated(read_json(folder / "config.json", dict[str, Any])) if (folder / "config.json").exists() else {}
    groups = {
        "Layer by layer": curves(rows),
        "Between languages": matrices(drawn),
        "Where languages lie": maps(drawn),
        "Through pretraining": by_step(rows),
    }
    sections = {
        heading: [plot_of([figure], caption, f"{heading.split()[0]}{i}") for i, (caption, figure) in enumerate(figures)]
        for heading, figures in groups.items()
    }
    page = render(
        "neutrality.html",
        title=f"{isolated(folder.name)}: what its layers know of language",
        lead=finding(rows, {part["name"]: part["test"] * len(part["files"]) for part in config.get("aligned", ())}),
        cautions=read_cautions(folder),
        table=headline_table(rows),
        tokens=tokens_table(rows),
        sections={heading: plots for heading, plots in sections.items() if plots},
        provenance=provenance(folder, config),
        alignments=[worked_alignment(name, d) for name, d in drawn.items() if "worked" in d],
    )
    write_whole(folder / "neutrality.html", page)
    return folder / "neutrality.html"


def finding(rows: Sequence[ProbeRow], tested: Mapping[str, int]) -> str:
    """What centring does to identification and retrieval, in a sentence; a difference below two standard errors is none.

    Args:
      tested: set → sentences, of all its languages; of sets that it lacks any difference counts.
    """
    said = []
    for probe in ("identification", "retrieval"):
        mine = [h for h in headlines(rows) if h.probe == SHOWN[probe].headline and "centred" in h.values]
        if mine:
            plain, centred = (100 * float(np.mean([h.values[kind] for h in mine])) for kind in ("plain", "centred"))
            verb = "raises" if centred >= plain else "lowers"
            sets = f" (mean of {len(mine)} sets)" if len(mine) > 1 else ""
            errors = [
                standard_error(h.values[kind], tested[h.set])
                for h in mine
                for kind in ("plain", "centred")
                if tested.get(h.set)
            ]
            noise = 200 * math.hypot(*errors) / len(mine)
            if abs(centred - plain) < noise or f"{plain:.1f}" == f"{centred:.1f}":
                within = f", within ± {noise:.1f}" if errors else ""
                said.append(
                    f"leaves {SHOWN[probe].headline} where it was ({plain:.1f} and {centred:.1f} %{within}){sets}"
                )
            else:
                said.append(f"{verb} {SHOWN[probe].headline} from {plain:.1f} to {centred:.1f} %{sets}")
    return f"Taking away each language's mean {' and '.join(said)}." if said else ""


def headline_table(rows: Sequence[ProbeRow]) -> Table:
    """Probes × transformations."""
    kinds = transformations_of(rows)
    cells = []
    for h in headlines(rows):
        name = f"{h.probe}, {h.set}".replace("_", " ")
        values = [h.values.get(x) for x in kinds]
        shown = [Cell("" if value is None else f"{100 * value:.1f}", value) for value in values]
        cells.append([Cell(name, name), *shown, Cell(f"{h.layer}, {h.pooling}", h.layer)])
    return Table(["probe", *kinds, "layer"], cells, widths=(0, 0, 0, *[1] * (len(kinds) - 1)))


def tokens_table(rows: Sequence[ProbeRow]) -> Table | None:
    """Tokens per sentence, languages × sets, and their Gini coefficients; None of results without."""
    found = fairness_of(rows)
    languages = dict.fromkeys(x for tokens, _ in found.values() for x in tokens)

    def cell(value: float | None) -> Cell:
        return Cell("" if value is None else f"{value:.1f}", value)

    if not found:
        return None
    return Table(
        heads=["language", *(name.replace("_", " ") for name in found)],
        rows=[[language_cell(x), *(cell(tokens.get(x)) for tokens, _ in found.values())] for x in languages],
        foot=[[Cell("Gini"), *(Cell(f"{value:.3f}", value) for _, value in found.values())]],
    )


def mean_value(rows: Sequence[ProbeRow]) -> float:
    """The mean value of rows, times 100."""
    return 100 * float(np.mean([r["value"] for r in rows]))


def curves(rows: Sequence[ProbeRow]) -> Iterator[tuple[str, Figure]]:
    """A plot per set and probe: its metric by layer, a line per transformation and pooling."""
    plain = [r for r in rows if "step" not in r]
    for name, probe in dict.fromkeys((r["set"], r["probe"]) for r in plain):
        family, comma, more = probe.partition(",")
        shown = SHOWN[family]
        lines: dict[
            tuple[str, str, str], dict[int, list[ProbeRow]]
        ] = {}  # by (metric, transformation, pooling), then layer
        for r in plain:
            if (r["set"], r["probe"]) == (name, probe) and r["metric"] in shown.metrics:
                line = lines.setdefault((r["metric"], r["transformation"], r["pooling"]), {})
                line.setdefault(r["layer"], []).append(r)
        if len({layer for line in lines.values() for layer in line}) < 2:
            continue
        title = shown.title + comma + more.replace("_", " ")
        figure, axes = new_axes(f"{title}, {name}", 280, shown.unit)
        one = len(shown.metrics) == 1
        for (metric, kind, pooling), line in lines.items():
            colour = COLOURS[kind] if one else BLUE if metric == shown.metrics[0] else GREY
            label = f"{kind}, {pooling}" if one else metric
            values = [mean_value(line[layer]) for layer in sorted(line)]
            axes.plot(sorted(line), values, LINES[pooling], color=colour, label=label, linewidth=1.6)
        axes.set_xlabel("layer")
        axes.locator_params(axis="x", integer=True)
        widen(axes, 5, high=100)
        figure.legend(ncol=2, loc="outside lower center")
        dotted = "; dotted: first token instead of the mean" if any(key[2] == "first" for key in lines) else ""
        yield f"{title} on {name}, by layer{dotted}.", figure


def by_step(rows: Sequence[ProbeRow]) -> Iterator[tuple[str, Figure]]:
    """Identification and retrieval through pretraining: at each step the best layer, plain and centred."""
    stepped = [r for r in rows if "step" in r and r["metric"] == "accuracy"]
    for name, probe in dict.fromkeys((r["set"], r["probe"]) for r in stepped):
        figure, axes = new_axes(
            f"{SHOWN[probe].title} through pretraining, {name}", unit="accuracy of the best layer, %"
        )
        for kind in ("plain", "centred"):
            layers: dict[int, dict[int, list[ProbeRow]]] = {}  # by step, then layer
            for r in stepped:
                if (r["set"], r["probe"], r["pooling"], r["transformation"]) == (name, probe, "mean", kind):
                    layers.setdefault(r["step"], {}).setdefault(r["layer"], []).append(r)
            steps = sorted(layers)
            values = [max(map(mean_value, layers[step].values())) for step in steps]
            axes.plot(steps, values, color=COLOURS[kind], marker="o", markersize=3, label=kind)
        axes.set_xlabel("step")
        axes.locator_params(axis="x", integer=True, nbins=5)
        widen(axes, 5, 0, 100)
        figure.legend(ncol=2, loc="outside lower center")
        yield f"{SHOWN[probe].title} on {name} at each kept checkpoint, mean of the tokens, best layer.", figure


def aligned_sets(drawn: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(name, what is drawn of it, at which layer) of each aligned set that has enough languages."""
    for name, d in drawn.items():
        if "worked" not in d and len(d["languages"]) > 2:
            yield name, d, f"layer {d['layer']}, {d['pooling']}"


def matrices(drawn: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Heat maps of each aligned set, at its best layer."""
    for name, d, where in aligned_sets(drawn):
        languages = d["languages"]
        order = np.arange(len(languages))
        if "tree" in d and len(d["leaves"]) == len(languages):
            order = hierarchy.leaves_list(np.asarray(d["tree"]))
        for kind in ("plain", "centred"):
            values = 100 * np.asarray(d[f"retrieval_{kind}"], float)
            np.fill_diagonal(values, np.nan)  # a sentence finds itself
            yield (
                f"Retrieval between all pairs of {name}, {kind}, {where}: row looks for column.",
                heat_map(values, languages, order, f"Retrieval, {kind}, {name}"),
            )
        for kind in ("plain", "centred"):
            confusion = np.asarray(d[f"confusion_{kind}"], float)
            share = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
            yield (
                f"Languages told apart in {name}, {kind}, {where}: row is, column was found.",
                heat_map(share, languages, order, f"Identification, {kind}, {name}"),
            )


def maps(drawn: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """Tree and planes of each aligned set, at its best layer."""
    for name, d, where in aligned_sets(drawn):
        for kind in ("plain", "centred"):
            yield (
                f"Sentences of {name} on two principal components, {kind}, {where}.",
                plane(d[f"plane_{kind}"], f"Sentences, {kind}, {name}"),
            )
        if "tree" in d and np.asarray(d["tree"])[:, 2].max() > 0:
            yield (
                f"Languages of {name} clustered by their mean vectors, {where}; in brackets the genus (WALS).",
                tree(d, name),
            )


def heat_map(values: np.ndarray, languages: Sequence[str], order: np.ndarray, title: str) -> Figure:
    """Percentages, float [languages, languages], with rows and columns in an order, int [languages]; numbers where there are few."""
    few = len(languages) <= WITH_NUMBERS
    names = [languages[i] for i in order]
    cell = min(40, 264 // len(names)) if few else 12
    below, left = (20 + 6 * max(map(len, x)) for x in (names, map(label, names)))
    # What has numbers fits a phone: without a scale, and with names if they fit too.
    beside = [label(name) for name in names] if few and cell * len(names) + left <= WIDTH else names
    height, width = cell * len(names) + below + 10, cell * len(names) + below + 70
    figure, axes = new_axes(title, max(200, height), width=WIDTH if few else max(WIDTH, width))
    axes.grid(visible=False)
    shown = values[np.ix_(order, order)]
    low, high = scale_of(shown)
    image = axes.imshow(shown, cmap="viridis", vmin=low, vmax=high, interpolation="none")
    small = 10 if few else 9
    axes.set_xticks(
        range(len(names)), names, rotation=90, rotation_mode="anchor", ha="right", va="center", fontsize=small
    )
    axes.set_yticks(range(len(names)), beside, fontsize=small)
    axes.tick_params(length=0)
    if few:
        for (row, column), value in np.ndenumerate(shown):
            ink = "#ffffff" if value < (low + high) / 2 else "#000001"  # whatever the page's mode
            axes.text(column, row, "" if np.isnan(value) else f"{value:.0f}", color=ink, ha="center", va="center")
    else:
        figure.colorbar(image, ax=axes, shrink=0.7, label="%")
    return figure


def scale_of(values: np.ndarray) -> tuple[float, float]:
    """Round percentages that values, float [languages, languages], lie between, at least ten apart."""
    low, high = 10 * np.floor(np.nanmin(values) / 10), 10 * np.ceil(np.nanmax(values) / 10)
    return float(min(low, 90)), float(max(high, low + 10))


def tree(d: dict[str, Any], name: str) -> Figure:
    """A dendrogram of languages."""
    labels = [f"{label(x)} ({f})" for x, f in zip(d["leaves"], d["families"], strict=True)]
    width = WIDTH if len(labels) <= WITH_NUMBERS else 900
    figure, axes = new_axes(f"Languages by similarity, {name}", max(200, 15 * len(labels) + 60), width=width)
    axes.grid(visible=False)
    hierarchy.dendrogram(
        np.asarray(d["tree"]), labels=labels, orientation="left", ax=axes, color_threshold=0, above_threshold_color=BLUE,
        leaf_font_size=10,
    )  # fmt: skip
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("cosine distance")
    return figure


def plane(places: dict[str, Any], title: str) -> Figure:
    """Sentences as points, coloured by language; where there are many languages, they are named at their middles too."""
    many = len(places) > len(SERIES) * len(MARKERS)
    lines = -(-len(places) // (8 if many else 2))
    figure, axes = new_axes(title, (500 if many else 260) + 16 * lines, width=900 if many else WIDTH)
    for i, (language, points) in enumerate(places.items()):
        x = np.asarray(points)
        colour, shape = SERIES[i % len(SERIES)], MARKERS[i // len(SERIES) % len(MARKERS)]
        axes.scatter(x[:, 0], x[:, 1], s=12, color=colour, marker=shape, alpha=0.6, linewidths=0, label=label(language))
        if many:
            axes.annotate(language, (x[:, 0].mean(), x[:, 1].mean()), ha="center", fontsize=9, color=colour)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(ncol=8 if many else 2, loc="outside lower center", fontsize=9 if many else 10)
    return figure


def worked_alignment(name: str, drawn: dict[str, Any]) -> dict[str, Any]:
    """Sentence pairs as matrices of their words' cosines, with what was linked and what is right: text, in which any script can be read."""
    pairs = []
    for pair in drawn["worked"]:
        links, sure, possible = ({tuple(x) for x in pair[k]} for k in ("links", "sure", "possible"))
        values = np.asarray(pair["cosines"])
        shares = (values - values.min()) / max(float(np.ptp(values)), 1e-9)

        def mark(
            at: tuple[int, int], links: set[Any] = links, sure: set[Any] = sure, possible: set[Any] = possible
        ) -> str:
            return "●" if at in links & possible else "○" if at in links else "·" if at in sure else ""

        cells = [[Cell(mark((i, j)), share=x) for j, x in enumerate(row)] for i, row in enumerate(shares.tolist())]
        pairs.append({"target": pair["target"], "rows": list(zip(pair["source"], cells, strict=False))})
    return {"set": name, "layer": drawn["layer"], "decoder": drawn["decoder"].replace("_", " "), "pairs": pairs}
