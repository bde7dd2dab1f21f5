# SPDX-License-Identifier: Apache-2.0
"""Bounds per language: the formulas on plain lists, and the same values for any split and order of the documents."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlm_jax.curate import thresholds
from mlm_jax.curate.filters import ENGLISH_STOP_WORDS, Bounds, decide, fineweb2, judge, measure
from mlm_jax.curate.thresholds import (
    ANY_LANGUAGE,
    Sketch,
    count_score,
    derive,
    least_confidence,
    mean_and_deviation,
    quantile,
    stop_words,
)

NTREX = Path(__file__).parents[3] / "shared" / "data" / "ntrex"


def histogram(values):
    found = Counter()
    for value in values:
        count_score(found, value)
    return found


def sketch(texts=(), confidences=(), **scores):
    """A sketch of documents with the scores that are given."""
    made = Sketch(documents=max([len(texts), len(confidences), *map(len, scores.values())]))
    made.scores = {name: histogram(values) for name, values in scores.items()}
    made.confidences = histogram(confidences)
    for text in texts:
        made.words.setdefault(0, Counter()).update(text.split())
    return made


def test_moments_and_quantiles_are_those_of_the_list():
    values = np.round(np.random.default_rng(0).random(500), 3)
    found = histogram(values.tolist())
    assert mean_and_deviation(found) == pytest.approx((values.mean(), values.std()))
    for share in (0.1, 0.5, 0.9, 1.0):
        assert quantile(found, share) == np.quantile(values, share, method="inverted_cdf")


def test_large_scores_are_counted_to_three_digits_and_none_is_too_large():
    assert list(histogram([0.0004, 0.1236, 12.345, 98765.0, float("inf")])) == [0, 124, 12300, 98800000, 10**9]


@pytest.mark.parametrize(
    ("confidences", "expected"),
    [
        ([0.2] * 10, 0.3),
        ([0.99] * 10, 0.9),
        ([0.5, 0.7, 0.8, 0.9, 1.0], 0.8 - np.std([0.5, 0.7, 0.8, 0.9, 1.0])),
        ([], 0.3),
    ],
)
def test_confidence_from_which_a_language_is_believed(confidences, expected):
    assert least_confidence(sketch(confidences=confidences * 20)) == pytest.approx(expected)


def test_of_few_documents_nothing_is_derived():
    assert least_confidence(sketch(confidences=[0.99] * 99)) == 0.3
    assert least_confidence(sketch(confidences=[0.99] * 100)) == 0.9


def test_a_bound_by_deviations_lies_where_the_english_one_does():
    draw = np.random.default_rng(1)
    english, other = draw.normal(5, 0.5, 1000), draw.normal(8, 1, 1000)
    sketches = {"en": sketch(long_words=english), "xx": sketch(long_words=other)}
    found = derive(sketches, Bounds({"long_words": 6.0}))
    away = (6 - english.mean()) / english.std()
    assert found["en"].rules == {"long_words": 6.0}
    assert found["xx"].rules["long_words"] == pytest.approx(other.mean() + away * other.std(), abs=0.03)
    alone = derive({"xx": sketches["xx"]}, Bounds({"long_words": 6.0}))["xx"].rules["long_words"]
    assert alone == pytest.approx(other.mean() + 3 * other.std(), abs=0.03)


def test_a_bound_below_which_documents_go_lies_below_the_mean():
    draw = np.random.default_rng(1)
    english, other = draw.normal(5, 0.5, 1000), draw.normal(2, 0.25, 1000)
    found = derive({"en": sketch(short_words=english), "xx": sketch(short_words=other)}, Bounds({"short_words": 4.0}))
    away = (english.mean() - 4) / english.std()
    assert found["xx"].rules["short_words"] == pytest.approx(other.mean() - away * other.std(), abs=0.03)


def test_english_that_is_beyond_its_own_bound_does_not_take_half_of_the_others():
    draw = np.random.default_rng(1)
    english, other = draw.normal(0.5, 0.1, 1000), draw.normal(0.3, 0.1, 1000).clip(0)
    found = derive({"en": sketch(top_2_gram=english), "xx": sketch(top_2_gram=other)}, Bounds({"top_2_gram": 0.2}))
    assert found["xx"].rules["top_2_gram"] == pytest.approx(other.mean() + other.std(), abs=0.01)


def test_a_bound_by_the_tail_takes_at_most_a_tenth_and_nothing_that_english_keeps():
    values = np.linspace(0, 1, 1001)
    rules = Bounds({"unfinished_lines": 0.12, "lists": 0.3})
    found = derive({"xx": sketch(unfinished_lines=values, lists=values)}, rules)
    assert found["xx"].rules == {"unfinished_lines": pytest.approx(0.1), "lists": pytest.approx(0.9)}
    found = derive({"xx": sketch(unfinished_lines=0.5 + values / 2, lists=values / 10)}, rules)
    assert found["xx"].rules == rules.rules


def test_few_documents_keep_to_what_is_the_same_everywhere():
    scores = {name: [0.5] * 99 for name in fineweb2().rules}
    rules = derive({"xx": sketch(**scores)}, fineweb2())["xx"]
    assert set(rules.rules) == {
        "few_words",
        "many_words",
        "repeated_line_characters",
        "hashes",
        "ellipses",
        "bullets",
        "lines_with_ellipses",
        *ANY_LANGUAGE,
    }
    assert rules.stop_words == ()


def test_a_text_that_repeats_itself_goes_in_every_language():
    """However few documents a language has, and however much its others repeat themselves."""
    spam = "Een zin die steeds weer terugkomt, tot niemand hem meer leest. " * 30
    few = {name: [0.5] for name in fineweb2().rules}
    high = {name: [0.9] * 200 if name in ANY_LANGUAGE else [0.5] * 200 for name in fineweb2().rules}
    for sketched in (sketch(**few), sketch(**high)):
        assert judge(spam, derive({"nl": sketched}, fineweb2())["nl"]).startswith("repeated_")
    scores = {name: [0.5] * 100 for name in fineweb2().rules}
    assert set(derive({"xx": sketch(**scores)}, fineweb2())["xx"].rules) == set(fineweb2().rules)


def test_stop_words_are_the_most_frequent_that_english_has_less_often():
    words = [*"abcdefghi", *["the"] * 9, *["der"] * 50, *["und"] * 40]
    made = sketch([" ".join(words)] * 100)
    english = sketch([" ".join([*["the"] * 9, *"abcdefghi"])])
    assert stop_words(made) == ("der", "und", "the", "a", "b", "c", "d", "e")
    assert stop_words(made, english) == ("der", "und")
    found = derive({"xx": made, "en": english}, Bounds({}, ENGLISH_STOP_WORDS))
    assert found["en"].stop_words == ENGLISH_STOP_WORDS and found["xx"].stop_words[:2] == ("der", "und")
    assert stop_words(Sketch()) == ()


def test_eight_to_thirty_words_that_are_a_seventh_of_the_text():
    rare = sketch([" ".join(f"w{i:04}" for i in range(1000))])
    assert stop_words(rare) == tuple(f"w{i:04}" for i in range(30))
    even = sketch([" ".join(f"w{i:04}" for i in range(100))])
    assert len(stop_words(even)) == 15
    often = sketch([" ".join(f"w{i:04}" for i in range(20))])
    assert len(stop_words(often)) == 8


@pytest.mark.skipif(not NTREX.exists(), reason="the text is not part of the project")
def test_good_text_of_any_language_stays():
    """News: by the bounds for English all of Chinese, Japanese and Thai go; by their own, about a tenth at most."""
    sketches, scored = {}, {}
    for name in ("eng", "eus", "hin", "jpn", "kor", "mlt", "tha", "zho-CN"):
        language = {"eng": "en"}.get(name, name)
        lines = (NTREX / f"{name}.txt").read_text().splitlines()
        texts = ["\n".join(lines[at : at + 8]) for at in range(0, len(lines) - 7, 8)]
        scored[language] = [(text, measure(text)) for text in texts]
        sketches[language] = Sketch()
        for text, scores in scored[language]:
            sketches[language].add(text, scores, 1.0)
    bounds = derive(sketches, fineweb2())
    gone = {x: np.mean([judge(text, bounds[x], scores) != "" for text, scores in pairs]) for x, pairs in scored.items()}
    english = {x: np.mean([decide(scores, fineweb2()) != "" for _, scores in pairs]) for x, pairs in scored.items()}
    assert max(gone.values()) <= 0.12, gone
    assert min(english["zho-CN"], english["jpn"], english["tha"]) > 0.9


def test_sums_are_the_same_for_any_split_and_order(monkeypatch):
    monkeypatch.setattr(thresholds, "TABLE", 300)  # so that levels go
    draw = random.Random(0)
    documents = [
        (" ".join(draw.choices([f"w{i}" for i in range(400)], k=30)) + "\n.", draw.random()) for _ in range(200)
    ]

    def summed(parts):
        found = []
        for part in range(parts):
            made = Sketch()
            for text, confidence in documents[part::parts]:
                made.add(text, measure(text), confidence)
            found.append(Sketch.from_json(json.loads(json.dumps(made.to_json()))))
        draw.shuffle(found)
        for other in found[1:]:
            found[0].merge(other)
        return json.dumps(found[0].to_json())

    expected = summed(1)
    assert json.loads(expected)["level"] > 0 and json.loads(expected)["words"]
    for parts in (2, 7, 200):
        draw.shuffle(documents)
        assert summed(parts) == expected


def test_a_sketch_is_small_whatever_it_sees(monkeypatch):
    monkeypatch.setattr(thresholds, "TABLE", 1000)
    made = Sketch()
    for i in range(300):
        made.add(" ".join(f"x{i}y{j}" for j in range(50)), {"few_words": i * 7.3}, i / 300)
    assert sum(map(len, made.words.values())) <= 1000
    assert len(json.dumps(made.to_json())) < 60_000
