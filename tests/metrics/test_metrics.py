# SPDX-License-Identifier: Apache-2.0
"""Metrics beside implementations that nobody here wrote, and the cases that tables get wrong."""

import string
import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Task
from mlm_jax.metrics import answers, entities
from mlm_jax.metrics import labels as metrics


def sentences_of(letters, kinds=("PER", "LOC")):
    """Sentences of pairs of tags: gold, found."""
    tag = st.sampled_from(["O", *(f"{letter}-{kind}" for letter in letters for kind in kinds)])
    return st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=12), min_size=1, max_size=6)


def labels_of(letters, kinds=("PER", "LOC")):
    return ["O", *(f"{letter}-{kind}" for letter in letters for kind in kinds)]


def scheme_of(letters):
    return entities.recognise(labels_of(letters))


SCORES = ("precision", "recall", "entity_f1")


@pytest.mark.parametrize("letters", ["I", "BI", "IE", "BIES"])
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_entity_scores_equal_seqeval(letters, data):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    sentences = data.draw(sentences_of(letters))
    gold, found = ([[pair[i] for pair in s] for s in sentences] for i in (0, 1))
    ours = entities.entity_scores(gold, found, scheme_of(letters))
    theirs = seqeval.precision_recall_fscore_support(gold, found, average="micro", zero_division=0)
    assert [ours[name] for name in SCORES] == pytest.approx([float(x) for x in theirs[:3]])
    # The same with the letter behind, with other marks between, in lower case.
    for change in (lambda t: "-".join(t.split("-")[::-1]), lambda t: t.replace("-", "_"), str.lower):
        scheme = entities.recognise([change(label) for label in labels_of(letters)])
        again = entities.entity_scores(*([[change(t) for t in s] for s in side] for side in (gold, found)), scheme)
        assert again == pytest.approx(ours)


@pytest.mark.parametrize("name", ["iob1", "iob2", "ioe1", "ioe2", "iobes", "bilou"])
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_strict_entities_equal_seqevals(name, data):
    theirs = pytest.importorskip("seqeval.scheme")
    letters = entities.SCHEMES[name]
    scheme = entities.recognise(labels_of(letters), name)
    for sentence in data.draw(sentences_of(letters)):
        tags = [pair[0] for pair in sentence]
        expected = theirs.Tokens(tags, getattr(theirs, name.upper())).entities
        assert entities.strict_entities(tags, scheme, name) == {(e.tag, e.start, e.end - 1) for e in expected}


@given(sentences_of("BIES"))
@settings(deadline=None)
def test_the_letters_of_a_scheme_do_not_matter(sentences):
    """BILOU, BMES and BMEWO say what IOBES says, malformed tags included."""
    gold, found = ([[pair[i] for pair in s] for s in sentences] for i in (0, 1))
    expected = entities.entity_scores(gold, found, scheme_of("BIES"))
    for letters in ("BILU", "BMES", "BMEW"):
        table = dict(zip("BIES", letters, strict=True))
        other = [[[table.get(t[0], "O") + t[1:] for t in s] for s in side] for side in (gold, found)]
        assert entities.entity_scores(*other, scheme_of(letters)) == expected


@pytest.mark.parametrize(
    ("labels", "name", "kinds"),
    [
        (["O", "B-PER", "I-PER"], "iob", {"PER"}),
        (["O", "I-PER"], "io", {"PER"}),
        (["O", "B-PER"], "iob", {"PER"}),
        (["O", "E-PER", "I-PER"], "ioe", {"PER"}),
        (["O", "U-PER", "B-LOC", "L-LOC"], "bilou", {"PER", "LOC"}),
        (["O", "B-a-b", "I-a-b", "L-a-b"], "bilou", {"a-b"}),
        (["B", "M", "E", "S"], "bmes", {"_"}),
        (["O", "B-X", "M-X", "E-X", "W-X"], "bmewo", {"X"}),
        (["o", "b_per", "i_per"], "iob", {"per"}),
        (["O", "PER-B", "PER-I", "WORK_OF_ART-B"], "iob", {"PER", "WORK_OF_ART"}),
        (["O", "B:LOC", "I:LOC"], "iob", {"LOC"}),
        (["O", "I-B", "B-B", "B-I"], "iob", {"B", "I"}),
        (["O", "PER", "LOC"], "io", {"PER", "LOC"}),
        (["O", "art-film", "person-actor", "other"], "io", {"art-film", "person-actor", "other"}),
        (["OTHER", "B-PER", "I-PER"], "iob", {"PER"}),
        (["O"], "io", set()),
        (["NOUN", "VERB", "X"], None, None),
        (["N-SG", "N-PL", "V-PST"], None, None),
    ],
)
def test_schemes_are_recognised_from_all_labels(labels, name, kinds):
    scheme = entities.recognise(labels)
    assert (scheme and scheme.name) == name
    if scheme:
        assert {kind for role, kind in scheme.parts.values() if role != "O"} == kinds
        assert set(scheme.parts) == set(labels)


@pytest.mark.parametrize(
    ("labels", "asked", "message"),
    [
        (["O", "B-PER", "X-PER"], "auto", "labels X-PER: no scheme has such a prefix"),
        (["O", "B-PER", "I-PER", "LOC"], "auto", "labels LOC: no prefix, others have one"),
        (["O", "B-PER", "I-PER", "M-PER"], "auto", "prefixes B, I, M of no one scheme"),
        (["O", "N", "V", "A"], "auto", "labels A, N, V beside O: kinds of entities, or classes"),
        (["O", "B-PER", "S-PER"], "bilou", "task.scheme: bilou has no such prefix as S-PER"),
        (["O", "PER"], "iob2", "labels PER: no prefix"),
    ],
)
def test_labels_of_no_scheme_are_refused_by_name_and_the_advice_works(labels, asked, message):
    with pytest.raises(UserError, match=message) as e:
        entities.recognise(labels, asked)
    assert "task.scheme (io:" in str(e.value)
    assert entities.recognise(labels, "none") is None
    assert entities.recognise(labels, "io").name == "io"


def test_every_scheme_may_be_asked_for():
    assert set(typing.get_args(typing.get_type_hints(Task)["scheme"])) == set(entities.NAMES)


def test_sentences_tell_what_labels_do_not():
    iob, ioe = scheme_of("BI"), scheme_of("IE")
    assert entities.refined(iob, [["B-PER", "I-PER"]]) == "iob2"
    assert entities.refined(iob, [["I-PER", "O", "I-LOC", "B-LOC"]]) == "iob1"
    assert entities.refined(iob, [["B-PER", "I-PER"], ["B-LOC"], ["O", "I-PER"]]) == "iob2"  # a slip
    assert entities.refined(ioe, [["I-PER", "E-PER"]]) == "ioe2"
    assert entities.refined(ioe, [["I-PER", "E-PER", "I-PER", "O", "I-LOC"]]) == "ioe1"


def test_entities_by_hand():
    def found(tags):
        return entities.entities(tags, scheme_of("BI"))

    assert found(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]) == {("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4)}
    assert found(["B-PER", "I-LOC"]) == {("PER", 0, 0), ("LOC", 1, 1)}
    assert found(["O", "O"]) == set()
    # A word by itself is an entity in BILOU: it was in none.
    assert entities.entities(["U-PER", "O", "B-LOC", "L-LOC"], scheme_of("BILU")) == {("PER", 0, 0), ("LOC", 2, 3)}


def test_entity_scores_of_nothing_are_zero_and_symmetric():
    def scores(gold, found):
        return entities.entity_scores(gold, found, scheme_of("BI"))

    none, some = [["O", "O"]], [["B-PER", "O"]]
    assert scores(none, none)["entity_f1"] == 0
    assert scores(none, some)["entity_f1"] == scores(some, none)["entity_f1"] == 0
    assert scores(some, some) == {"precision": 1, "recall": 1, "entity_f1": 1, "strict_f1": 1}
    with pytest.raises(ValueError, match="2 tags for a sentence of 1"):
        scores([["O"]], [["O", "O"]])


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
        ("", "", "en", "squad", 0, 1),
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
        words = answers.normalize(a, language, rules)
        assert answers.f1(a, a, language, rules) == bool(words) and answers.f1(a, a, language, rules, True) == 1
        assert answers.exact(a, b, language, rules) <= (value if words else 1)


def test_the_best_of_several_answers_counts():
    found = answers.answer_scores([["1998", "in 1998"], []], ["in 1998", ""], unanswerable=True)
    assert found == {"f1": 1, "exact": 1}


@pytest.mark.parametrize(
    ("gold", "found", "rules", "unanswerable", "f1", "exact"),
    [
        # evaluate-v1.1.py and MLQA's: no word in common is F1 0, though the normalised answers are equal.
        (["The"], "the", "squad", False, 0, 1),
        (["?"], "!", "squad", False, 0, 1),
        (["die"], "?", "mlqa", False, 0, 1),
        (["?", "Denver"], "Denver", "squad", False, 1, 1),
        (["?", "Denver"], "!", "squad", False, 0, 1),
        (["", "Denver"], "", "squad", False, 0, 1),
        # evaluate-v2.0.py: answers without words do not count, unless there is no other.
        (["The"], "the", "squad", True, 1, 1),
        (["The"], "Denver", "squad", True, 0, 0),
        (["?", "Denver"], "", "squad", True, 0, 0),
        (["", "Denver"], "", "squad", True, 0, 0),
        (["", "Denver"], "Denver", "squad", True, 1, 1),
        ([], "", "squad", True, 1, 1),
        ([], "the", "squad", True, 1, 1),
        ([], "Denver", "squad", True, 0, 0),
    ],
)
def test_answers_without_words_by_the_official_scripts(gold, found, rules, unanswerable, f1, exact):
    language = "de" if rules == "mlqa" else "en"
    assert answers.answer_scores([gold], [found], language, rules, unanswerable) == {"f1": f1, "exact": exact}


PHRASES = st.lists(st.sampled_from(["the", "a", "Denver", "won", "?", "", "2016."]), max_size=3).map(" ".join)


def official_f1(gold, found, version):
    """One question's F1 by the formulas of evaluate-v1.1.py and evaluate-v2.0.py, worked on sorted words."""

    def words(text):
        bare = "".join(c for c in text.lower() if c not in string.punctuation)
        return sorted(word for word in bare.split() if word not in ("a", "an", "the"))

    if version == 2:
        gold = [text for text in gold if words(text)] or [""]
    best = 0
    for text in gold:
        one, other = words(text), words(found)
        shared = sum(min(one.count(word), other.count(word)) for word in set(one))
        if version == 2 and not (one and other):
            best = max(best, one == other)
        elif shared:
            best = max(best, 2 * shared / (len(one) + len(other)))
    return best


@given(st.lists(st.lists(PHRASES, min_size=1, max_size=3), min_size=1, max_size=5), st.data())
@settings(deadline=None, max_examples=200)
def test_many_answers_as_the_official_scripts_count_them(gold, data):
    found = [data.draw(PHRASES) for _ in gold]
    for version in (1, 2):
        f1 = answers.answer_scores(gold, found, unanswerable=version == 2)["f1"]
        assert f1 == pytest.approx(np.mean([official_f1(*pair, version) for pair in zip(gold, found, strict=True)]))


@pytest.mark.parametrize(
    ("gold", "found", "message"),
    [
        (["Denver"], ["Denver"], "gold: 'Denver', not a list of a question's answers"),
        ([["Denver"]], "Denver", "found: not a list of answers"),
        ([["Denver"]], [None], "found: not a list of answers"),
        ([["Denver"], [3]], ["Denver", "3"], r"gold: \[3\], not a list"),
        ([["Denver"]], ["Denver", "3"], "found: 2 answers for 1 questions"),
        ([[]], [""], "gold: a question without answers; measure it with unanswerable=True"),
    ],
)
def test_what_is_no_list_of_answers_is_refused(gold, found, message):
    with pytest.raises(UserError, match=message):
        answers.answer_scores(gold, found)
