# SPDX-License-Identifier: Apache-2.0
"""Laws of scaling, fitted to a study's runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from mlm_jax.study.config import ALL
from mlm_jax.study.findings import Finding
from mlm_jax.study.table import Results

TOLERANCE = 0.02  # of a predicted loss
STARTS = 20  # of the fit, from the same random numbers every time


@dataclass(frozen=True)
class Law:
    """loss = floor + a / parameters ** alpha + b / tokens ** beta (Hoffmann et al. 2022, equation 2)."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, parameters: float, tokens: float) -> float:
        return self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def __str__(self) -> str:
        return f"{self.floor:.2f} + {self.a:.3g} / N^{self.alpha:.2f} + {self.b:.3g} / D^{self.beta:.2f}"


def fit_law(parameters: Sequence[float], tokens: Sequence[float], losses: Sequence[float]) -> Law:
    """The law of least squared error of the loss's logarithm (Huber's, as the paper has it, section 3.3), over several starts."""
    n, d, wanted = (np.asarray(x, np.float64) for x in (parameters, tokens, losses))
    # In units of the geometric means, so that all numbers that are fitted are near 1.
    n0, d0 = np.exp(np.log(n).mean()), np.exp(np.log(d).mean())

    def residuals(x: np.ndarray) -> np.ndarray:
        floor, a, b = np.exp(x[:3])
        return np.log(floor + a * (n / n0) ** -x[3] + b * (d / d0) ** -x[4]) - np.log(wanted)

    draw = np.random.default_rng(0)
    starts = [[*np.log(wanted.min() * draw.uniform(0.05, 0.9, 3)), *draw.uniform(0.1, 1.0, 2)] for _ in range(STARTS)]
    best = best_fit(residuals, starts, ([-10, -10, -10, 0.01, 0.01], [3, 3, 3, 2, 2]))
    floor, a, b = np.exp(best[:3])
    alpha, beta = best[3:]
    return Law(float(floor), float(a * n0**alpha), float(alpha), float(b * d0**beta), float(beta))


def best_fit(
    residuals: Callable[[np.ndarray], np.ndarray],
    starts: Iterable[Sequence[float]],
    bounds: tuple[Sequence[float], Sequence[float]],
    evaluations: int | None = None,
) -> np.ndarray:
    """The numbers of least cost (Huber's) that are found from any of the starts.

    Args:
      residuals: of numbers, float64 [numbers] → float64 [points].
      bounds: the least and the greatest of each.
      evaluations: of residuals, at most, from a start; None: as many as SciPy allows.

    Returns:
      float64 [numbers].
    """
    found = (
        least_squares(residuals, start, bounds=bounds, loss="huber", f_scale=1e-3, max_nfev=evaluations)
        for start in starts
    )
    return np.asarray(min(found, key=lambda fit: float(fit.cost)).x)


def predicted(
    results: Results,
    width: str,
    updates: str,
    at_width: str,
    at_updates: str,
    layers: int,
    tokens: int,
    metric: str = "loss",
) -> Finding:
    """How near the law of the other runs comes to one that it was not fitted to, of all languages together and, by a law of its own, of each.

    Args:
      width, updates: the factors.
      at_width, at_updates: labels of the run that is predicted.
      layers: of the encoder, whose parameters without embeddings are 12 × layers × width².
      tokens: of an update.
    """
    claim = "A law of smaller runs predicts the next size (Hoffmann et al. 2022)"

    def size(label: str) -> float:
        return 12.0 * layers * float(label) ** 2

    def law_of(group: str) -> tuple[Law, float, float | None] | int:
        """The law, what it says of the run, and what was measured; or the number of points, where they are too few."""
        points = [
            (size(w), tokens * float(u), mean.value)
            for w in results.labels(width)
            for u in results.labels(updates)
            if (w, u) != (at_width, at_updates)
            and (mean := results.mean(metric, group, **{width: w, updates: u})) is not None
        ]
        if len(points) < 6:
            return len(points)
        law = fit_law(*zip(*points, strict=True))
        measured = results.mean(metric, group, **{width: at_width, updates: at_updates})
        return law, law(size(at_width), tokens * float(at_updates)), measured.value if measured else None

    found = law_of(ALL)
    if isinstance(found, int):
        return Finding(claim, f"{found} of at least 6 points are measured", None)
    law, guess, measured = found
    told = f"{metric} = {law} (N: parameters without embeddings, D: tokens) says {guess:.3f} for {width} {at_width} after {at_updates} updates"
    if measured is None:
        return Finding(claim, f"{told}, which is not measured yet", None)
    away = [
        f"{language} {100 * abs(of[2] - of[1]) / of[2]:.1f} %"
        for language in results.groups.get(ALL, ())
        if not isinstance(of := law_of(language), int) and of[2] is not None
    ]
    off = abs(measured - guess) / measured
    each = f"; by a law of each language {', '.join(away)}" if away else ""
    return Finding(claim, f"{told}; measured {measured:.3f}, {100 * off:.1f} % away{each}", off <= TOLERANCE)
