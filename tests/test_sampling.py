# SPDX-License-Identifier: Apache-2.0
"""Rates against the papers' numbers, and the order of draws against its promise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax import sampling
from mlm_jax.config import Config, Data, Sampling, Source, Stage, Train, validate_pretraining
from mlm_jax.errors import UserError
from mlm_jax.manifest import Split, Stream
from mlm_jax.phases import parts_of

counts = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)


def stream(name: str, blocks: int, tokens: int | None = None) -> Stream:
    split = Split(documents=blocks * 2, bytes=blocks * 300, tokens=tokens or blocks * 100, blocks=blocks, shards=())
    return Stream(name, (name,), f"mlm_jax_{name}", split, split, 5.0)


def run_config(**sections) -> Config:
    return Config(data=Data(sources=(Source("*", "x"),)), **sections)


def test_mbert_smoothing_of_the_paper():
    # google-research/bert multilingual.md: English, 21 % of the text, smoothed with S = 0.7.
    assert pytest.approx(0.335, abs=5e-4) == 0.21**0.7
    rest = np.full(103, 0.79 / 103)
    p = np.array([0.21, *rest])
    want = p**0.7 / (p**0.7).sum()
    np.testing.assert_allclose(sampling.exponent_rates(p * 1e9, 0.7), want, rtol=1e-12)


@given(counts, st.floats(0, 1))
def test_exponent_rates_sum_to_one_keep_the_order_and_flatten(n, exponent):
    rates = sampling.exponent_rates(n, exponent)
    natural = np.array(n) / np.sum(n, dtype=np.float64)
    assert rates.sum() == pytest.approx(1)
    assert (np.diff(rates[np.argsort(n, kind="stable")]) >= -1e-12).all()
    assert rates.max() <= natural.max() + 1e-9 and rates.min() >= natural.min() - 1e-9


@given(counts)
def test_exponent_limits_and_temperature(n):
    natural = np.array(n) / np.sum(n, dtype=np.float64)
    np.testing.assert_allclose(sampling.exponent_rates(n, 1), natural, rtol=1e-9)
    np.testing.assert_allclose(sampling.exponent_rates(n, 0), np.full(len(n), 1 / len(n)))
    np.testing.assert_allclose(
        sampling.language_rates(Sampling(strategy="temperature", temperature=2), n, 0),
        sampling.exponent_rates(n, 0.5),
    )


def test_unimax_by_hand():
    # Budget 600, cap 5: the smallest may be drawn 5 * 10 = 50 (its even share would be 200); the other
    # two share 550, 275 each, below 5 * 100 and 5 * 1000.
    rates = sampling.unimax_rates([1000, 10, 100], 600, 5)
    np.testing.assert_allclose(rates, np.array([275, 50, 275]) / 600)
    # Cap 2: 20, then 200 of the 290 that are its share, then the 380 that are left.
    np.testing.assert_allclose(sampling.unimax_rates([1000, 10, 100], 600, 2), np.array([380, 20, 200]) / 600)


@given(counts, st.floats(0.5, 20), st.integers(1, 10**12))
def test_unimax_keeps_the_cap_and_is_even_below_it(n, cap, budget):
    rates = sampling.unimax_rates(n, budget, cap)
    size = np.array(n, np.float64)
    assert rates.sum() == pytest.approx(1)
    if budget <= cap * size.sum():
        assert (rates * budget <= cap * size * (1 + 1e-9)).all()
        free = rates * budget < cap * size * (1 - 1e-9)
        if free.any():  # all languages below the cap get the same, and it is the most anyone gets
            np.testing.assert_allclose(rates[free], rates.max(), rtol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.005, 1), min_size=1, max_size=40), st.integers(0, 5))
def test_draws_stay_within_one_of_their_rates(weights, seed):
    rates = np.array(weights) / np.sum(weights)
    period = sampling.arrange(rates, seed)
    size = len(period.languages)
    running = np.cumsum(np.eye(len(rates), dtype=np.int64)[period.languages], axis=0)
    share = period.counts / size
    deviation = np.abs(running - share * np.arange(1, size + 1)[:, None])
    assert deviation.max() < 1
    assert np.abs(period.counts - rates * size).max() < 1
    # Ranks number a language's draws, and `before` counts them.
    np.testing.assert_array_equal(period.ranks, running[np.arange(size), period.languages] - 1)
    np.testing.assert_array_equal(period.before(3 * size + 17), 3 * period.counts + running[16])


def test_any_ten_thousand_draws_hold_every_language_within_one_of_its_rate():
    rates = sampling.exponent_rates(np.random.default_rng(0).lognormal(0, 3, 100), 0.3)
    period = sampling.arrange(rates, 0)
    assert len(period.languages) == 10_000
    order = np.tile(period.languages, 10)  # the realised mixture of 100,000 draws
    running = np.cumsum(np.eye(100, dtype=np.int64)[order], axis=0)
    windows = running[10_000:] - running[:-10_000]
    assert np.abs(windows - rates * 10_000).max() < 1


def test_rare_languages_keep_their_rate():
    rates = sampling.exponent_rates(np.random.default_rng(0).lognormal(0, 3, 1833), 0.3)
    period = sampling.arrange(rates, 0)
    assert np.abs(period.counts / len(period.languages) / rates - 1).max() < 0.1


def test_stages_change_rates_and_add_languages():
    streams = [stream("en", 1000), stream("sw", 10)]
    config = run_config(
        sampling=Sampling(exponent=1, stages=(Stage(50, 0.0), Stage(80, 1.0, ("sw",)))),
        train=Train(steps=100, batch_size=10),
    )
    stages = sampling.stage_rates(config, streams)
    np.testing.assert_allclose(stages[0].rates, [1000 / 1010, 10 / 1010])
    np.testing.assert_allclose(stages[1].rates, [0.5, 0.5])
    np.testing.assert_allclose(stages[2].rates, [0, 1])
    np.testing.assert_allclose(
        sampling.draws(stages, parts_of(config)), [500 * 1000 / 1010 + 150, 500 * 10 / 1010 + 150 + 200]
    )


def test_stages_keep_the_strategy():
    streams = [stream("en", 1000), stream("sw", 10)]
    train = Train(steps=100, batch_size=10)
    unimax = Sampling(strategy="unimax", max_epochs=4, stages=(Stage(20, languages=("en",)), Stage(50)))
    rates = [stage.rates for stage in sampling.stage_rates(run_config(sampling=unimax, train=train), streams)]
    np.testing.assert_allclose(rates, [[0.96, 0.04], [1, 0], [0.96, 0.04]])
    # An exponent has no meaning there: it is refused, and does not turn the rates into exponent's.
    for strategy in ("unimax", "temperature"):
        config = run_config(sampling=replace(unimax, strategy=strategy, stages=(Stage(20, 0.3),)), train=train)
        with pytest.raises(UserError, match=rf"stages\[0\]\.exponent: 0\.3, but sampling\.strategy is {strategy}"):
            validate_pretraining(config)
    config = run_config(sampling=replace(unimax, stages=(Stage(20, 0.3),)), train=train)
    np.testing.assert_allclose(sampling.stage_rates(config, streams)[1].rates, [0.96, 0.04])
    temperature = Sampling(strategy="temperature", temperature=2, stages=(Stage(50),))
    first, second = sampling.stage_rates(run_config(sampling=temperature, train=train), streams)
    np.testing.assert_array_equal(first.rates, second.rates)


def test_stage_with_an_unknown_language_is_refused():
    config = run_config(sampling=Sampling(stages=(Stage(5, 0.3, ("xx",)),)))
    with pytest.raises(UserError, match=r"stages\[0\].languages: xx not in the corpus; it has en"):
        sampling.stage_rates(config, [stream("en", 10)])


def test_repeats_beyond_the_cap_are_refused():
    streams = [stream("en", 1000), stream("sw", 10)]
    train = Train(steps=100, batch_size=10)
    with pytest.raises(UserError, match=r"language sw: would be repeated 50\.0 times"):
        sampling.stage_rates(run_config(sampling=Sampling(exponent=0, max_epochs=4), train=train), streams)
    # UniMax keeps within it by itself, until there is nothing left to draw from.
    unimax = Sampling(strategy="unimax", max_epochs=4)
    np.testing.assert_allclose(
        sampling.stage_rates(run_config(sampling=unimax, train=train), streams)[0].rates, [0.96, 0.04]
    )
    with pytest.raises(UserError, match="would be repeated"):
        sampling.stage_rates(run_config(sampling=unimax, train=Train(steps=1000, batch_size=10)), streams)


def test_what_is_counted_moves_the_rates():
    streams = [stream("en", 100, tokens=1000), stream("sw", 100, tokens=9000)]
    by_tokens = sampling.stage_rates(run_config(sampling=Sampling(exponent=1)), streams)[0].rates
    by_blocks = sampling.stage_rates(run_config(sampling=Sampling(exponent=1, count="blocks")), streams)[0].rates
    np.testing.assert_allclose(by_tokens, [0.1, 0.9])
    np.testing.assert_allclose(by_blocks, [0.5, 0.5])
