# SPDX-License-Identifier: Apache-2.0
"""A law is found again in losses that it made, and tells those it was not shown."""

import numpy as np
import pytest

from mlm_jax.study.laws import Law, fit_law


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
