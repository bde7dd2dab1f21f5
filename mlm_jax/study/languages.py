# SPDX-License-Identifier: Apache-2.0
"""What languages do to each other: a law of parameters, tokens and languages, and the matrix of who helps whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq

from mlm_jax.language_names import label
from mlm_jax.neutrality.families import family
from mlm_jax.report.rendering import Cell, Table
from mlm_jax.report.texts import isolated
from mlm_jax.study.findings import SURE, Finding
from mlm_jax.study.laws import best_fit
from mlm_jax.study.table import Results, mean_of

STARTS = 10  # of the fit, from the same random numbers every time
SAMPLES = 50  # of the bootstrap
INTERVAL = (5, 95)  # percentiles
MOST = 1e4  # times as many parameters or tokens, beyond which nothing is said


@dataclass(frozen=True)
class Point:
    """A loss, of an encoder of so many parameters (without embeddings) that saw so many tokens of each of so many languages."""

    parameters: float
    tokens: float
    languages: float
    loss: float


@dataclass(frozen=True)
class SharedLaw:
    """loss = floor + a × languages^phi / parameters^alpha + b × languages^psi / tokens^beta, tokens being each language's own.

    Chinchilla's form (Hoffmann et al. 2022, equation 2) with a price of languages on either term, as ATLAS (2026) has it: phi above 0 is a lack of
    capacity, psi below 0 what languages learn from each other.
    """

    floor: float
    a: float
    alpha: float
    phi: float
    b: float
    beta: float
    psi: float

    def __call__(self, parameters: float, tokens: float, languages: float) -> float:
        capacity = self.a * languages**self.phi / parameters**self.alpha
        return self.floor + capacity + self.b * languages**self.psi / tokens**self.beta

    def __str__(self) -> str:
        return (
            f"{self.floor:.2f} + {self.a:.3g} L^{self.phi:.2f} / N^{self.alpha:.2f} + {self.b:.3g} L^{self.psi:.2f} / D^{self.beta:.2f} "
            "(L languages, N parameters without embeddings, D tokens of each language)"
        )


def fit_shared_law(points: Sequence[Point], near: SharedLaw | None = None) -> SharedLaw:
    """The law of least squared error of the loss's logarithm, by Huber's loss, over several starts; or from a law that it is near."""
    n, d, k, wanted = (np.asarray([getattr(p, name) for p in points], np.float64) for name in ("parameters", "tokens", "languages", "loss"))  # fmt: skip
    # In units of the geometric means, so that all numbers that are fitted are near 1.
    n0, d0, k0 = (float(np.exp(np.log(x).mean())) for x in (n, d, k))

    def residuals(x: np.ndarray) -> np.ndarray:
        floor, a, b = np.exp(x[:3])
        alpha, phi, beta, psi = x[3:]
        made = floor + a * (k / k0) ** phi * (n / n0) ** -alpha + b * (k / k0) ** psi * (d / d0) ** -beta
        return np.asarray(np.log(made) - np.log(wanted))

    draw = np.random.default_rng(0)
    low, high = [-10, -10, -10, 0.01, -1, 0.01, -1], [3, 3, 3, 2, 2, 2, 2]
    starts = [
        [*np.log(wanted.min() * draw.uniform(0.05, 0.9, 3)), *draw.uniform(0.1, 0.9, 4)]
        for _ in range(STARTS if near is None else 0)
    ]
    if near is not None:
        a, b = near.a * k0**near.phi / n0**near.alpha, near.b * k0**near.psi / d0**near.beta
        there = [*np.log([near.floor, a, b]), near.alpha, near.phi, near.beta, near.psi]
        starts.append(np.clip(there, np.add(low, 1e-6), np.subtract(high, 1e-6)).tolist())
    best = best_fit(residuals, starts, (low, high), 300 if near is None else 50)
    floor, a, b = (float(v) for v in np.exp(best[:3]))
    alpha, phi, beta, psi = (float(v) for v in best[3:])
    return SharedLaw(floor, a * n0**alpha / k0**phi, alpha, phi, b * d0**beta / k0**psi, beta, psi)


def times_more(law: SharedLaw, at: Point, languages: float, what: str) -> float:
    """By what `parameters` or `tokens` of each language have to be multiplied for as many languages to have the loss that the law gives `at`; inf beyond `MOST`."""
    goal = law(at.parameters, at.tokens, at.languages)

    def above(factor: float) -> float:
        parameters = at.parameters * (np.exp(factor) if what == "parameters" else 1.0)
        tokens = at.tokens * (np.exp(factor) if what == "tokens" else 1.0)
        return law(parameters, tokens, languages) - goal

    most = float(np.log(MOST))
    if above(-most) < 0:
        return 1 / MOST
    return float(np.exp(brentq(above, -most, most))) if above(most) < 0 else float("inf")


def laws_of_samples(points: Sequence[Point], law: SharedLaw) -> list[SharedLaw]:
    """The laws of points that are drawn anew with replacement, `SAMPLES` times, near that of all."""
    draw = np.random.default_rng(0)
    return [
        fit_shared_law([points[i] for i in draw.integers(0, len(points), len(points))], law) for _ in range(SAMPLES)
    ]


def priced(points: Sequence[Point], more: int) -> Finding:
    """What so many languages more would need, at the largest of the runs, with an interval.

    Args:
      points: of every run, each seed's own.
    """
    claim = "More languages need more parameters or more tokens (Chang et al. 2024; ATLAS 2026)"
    if len(points) < 12:
        return Finding(claim, f"{len(points)} of at least 12 points are measured", None)
    law = fit_shared_law(points)
    at = max(points, key=lambda p: (p.languages, p.parameters, p.tokens))
    others = laws_of_samples(points, law)
    said, sure = [], False
    for what in ("parameters", "tokens"):
        factor, *factors = (times_more(x, at, at.languages + more, what) for x in (law, *others))
        low, high = np.percentile(factors, INTERVAL, method="nearest")
        said.append(
            f"{_times(factor)} the {what}{' of each language' if what == 'tokens' else ''} ({_times(low)} to {_times(high)})"
        )
        sure = sure or bool(low > 1)
    told = f"{more} languages more than {at.languages:g} would need {' or '.join(said)} for the same loss, by {len(points)} runs (90 % of laws of runs drawn anew): {law}"
    return Finding(claim, told, sure)


def _times(factor: float) -> str:
    return f"over {MOST:,.0f} ×" if factor >= MOST else f"{factor:.2f} ×"


def makes_up(
    results: Results, metric: str, group: str, width: str, languages: str, few: str, many: str, **labels: str
) -> Finding:
    """The width at which many languages have the loss that few have at the smallest width, between the widths that were trained.

    Args:
      width, languages: the factors.
      few, many: labels of numbers of languages.
      labels: of the other factors.
    """
    claim = "Width makes up for languages (XLM-R, figure 4)"
    widths = results.labels(width)
    losses = {
        w: [results.mean(metric, group, **labels, **{width: w, languages: n}) for n in (few, many)] for w in widths
    }
    there = {w: (a.value, b.value) for w, (a, b) in losses.items() if a is not None and b is not None}
    if len(there) < 2:
        return Finding(claim, f"{len(there)} of at least 2 widths are measured", None)
    first = next(iter(there))
    goal = there[first][0]
    x, y = np.log([float(w) for w in there]), [b for _, b in there.values()]
    told = f"{metric.replace('_', ' ')} of {group} is {goal:.3f} with {few} languages at width {first}"
    if min(y) > goal:
        return Finding(
            claim, f"{told}; with {many} it is {min(y):.3f} at best, at width {list(there)[int(np.argmin(y))]}", False
        )
    if y[0] <= goal:
        return Finding(
            claim, f"{told}, and with {many} {y[0]:.3f} at the same width: there is nothing to make up for", False
        )
    order = np.argsort(y)
    needed = float(np.exp(np.interp(goal, np.asarray(y)[order], np.asarray(x)[order])))
    return Finding(claim, f"{told}; with {many} it takes width {needed:.0f}", True)


# (language, its partner) → seed → how much lower its loss is with the partner than alone
Matrix = dict[tuple[str, str], dict[int, float]]


def gains(results: Results, metric: str, factor: str) -> Matrix:
    """What each language gains from each other, of runs whose label of a factor is "xx" or "xx+yy"."""
    found: Matrix = {}
    for both in results.labels(factor):
        first, plus, second = both.partition("+")
        for language, other in ((first, second), (second, first)) if plus else ():
            alone, together = (results.by_seed(metric, language, **{factor: x}) for x in (language, both))
            there = {seed: alone[seed] - together[seed] for seed in alone if seed in together}
            if there:
                found[language, other] = there
    return found


def families_help(matrix: Matrix, metric: str) -> Finding:
    """Whether languages of one genus give each other more than others do."""
    claim = "Related languages give each other more (Chang et al. 2024; XLM, table 4)"
    seeds = sorted({seed for of in matrix.values() for seed in of})
    apart = []
    for seed in seeds:
        kin = {True: [], False: []}  # type: dict[bool, list[float]]
        for (language, other), of in matrix.items():
            if seed in of and family(language) and family(other):
                kin[family(language) == family(other)].append(of[seed])
        if kin[True] and kin[False]:
            apart.append(float(np.mean(kin[True]) - np.mean(kin[False])))
    found = mean_of(apart)
    if found is None:
        return Finding(claim, "not measured yet", None)
    said = f"{metric.replace('_', ' ')} falls by {found.value:+.3f} more with one of the family than with another ± {found.error:.3f} ({found.seeds} seeds)"
    return Finding(claim, said, found.value > SURE * found.error if found.seeds > 1 else None)


def heat_map(matrix: Matrix, title: str, unit: str) -> tuple[Figure, Table]:
    """Languages by partners, in the order of their families: how much lower a language's loss is with the partner than alone."""
    names = sorted({x for pair in matrix for x in pair}, key=lambda x: (family(x) or "~", x))
    values = np.full((len(names), len(names)), np.nan)
    for (language, other), of in matrix.items():
        values[names.index(language), names.index(other)] = np.mean(list(of.values()))
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    most = float(np.nanmax(np.abs(values)))
    axes.imshow(values, cmap="PuOr", vmin=-most, vmax=most)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        dark = abs(values[i, j]) > 0.6 * most
        axes.text(
            j, i, f"{values[i, j]:+.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )
    shown = [isolated(label(name)) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), shown, fontsize=8)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(f"with; {unit}")
    heads = ["language", *(f"with {name}" for name in names)]
    rows = [
        [Cell(name, name), *(Cell("" if np.isnan(v) else f"{v:+.3f}", None if np.isnan(v) else float(v)) for v in line)]
        for name, line in zip(names, values, strict=True)
    ]
    return figure, Table(heads, rows)
