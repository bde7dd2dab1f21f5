# SPDX-License-Identifier: Apache-2.0
"""Laws with languages, the width that makes up for them, and who helps whom: on numbers whose answer is known."""

import itertools
import math

import numpy as np
import pytest

from mlm_jax.study.languages import (
    Point,
    SharedLaw,
    families_help,
    fit_shared_law,
    gains,
    heat_map,
    makes_up,
    priced,
    times_more,
)
from mlm_jax.study.table import Results, Row

LAW = SharedLaw(1.0, 40.0, 0.4, 0.15, 60.0, 0.35, -0.05)
GRID = list(itertools.product((5e4, 2e5, 8e5), (2e4, 8e4, 3e5), (1, 2, 4, 8, 16)))


def points(law, noise=0.0):
    draw = np.random.default_rng(0)
    return [Point(n, d, k, law(n, d, k) * math.exp(noise * draw.normal())) for n, d, k in GRID]


def test_a_law_is_found_in_losses_that_it_made():
    found = fit_shared_law(points(LAW))
    for n, d, k in [*GRID, (1.6e6, 5e5, 26)]:
        assert found(n, d, k) == pytest.approx(LAW(n, d, k), rel=0.01)
    assert found.phi == pytest.approx(LAW.phi, abs=0.03) and found.psi == pytest.approx(LAW.psi, abs=0.03)


def test_what_more_languages_need_gives_the_loss_of_before():
    at = Point(8e5, 3e5, 16, LAW(8e5, 3e5, 16))
    for what in ("parameters", "tokens"):
        factor = times_more(LAW, at, 26, what)
        parameters, tokens = (
            (at.parameters * factor, at.tokens) if what == "parameters" else (at.parameters, at.tokens * factor)
        )
        assert LAW(parameters, tokens, 26) == pytest.approx(at.loss) and factor > 1
    # Capacity alone: phi over alpha says how much, in closed form.
    alone = SharedLaw(1.0, 40.0, 0.4, 0.15, 0.0, 0.35, 0.0)
    assert times_more(alone, at, 32, "parameters") == pytest.approx(2 ** (0.15 / 0.4))
    assert times_more(alone, at, 32, "tokens") == math.inf  # no number of tokens makes up for it


def test_a_price_of_languages_is_told_from_none_by_its_interval():
    dear = priced(points(LAW, 0.002), 10)
    assert dear.holds and "10 languages more than 16 would need" in dear.said and "by 45 runs" in dear.said
    free = priced(points(SharedLaw(1.0, 40.0, 0.4, 0.0, 60.0, 0.35, 0.0), 0.002), 10)
    assert free.holds is False
    assert priced(points(LAW)[:5], 10).holds is None


def row_of(value, seed=0, language="en", metric="bits_per_byte", **labels):
    return Row(run="r", labels=labels, seed=seed, step=1, language=language, metric=metric, value=value)


def test_the_width_that_makes_up_is_between_those_that_were_trained():
    def losses(many):
        rows = [row_of(v, width=w, languages="2", fixed="total") for w, v in (("32", 3.0), ("64", 2.8), ("128", 2.6))]
        rows += [
            row_of(v, width=w, languages="16", fixed="total") for w, v in zip(("32", "64", "128"), many, strict=True)
        ]
        return makes_up(
            Results(rows, {"first": ("en",)}), "bits_per_byte", "first", "width", "languages", "2", "16", fixed="total"
        )

    found = losses((3.3, 3.1, 2.9))
    assert found.holds and f"it takes width {math.sqrt(64 * 128):.0f}" in found.said
    assert losses((3.5, 3.4, 3.2)).holds is False and "at best, at width 128" in losses((3.5, 3.4, 3.2)).said
    assert "nothing to make up for" in losses((2.9, 2.8, 2.7)).said


def test_who_helps_whom_is_told_by_runs_of_two_and_of_one():
    alone = {"de": 3.0, "nl": 3.2, "fi": 3.5}
    gain = {
        ("de", "nl"): 0.3,
        ("nl", "de"): 0.4,
        ("de", "fi"): 0.1,
        ("fi", "de"): 0.0,
        ("nl", "fi"): 0.1,
        ("fi", "nl"): 0.05,
    }
    rows = []
    for seed in (0, 1, 2):
        rows += [row_of(v + 0.1 * seed, seed, x, languages=x) for x, v in alone.items()]
        for a, b in itertools.combinations(alone, 2):
            for x, other in ((a, b), (b, a)):
                value = alone[x] + 0.1 * seed - gain[x, other] + 0.001 * seed
                rows.append(row_of(value, seed, x, languages=f"{a}+{b}"))
    results = Results(rows, {"all": tuple(alone)})
    matrix = gains(results, "bits_per_byte", "languages")
    assert {pair: of[0] for pair, of in matrix.items()} == pytest.approx(gain)
    found = families_help(matrix, "bits_per_byte")
    assert found.holds and f"{0.35 - np.mean([0.1, 0.0, 0.1, 0.05]):+.3f}" in found.said
    figure, table = heat_map(matrix, "t", "u")
    assert [r[0].shown for r in table.rows] == ["fi", "de", "nl"]  # families together: Finnic before Germanic
    assert table.rows[1][3].value == pytest.approx(0.3, abs=0.01) and table.rows[1][2].value is None
    assert len(figure.axes[0].texts) == 6
