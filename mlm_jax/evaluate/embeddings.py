# SPDX-License-Identifier: Apache-2.0
"""What vectors of texts are good for: search, similarity as people see it, clusters, and classes by a linear model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import singledispatch
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import v_measure_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlm_jax import console
from mlm_jax.encode.sentences import Embed
from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.evaluate.config import Classed, Classification, Clustering, Made, Search, Similarity
from mlm_jax.evaluate.sets import read_classed, read_relevant, read_scored, texts_with_ids
from mlm_jax.metrics.labels import accuracy, macro_f1, pearson, spearman
from mlm_jax.results import BenchmarkRow, benchmark_row

Part = Search | Similarity | Clustering | Classification
# language, main metric, metric → value, examples, of each language
Found = Iterator[tuple[str, str, dict[str, float], int]]

UPDATES = 1_000  # of a logistic regression, at most


def measure_vectors(part: Part, embedder: Callable[[int, Made], Embed]) -> list[BenchmarkRow]:
    """The rows of a benchmark, one per language.

    Args:
      embedder: layer, pooling → what embeds.

    Raises:
      UserError: a file cannot be read, or its content cannot be measured.
    """
    settings = {"layer", "pooling", "prompt", "prompts", "recall", "seeds", "strength"}
    protocol: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(part).items()
        if name in settings and value != ""
    }
    if isinstance(part, Classification):
        protocol["trained_on"] = [part.train.language]
    rows: list[BenchmarkRow] = []
    with console.progress(part.name, len(sets_of(part)), unit="languages") as advance:
        for language, metric, scores, examples in measured(part, embedder(part.layer, part.pooling)):
            rows.append(benchmark_row(part.name, language, metric, scores, examples, protocol))
            advance(1, f"{language} {100 * scores[metric]:.1f}")
    return rows


def sets_of(part: Part) -> tuple[Any, ...]:
    """The sets of a benchmark, one per language."""
    if isinstance(part, Search):
        return part.collections
    if isinstance(part, Similarity):
        return part.pairs
    return part.texts if isinstance(part, Clustering) else part.test


@singledispatch
def measured(part: Any, embed: Embed) -> Found:
    """What a benchmark scores in each language."""
    raise TypeError(type(part))


@measured.register
def _(part: Search, embed: Embed) -> Found:
    for collection in part.collections:
        queries, documents = texts_with_ids(collection.queries), texts_with_ids(collection.documents)
        relevant = read_relevant(collection.relevant, queries, documents)
        number = {key: i for i, key in enumerate(documents)}
        asked = [queries[key] for key in relevant]  # those without an answer have no score
        a = embed(asked, collection.languages[0], part.prompts[0])
        b = embed(list(documents.values()), collection.languages[1], part.prompts[1])
        found = retrieval.best_documents(a, b, max(part.recall, 10))
        grades = [{number[key]: grade for key, grade in of.items()} for of in relevant.values()]
        yield collection.languages[0], "ndcg_10", retrieval.search_scores(found, grades, part.recall), len(asked)


@measured.register
def _(part: Similarity, embed: Embed) -> Found:
    for pairs in part.pairs:
        first, second, gold = read_scored(pairs)
        a, b = (embed(side, x, part.prompt) for side, x in zip((first, second), pairs.languages, strict=True))
        cosine = np.sum(retrieval.normalise(a) * retrieval.normalise(b), axis=1).tolist()
        scores = {"spearman": spearman(gold, cosine), "pearson": pearson(gold, cosine)}
        yield pairs.languages[0], "spearman", scores, len(gold)


@measured.register
def _(part: Clustering, embed: Embed) -> Found:
    for texts in part.texts:
        given, classes = read_classed(texts)
        vectors, count = embed(given, texts.language, part.prompt), len(set(classes))
        found = [
            v_measure_score(classes, KMeans(count, n_init=1, random_state=seed).fit_predict(vectors))
            for seed in range(part.seeds)
        ]
        yield texts.language, "v_measure", {"v_measure": float(np.mean(found))}, len(given)


@measured.register
def _(part: Classification, embed: Embed) -> Found:
    given, classes = read_classed(part.train)
    # Without a penalty C would be infinite.
    model = LogisticRegression(C=1 / max(part.strength, 1e-9), max_iter=UPDATES)
    fitted = make_pipeline(StandardScaler(), model).fit(embed(given, part.train.language, part.prompt), classes)
    for texts in part.test:
        asked, gold = read_test(texts, set(classes))
        said = fitted.predict(embed(asked, texts.language, part.prompt)).tolist()
        scores = {"accuracy": accuracy(gold, said), "macro_f1": macro_f1(gold, said)}
        yield texts.language, "accuracy", scores, len(gold)


def read_test(texts: Classed, known: set[str]) -> tuple[list[str], list[str]]:
    """Texts and their classes, each of which a model was fitted on.

    Raises:
      UserError: as `read_classed`, or a class is another.
    """
    asked, gold = read_classed(texts)
    unknown = sorted(set(gold) - known)
    if unknown:
        raise UserError(
            f"{texts.path}: class {unknown[0]!r} is none of those that were trained on ({', '.join(sorted(known))})"
        )
    return asked, gold
