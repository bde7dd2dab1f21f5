# SPDX-License-Identifier: Apache-2.0
"""Schedules against their formulas, and what is decayed."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlm_jax.config import Optimizer
from mlm_jax.train.optimizer import make_optimizer, make_schedule


def rates(steps=100, **options):
    schedule = make_schedule(Optimizer(learning_rate=1.0, warmup_steps=10, **options), steps)
    return np.array([float(schedule(jnp.int32(i))) for i in range(steps)])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "inverse_sqrt", "wsd"])
def test_warm_up_rises_to_the_peak_at_its_last_update(schedule):
    found = rates(schedule=schedule, decay_steps=20)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert found.argmax() == 9 and (np.diff(found[9:]) <= 1e-7).all()


def test_after_the_warm_up():
    np.testing.assert_allclose(rates(schedule="linear", final_share=0.1)[[9, 54, 99]], [1, 0.55, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="cosine")[[9, 54, 99]], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(rates(schedule="inverse_sqrt")[[9, 39, 89]], [1, 0.5, 1 / 3], rtol=1e-6)
    wsd = rates(schedule="wsd", decay_steps=20)
    np.testing.assert_allclose(wsd[[10, 79, 84, 99]], [1, 1, 0.5, 0], atol=1e-6)


def test_biases_and_norms_are_not_decayed():
    params = {
        "layers": {
            "mlp": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.ones((2, 4))},
            "norm": {"scale": jnp.ones((2, 3))},
        },
        "tokens": {"embedding": jnp.ones((5, 3))},
    }
    optimizer = make_optimizer(Optimizer(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, schedule="linear"), 10)
    zeros = optax.tree_utils.tree_zeros_like(params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    decayed = updates["layers"]["mlp"]["kernel"], updates["tokens"]["embedding"]
    kept = updates["layers"]["mlp"]["bias"], updates["layers"]["norm"]["scale"]
    assert all((np.asarray(u) < 0).all() for u in decayed)
    assert all((np.asarray(u) == 0).all() for u in kept)
