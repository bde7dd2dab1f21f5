# SPDX-License-Identifier: Apache-2.0
"""Probes of sentences' vectors in aligned text: identification, similarity, retrieval, CKA; and of translations' quality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.fairness import gini, tokens_per_text
from mlm_jax.lines import read_lines
from mlm_jax.neutrality import language as languages
from mlm_jax.neutrality import quality as qualities
from mlm_jax.neutrality.config import Aligned, Analyze, Quality
from mlm_jax.neutrality.families import family
from mlm_jax.neutrality.headlines import Best, best_of
from mlm_jax.neutrality.transformations import fit_maps, transform
from mlm_jax.neutrality.vectors import POOLINGS, Vectors
from mlm_jax.overlap import Hashed, find_overlap, report_overlap, text_hash
from mlm_jax.results import ProbeRow, probe_rows
from mlm_jax.tokenizers import Tokenizer


def read_sentences(part: Aligned) -> dict[str, list[str]]:
    """The first `fit` + `test` lines of each language.

    Raises:
      UserError: no such file, too few lines, an empty line, files of different lengths.
    """
    found, counts = {}, {}
    for language, path in part.files:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file ({part.name}, {language})")
        every = [line for _, line in read_lines(path)]
        counts[path] = len(every)
        taken = every[: part.fit + part.test]
        if len(taken) < part.fit + part.test:
            raise UserError(
                f"{path}: {len(every):,} lines; {part.name} needs {part.fit:,} to fit and {part.test:,} to test; lower them"
            )
        empty = [number for number, line in enumerate(taken, 1) if not line.strip()]
        if empty:
            raise UserError(f"{path}:{empty[0]}: empty; line n of one file is the translation of line n of the others")
        found[language] = taken
    (first, count), *rest = counts.items()
    for path, other in rest:
        if other != count:
            raise UserError(f"{first}: {count:,} lines, {path} has {other:,}; they are not aligned")
    return found


def warn_of_copies(part: Aligned, sentences: Mapping[str, Sequence[str]]) -> None:
    """Say which language has the same line twice among those tested, of which none can tell which was retrieved."""
    for language, path in part.files:
        same = part.test - len(set(sentences[language][part.fit :]))
        if same:
            console.warn(
                f"{path}: {same} of {part.test} tested lines occur twice; retrieval cannot tell them apart ({language})"
            )


def probe_fairness(part: Aligned, tokenizer: Tokenizer) -> list[ProbeRow]:
    """Tokens per sentence of each language, of all lines that are read, and their Gini coefficient: the vocabulary's, without the encoder."""
    each = {x: tokens_per_text(tokenizer, lines) for x, lines in read_sentences(part).items()}

    def made(language: str, scores: dict[str, float]) -> list[ProbeRow]:
        return probe_rows("fairness", part.name, 0, "tokens", "plain", language, scores)

    rows = [row for language, value in each.items() for row in made(language, {"tokens": value})]
    return rows + made("", {"gini": gini(list(each.values()))})


def probe_aligned(part: Aligned, made: Vectors, config: Analyze) -> tuple[list[ProbeRow], dict[str, Any]]:
    """Language identification, similarity, retrieval and CKA, layer by layer; and what is drawn of the best layer."""
    sentences = read_sentences(part)
    warn_of_copies(part, sentences)
    paths = dict(part.files)
    hashed = {
        x: [(f"{paths[x]}:{i}", text_hash(line)) for i, line in enumerate(lines, 1)] for x, lines in sentences.items()
    }
    fitted_on = [item for lines in hashed.values() for item in lines[: part.fit]]
    tested = {x: lines[part.fit :] for x, lines in hashed.items()}
    report_overlap(
        find_overlap(f"{part.name}, tested sentences", tested, "those fitted on", fitted_on), config.overlap, "overlap"
    )
    with console.progress(f"{part.name}: vectors", len(sentences), unit="languages") as advance:
        vectors = {}
        for language, text in sentences.items():
            vectors[language] = made.sentences(text, language)
            advance(1, language)
    pivot = config.pivot if config.pivot in vectors else next(iter(vectors))
    classes = read_classes(part) if part.classes else None
    rows: list[ProbeRow] = []
    with console.progress(f"{part.name}: probes", made.layers + 1, unit="layers") as advance:
        for layer in range(made.layers + 1):
            for p, pooling in enumerate(POOLINGS):
                fit = {x: np.asarray(v[p, layer, : part.fit]) for x, v in vectors.items()}
                test = {x: np.asarray(v[p, layer, part.fit :]) for x, v in vectors.items()}
                rows += _one_layer(part, fit, test, classes, pivot, config, layer, pooling)
            advance(1, f"layer {layer}")
    best = best_of(rows, part.name, "retrieval", "accuracy", "centred")
    drawn = _draw_aligned(part, vectors, pivot, best)
    return rows, {part.name: drawn}


def read_classes(part: Aligned) -> np.ndarray:
    """The class of each line, str [fit + test].

    Raises:
      UserError: there is no such file, it has too few lines, an empty one, or one class alone among those fitted on.
    """
    if not Path(part.classes).is_file():
        raise UserError(f"{part.classes}: no such file ({part.name}, classes)")
    found = [line.strip() for _, line in read_lines(part.classes)][: part.fit + part.test]
    if len(found) < part.fit + part.test:
        raise UserError(f"{part.classes}: {len(found):,} lines; {part.name} has {part.fit + part.test:,}, a class each")
    if "" in found:
        raise UserError(f"{part.classes}:{found.index('') + 1}: empty; name the line's class")
    if len(set(found[: part.fit])) < 2:
        raise UserError(
            f"{part.classes}: {found[0]} alone in the first {part.fit:,} lines; two classes at least can be told apart"
        )
    return np.asarray(found)


def _one_layer(
    part: Aligned,
    fit: Any,
    test: Any,
    classes: np.ndarray | None,
    pivot: str,
    config: Analyze,
    layer: int,
    pooling: str,
) -> list[ProbeRow]:
    rows: list[ProbeRow] = []
    k, kinds = config.neighbours, config.transformations

    def add(probe: str, transformation: str, metric: str, value: float, language: str = "") -> None:
        rows.extend(probe_rows(probe, part.name, layer, pooling, transformation, language, {metric: value}))

    for kind in dict.fromkeys(("plain", "centred", *kinds)):
        maps = fit_maps(kind, fit, pivot)
        a, b = ({x: maps[x](v) for x, v in side.items()} for side in (fit, test))
        accuracy, _ = languages.identify(a, b)
        add("identification", kind, "accuracy", accuracy)
        if config.network:
            add("identification", kind, "network_accuracy", languages.identify(a, b, network=True)[0])
        if classes is not None:
            of_fit, of_test = classes[: part.fit], classes[part.fit :]
            told = languages.classify(a[pivot], of_fit, np.concatenate(list(b.values()))).reshape(len(b), -1)
            for language, found_classes in zip(b, told, strict=True):
                add("transfer", kind, "accuracy", float(np.mean(found_classes == of_test)), language)
        for language in test:
            if language == pivot:
                continue
            for x, y in ((language, pivot), (pivot, language)):
                add("retrieval", kind, "accuracy", retrieval.accuracy(b[x], b[y]), f"{x}-{y}")
                add("retrieval", kind, "margin_accuracy", retrieval.accuracy(b[x], b[y], k, True), f"{x}-{y}")
            add("retrieval", kind, "mexa", retrieval.mexa(b[language], b[pivot]), f"{language}-{pivot}")
    found = languages.similarity(test, families_of(test))
    if found is not None:
        add("similarity", "plain", "v_measure", found.v_measure)
        add("similarity", "plain", "rand", found.rand)
    for language in test:
        if language != pivot:
            add("cka", "plain", "cka", languages.cka(test[language], test[pivot]), f"{language}-{pivot}")
    return rows


def families_of(found: Iterable[str]) -> dict[str, str]:
    """Language → genus, of those whose genus is known."""
    return {x: genus for x in found if (genus := family(x)) is not None}


def _draw_aligned(part: Aligned, vectors: Any, pivot: str, best: Best) -> dict[str, Any]:
    """What the page draws: at the best layer, all pairs' retrieval, the confusion, the tree and the map."""
    layer, pooling = best["layer"], best["pooling"]
    p = POOLINGS.index(pooling)
    fit = {x: np.asarray(v[p, layer, : part.fit]) for x, v in vectors.items()}
    test = {x: np.asarray(v[p, layer, part.fit :]) for x, v in vectors.items()}
    drawn: dict[str, Any] = {
        "layer": layer,
        "pooling": pooling,
        "languages": list(test),
    }
    for kind in ("plain", "centred"):
        made = transform(kind, fit, test, pivot)
        drawn[f"retrieval_{kind}"] = [
            [1.0 if x == y else retrieval.accuracy(made[x], made[y]) for y in test] for x in test
        ]
        drawn[f"confusion_{kind}"] = languages.identify(transform(kind, fit, fit, pivot), made)[1].tolist()
        drawn[f"plane_{kind}"] = {x: places.round(4).tolist() for x, places in languages.plane(made).items()}
    found = languages.similarity(test, families_of(test))
    if found is not None:
        drawn |= {
            "tree": found.tree.tolist(),
            "leaves": found.languages,
            "families": [family(x) for x in found.languages],
        }
    return drawn


def hashed_pairs(judged: qualities.Judged) -> list[Hashed]:
    """Places and hashes of scored pairs."""
    pairs = zip(judged.places, judged.source, judged.translation, strict=True)
    return [(place, text_hash(*pair)) for place, *pair in pairs]


def probe_quality(part: Quality, made: Vectors, config: Analyze) -> list[ProbeRow]:
    """Correlation of people's scores with cosines, and with regression on source, translation and both, layer by layer."""
    test = qualities.read_judged(part.test, part)
    fit = qualities.read_judged(part.train, part) if part.train else None
    if fit is not None:
        report_overlap(
            find_overlap(part.name, {"": hashed_pairs(test)}, part.train, hashed_pairs(fit)),
            config.overlap,
            "overlap",
        )

    def vectors(judged: qualities.Judged) -> tuple[np.ndarray, np.ndarray]:
        return made.sentences(judged.source, part.languages[0]), made.sentences(judged.translation, part.languages[1])

    tested, fitted = vectors(test), vectors(fit) if fit is not None else None
    rows: list[ProbeRow] = []
    with console.progress(part.name, made.layers + 1, unit="layers") as advance:
        for layer in range(made.layers + 1):
            for p, pooling in enumerate(POOLINGS):
                a, b = (np.asarray(v[p, layer]) for v in tested)
                found = {("quality, cosine", "plain"): qualities.by_cosine(a, b, test.score)}
                if fit is not None and fitted is not None:
                    x, y = (np.asarray(v[p, layer]) for v in fitted)
                    found["quality, cosine", "centred"] = qualities.by_cosine(
                        a - x.mean(axis=0), b - y.mean(axis=0), test.score
                    )
                    for name, u, v in (
                        ("source", x, a),
                        ("translation", y, b),
                        ("both", np.hstack([x, y]), np.hstack([a, b])),
                    ):
                        found[f"quality, {name}", "plain"] = qualities.by_regression(u, fit.score, v, test.score)
                for (probe, kind), scores in found.items():
                    rows += probe_rows(probe, part.name, layer, pooling, kind, "-".join(part.languages), scores)
            advance(1, f"layer {layer}")
    return rows
