# SPDX-License-Identifier: Apache-2.0
"""A law is found again in losses that it made, and tells those it was not shown."""

import re

import numpy as np
import pytest

from mlm_jax.study.config import ALL
from mlm_jax.study.laws import Law, fit_law, predicted
from mlm_jax.study.table import Results


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_a_law_is_found_again_and_predicts_the_next_size(noise):
    law = Law(floor=2.0, a=60.0, alpha=0.4, b=300.0, beta=0.4)
    draw = np.random.default_rng(0)
    points = [(n, d) for n in (2.5e4, 1e5, 4e5) for d in (2.5e5, 5e5, 1e6)]
    losses = [law(n, d) * np.exp(noise * draw.normal()) for n, d in points]
    found = fit_law(*zip(*points, strict=True), losses)
    assert found(9e5, 1e6) == pytest.approx(law(9e5, 1e6), rel=0.02)
    if not noise:
        assert found.alpha == pytest.approx(law.alpha, rel=0.1) and found.beta == pytest.approx(law.beta, rel=0.1)


def test_the_next_size_is_told_of_each_language_by_a_law_of_its_own():
    """Of two languages that each follow a law, one of which breaks it at the size that is predicted."""
    laws = {"sw": Law(1.2, 40.0, 0.3, 900.0, 0.4), "de": Law(0.8, 30.0, 0.25, 700.0, 0.4)}
    rows = [
        {
            "run": f"{w}-{u}", "labels": {"width": w, "updates": u}, "seed": 0, "step": int(u), "language": language, "metric": "loss",
            "value": law(24.0 * int(w) ** 2, 1_024 * int(u)) * (1.1 if (language, w) == ("de", "192") else 1.0),
        }
        for w, us in (("32", "123"), ("64", "123"), ("128", "123"), ("192", "3"))
        for u in ({"1": "250", "2": "500", "3": "1000"}[x] for x in us)
        for language, law in laws.items()
    ]  # fmt: skip
    results = Results(rows, {ALL: ("de", "sw")})
    found = predicted(results, "width", "updates", "192", "1000", layers=2, tokens=1_024)
    away = dict(re.findall(r"(de|sw) ([0-9.]+) %", found.said))
    assert float(away["sw"]) < 0.3 and float(away["de"]) == pytest.approx(100 * 0.1 / 1.1, abs=0.3)
    assert not found.holds and found.said.index("% away; by a law of each language de") > 0
    few = Results([r for r in rows if r["labels"]["updates"] == "250"], results.groups)
    assert "3 of at least 6 points" in predicted(few, "width", "updates", "192", "1000", 2, 1_024).said
