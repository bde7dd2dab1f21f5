# SPDX-License-Identifier: Apache-2.0
"""The n-gram model is Kneser and Ney's, its chances add up to one, and it likes text of its own kind better."""

import math
import random
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from mlm_jax.curate import perplexity
from mlm_jax.curate.perplexity import BEGIN, END, Model, bucket, cut_points, log_perplexity, train
from mlm_jax.curate.thresholds import count_score
from mlm_jax.errors import UserError

NOUNS, VERBS = ["the cat", "a dog", "my house", "one river", "the stone"], ["sees", "likes", "follows", "has"]


def sentences(count, seed=0):
    draw = random.Random(seed)
    return [f"{draw.choice(NOUNS)} {draw.choice(VERBS)} {draw.choice(NOUNS)}." for _ in range(count)]


@pytest.fixture(scope="module")
def model():
    return train(["\n".join(sentences(300))], order=4, pieces=60)


def stream(ids):
    return perplexity._Stream(np.array(ids, np.uint64), np.arange(len(ids)))


def test_chances_after_any_context_add_up_to_one(model):
    pieces = model.processor.get_piece_size()
    ids = [BEGIN, *(i + 2 for i in model.processor.encode(sentences(1, seed=5)[0]))]
    for context in ([BEGIN], ids[:2], ids[:3], ids[:6], [BEGIN, 3, 3, 3, 3]):
        total = sum(
            np.exp(perplexity._log_chances(stream([*context, piece]), model)[-1]) for piece in range(1, pieces + 2)
        )
        assert total == pytest.approx(1, abs=1e-5)


def kneser_ney(lines, vocabulary):
    """Interpolated, of pairs, in dictionaries: Chen and Goodman 1998, equations 24 to 26."""
    pairs = Counter(pair for line in lines for pair in pairwise(line))
    after, before = defaultdict(set), defaultdict(set)
    for a, b in pairs:
        after[a].add(b)
        before[b].add(a)
    singles = {b: len(found) for b, found in before.items()}

    def discount(counts):
        once, twice = (sum(c == n for c in counts) for n in (1, 2))
        return once / (once + 2 * twice) if once and twice else 0.5

    one, two = discount([*singles.values(), 0]), discount(pairs.values())
    whole = sum(singles.values())
    spread = 1 - sum(max(c - one, 0) for c in singles.values()) / whole

    def chance(a, b):
        single = max(singles.get(b, 0) - one, 0) / whole + spread / vocabulary
        total = sum(pairs[a, x] for x in after[a])
        if not total:
            return single
        return max(pairs[a, b] - two, 0) / total + two * len(after[a]) / total * single

    return chance


def test_pairs_are_those_of_a_plain_implementation():
    draw = random.Random(3)
    lines = [[BEGIN, *(draw.choice([2, 2, 2, 3, 4, 5, 9]) for _ in range(draw.randint(1, 9))), END] for _ in range(40)]
    flat = np.array([i for line in lines for i in line], np.uint64)
    since = np.array([i for line in lines for i in range(len(line))])
    arrays = perplexity._kneser_ney(perplexity._Stream(flat, since), 20, 2, 1)
    made = Model(b"", 2, **arrays)
    expected = kneser_ney(lines, 20)
    for a in (0, 2, 3, 4, 5, 9, 11):
        for b in (1, 2, 3, 4, 5, 9, 11):
            found = float(np.exp(perplexity._log_chances(stream([BEGIN, a, b] if a else [a, b]), made)[-1]))
            assert found == pytest.approx(expected(a, b), rel=1e-5), (a, b)


def test_text_of_its_kind_is_likelier_than_the_same_words_mixed(model):
    draw = random.Random(1)
    for text in sentences(20, seed=9):
        mixed = text.split()
        draw.shuffle(mixed)
        assert log_perplexity(text, model) < log_perplexity(" ".join(mixed[::-1]) + " zzz", model)
    assert log_perplexity("", model) == math.inf == log_perplexity(" \n ", model)
    assert math.isfinite(log_perplexity("\ud83d你好\x00" * 50, model))


def test_lines_do_not_see_each_other(model):
    one, two = sentences(2, seed=4)
    both = log_perplexity(f"{one}\n\n{two}\n", model)
    parts = [perplexity._log_chances(perplexity._stream(model.processor, [x]), model) for x in (one, two)]
    assert both == pytest.approx(-np.concatenate(parts).mean())


def test_a_model_is_what_was_saved(model, tmp_path):
    model.save(tmp_path / "model.npz")
    read = Model.load(tmp_path / "model.npz")
    assert [log_perplexity(x, read) for x in sentences(5)] == [log_perplexity(x, model) for x in sentences(5)]
    again = train(["\n".join(sentences(300))], order=4, pieces=60)
    assert all((a == b).all() for a, b in zip(model.grams + model.chances, again.grams + again.chances, strict=True))


def test_a_model_without_rare_n_grams_is_smaller_and_adds_up():
    small = train(["\n".join(sentences(300))], order=4, pieces=60, least=30)
    full = train(["\n".join(sentences(300))], order=4, pieces=60)
    assert len(small.grams[3]) < len(full.grams[3]) and len(small.grams[1]) == len(full.grams[1])
    ids = [BEGIN, *(i + 2 for i in small.processor.encode(sentences(1)[0]))][:5]
    total = sum(
        np.exp(perplexity._log_chances(stream([*ids, x]), small)[-1])
        for x in range(1, small.processor.get_piece_size() + 2)
    )
    assert total == pytest.approx(1, abs=1e-5)


def test_as_much_text_is_read_as_is_asked_for():
    endless = (f"{text}\n" for _ in iter(int, 1) for text in sentences(50))
    assert train(endless, order=2, pieces=60, characters=5000).order == 2


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_one_line(texts):
    with pytest.raises(UserError, match="is empty; name text"):
        train(texts)


def test_head_middle_and_tail():
    found = Counter()
    for value in np.linspace(3, 6, 1001):
        count_score(found, value)
    cuts = cut_points(found)
    assert cuts == pytest.approx((3.9, 4.8), abs=0.01)
    assert [bucket(x, cuts) for x in (3, cuts[0], 4.5, cuts[1], 9, math.inf)] == [
        "head",
        "middle",
        "middle",
        "tail",
        "tail",
        "tail",
    ]
