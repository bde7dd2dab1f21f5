# SPDX-License-Identifier: Apache-2.0
"""What is measured on vectors of texts: against scikit-learn, scipy and brute force, on vectors whose answers are known."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import ndcg_score

from mlm_jax import cli
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.evaluate.config import (
    Classed,
    Classification,
    Clustering,
    Collection,
    Evaluate,
    Pairs,
    Retrieval,
    Scored,
    Search,
    Similarity,
    validate_evaluation,
)
from mlm_jax.evaluate.embeddings import measure_vectors
from mlm_jax.evaluate.sets import read_relevant, read_scored, texts_with_ids
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.train.initial import write_initial
from tests.finetune.toys import make_start


def vectors(seed, rows, width=5):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def cosines(a, b):
    a, b = (x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1_000), st.integers(2, 30), st.booleans())
def test_retrieval_s_ranks_are_those_of_brute_force(seed, count, both_ways):
    a, b = vectors(seed, count), vectors(seed + 1, count)
    found = retrieval.ranking_scores(a, b, both_ways=both_ways)
    assert found["accuracy"] == pytest.approx(retrieval.accuracy(a, b, both_ways=both_ways))
    one = np.eye(count)
    expected = []
    for score in [cosines(a, b), cosines(b, a)][: 1 + both_ways]:
        ranks = [1 + sorted(row, reverse=True).index(row[i]) for i, row in enumerate(score)]
        expected.append((np.mean([1 / r for r in ranks]), ndcg_score(one, score, k=10)))
    assert (found["mrr"], found["ndcg_10"]) == pytest.approx(np.mean(expected, axis=0))


def test_a_sentence_that_occurs_twice_has_the_rank_of_the_nearer(monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS", 2)
    b = np.eye(4, dtype=np.float32)
    a = np.array([[0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0.5, 0], [1, 1, 1, 1]], np.float32)
    same = retrieval.first_lines(["x", "x", "y", "z"])
    assert retrieval.right_ranks(a, b, same).tolist() == [1, 1, 2, 4]
    texts = (list("abcd"), ["x", "x", "y", "z"])
    assert retrieval.ranking_scores(a, b, texts=texts)["accuracy"] == retrieval.accuracy(a, b, texts=texts) == 0.5


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1_000), st.integers(1, 8), st.integers(11, 40), st.integers(1, 12))
def test_search_is_scored_as_scikit_learn_does(seed, asked, count, recall):
    rng = np.random.default_rng(seed)
    a, b = vectors(seed, asked), vectors(seed + 1, count)
    grades = rng.integers(0, 4, (asked, count)) * (rng.random((asked, count)) < 0.2)
    grades[:, 0] += grades.sum(axis=1) == 0
    found = retrieval.best_documents(a, b, max(recall, 10))
    score = cosines(a, b)
    assert found.tolist() == [np.argsort(-row)[: found.shape[1]].tolist() for row in score]
    relevant = [{int(j): float(row[j]) for j in np.flatnonzero(row)} for row in grades]
    scores = retrieval.search_scores(found, relevant, recall)
    assert scores["ndcg_10"] == pytest.approx(ndcg_score(grades, score, k=10))
    best = [[int(grades[i, j] > 0) for j in np.argsort(-row)] for i, row in enumerate(score)]
    assert scores["mrr_10"] == pytest.approx(np.mean([1 / (1 + x.index(1)) if 1 in x[:10] else 0 for x in best]))
    assert scores[f"recall_{recall}"] == pytest.approx(np.mean([sum(x[:recall]) / sum(x) for x in best]))


def planted(layer, pooling):
    """An embedder whose vectors point where the text's first letter says, nearly."""

    def embed(texts, language, prompt=""):
        turned = [
            np.eye(26)[ord(text[0]) - ord("a")] + 0.01 * np.sin([len(text) * i for i in range(26)]) for text in texts
        ]
        return np.array(turned, np.float32)

    return embed


def write_table(path, rows):
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n")
    return str(path)


def test_what_is_planted_is_found(tmp_path):
    queries = write_table(tmp_path / "q", [("q1", "a query"), ("q2", "b query"), ("q3", "c query")])
    documents = write_table(tmp_path / "d", [(x, f"{x} document") for x in "abcxyz"])
    relevant = write_table(
        tmp_path / "r", [("query-id", "corpus-id", "score"), ("q1", "a", 2), ("q2", "x", 1), ("q1", "b", 0)]
    )
    search = Search("s", (Collection(("de", "en"), queries, documents, relevant),), recall=1)
    (row,) = measure_vectors(search, planted)
    assert row["examples"] == 2 and row["every"]["recall_1"] == 0.5 and 0.5 < row["every"]["ndcg_10"] < 1
    assert (row["language"], row["metric"], row["protocol"]["pooling"]) == ("de", "ndcg_10", "own")
    texts = [("label", "text"), *((x, f"{x}{i * 'o'} text") for x in "abc" for i in range(9))]
    path = write_table(tmp_path / "t.tsv", texts)
    (row,) = measure_vectors(Clustering("c", (Classed("en", path),)), planted)
    assert row["value"] == pytest.approx(1)
    rows = measure_vectors(Classification("k", Classed("en", path), (Classed("de", path),)), planted)
    assert rows[0]["every"] == {"accuracy": 1.0, "macro_f1": pytest.approx(1)} and rows[0]["protocol"][
        "trained_on"
    ] == ["en"]
    other = write_table(tmp_path / "o.tsv", [*texts, ("z", "z text")])
    with pytest.raises(UserError, match=r"o.tsv: class 'z' is none of those that were trained on \(a, b, c\)"):
        measure_vectors(Classification("k", Classed("en", path), (Classed("de", other),)), planted)


def test_similarity_is_scipy_s_correlation(tmp_path):
    pairs = [(f"a{'o' * i}", f"{'ab'[i % 3 == 0]}{'u' * (i % 4)}", (i * 7) % 5) for i in range(12)]
    path = write_table(tmp_path / "s.tsv", [("one", "two", "said"), *pairs])
    (row,) = measure_vectors(Similarity("s", (Scored(("ro", "en"), path, ("one", "two", "said")),)), planted)
    embed = planted(0, "own")
    cosine = np.diag(cosines(embed([p[0] for p in pairs], ""), embed([p[1] for p in pairs], "")))
    gold = [p[2] for p in pairs]
    assert row["every"]["spearman"] == pytest.approx(spearmanr(gold, cosine)[0], abs=1e-5)
    assert row["every"]["pearson"] == pytest.approx(pearsonr(gold, cosine)[0], abs=1e-5)


def test_files_of_beir_and_trec_are_read(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"_id": "1", "title": "T", "text": "one"}\n{"_id": "2", "text": "two"}\n')
    found = texts_with_ids(str(tmp_path / "d.jsonl"))
    assert found == {"1": "T one", "2": "two"}
    (tmp_path / "r").write_text("1 0 2 1\n1 0 1 0\n")
    assert read_relevant(str(tmp_path / "r"), found, found) == {"1": {"2": 1.0}}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (lambda p: texts_with_ids(p), "1\tone\n1\ttwo\n", "x:2: the id 1 is there before"),
        (lambda p: read_relevant(p, {"q": ""}, {"d": ""}), "q d 1\nq e 1\n", "x:2: e is not the id of a document"),
        (lambda p: read_relevant(p, {"q": ""}, {"d": ""}), "q d 1\nq d much\n", "x:2: much is not a number"),
        (lambda p: read_relevant(p, {"q": ""}, {"d": ""}), "q d 1\nq d\n", "x:2: not a query, a document"),
        (lambda p: read_relevant(p, {"q": ""}, {"d": ""}), "q d 0\n", "x: no query has an answer"),
    ],
)
def test_bad_files_are_one_line(tmp_path, read, content, message):
    (tmp_path / "x").write_text(content)
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\tscore\nso\tso\thigh\nso\tso\t1\n", "s.tsv:2: 'high' in field 'score' is not a number"),
        ("a\tb\tscore\nso\t\t1\n", "s.tsv:2: nothing in field 'b'"),
        ("a\tc\tscore\nso\tso\t1\n", "no text in field 'b'"),
        ("a\tb\tscore\nso\tso\t1\n", "s.tsv: 1 pairs; a correlation needs two"),
    ],
)
def test_bad_scored_pairs_are_one_line(tmp_path, content, message):
    (tmp_path / "s.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        read_scored(Scored(("ro", "en"), str(tmp_path / "s.tsv"), ("a", "b", "score")))


def test_an_encoder_s_own_vectors_are_compared_in_the_table(tmp_path, capsys):
    own = SentenceVectors("max", 1, True, {"query": "so "}, 8)
    start = make_start(tmp_path / "suite")
    write_initial(start, dataclasses.replace(read_pretrained(start), vectors=own))
    (tmp_path / "a").write_text("the film\nAnna\nOtto 1 2\n")
    table = write_table(
        tmp_path / "s.tsv", [("a", "b", "c"), ("so", "so", 1), ("film", "Anna", 0), ("film", "film", 1)]
    )
    same = (Pairs(("en", "en"), (str(tmp_path / "a"),) * 2),)
    config = Evaluate(
        workdir=str(tmp_path / "suite"),
        max_length=16,
        retrieval=(Retrieval("own", same, pooling="own", prompt="query"), Retrieval("mean", same)),
        similarity=(Similarity("sts", (Scored(("en", "en"), table, ("a", "b", "c")),)),),
    )
    lines = "from mlm_jax.config import Mesh\nfrom mlm_jax.evaluate.config import *\n\n\ndef get_config():\n    return "
    (tmp_path / "suite.py").write_text(f"{lines}{config!r}\n")
    assert cli.main(["evaluate", str(tmp_path / "suite.py")]) == 0
    rows = {r["task"]: r for r in json.loads((tmp_path / "suite/results.json").read_text())}
    assert rows["own"]["protocol"]["prompt"] == "query"
    # Each sentence is found, and both sides are the same text: as many tokens, and no language with more of them.
    every = rows["own"]["every"]
    assert every["accuracy"] == every["mrr"] == every["ndcg_10"] == 1.0
    assert every["tokens"] == every["tokens_other"] > 0 and every["gini"] == 0.0
    assert "prompt" not in rows["mean"]["protocol"] and rows["sts"]["metric"] == "spearman"
    assert "spearman" in capsys.readouterr().out and "spearman" in (tmp_path / "suite/results.html").read_text()


def test_a_layer_beside_own_vectors_is_refused():
    with pytest.raises(UserError, match="x: layer 3 with pooling own"):
        validate_evaluation(Evaluate(similarity=(Similarity("x", (), layer=3),)))
