# SPDX-License-Identifier: Apache-2.0
"""What came out of a study against what a paper found: sentences made of the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlm_jax.study.config import ALL
from mlm_jax.study.table import Mean, Results, mean_of

SURE = 2.0  # standard errors beyond which a difference counts


@dataclass(frozen=True)
class Finding:
    """A sentence about a number.

    Attributes:
      claim: what the paper found, as a sentence without its end.
      said: what came out here, with its number and error.
      holds: whether the sign is the paper's and beyond two standard errors, or of a claim that something costs nothing, not against it beyond them;
        None: not enough runs to say.
    """

    claim: str
    said: str
    holds: bool | None

    @property
    def sentence(self) -> str:
        """Both, and whether they agree."""
        verdict = {True: "it holds here", False: "it does not hold here", None: "too few runs to say"}[self.holds]
        return f"{self.claim}: {verdict}: {self.said}"


def difference(
    results: Results, metric: str, of: Mapping[str, str], than: Mapping[str, str], group: str = ALL
) -> Mean | None:
    """How much higher a metric is with some labels than with others: the mean over the seeds that both have, and its standard error.

    Runs of one seed see the same order of data, so that they are compared in pairs.
    """
    first, second = results.by_seed(metric, group, **of), results.by_seed(metric, group, **than)
    return mean_of([first[seed] - second[seed] for seed in first if seed in second])


def lower(
    results: Results,
    claim: str,
    metric: str,
    of: Mapping[str, str],
    than: Mapping[str, str],
    group: str = ALL,
    higher: bool = False,
    alike: bool = False,
) -> Finding:
    """The finding that a metric is lower (or higher) with some labels than with others; or where alike will do, that it is not
    higher (or lower) beyond two standard errors."""
    found = difference(results, metric, of, than, group)
    # What both have is said once.
    shared = {name: label for name, label in of.items() if than.get(name) == label}
    names = " against ".join(_labels({x: y for x, y in labels.items() if x not in shared}) for labels in (of, than))
    what = f"{metric.replace('_', ' ')}{f' of {group}' if group != ALL else ''}"
    where = f" ({_labels(shared)})" if shared else ""
    if found is None:
        return Finding(
            claim, f"{what}, {names}{where}: not measured yet{_unknown(results, of) or _unknown(results, than)}", None
        )
    said = f"{what}, {names}{where}: {found.value:+.3f}{_spread(found)}"
    if math.isnan(found.error):
        return Finding(claim, said, None)
    signed = found.value if higher else -found.value
    if alike:
        return Finding(claim, said, signed >= 0 or -signed <= SURE * found.error)
    return Finding(claim, said, signed > SURE * found.error and signed > 0)


def highest(
    results: Results, claim: str, metric: str, factor: str, choices: Sequence[str], where: Mapping[str, str]
) -> Finding:
    """Which label of a factor has the highest mean of a metric, and whether it is above the next beyond two standard errors."""
    means = {x: mean.value for x in choices if (mean := results.mean(metric, **where, **{factor: x})) is not None}
    if len(means) < 2:
        return Finding(claim, f"{metric}: not measured yet", None)
    first, second = sorted(means, key=lambda x: -means[x])[:2]
    apart = difference(results, metric, {**where, factor: first}, {**where, factor: second})
    said = f"{first} ({means[first]:.3f}), then {second} ({means[second]:.3f})"
    if apart is None or math.isnan(apart.error):
        return Finding(claim, said, None)
    return Finding(claim, f"{said}, {apart.value:+.3f} ± {apart.error:.3f} apart", apart.value > SURE * apart.error)


def _unknown(results: Results, labels: Mapping[str, str]) -> str:
    """Which of the labels no row has, and which it has in its place."""
    for name, label in labels.items():
        known = results.labels(name)
        if results.rows and label not in known:
            return f"; of {name} there is {', '.join(known) or 'nothing'}"
    return ""


def _spread(found: Mean) -> str:
    """The error of a mean over seeds, and their number."""
    if found.error < 1e-9:  # of a vocabulary, say, which runs that differ in their seed share
        return f", the same with all {found.seeds} seeds"
    seeds = f" ({found.seeds} seed{'s' * (found.seeds > 1)})"
    return seeds if math.isnan(found.error) else f" ± {found.error:.3f}{seeds}"


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {label}" for name, label in labels.items())
