# SPDX-License-Identifier: Apache-2.0
"""Of all rows of results the few to look at first: each probe at its best layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from etils import epath

from mlm_jax import console
from mlm_jax.fairness import evenness
from mlm_jax.neutrality.config import MORE, TRANSFORMATIONS
from mlm_jax.results import ProbeRow
from mlm_jax.stored import read_json

FEW_LANGUAGES = 10  # below which clusters are families by chance


class Best(TypedDict):
    """Where a probe's mean over languages is highest, and the mean."""

    layer: int
    pooling: str
    value: float


@dataclass(frozen=True)
class Headline:
    """A probe of a set at its best layer.

    Attributes:
      probe: in words.
      values: transformation → value, of the transformations that the probe has.
    """

    probe: str
    set: str
    layer: int
    pooling: str
    values: dict[str, float]


def best_of(rows: Sequence[ProbeRow], name: str, probe: str, metric: str, kind: str) -> Best:
    """Layer and pooling of the highest mean over languages, and the mean."""
    groups: dict[tuple[int, str], list[float]] = {}
    for r in rows:
        if (r["set"], r["probe"], r["metric"], r["transformation"]) == (name, probe, metric, kind) and "step" not in r:
            groups.setdefault((r["layer"], r["pooling"]), []).append(r["value"])
    # Of equals the mean, and the highest layer.
    (layer, pooling), values = max(
        groups.items(), key=lambda group: (round(float(np.mean(group[1])), 9), group[0][1] != "first", group[0][0])
    )
    return {"layer": layer, "pooling": pooling, "value": float(np.mean(values))}


@dataclass(frozen=True)
class Shown:
    """How a probe is shown.

    Attributes:
      title: of its plot.
      metrics: that the plot has; the first is the headline's.
      headline: its name in the table of headlines; empty: it is not there.
      unit: of 100 times the metric.
    """

    title: str
    metrics: tuple[str, ...]
    headline: str = ""
    unit: str = "%"


# By the probe's name, as far as the first comma.
SHOWN = {
    "identification": Shown("Language identification", ("accuracy",), "language identification"),
    "retrieval": Shown("Sentence retrieval", ("accuracy",), "sentence retrieval"),
    "transfer": Shown("Classes told in other languages", ("accuracy",), "classes told in other languages"),
    "similarity": Shown("Families, V-measure", ("v_measure",), "families, V-measure"),
    "alignment": Shown("Word alignment, F1", ("f1",), "word alignment, F1"),
    "quality": Shown("Translation quality, Pearson", ("pearson",), "translation quality, Pearson", "× 100"),
    "cka": Shown("CKA with the pivot", ("cka",), "CKA with the pivot", "× 100"),
    "fairness": Shown("Tokens per sentence", ("tokens",), unit="tokens"),
    "aligned words": Shown("Cosine of aligned and of random words", ("aligned", "random"), unit="× 100"),
}


def headlines(rows: Sequence[ProbeRow]) -> list[Headline]:
    """Of each set and probe: plain, centred, normalised and projected at the layer and pooling that is best plain."""
    out = []
    for name, probe in dict.fromkeys((r["set"], r["probe"]) for r in rows if "step" not in r):
        kind, comma, more = probe.partition(",")
        if not SHOWN[kind].headline:
            continue
        metric, title = SHOWN[kind].metrics[0], SHOWN[kind].headline
        best = best_of(rows, name, probe, metric, "plain")
        at = (name, probe, metric, best["layer"], best["pooling"])
        found: dict[str, list[float]] = {}
        for r in rows:
            if (r["set"], r["probe"], r["metric"], r["layer"], r["pooling"]) == at and "step" not in r:
                found.setdefault(r["transformation"], []).append(r["value"])
        order: tuple[str, ...] = (*TRANSFORMATIONS, *MORE)
        values = {x: float(np.mean(found[x])) for x in order if x in found}
        out.append(Headline(title + comma + more, name, best["layer"], best["pooling"], values))
    return out


def fairness_of(rows: Sequence[ProbeRow]) -> dict[str, tuple[dict[str, float], float]]:
    """Set → tokens per sentence of each language, and their Gini coefficient; of sets whose tokens were counted."""
    tokens: dict[str, dict[str, float]] = {}
    over_all: dict[str, float] = {}
    for r in rows:
        if (r["probe"], r["metric"]) == ("fairness", "tokens"):
            tokens.setdefault(r["set"], {})[r["languages"]] = r["value"]
        if (r["probe"], r["metric"]) == ("fairness", "gini"):
            over_all[r["set"]] = r["value"]
    return {name: (each, over_all[name]) for name, each in tokens.items() if name in over_all}


def analysis_cautions(config: Mapping[str, Any], width: int) -> list[str]:
    """What to know of an analysis: maps fitted on fewer sentences than they have dimensions, families of few languages.

    Args:
      config: of the analysis, as its workdir has it.
      width: of the encoder's vectors; 0: not known.
    """
    found = []
    for part in config.get("aligned", ()):
        name, languages = part["name"], len(part["files"])
        if part["fit"] < width:
            found.append(
                f"{name}: projections into {width:,} dimensions are fitted on {part['fit']:,} sentences, which do not determine them: "
                "projected values are too low; raise fit"
            )
        if languages < FEW_LANGUAGES:
            found.append(f"{name}: families are found among {languages} languages, so their V-measure says little")
    return found


def read_cautions(workdir: epath.PathLike) -> list[str]:
    """`analysis_cautions` of a workdir of `analyze`, as far as it has its config."""
    config, initial = (epath.Path(workdir) / name for name in ("config.json", "initial.json"))
    if not config.exists():
        return []
    width = read_json(initial, dict[str, Any]).get("model", {}).get("width", 0) if initial.exists() else 0
    return analysis_cautions(read_json(config, dict[str, Any]), width)


def transformations_of(rows: Sequence[ProbeRow]) -> list[str]:
    """The columns of the headlines: the transformations that every analysis has, and of the others those that this one has."""
    there = {r["transformation"] for r in rows}
    return [*TRANSFORMATIONS, *(x for x in MORE if x in there)]


def table(rows: Sequence[ProbeRow]) -> str:
    """The headline table as text, and of each set how evenly the vocabulary cuts it."""
    kinds = transformations_of(rows)
    cells = [
        [
            h.set,
            h.probe,
            str(h.layer),
            h.pooling,
            *(f"{100 * h.values[x]:.1f}" if x in h.values else "" for x in kinds),
        ]
        for h in headlines(rows)
    ]
    even = [evenness(name, *found) for name, found in fairness_of(rows).items()]
    return "\n".join([console.format_table(["set", "probe", "layer", "pooling", *kinds], cells), *even])
