# SPDX-License-Identifier: Apache-2.0
"""The probes find what is planted, and agree with brute force, hand-worked cases and scikit-learn."""

import itertools
import math

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.linear_model import LinearRegression
from sklearn.metrics import v_measure_score

from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.neutrality import language, quality, word_alignment
from mlm_jax.neutrality.config import MORE, TRANSFORMATIONS, Quality
from mlm_jax.neutrality.families import FAMILIES, GENERA, SHORT, family
from mlm_jax.neutrality.probe_words import transformed_by_the_other_half
from mlm_jax.neutrality.transformations import transform
from mlm_jax.neutrality.word_alignment import DECODE, argmax, edge_cover, itermax, matching, scores, similarities


def planted(seed=0, count=120, width=12, noise=0.02, languages=("aa", "bb", "cc")):
    """Meaning + an offset a language, the halves for fitting and for testing."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(count, width))
    vectors = {x: meaning + 6 * rng.normal(size=width) + noise * rng.normal(size=(count, width)) for x in languages}
    half = count // 2
    return {x: v[:half] for x, v in vectors.items()}, {x: v[half:] for x, v in vectors.items()}


def test_centring_takes_the_language_out_and_leaves_the_meaning():
    fit, test = planted()
    found = {}
    for kind in (*TRANSFORMATIONS, *MORE):
        a, b = transform(kind, fit, fit, "aa"), transform(kind, fit, test, "aa")
        accuracy, confusion = language.identify(a, b)
        assert confusion.sum() == 180 and confusion.trace() / 180 == pytest.approx(accuracy)
        found[kind] = accuracy, retrieval.accuracy(b["bb"], b["aa"])
    assert found["plain"][0] == 1 and found["plain"][1] < 1
    for kind in ("centred", "normalised", "projected", *MORE):
        assert found[kind][1] == 1, kind
        assert found[kind][0] < 0.5, kind  # chance is a third


def test_statistics_are_of_the_fitted_sentences_alone():
    fit, test = planted()
    for kind in (*TRANSFORMATIONS[1:], *MORE):
        before = transform(kind, fit, {"bb": test["bb"][:5]}, "aa")["bb"]
        # Whatever else is tested changes nothing (but rounding: products of other shapes), and what is fitted does.
        np.testing.assert_allclose(before, transform(kind, fit, test, "aa")["bb"][:5], rtol=1e-9, atol=1e-9)
        ramp = np.arange(fit["aa"].size).reshape(fit["aa"].shape) * 0.01
        other = {x: v + ramp[:, ::i] for i, (x, v) in zip((1, -1, 1), fit.items(), strict=True)}
        assert not np.allclose(before, transform(kind, other, {"bb": test["bb"][:5]}, "aa")["bb"])


def test_transformations_are_what_they_are_called():
    fit, test = planted(noise=0.5)
    np.testing.assert_allclose(
        transform("centred", fit, test, "aa")["bb"], test["bb"] - fit["bb"].mean(axis=0), atol=1e-5
    )
    normal = transform("normalised", fit, fit, "aa")["bb"]
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(axis=0), 1, atol=1e-4)
    theirs = LinearRegression().fit(fit["bb"], fit["aa"]).predict(test["bb"])
    np.testing.assert_allclose(transform("projected", fit, test, "aa")["bb"], theirs, atol=1e-3)
    assert transform("projected", fit, test, "aa")["aa"] == pytest.approx(test["aa"])


def test_whitened_vectors_have_no_direction_of_their_own():
    fit, _ = planted(count=400, noise=0.5)
    white = transform("whitened", fit, fit, "aa")["bb"]
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(12), atol=1e-3)


def test_lsar_takes_the_means_apart_and_leaves_what_is_orthogonal():
    """Against the paper's algorithm, with the means in a plane of their own."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    means = {x: 5 * basis[:, 0] + basis[:, 1:3] @ rng.normal(size=2) for x in ("aa", "bb", "cc")}
    noise = rng.normal(size=(50, 10))
    fit = {x: mean + noise - noise.mean(axis=0) for x, mean in means.items()}
    found = transform("lsar", fit, fit, "aa")
    after = [v.mean(axis=0) for v in found.values()]
    np.testing.assert_allclose(after[1], after[0], atol=1e-4)
    np.testing.assert_allclose(after[2], after[0], atol=1e-4)
    kept = basis[:, 3:]  # orthogonal to all means
    np.testing.assert_allclose(found["aa"] @ kept, fit["aa"] @ kept, atol=1e-4)


def test_leace_leaves_a_linear_classifier_nothing_and_changes_least():
    fit, _ = planted(count=300, noise=0.5)
    found = transform("leace", fit, fit, "aa")
    every = np.concatenate(list(found.values())).mean(axis=0)
    for vectors in found.values():  # theorem 3.1: no classifier does better where all classes have one mean
        np.testing.assert_allclose(vectors.mean(axis=0), every, atol=1e-4)
    # Centring every language would do the same; a map that is told no language changes it by less (theorem 4.2) than any other such as
    # the projection off the means' differences.
    x = np.concatenate(list(fit.values()))
    means = np.stack([v.mean(axis=0) for v in fit.values()]) - x.mean(axis=0)
    basis = np.linalg.svd(means, full_matrices=False)[2][:2]
    projected = (x - x.mean(axis=0)) @ basis.T @ basis
    assert np.square(np.concatenate(list(found.values())) - x).sum() <= np.square(projected).sum() + 1e-6


def test_leace_is_the_authors_own():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("concept_erasure")
    fit, test = planted(count=300, noise=0.5)
    x, z = np.concatenate(list(fit.values())), np.repeat(np.arange(3), 150)
    eraser = theirs.LeaceEraser.fit(torch.tensor(x), torch.tensor(np.eye(3)[z]), shrinkage=False)
    found = transform("leace", fit, test, "aa")["bb"]
    np.testing.assert_allclose(found, eraser(torch.tensor(test["bb"])).numpy(), atol=1e-4)


def test_word_vectors_are_centred_by_sentences_that_are_not_theirs():
    rng = np.random.default_rng(0)
    words, others = (
        [rng.normal(size=(n, 4)).astype(np.float32) for n in lengths] for lengths in ((3, 2, 5, 1), (4, 4, 2, 2))
    )
    found, _ = transformed_by_the_other_half("centred", words, others)
    wanted = words[0] - np.concatenate([words[1], words[3]]).mean(axis=0)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
    for kind in ("centred", "normalised", "whitened", "lsar", "leace"):
        found, _ = transformed_by_the_other_half(kind, words, others)
        changed, _ = transformed_by_the_other_half(kind, [words[0] * 9, *words[1:]], others)
        np.testing.assert_array_equal(changed[2], found[2])  # of the same half as the changed one
        assert not np.array_equal(changed[1], found[1])


def test_languages_cluster_into_their_families():
    rng = np.random.default_rng(0)
    middle = {"deu": 0, "nld": 0, "fra": 1, "ita": 1, "ces": 2, "pol": 2}
    places = rng.normal(size=(3, 16)) * 5
    vectors = {x: places[m] + 0.3 * rng.normal(size=16) + rng.normal(size=(40, 16)) for x, m in middle.items()}
    found = language.similarity(vectors, {x: family(x) for x in vectors})
    assert found.v_measure == found.rand == 1 and found.tree.shape == (5, 4)
    wrong = dict(zip(vectors, ["a", "b", "c", "a", "b", "c"], strict=True))
    theirs = AgglomerativeClustering(3, metric="cosine", linkage="average").fit_predict(
        [v.mean(axis=0) for v in vectors.values()]
    )
    assert language.similarity(vectors, wrong).v_measure == pytest.approx(v_measure_score(list(wrong.values()), theirs))
    assert language.similarity(vectors, {"deu": "a", "fra": "b"}) is None
    assert language.similarity(vectors, dict.fromkeys(vectors, "one")) is None


def test_every_code_has_one_genus():
    codes = [code for codes in GENERA.values() for code in codes.split()]
    assert len(codes) == len(set(codes)) == len(FAMILIES)
    assert set(SHORT.values()) <= set(codes)
    assert family("zho-CN") == family("zh_CN") == "Chinese" and family("sr@latin") == "Slavic" and family("qqq") is None


@given(st.integers(0, 10_000), st.integers(3, 30), st.integers(1, 6))
def test_cka_of_rotated_and_scaled_vectors_is_1(seed, rows, width):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, width)), rng.normal(size=(rows, 5))
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    assert language.cka(x, 3.7 * x @ turn + 2) == pytest.approx(1)
    assert language.cka(x, y) == pytest.approx(language.cka(y, x)) == pytest.approx(language.cka(-2 * x @ turn, y))
    assert -1e-9 <= language.cka(x, y) <= 1 + 1e-9
    assert language.cka(np.ones((4, 3)), np.ones((4, 3))) == 0


def test_cka_is_the_same_by_either_form():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 9))
    gram = lambda v: (v - v.mean(axis=0)) @ (v - v.mean(axis=0)).T  # noqa: E731
    k, m = gram(x), gram(y)
    expected = (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())
    assert language.cka(x, y) == pytest.approx(expected) == pytest.approx(language.cka(x[:, :], y))


sizes = st.tuples(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))


def similarity(seed, n, m):
    return np.random.default_rng(seed).uniform(-1, 1, (n, m))


@settings(deadline=None)
@given(sizes)
def test_the_edge_cover_is_the_cheapest_of_all(size):
    s = similarity(*size)
    n, m = s.shape
    cells = list(itertools.product(range(n), range(m)))
    best = math.inf
    # A cheapest cover has fewer links than words.
    for count in range(max(n, m), n + m):
        for links in itertools.combinations(cells, count):
            if {i for i, _ in links} == set(range(n)) and {j for _, j in links} == set(range(m)):
                best = min(best, sum(1 - s[link] for link in links))
    found = edge_cover(s)
    assert {i for i, _ in found} == set(range(n)) and {j for _, j in found} == set(range(m))
    assert sum(1 - s[link] for link in found) == pytest.approx(best)


@settings(deadline=None)
@given(sizes)
def test_the_matching_is_networkxs(size):
    s = similarity(*size)
    graph = networkx.Graph()
    graph.add_weighted_edges_from(((("s", i), ("t", j), s[i, j]) for i, j in np.ndindex(s.shape)))
    theirs = networkx.max_weight_matching(graph, maxcardinality=True)
    total = sum(graph.edges[a, b]["weight"] for a, b in theirs)
    found = matching(s)
    assert sum(s[link] for link in found) == pytest.approx(total) and len(found) == min(s.shape)


@given(sizes)
def test_argmax_is_mutual_and_itermax_adds_to_it(size):
    s = similarity(*size)
    links = {(i, j) for i, j in np.ndindex(s.shape) if s[i, j] == s[i].max() == s[:, j].max()}
    assert argmax(s) == links
    assert itermax(s, rounds=1) == links and links <= itermax(s)
    more = itermax(s) - links
    assert not any(i in {a for a, _ in links} and j in {b for _, b in links} for i, j in more)


def test_itermax_gives_a_word_left_over_its_next_best():
    s = np.array([[0.9, 0.1, 0.0], [0.1, 0.8, 0.75], [0.0, 0.1, 0.2]])
    assert argmax(s) == {(0, 0), (1, 1)}
    # Word 2 and word 2 are left; so the pair (1, 2), worth 0.9 x 0.75, takes both sides' best.
    assert itermax(s) == {(0, 0), (1, 1), (1, 2)}


def simalign_itermax(similarity, rounds=2):
    """SimAlign's matrices (Jalili Sabet et al. 2020, section 3.1), with loops: which links each round adds."""
    n, m = similarity.shape
    links = np.zeros((n, m), bool)

    def mutual(s):
        return {(i, j) for i in range(n) for j in range(m) if np.argmax(s[i]) == j and np.argmax(s[:, j]) == i}

    for i, j in mutual(similarity):
        links[i, j] = True
    for _ in range(rounds - 1 if min(n, m) > 2 else 0):
        weights = np.empty((n, m))
        for i, j in np.ndindex(n, m):
            weights[i, j] = [1.0, 0.9, 0.0][int(links[i].any()) + int(links[:, j].any())]
        if links.any(axis=1).all() or links.any(axis=0).all():
            break
        for i, j in mutual(similarity * weights):
            if weights[i, j]:
                links[i, j] = True
    return {(int(i), int(j)) for i, j in np.argwhere(links)}


@pytest.mark.parametrize("distortion", [0.0, 0.5])
@pytest.mark.parametrize("rounds", [2, 3])
def test_itermax_is_simaligns_on_vectors_whose_cosines_may_be_negative(rounds, distortion):
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(300):
        n, m = rng.integers(1, 9, 2)
        a, b = rng.normal(size=(n, 4)), rng.normal(size=(m, 4))
        cosine = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
        theirs = (cosine + 1) / 2
        if distortion and min(n, m) > 1:
            for i, j in np.ndindex(n, m):
                theirs[i, j] *= 1 - distortion * (i / (n - 1) - j / (m - 1)) ** 2
        assert itermax(similarities(a, b, distortion), rounds) == simalign_itermax(theirs, rounds)
        changed += itermax(cosine, rounds) != simalign_itermax(theirs, rounds)
    assert changed > 10  # of the cosine itself, it is not


def test_the_diagonal_wins_with_a_distortion_penalty():
    flat = np.ones((3, 2))
    found = similarities(flat, flat, distortion=1.0)
    assert argmax(found) == {(0, 0), (1, 1), (2, 2)}
    np.testing.assert_allclose(found[0], [1, 0.75, 0])


def test_alignment_error_rate_worked_by_hand():
    # Three links; two are sure, one possible only; four are sure in all.
    sure, possible = [{(0, 0), (1, 1)}, {(0, 1), (1, 0)}], [{(0, 0), (1, 1), (1, 2)}, {(0, 1), (1, 0)}]
    found = [{(0, 0), (1, 2)}, {(1, 0)}]
    got = scores(found, sure, possible)
    assert got == pytest.approx({"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "aer": 1 - (2 + 3) / (3 + 4)})
    assert scores(sure, sure, possible) == {"precision": 1, "recall": 1, "f1": 1, "aer": 0}
    assert scores([set(), set()], sure, possible) == {"precision": 0, "recall": 0, "f1": 0, "aer": 1}


@given(
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)))
)
def test_where_all_is_sure_the_error_rate_is_one_less_f1_and_sides_may_be_swapped(found, gold):
    got = scores([found], [gold], [gold])
    if found or gold:
        assert got["aer"] == pytest.approx(1 - got["f1"])
    turned = scores([{(j, i) for i, j in found}], *[[{(j, i) for i, j in gold}]] * 2)
    assert turned == got


def test_every_decoder_finds_a_planted_permutation():
    rng = np.random.default_rng(0)
    words, order = rng.normal(size=(6, 20)), rng.permutation(6)
    s = similarities(words, words[order] + 0.1 * rng.normal(size=(6, 20)))
    for name, decode in DECODE.items():
        assert decode(s) == {(int(i), j) for j, i in enumerate(order)}, name


def test_quality_that_is_planted_is_found():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(300, 8))
    good = rng.uniform(0, 1, 300)
    translation = source * good[:, None] + rng.normal(size=(300, 8)) * (1 - good[:, None])
    assert quality.by_cosine(source, translation, good)["spearman"] > 0.8
    target = rng.normal(size=(300, 8))
    score = target @ rng.normal(size=8)
    assert quality.by_regression(target[:200], score[:200], target[200:], score[200:])["pearson"] > 0.95
    assert abs(quality.by_regression(source[:200], score[:200], source[200:], score[200:])["pearson"]) < 0.4


@pytest.mark.parametrize(
    ("pairs", "gold", "message"),
    [
        ("a b ||| c\n", "1-1\n1-1\n", r"pairs: 1 lines, .*gold has 2"),
        ("a b c\n", "1-1\n", "pairs:1: not two sentences"),
        ("a b ||| c\n", "1-2\n", "gold:1: 1-2 is beyond the 2 and 1 words of .*; mend"),
        ("a b ||| c\n", "0-1\n", "gold:1: 0-1: words seem to be counted from 0 .*set first=0"),
        ("a b ||| c\n", "1p0\n", "gold:1: 1p0: words seem to be counted from 0"),
        ("a b ||| c\n", "1:1\n", "gold:1: 1:1 is not a link"),
    ],
)
def test_bad_alignments_are_one_line(tmp_path, pairs, gold, message):
    (tmp_path / "pairs").write_text(pairs)
    (tmp_path / "gold").write_text(gold)
    with pytest.raises(UserError, match=message):
        word_alignment.read_gold(str(tmp_path / "pairs"), str(tmp_path / "gold"))


def test_gold_may_count_from_zero_and_says_so_where_it_does_not(tmp_path):
    (tmp_path / "pairs").write_text("a b ||| c d e\n")
    (tmp_path / "gold").write_text("0-0 1p2\n")
    gold = word_alignment.read_gold(str(tmp_path / "pairs"), str(tmp_path / "gold"), first=0)
    assert gold.sure == [{(0, 0)}] and gold.possible == [{(0, 0), (1, 2)}]
    (tmp_path / "gold").write_text("1-1 2-3\n")
    with pytest.raises(UserError, match=r"gold:1: 2-3 is beyond the 2 and 3 words .*set first=1"):
        word_alignment.read_gold(str(tmp_path / "pairs"), str(tmp_path / "gold"), first=0)


def test_sure_links_are_possible_and_words_count_from_one(tmp_path):
    (tmp_path / "pairs").write_text("a b ||| c d e\n")
    (tmp_path / "gold").write_text("1-1 2p3\n")
    gold = word_alignment.read_gold(str(tmp_path / "pairs"), str(tmp_path / "gold"))
    assert gold.sure == [{(0, 0)}] and gold.possible == [{(0, 0), (1, 2)}] and gold.target == [["c", "d", "e"]]


def test_every_word_keeps_its_place_whatever_space_it_is(tmp_path):
    """str.split would leave out the ideographic space, and the links would be of the words after."""
    (tmp_path / "pairs").write_text("東京 \u3000 へ  行く ||| to\u00a0the \u3000 Tokyo\n\u3000 ||| .\n")
    (tmp_path / "gold").write_text("1-3 4-1\n1-1\n")
    gold = word_alignment.read_gold(str(tmp_path / "pairs"), str(tmp_path / "gold"))
    assert gold.source == [["東京", "\u3000", "へ", "行く"], ["\u3000"]]
    assert gold.target == [["to\u00a0the", "\u3000", "Tokyo"], ["."]]
    assert gold.sure == [{(0, 2), (3, 0)}, {(0, 0)}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("original\ttranslation\tmean\na\tb\tx\n", r":2: mean is 'x', not a number"),
        ("original\ttranslation\tmean\na\tb\tinf\n", r":2: mean is inf"),
        ("original\ttranslation\tz\na\tb\t1\n", r":2: no column mean; there are original, translation, z"),
        ("original\ttranslation\tmean\na\t\t1\n", r":2: translation is empty"),
        ("original\ttranslation\tmean\na\tb\t1\n", "1 scored translations"),
    ],
)
def test_bad_scores_are_one_line(tmp_path, text, message):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(UserError, match=message):
        quality.read_judged(str(tmp_path / "x.tsv"), Quality("x", ("ro", "en"), ""))


def test_rounding_is_no_language():
    rng = np.random.default_rng(0)
    middle = {x: rng.normal(size=12).astype(np.float32) for x in ("aa", "bb")}
    same = {x: np.repeat(v[None], 30, axis=0) for x, v in middle.items()}
    left = {x: v + 1e-8 * (1 if x == "aa" else -1) for x, v in transform("centred", same, same, "aa").items()}
    assert language.identify(left, left)[0] == 0.5
