# SPDX-License-Identifier: Apache-2.0
"""Schedules against their formulas, and what is decayed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlm_jax.config import Optimizer, build
from mlm_jax.fields import differences
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Finetune
from mlm_jax.train.optimizer import make_optimizer, make_schedule


def rates(steps=100, **options):
    schedule = make_schedule(Optimizer(learning_rate=1.0, warmup_steps=10, **options), steps)
    return np.array([float(schedule(jnp.int32(i))) for i in range(steps)])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "inverse_sqrt", "wsd"])
def test_warm_up_rises_to_the_peak_at_its_last_update(schedule):
    found = rates(schedule=schedule, decay_steps=20)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert found.argmax() == 9 and (np.diff(found[9:]) <= 1e-7).all()


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_fine_tuning_keeps_the_rates_it_had_with_an_optimizer_of_its_own(schedule, share):
    """As finished runs stored it, and as those runs translated it into pretraining's."""
    stored = {"learning_rate": 3e-5, "schedule": schedule, "warmup_share": share, "weight_decay": 0.01}
    stored |= {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8, "clip_norm": 1.0, "layer_decay": 1.0, "freeze": -1}
    found = build(Finetune, {"optimizer": stored}).optimizer
    assert found == dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=3e-5, schedule=schedule, warmup_share=share)
    assert not differences({"optimizer": stored}, Finetune(optimizer=found))
    for steps in (1, 7, 100):
        before = Optimizer(
            learning_rate=3e-5,
            warmup_steps=max(1, round(share * steps)),
            final_share=0.0 if schedule == "linear" else 1.0,
        )
        updates = jnp.arange(steps)
        np.testing.assert_array_equal(make_schedule(found, steps)(updates), make_schedule(before, steps)(updates))


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


def stable_adamw_of_the_paper(gradients, start, rate, b1, b2, epsilon, decay):
    """Wortsman et al. 2023, algorithm 2, on one parameter in float64."""
    theta, v, u = start.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        b1_hat = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        b2_hat = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        v = b1_hat * v + (1 - b1_hat) * g
        u = b2_hat * u + (1 - b2_hat) * g * g
        rms = np.sqrt(np.mean(g * g / np.maximum(u, epsilon**2)))
        eta = rate / max(1, rms)
        theta = theta - eta * decay * theta - eta * v / (np.sqrt(u) + epsilon)
    return theta


def test_stable_adamw_is_the_papers():
    rng = np.random.default_rng(0)
    shapes = {"layers": {"kernel": (3, 4, 5)}, "head": {"bias": (6,)}}
    params = {outer: {n: rng.normal(size=s) for n, s in inner.items()} for outer, inner in shapes.items()}
    # A gradient that suddenly outgrows its average, in one of the stacked layers only.
    gradients = [
        {outer: {n: rng.normal(size=s) for n, s in inner.items()} for outer, inner in shapes.items()} for _ in range(6)
    ]
    gradients[4]["layers"]["kernel"][1] *= 50
    options = Optimizer(
        name="stable_adamw", learning_rate=0.1, warmup_steps=0, schedule="wsd", decay_steps=1, b1=0.9, b2=0.95
    )
    options = dataclasses.replace(options, epsilon=1e-8, weight_decay=0.1, clip_norm=0.0)
    optimizer = make_optimizer(options, 1_000)
    found = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    state = optimizer.init(found)
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, found)
        found = optax.apply_updates(found, updates)
    for layer in range(3):
        expected = stable_adamw_of_the_paper(
            [g["layers"]["kernel"][layer] for g in gradients],
            params["layers"]["kernel"][layer],
            0.1,
            0.9,
            0.95,
            1e-8,
            0.1,
        )
        np.testing.assert_allclose(found["layers"]["kernel"][layer], expected, rtol=2e-4, atol=2e-5)
    bias = stable_adamw_of_the_paper(
        [g["head"]["bias"] for g in gradients], params["head"]["bias"], 0.1, 0.9, 0.95, 1e-8, 0
    )
    np.testing.assert_allclose(found["head"]["bias"], bias, rtol=2e-4, atol=2e-5)
