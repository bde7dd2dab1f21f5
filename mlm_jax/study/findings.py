# SPDX-License-Identifier: Apache-2.0
"""What came out of a study against what a paper found: sentences made of the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
      holds: whether the sign is the paper's and beyond two standard errors; None: not enough runs to say.
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
) -> Finding:
    """The finding that a metric is lower (or higher) with some labels than with others."""
    found = difference(results, metric, of, than, group)
    names = f"{_labels(of)} against {_labels(than)}"
    what = f"{metric.replace('_', ' ')}{f' of {group}' if group != ALL else ''}"
    if found is None:
        return Finding(claim, f"{what}, {names}: not measured yet", None)
    error = f" ± {found.error:.3f}" if not math.isnan(found.error) else ""
    said = f"{what}, {names}: {found.value:+.3f}{error} ({found.seeds} seed{'s' * (found.seeds > 1)})"
    if math.isnan(found.error):
        return Finding(claim, said, None)
    signed = found.value if higher else -found.value
    return Finding(claim, said, signed > SURE * found.error and signed > 0)


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {label}" for name, label in labels.items())
