# SPDX-License-Identifier: Apache-2.0
"""Metrics beside implementations that nobody here wrote, and the cases that tables get wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.metrics import answers
from mlm_jax.metrics import labels as metrics

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER"])
SENTENCES = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12), min_size=1, max_size=6)


@given(SENTENCES)
@settings(deadline=None, max_examples=300)
def test_entity_scores_equal_seqeval(sentences):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    gold, found = ([[pair[i] for pair in s] for s in sentences] for i in (0, 1))
    ours = metrics.entity_scores(gold, found)
    theirs = seqeval.precision_recall_fscore_support(gold, found, average="micro", zero_division=0)
    assert list(ours.values()) == pytest.approx([float(x) for x in theirs[:3]])


def test_entities_by_hand():
    assert metrics.entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]) == {("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4)}
    assert metrics.entities(["B-PER", "I-LOC"]) == {("PER", 0, 0), ("LOC", 1, 1)}
    assert metrics.entities(["O", "O"]) == set()


def test_entity_scores_of_nothing_are_zero_and_symmetric():
    none, some = [["O", "O"]], [["B-PER", "O"]]
    assert metrics.entity_scores(none, none)["entity_f1"] == 0
    assert metrics.entity_scores(none, some)["entity_f1"] == metrics.entity_scores(some, none)["entity_f1"] == 0
    assert metrics.entity_scores(some, some) == {"precision": 1, "recall": 1, "entity_f1": 1}
    with pytest.raises(ValueError, match="2 tags for a sentence of 1"):
        metrics.entity_scores([["O"]], [["O", "O"]])


def test_correlations_of_constants_are_zero():
    assert metrics.pearson([1, 1, 1], [1, 2, 3]) == 0 == metrics.spearman([1, 2, 3], [2, 2, 2])
    assert metrics.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert metrics.spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1)


def test_mcc_by_its_formula():
    gold, found = ["1"] * 6 + ["0"] * 4, ["1"] * 5 + ["0"] + ["1"] + ["0"] * 3
    tp, tn, fp, fn = 5, 3, 1, 1
    expected = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert metrics.mcc(gold, found) == pytest.approx(expected)


# What the official scripts of SQuAD 1.1 and MLQA give, worked by their rules.
@pytest.mark.parametrize(
    ("gold", "found", "language", "rules", "f1", "exact"),
    [
        ("Denver Broncos", "the Denver Broncos", "en", "squad", 1, 1),
        ("Denver Broncos", "Broncos", "en", "squad", 2 / 3, 0),
        ("Santa Clara, California", "Santa Clara", "en", "squad", 0.8, 0),
        ("1,000", "1000", "en", "squad", 1, 1),
        ("", "", "en", "squad", 1, 1),
        ("", "Denver", "en", "squad", 0, 0),
        ("das Haus", "Haus", "de", "squad", 2 / 3, 0),  # SQuAD's rules know English articles only
        ("das Haus", "Haus", "de", "mlqa", 1, 1),
        ("el perro", "perro", "es", "mlqa", 1, 1),
        ("« el perro »", "perro", "es", "mlqa", 1, 1),
        ("the dog", "dog", "es", "mlqa", 2 / 3, 0),
        ("北京市", "北京", "zh", "mlqa", 0.8, 0),
        ("在2008年", "2008", "zh", "mlqa", 0.5, 0),
        ("北京市", "北京", "zh", "squad", 0, 0),
        ("दिल्ली।", "दिल्ली", "hi", "mlqa", 1, 1),
    ],
)
def test_answers_by_the_official_rules(gold, found, language, rules, f1, exact):
    assert answers.f1(gold, found, language, rules) == pytest.approx(f1)
    assert answers.exact(gold, found, language, rules) == exact


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["en", "de", "zh", "ar", "hi"]))
@settings(deadline=None)
def test_f1_is_symmetric_and_between_0_and_1(a, b, language):
    for rules in ("squad", "mlqa"):
        value = answers.f1(a, b, language, rules)
        assert 0 <= value <= 1 and value == answers.f1(b, a, language, rules)
        assert answers.f1(a, a, language, rules) == 1
        assert answers.exact(a, b, language, rules) <= value


def test_the_best_of_several_answers_counts():
    found = answers.answer_scores([["1998", "in 1998"], []], ["in 1998", ""])
    assert found == {"f1": 1, "exact": 1}
