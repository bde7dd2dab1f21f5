# SPDX-License-Identifier: Apache-2.0
"""Masking: how much, what, in whose place, and that nothing but (seed, step, row) decides it."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax import objectives, words
from mlm_jax.model.encoder import Encoder, example_batch
from mlm_jax.vocabulary import Vocabulary

SPECIALS = (0, 1, 2, 3, 4)
WORDS = Vocabulary(1_000, 0, 1, 2, 3, 4, SPECIALS, "")
MASK = 4
OBJECTIVE = cfg.Objective()


def batch_of(rows, length, seed=0, specials=0.05, padding=0.0):
    """Random blocks with some specials among the tokens, and padding at the end of some."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, WORDS.size, (rows, length))
    tokens = np.where(rng.random(tokens.shape) < specials, rng.integers(1, 4, tokens.shape), tokens)
    real = np.arange(length) < np.ceil(length * (1 - padding * rng.random((rows, 1))))
    segments = np.where(real, 1 + (np.arange(length) > length // 2), 0)
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    arrays = {"tokens": np.where(real, tokens, 0), "segment_ids": segments, "positions": positions}
    return {name: jnp.asarray(array, jnp.int32) for name, array in arrays.items()}


def classes_of(starts_word):
    """Classes of pieces that all are of a script with spaces, where some carry the mark of a word."""
    if starts_word is None:
        return None
    return np.stack([np.where(starts_word, words.START, words.SPACED), np.full(len(starts_word), words.SPACED)])


def mask(batch, objective=OBJECTIVE, seed=0, step=0, first=0, starts_word=None, rate=None):
    rows, length = batch["tokens"].shape
    keys = objectives.row_keys(seed, step, jnp.arange(first, first + rows))
    out = objectives.mask_tokens(
        keys,
        batch,
        objective.mask_rate if rate is None else rate,
        objective,
        objectives.make_tables(WORDS, objective, classes_of(starts_word)),
        objectives.max_predictions(length, objective),
    )
    return {name: np.asarray(value) for name, value in out.items()}


def masked_places(out):
    """bool [batch, length]; fails where a place is scored twice."""
    places = np.zeros(out["tokens"].shape, int)
    for row in range(len(places)):
        np.add.at(places[row], out["masked_positions"][row][out["weights"][row] > 0], 1)
    assert places.max() <= 1
    return places > 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1), padding=st.sampled_from([0.0, 0.5, 1.0]), specials=st.sampled_from([0.0, 0.1, 1.0])
)
def test_only_ordinary_tokens_are_masked_and_targets_are_what_stood_there(seed, padding, specials):
    batch = batch_of(4, 40, seed, specials, padding)
    out = mask(batch, seed=seed)
    before = np.asarray(batch["tokens"])
    places = masked_places(out)
    assert not places[np.isin(before, SPECIALS)].any() and not places[np.asarray(batch["segment_ids"]) == 0].any()
    np.testing.assert_array_equal(out["tokens"][~places], before[~places])
    np.testing.assert_array_equal(np.take_along_axis(before, out["masked_positions"], 1), out["targets"])
    assert set(np.unique(out["weights"])) <= {0.0, 1.0}
    changed = out["tokens"] != before
    assert not np.isin(out["tokens"][changed & (out["tokens"] != MASK)], SPECIALS).any()


@pytest.mark.parametrize("rate", [0.15, 0.3])
@pytest.mark.parametrize("length", [10, 128, 512])
def test_share_of_the_candidates_in_short_blocks_too(rate, length):
    batch = batch_of(60_000 // length, length, padding=0.5)
    objective = cfg.Objective(mask_rate=rate)
    out = mask(batch, objective)
    candidates = ((np.asarray(batch["tokens"]) >= 5) & (np.asarray(batch["segment_ids"]) > 0)).sum(axis=1)
    number = out["weights"].sum(axis=1)
    # In each block the share, rounded up or down ...
    assert (number >= np.floor(rate * candidates)).all() and (number <= np.ceil(rate * candidates)).all()
    # ... and which of the two is drawn without bias.
    assert abs((number - rate * candidates).sum()) < 5 * np.sqrt(len(number)) / 2


def test_eighty_ten_ten():
    batch = batch_of(400, 512)
    out = mask(batch)
    before, places = np.asarray(batch["tokens"]), masked_places(out)
    shown, stood = out["tokens"][places], before[places]
    n = len(shown)
    assert n > 25_000

    def near(share, expected):
        return abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)

    ordinary = WORDS.size - len(SPECIALS)
    assert near((shown == MASK).mean(), 0.8)
    assert near((shown == stood).mean(), 0.1 + 0.1 / ordinary)
    other = shown[(shown != MASK) & (shown != stood)]
    assert near(len(other) / n, 0.1 * (1 - 1 / ordinary))
    # Replacements are even over the ordinary ids: chi-squared has mean and variance k and 2k.
    counts = np.bincount(other, minlength=WORDS.size)
    assert not counts[list(SPECIALS)].any()
    expected = len(other) / ordinary
    chi = ((counts[5:] - expected) ** 2 / expected).sum()
    assert abs(chi - ordinary) < 5 * np.sqrt(2 * ordinary)


def test_places_are_even_over_the_block():
    places = np.concatenate([masked_places(mask(batch_of(2_000, 40, specials=0), step=s)) for s in range(5)])
    share = places.mean(axis=0)
    assert (np.abs(share - 0.15) < 5 * np.sqrt(0.15 * 0.85 / len(places))).all()


@pytest.mark.parametrize("pieces", [1, 2, 4, 8])
def test_masks_do_not_depend_on_how_the_batch_is_cut(pieces):
    batch = batch_of(16, 64, padding=0.5)
    whole = mask(batch, step=3)
    size = 16 // pieces
    cut = [mask({k: v[i : i + size] for k, v in batch.items()}, step=3, first=i) for i in range(0, 16, size)]
    for name, value in whole.items():
        np.testing.assert_array_equal(value, np.concatenate([part[name] for part in cut]))


@pytest.mark.parametrize("devices", [2, 8])
def test_masks_are_the_same_on_any_number_of_devices(devices):
    batch = batch_of(16, 64)
    sharding = meshes.batch_sharding(meshes.make_mesh(cfg.Mesh(), 16, jax.devices()[:devices]))
    tables = objectives.make_tables(WORDS)

    @jax.jit
    def masked(batch):
        keys = objectives.row_keys(0, 0, jnp.arange(16))
        return objectives.mask_tokens(keys, batch, 0.15, OBJECTIVE, tables, 10)

    spread = masked(jax.device_put(batch, sharding))
    for name, value in mask(batch).items():
        np.testing.assert_array_equal(value, np.asarray(spread[name]))


def test_masks_are_the_same_under_every_default_generator():
    batch = batch_of(4, 64)
    expected = mask(batch)
    with jax.default_prng_impl("rbg"):
        again = mask(batch)
    for name in expected:
        np.testing.assert_array_equal(expected[name], again[name])


def test_steps_seeds_and_rows_differ():
    batch = {k: jnp.repeat(v, 8, axis=0) for k, v in batch_of(1, 128, specials=0).items()}
    base = masked_places(mask(batch))
    assert len({row.tobytes() for row in base}) == 8
    for other in ({"step": 1}, {"seed": 1}, {"first": 8}):
        both = (base & masked_places(mask(batch, **other))).sum() / base.sum()
        assert both < 0.35  # 0.15 where they are independent


def test_the_lowest_ordinary_id_can_be_a_target_even_if_it_is_zero():
    words = Vocabulary(50, 45, 46, 47, 48, 49, (45, 46, 47, 48, 49), "")
    batch = {"tokens": jnp.zeros((8, 40), jnp.int32), "segment_ids": jnp.ones((8, 40), jnp.int32)}
    batch["positions"] = batch["segment_ids"]
    keys = objectives.row_keys(0, 0, jnp.arange(8))
    out = objectives.mask_tokens(keys, batch, 0.15, OBJECTIVE, objectives.make_tables(words), 6)
    assert out["weights"].sum() == 8 * 6
    assert not np.asarray(out["targets"]).any() and (np.asarray(out["tokens"]) == 49).any()


def test_mask_rate_schedule():
    objective = cfg.Objective(mask_rate=0.3, mask_rate_schedule=((100, 0.15), (200, 0.05)))
    rates = [float(objectives.mask_rate(objective, jnp.int32(step))) for step in (0, 99, 100, 199, 200, 10**6)]
    assert rates == pytest.approx([0.3, 0.3, 0.15, 0.15, 0.05, 0.05])
    assert objectives.max_predictions(512, objective) == 154  # of the highest rate
    assert objectives.max_predictions(128, OBJECTIVE) == 20
    out = mask(batch_of(64, 512, specials=0), objective, rate=0.05)
    assert set(out["weights"].sum(axis=1)) == {25, 26}  # of 25.6


@pytest.mark.parametrize("seed", range(5))
def test_whole_words_are_masked_together_and_never_across_segments(seed):
    rng = np.random.default_rng(seed)
    starts = rng.random(WORDS.size) < 0.4
    starts[list(SPECIALS)] = True
    batch = batch_of(64, 60, seed)
    out = mask(batch, seed=seed, starts_word=starts)
    places = masked_places(out)
    tokens, segments = np.asarray(batch["tokens"]), np.asarray(batch["segment_ids"])
    begins = starts[tokens] | (np.diff(segments, axis=1, prepend=-1) != 0)
    parts = 0
    for row in range(64):
        word = np.cumsum(begins[row])
        # Pieces without a word's beginning that follow a special belong to it, and it is never masked.
        for number in np.unique(word):
            mine = places[row][(word == number) & ~np.isin(tokens[row], SPECIALS)]
            parts += len(mine) > 0 and mine.any() and not mine.all()
    # Only the word at which a block's number is reached is cut off.
    assert parts <= 64
    lone = sum(masked_places(mask(batch, seed=seed))[row, 1:][~begins[row, 1:]].sum() for row in range(64))
    assert lone and places.sum() == pytest.approx(0.15 * (tokens >= 5).sum(), rel=0.03)
    # A word is masked as one: a piece within it nearly always has its predecessor's fate.
    inside = ~begins[:, 1:] & (tokens[:, :-1] >= 5)
    assert (places[:, 1:] == places[:, :-1])[inside].mean() > 0.95


def test_a_block_with_nothing_to_mask_has_no_loss_and_no_nan():
    model, params = tiny()
    tokens = jnp.array([[3, 1, 0, 0, 0, 0, 0, 0], [0] * 8], jnp.int32)
    batch = {"tokens": tokens, "segment_ids": (tokens > 0).astype(jnp.int32), "positions": jnp.zeros_like(tokens)}
    masked = objectives.mask_tokens(
        objectives.row_keys(0, 0, jnp.arange(2)), batch, 0.15, OBJECTIVE, objectives.make_tables(WORDS), 2
    )
    assert not np.asarray(masked["weights"]).any()
    np.testing.assert_array_equal(masked["tokens"], tokens)

    @jax.jit
    @jax.value_and_grad
    def total(params):
        return objectives.loss_sums(model, params, masked, None, WORDS.size, 10_000)["loss"].sum()

    value, gradient = total(params)
    assert value == 0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def tiny(dtype=jnp.float32):
    config = cfg.Model(layers=2, width=32, heads=2, mlp_width=64, positions=64)
    model = Encoder(config, 1_024, dtype)
    scored = jnp.zeros((1, 1), jnp.int32)

    @jax.jit
    def init(key):
        return nn.meta.unbox(model.init(key, example_batch(8), scored, method="features"))

    return model, init(jax.random.key(0))["params"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_loss_of_a_block_is_its_own_masked_tokens(dtype):
    model, params = tiny(dtype)
    masked = {k: jnp.asarray(v) for k, v in mask(batch_of(4, 40, padding=0.5)).items()}
    sums = jax.jit(lambda p, h: objectives.loss_sums(model, p, h, None, WORDS.size, 10_000))(params, masked)
    loss, correct = sums["loss"], sums["correct"]
    assert loss.dtype == correct.dtype == jnp.float32 and loss.shape == correct.shape == (4,)

    every = jnp.broadcast_to(jnp.arange(40), (4, 40))
    features, matrix, bias, _ = model.apply({"params": params}, masked, every, method="features")
    scores = (features.astype(jnp.float32) @ matrix[0].T + bias[None, None])[..., : WORDS.size]
    at = jnp.take_along_axis(jax.nn.log_softmax(scores), masked["masked_positions"][..., None], axis=1)
    chosen = -jnp.take_along_axis(at, masked["targets"][..., None], axis=2)[..., 0] * masked["weights"]
    np.testing.assert_allclose(loss, chosen.sum(axis=1), rtol=1e-5 if dtype == jnp.float32 else 1e-2)


def test_words_of_one_piece_are_as_many_as_pieces_and_other_fates_are_as_asked():
    batch = batch_of(8, 64)
    everywhere = np.ones(WORDS.size, bool)
    np.testing.assert_array_equal(mask(batch)["weights"], mask(batch, starts_word=everywhere)["weights"])
    none = dataclasses.replace(OBJECTIVE, replace_mask=0.0, replace_random=0.0)
    np.testing.assert_array_equal(mask(batch, none)["tokens"], batch["tokens"])


def blocks_of_lengths(lengths):
    """One block whose words have these lengths, begun by a special: its tokens, and which ids begin words."""
    tokens = np.concatenate([[3], *([[5] + [6] * (n - 1) for n in lengths])])
    starts = np.ones(WORDS.size, bool)
    starts[6] = False
    return tokens, starts


UNITS = {  # lengths of the words of a block: of one word, of none longer than the number of masked tokens, ...
    "a word longer than the budget": [30, 1, 1, 2],
    "nothing but a long word": [40],
    "a German compound among short words": [1, 2, 1, 12, 1, 3, 1, 1, 2, 1],
    "an address among words": [2, 1, 3, 35, 1, 2, 1, 1, 4, 1, 2],
    "two long words": [17, 19],
    "fewer than one to mask": [3, 1, 1],
}
RULES = {
    "pieces": {},
    "whole words": {"whole_words": True},
    "spans": {"span_length": 3.8},
    "spans of words": {"whole_words": True, "span_length": 2.0},
    "static masks": {"whole_words": True, "static_masks": 10_000},
    "a schedule": {"whole_words": True, "mask_rate": 0.3, "mask_rate_schedule": ((5, 0.1),)},
}


@pytest.mark.parametrize("rule", RULES)
def test_every_position_is_masked_as_often_as_any_other(rule):
    """10,000 draws of each block: whatever its units, the ends of long ones too."""
    objective = cfg.Objective(**RULES[rule])
    draws, length = 10_000, 56
    rows = np.zeros((len(UNITS), length), np.int32)
    for row, lengths in zip(rows, UNITS.values(), strict=True):
        tokens, starts = blocks_of_lengths(lengths)
        row[: len(tokens)] = tokens
    tables = objectives.make_tables(WORDS, objective, classes_of(starts if objective.whole_words else None))
    most = objectives.max_predictions(length, objective)
    rate = float(objectives.mask_rate(objective, jnp.int32(5)))

    @jax.jit
    def count(row, number):
        tokens = jnp.broadcast_to(row, (draws, length))
        batch = {"tokens": tokens, "segment_ids": (tokens > 0).astype(jnp.int32)}
        batch |= {"block_key": jnp.full(draws, number, jnp.uint32), "repeat": jnp.arange(draws, dtype=jnp.int32)}
        keys = objectives.training_keys(7, jnp.int32(5), batch, objective)
        out = objectives.mask_tokens(keys, batch, rate, objective, tables, most)
        counted = jax.vmap(lambda at, weights: jnp.zeros(length).at[at].add(weights))(
            out["masked_positions"], out["weights"]
        )
        return counted.sum(axis=0), counted.max()

    scores = []
    for number, (row, lengths) in enumerate(zip(rows, UNITS.values(), strict=True)):
        counts, twice = count(row, number)
        assert twice == 1
        may = row >= 5
        assert not np.asarray(counts)[~may].any()
        z = (np.asarray(counts)[may] / draws - rate) / np.sqrt(rate * (1 - rate) / draws)
        scores.extend(z)
        assert np.abs(z).max() < 4.5, (lengths, z.round(1))
        # Beginning, middle and end of the longest word.
        at = sum(lengths[: int(np.argmax(lengths))])
        for third in np.array_split(z[at : at + max(lengths)], min(3, max(lengths))):
            assert abs(third.mean()) < 2.5, (lengths, z.round(1))
    # 5 % of standard normal numbers are beyond 2.
    assert np.mean(np.abs(scores) > 2) < 0.09


def blocks_of_sentences(rows=400):
    """<s> and running text with </s> at every tenth place, half of the rows shorter."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, WORDS.size, (rows, 64))
    tokens[:, 9::10], tokens[:, 0] = WORDS.eos, WORDS.bos
    tokens[::2, 50:] = 0
    arrays = {"tokens": tokens, "segment_ids": tokens > 0}
    return {name: jnp.asarray(array, jnp.int32) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("options", "counted", "masked"),
    [
        ({}, (5,), ()),
        ({"mask_count": "all"}, (1, 3, 5), ()),  # BERT
        ({"mask_specials": "eos"}, (1, 5), (1,)),  # XLM: all but the first
        ({"mask_specials": "all"}, (1, 3, 5), (1, 3)),  # fairseq: all
        ({"mask_specials": "all", "whole_words": True}, (1, 3, 5), (1, 3)),
        ({"mask_specials": "eos", "frequency_exponent": 0.5}, (1, 5), (1,)),
    ],
)
def test_specials_are_counted_and_masked_as_asked(options, counted, masked):
    objective = cfg.Objective(**options)
    batch = blocks_of_sentences()
    starts = np.arange(WORDS.size) % 3 == 0
    starts[list(SPECIALS)] = True
    tables = objectives.make_tables(
        WORDS, objective, classes_of(starts if objective.whole_words else None), np.arange(WORDS.size) + 1
    )
    keys = objectives.row_keys(0, 0, jnp.arange(400))
    out = objectives.mask_tokens(keys, batch, 0.15, objective, tables, objectives.max_predictions(64, objective))
    places = masked_places({name: np.asarray(value) for name, value in out.items()})
    kind = np.minimum(np.asarray(batch["tokens"]), 5)
    expected = 0.15 * np.isin(kind, counted).sum(axis=1)
    assert (np.abs(places.sum(axis=1) - expected) < 1).all()
    for special in (0, 1, 3):
        share = places[kind == special].mean()
        if special not in masked:
            assert share == 0
        elif not objective.frequency_exponent:
            assert abs(share - 0.15) < 4 * np.sqrt(0.15 * 0.85 / (kind == special).sum())
    assert not np.isin(np.asarray(out["tokens"]), SPECIALS)[
        places & (np.asarray(out["tokens"]) != MASK) & (kind == 5)
    ].any()


@pytest.mark.parametrize("options", [{"whole_words": True}, {"span_length": 3.0}])
def test_a_word_or_span_has_one_fate(options):
    starts = np.arange(WORDS.size) % 3 == 0
    batch = batch_of(300, 64, specials=0.0) | {"segment_ids": jnp.ones((300, 64), jnp.int32)}
    before, segments = np.asarray(batch["tokens"]), batch["segment_ids"]
    mixed = {}
    for fates in ("piece", "unit"):
        objective = cfg.Objective(fates=fates, **options)
        classes = classes_of(starts) if objective.whole_words else None
        tables = objectives.make_tables(WORDS, objective, classes)
        keys = objectives.row_keys(0, 0, jnp.arange(300))
        out = objectives.mask_tokens(keys, batch, 0.15, objective, tables, 10)
        places = masked_places({name: np.asarray(value) for name, value in out.items()})
        bits = objectives.random_bits(keys, [objectives.Stream.SPAN], 64)[objectives.Stream.SPAN]
        unit = np.asarray(objectives._units(batch["tokens"], segments, bits, objective, tables)[0])
        unit = unit + 64 * np.arange(300)[:, None]
        after = np.asarray(out["tokens"])
        fate = np.where(after == MASK, 0, np.where(after == before, 1, 2))
        found = [set(fate[places & (unit == u)]) for u in np.unique(unit[places])]
        mixed[fates] = sum(len(f) > 1 for f in found)
        shares = np.bincount(fate[places], minlength=3) / places.sum()
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)
    assert mixed["piece"] > 50
    assert mixed["unit"] <= 2  # another piece may be the same one


@pytest.mark.parametrize("rule", ["whole words", "spans of words"])
def test_one_word_of_a_block_is_cut_at_most(rule):
    objective = cfg.Objective(**RULES[rule])
    rng = np.random.default_rng(0)
    starts = rng.random(WORDS.size) < 0.3
    batch = batch_of(400, 64, specials=0.0) | {"segment_ids": jnp.ones((400, 64), jnp.int32)}
    places = masked_places(mask(batch, objective, starts_word=starts))
    begins = starts[np.asarray(batch["tokens"])]
    begins[:, 0] = True
    cut = 0
    for row in range(400):
        word = np.cumsum(begins[row])
        parts = [places[row][word == number] for number in np.unique(word)]
        partly = [p for p in parts if p.any() and not p.all()]
        cut += len(partly)
        assert len(partly) <= 1
        for p in partly:  # what is masked of it is one run, which may go round
            assert np.abs(np.diff(np.append(p, p[0]).astype(int))).sum() == 2
    assert cut


def test_spans_are_masked_whole_and_as_long_as_asked():
    objective = dataclasses.replace(OBJECTIVE, span_length=4.0)
    batch = batch_of(200, 128, specials=0.0) | {"segment_ids": jnp.ones((200, 128), jnp.int32)}
    places = masked_places(mask(batch, objective))
    assert abs(places.mean() - 0.15) < 0.003
    edges = np.diff(np.pad(places, ((0, 0), (1, 1))).astype(int), axis=1)
    runs = np.concatenate([np.flatnonzero(e == -1) - np.flatnonzero(e == 1) for e in edges])
    # Geometric with mean 4, cut off at blocks' ends and budgets, and joined where spans touch.
    assert 3.2 < runs.mean() < 5.5
    assert np.diff(np.pad(masked_places(mask(batch)), ((0, 0), (1, 1))).astype(int), axis=1).clip(0).sum() > 2 * len(
        runs
    )


def test_words_in_spans_begin_at_words():
    starts = np.arange(WORDS.size) % 3 == 0
    objective = dataclasses.replace(OBJECTIVE, span_length=3.0)
    batch = batch_of(100, 96, specials=0.0) | {"segment_ids": jnp.ones((100, 96), jnp.int32)}
    out = mask(batch, objective, starts_word=starts)
    places, tokens = masked_places(out), np.asarray(batch["tokens"])
    first = places & ~np.pad(places, ((0, 0), (1, 0)))[:, :-1]
    begins = starts[tokens] | (np.arange(96) == 0)
    # All but the word that the block's number of masked tokens cuts, at most one a block.
    assert (first & ~begins).sum(axis=1).max() <= 1


def test_pieces_are_masked_in_proportion_to_a_power_of_their_frequency():
    objective = dataclasses.replace(OBJECTIVE, frequency_exponent=0.5)
    rng = np.random.default_rng(0)
    frequent = rng.random((400, 128)) < 0.8
    tokens = np.where(frequent, 10, 20)  # piece 10 is 16 times as frequent in the corpus as piece 20
    counts = np.ones(WORDS.size)
    counts[10], counts[20] = 16_000, 1_000
    batch = {"tokens": jnp.asarray(tokens, jnp.int32), "segment_ids": jnp.ones((400, 128), jnp.int32)}
    tables = objectives.make_tables(WORDS, objective, counts=counts)
    keys = objectives.row_keys(0, 0, jnp.arange(400))
    # Few places, so that drawing without replacement is nearly drawing with it.
    out = objectives.mask_tokens(keys, batch, 0.02, objective, tables, objectives.max_predictions(128, objective))
    masked = np.asarray(out["targets"])[np.asarray(out["weights"]) > 0]
    expected = 0.8 * 16**-0.5 / (0.8 * 16**-0.5 + 0.2)
    share = (masked == 10).mean()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(masked)) ** 0.5 + 0.02


def test_negative_log_is_the_logarithm_and_whole_numbers():
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    bits[:3] = 0, 1, 2**32 - 1
    found = np.asarray(objectives._negative_log(jnp.asarray(bits)))
    assert found.dtype == np.uint32 and found.min() >= 1 and found.max() < 2**18
    expected = -np.log2(np.maximum(bits, 1) / 2**32)
    np.testing.assert_allclose(found / 2**12, expected, atol=2e-3)


def test_static_masks_are_a_blocks_own_and_seen_in_turn():
    objective = dataclasses.replace(OBJECTIVE, static_masks=3)
    batch = batch_of(8, 64) | {"block_key": jnp.arange(8, dtype=jnp.uint32) * 77, "repeat": jnp.zeros(8, jnp.int32)}

    def places(step, repeat, order=None):
        order = np.arange(8) if order is None else order
        turned = {name: value[order] for name, value in batch.items()} | {"repeat": jnp.full(8, repeat, jnp.int32)}
        keys = objectives.training_keys(0, jnp.int32(step), turned, objective)
        out = objectives.mask_tokens(keys, turned, 0.15, objective, objectives.make_tables(WORDS), 10)
        return np.asarray(out["masked_positions"])

    np.testing.assert_array_equal(places(0, 0), places(9, 3))  # whatever the step, the fourth time as the first
    assert (places(0, 0) != places(0, 1)).any() and (places(0, 1) != places(0, 2)).any()
    backwards = np.arange(8)[::-1]
    np.testing.assert_array_equal(places(0, 0)[backwards], places(5, 0, backwards))  # wherever the block stands


GOLDEN = {  # sha256 of tokens, positions, targets and weights
    "masked LM": ({}, "d695a8eb1f8d1377"),
    "mask_rate 0.3": ({"mask_rate": 0.3}, "92a6d0cb34afde68"),
    "spans": ({"span_length": 3.8}, "6e96c06e9278bfa6"),
    "whole words": ({"whole_words": True}, "c8fde4c85af8fdd6"),
    "spans of words": ({"whole_words": True, "span_length": 3.0}, "8bb12b25dd545411"),
    "frequency": ({"frequency_exponent": 0.5}, "e221b3c022d2161b"),
    "static": ({"static_masks": 10}, "af9d71f6dafc756d"),
}


@pytest.mark.parametrize("rule", GOLDEN)
def test_runs_keep_their_masks(rule):
    """Bit for bit: a run that was begun before a change of the code is continued with the masks it would have had."""
    options, expected = GOLDEN[rule]
    objective = cfg.Objective(**options)
    batch = batch_of(8, 96, padding=0.3)
    batch |= {"block_key": jnp.arange(8, dtype=jnp.uint32) * 77, "repeat": jnp.arange(8, dtype=jnp.int32)}
    starts = np.arange(WORDS.size) % 3 == 0 if objective.whole_words else None
    tables = objectives.make_tables(WORDS, objective, classes_of(starts), np.arange(WORDS.size) + 1)
    keys = objectives.training_keys(3, jnp.int32(5), batch, objective)
    most = objectives.max_predictions(96, objective)
    out = objectives.mask_tokens(keys, batch, objective.mask_rate, objective, tables, most)
    found = (np.asarray(out[name]).tobytes() for name in ("tokens", "masked_positions", "targets", "weights"))
    assert hashlib.sha256(b"".join(found)).hexdigest()[:16] == expected


def test_a_new_stream_of_random_bits_leaves_the_others_as_they_are():
    keys = objectives.row_keys(0, 0, jnp.arange(4))
    names = list(objectives.Stream)
    before = objectives.random_bits(keys, names, 64)
    later = [len(names), len(names) + 1]  # as the next two names will be numbered
    after = objectives.random_bits(keys, [*names, *later], 64)
    for name in names:
        np.testing.assert_array_equal(before[name], after[name])
        np.testing.assert_array_equal(before[name], objectives.random_bits(keys, [name], 64)[name])
    np.testing.assert_array_equal(after[later[1]], objectives.random_bits(keys, later[1:], 64)[later[1]])
    # Each is another draw in each row.
    assert len({np.asarray(row).tobytes() for bits in after.values() for row in bits}) == 4 * len(after)


def test_the_next_token_is_predicted_within_its_segment():
    batch = {
        "tokens": jnp.asarray([[3, 10, 11, 1, 3, 12, 1, 0]], jnp.int32),
        "segment_ids": jnp.asarray([[1, 1, 1, 1, 2, 2, 2, 0]], jnp.int32),
    }
    out = objectives.predict_next(batch)
    assert out["targets"][0].tolist() == [10, 11, 1, 3, 12, 1, 0]
    assert out["weights"][0].tolist() == [1, 1, 1, 0, 1, 1, 0]
    assert out["masked_positions"][0].tolist() == list(range(7))


def pair_batch():
    """Two sentence pairs in a block, each of two spans whose positions both begin at 0."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, WORDS.size, (1, 24))
    positions = np.concatenate([np.arange(6)] * 4)[None]
    features = {"tokens": tokens, "positions": positions, "segment_ids": np.repeat([1, 2], 12)[None]}
    features["language_ids"] = np.tile(np.repeat([0, 1], 6), 2)[None]
    return {name: jnp.asarray(value, jnp.int32) for name, value in features.items()}


def test_translation_lm_sees_the_other_sentence_and_not_the_neighbouring_pair():
    config = cfg.Model(
        layers=2, width=32, heads=2, mlp_width=64, positions=24, head="plain", token_types=0, language_embedding=True
    )
    model = Encoder(config, 1_024, jnp.float32, languages=2)
    batch = pair_batch()
    scored = jnp.asarray([[2]])  # a word of the first pair's first sentence
    params = model.init(jax.random.key(0), batch, scored, method="features")["params"]
    params = nn.meta.unbox(params)

    def loss(token_embedding_of_block):
        # The gradient by what stands at each place: the embedding's rows, one for every place.
        tokens = jnp.arange(24, dtype=jnp.int32)[None]
        rows = params["embedding"]["token_embedding"].at[:24].set(token_embedding_of_block)
        swapped = params | {"embedding": params["embedding"] | {"token_embedding": rows}}
        features, _, bias, _ = model.apply({"params": swapped}, batch | {"tokens": tokens}, scored, method="features")
        return jnp.sum(jnp.sin(features)) + bias[0]

    start = params["embedding"]["token_embedding"][batch["tokens"][0]]
    gradient = np.abs(np.asarray(jax.grad(loss)(start))).max(axis=1)
    assert (gradient[:12] > 0).all()  # both sentences of its own pair
    assert (gradient[12:] == 0).all()  # exactly nothing of the other


@pytest.mark.slow
def test_next_sentence_head_learns_a_separable_set():
    import optax

    config = cfg.Model(
        layers=1, width=32, heads=2, mlp_width=64, positions=16, position_offset=0, token_types=2, pooler=True
    )
    config = dataclasses.replace(config, next_sentence=True)
    model = Encoder(config, 1_024, jnp.float32)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    tokens = rng.integers(5, 500, (64, 16))
    tokens[:, 8:] += 400 * labels[:, None]  # a random second part is made of other pieces
    batch = {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "segment_ids": jnp.ones((64, 16), jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(16), (64, 16)),
        "token_types": jnp.broadcast_to(jnp.arange(16) // 8, (64, 16)),
        "next_sentence": jnp.asarray(labels, jnp.int32),
        "masked_positions": jnp.zeros((64, 1), jnp.int32),
        "targets": jnp.zeros((64, 1), jnp.int32),
        "weights": jnp.zeros((64, 1), jnp.float32),
    }
    params = nn.meta.unbox(model.init(jax.random.key(0), batch, batch["masked_positions"], method="features")["params"])
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        def loss(p):
            sums = objectives.loss_sums(model, p, batch, None, WORDS.size, 2_000)
            return sums["pair_loss"].mean(), sums

        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, sums

    state = optimizer.init(params)
    for _ in range(60):
        params, state, sums = step(params, state)
    assert float(sums["pairs"].sum()) == 64 and float(sums["pair_correct"].sum()) == 64
    assert float(sums["pair_loss"].mean()) < 0.1
