# SPDX-License-Identifier: Apache-2.0
"""Of all rows of results the few to look at first: each probe at its best layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlm_jax import console
from mlm_jax.neutrality.config import TRANSFORMATIONS

Rows = list[dict[str, Any]]


def best_of(rows: Rows, name: str, probe: str, metric: str, kind: str) -> dict[str, Any]:
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


# Of each probe: the metric of the headline, and how it is called.
HEADLINES = {
    "identification": ("accuracy", "language identification"),
    "retrieval": ("accuracy", "sentence retrieval"),
    "similarity": ("v_measure", "families, V-measure"),
    "alignment": ("f1", "word alignment, F1"),
    "quality": ("pearson", "translation quality, Pearson"),
    "cka": ("cka", "CKA with the pivot"),
}


def headlines(rows: Rows) -> list[dict[str, Any]]:
    """Of each set and probe: plain, centred, normalised and projected at the layer and pooling that is best plain.

    Returns:
      probe (in words), set, layer, pooling, and a value a transformation, where there is one.
    """
    out = []
    for name, probe in dict.fromkeys((r["set"], r["probe"]) for r in rows if "step" not in r):
        if probe.split(",")[0] not in HEADLINES:
            continue
        metric, title = HEADLINES[probe.split(",")[0]]
        best = best_of(rows, name, probe, metric, "plain")
        at = (name, probe, metric, best["layer"], best["pooling"])
        found: dict[str, Any] = {"probe": title + probe[len(probe.split(",")[0]) :], "set": name, **best}
        for kind in TRANSFORMATIONS:
            values = [
                r["value"]
                for r in rows
                if (r["set"], r["probe"], r["metric"], r["layer"], r["pooling"]) == at
                and r["transformation"] == kind
                and "step" not in r
            ]
            if values:
                found[kind] = float(np.mean(values))
        out.append(found)
    return out


def table(rows: Rows) -> str:
    """The headline table as text."""
    cells = [
        [
            h["set"],
            h["probe"],
            str(h["layer"]),
            h["pooling"],
            *(f"{100 * h[k]:.1f}" if k in h else "" for k in TRANSFORMATIONS),
        ]
        for h in headlines(rows)
    ]
    return console.table(["set", "probe", "layer", "pooling", *TRANSFORMATIONS], cells)
