# SPDX-License-Identifier: Apache-2.0
"""All probes of an encoder: what `analyze` does, and its table."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.evaluate.run import kept
from mlm_jax.files import write_whole
from mlm_jax.finetune.examples import lines
from mlm_jax.finetune.models import choose, nested
from mlm_jax.neutrality import language as languages
from mlm_jax.neutrality import quality as qualities
from mlm_jax.neutrality import word_alignment as alignments
from mlm_jax.neutrality.config import DECODERS, TRANSFORMATIONS, Aligned, Analyze, Quality, WordAlignment
from mlm_jax.neutrality.families import family
from mlm_jax.neutrality.transformations import fitted, transform
from mlm_jax.neutrality.vectors import POOLINGS, Vectors, make_vectors
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train import initial
from mlm_jax.train.trained import Trained, checkpoint_steps, read_trained

Rows = list[dict[str, Any]]
FOLD = 2  # word vectors are centred by the other half of the sentences
WORKED = 3  # alignments drawn


def run(config: Analyze) -> Rows:
    """Run every probe that is not done yet.

    Returns:
      The rows of results.json: probe, set, layer (0: the embedding), pooling, transformation, languages, metric, value. What
      is drawn beside them (trees, maps, heat maps, worked alignments) is in figures.json.

    Raises:
      UserError: bad input.
    """
    workdir = epath.Path(config.workdir)
    if config.checkpoints:
        checkpoint_steps(config.init)  # before the long work
    trained = read_trained(workdir)
    tokenizer = load_tokenizer(workdir / "vocabulary")
    made = make_vectors(trained, tokenizer, config.max_length, workdir / "vectors")

    def vectors_of_tuned(other: str) -> Vectors:
        return make_vectors(read_tuned(other, trained), tokenizer, config.max_length, workdir / "vectors")

    rows: Rows = []
    figures: dict[str, Any] = {}
    for aligned in config.aligned:
        found, drawn = kept(workdir, aligned.name, probe_aligned, aligned, made, config)
        rows, figures = rows + found, figures | drawn
    for pairs in config.word_alignment:
        found, drawn = kept(workdir, pairs.name, probe_words, pairs, made)
        rows, figures = rows + found, figures | drawn
        for other in config.compare:
            name = f"{pairs.name}.{Path(other).name}"
            rows = rows + kept(workdir, name, compare_words, pairs, made, vectors_of_tuned, other)
    for judged in config.quality:
        rows = rows + kept(workdir, judged.name, probe_quality, judged, made)
    if config.checkpoints:
        rows = rows + through_pretraining(config)
    write_whole(workdir / "results.json", json.dumps(rows, ensure_ascii=False, indent=0) + "\n")
    write_whole(workdir / "results.csv", as_csv(rows))
    write_whole(workdir / "figures.json", json.dumps(figures, ensure_ascii=False) + "\n")
    return rows


def read_sentences(part: Aligned) -> dict[str, list[str]]:
    """The first `fit` + `test` lines of each language.

    Raises:
      UserError: no such file, too few lines, an empty line, files of different lengths, two lines the same among those tested
        (which of them was retrieved could not be told).
    """
    found, counts = {}, {}
    for language, path in part.files:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file ({part.name}, {language})")
        every = [line for _, line in lines(path)]
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
    for (language, path), taken in zip(part.files, found.values(), strict=True):
        same = part.test - len(set(taken[part.fit :]))
        if same:
            console.warn(
                f"{path}: {same} of {part.test} tested lines occur twice; retrieval cannot tell them apart ({language})"
            )
    return found


def probe_aligned(part: Aligned, made: Vectors, config: Analyze) -> tuple[Rows, dict[str, Any]]:
    """Language identification, similarity, retrieval and CKA, layer by layer; and what is drawn of the best layer."""
    sentences = read_sentences(part)
    with console.progress(f"{part.name}: vectors", len(sentences), unit="languages") as advance:
        vectors = {}
        for language, text in sentences.items():
            vectors[language] = made.sentences(text, language)
            advance(1, language)
    pivot = config.pivot if config.pivot in vectors else next(iter(vectors))
    rows: Rows = []
    with console.progress(f"{part.name}: probes", made.layers + 1, unit="layers") as advance:
        for layer in range(made.layers + 1):
            for p, pooling in enumerate(POOLINGS):
                fit = {x: np.asarray(v[p, layer, : part.fit]) for x, v in vectors.items()}
                test = {x: np.asarray(v[p, layer, part.fit :]) for x, v in vectors.items()}
                rows += _one_layer(part, fit, test, pivot, config.neighbours, {"layer": layer, "pooling": pooling})
            advance(1, f"layer {layer}")
    best = best_of(rows, part.name, "retrieval", "accuracy", "centred")
    drawn = _draw_aligned(part, vectors, pivot, best)
    return rows, {part.name: drawn}


def _one_layer(part: Aligned, fit: Any, test: Any, pivot: str, k: int, at: dict[str, Any]) -> Rows:
    rows: Rows = []

    def add(probe: str, transformation: str, metric: str, value: float, language: str = "") -> None:
        rows.append(
            {
                "probe": probe,
                "set": part.name,
                **at,
                "transformation": transformation,
                "languages": language,
                "metric": metric,
                "value": value,
            }
        )

    for kind in TRANSFORMATIONS:
        maps = {x: fitted(kind, fit, x, pivot) for x in fit}
        a, b = ({x: maps[x](v) for x, v in side.items()} for side in (fit, test))
        accuracy, _ = languages.identify(a, b)
        add("identification", kind, "accuracy", accuracy)
        for language in test:
            if language == pivot:
                continue
            for x, y in ((language, pivot), (pivot, language)):
                add("retrieval", kind, "accuracy", retrieval.accuracy(b[x], b[y]), f"{x}-{y}")
                add("retrieval", kind, "margin_accuracy", retrieval.accuracy(b[x], b[y], k, True), f"{x}-{y}")
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


def _draw_aligned(part: Aligned, vectors: Any, pivot: str, best: dict[str, Any]) -> dict[str, Any]:
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


def probe_words(part: WordAlignment, made: Vectors) -> tuple[Rows, dict[str, Any]]:
    """Word alignment by every layer, plain and centred; at the best layer by every decoder; and some alignments drawn."""
    gold = alignments.read_gold(part.pairs, part.gold)
    a, b = made.words(gold.source, part.languages[0]), made.words(gold.target, part.languages[1])
    cut = sum(
        x.shape[1] < len(s) or y.shape[1] < len(t) for x, y, s, t in zip(a, b, gold.source, gold.target, strict=True)
    )
    if cut:
        console.warn(f"{part.name}: {cut} of {len(a)} pairs cut to max_length; words beyond have no links")
    rows: Rows = []

    def found(layer: int, kind: str, decoder: str) -> list[alignments.Links]:
        x, y = ([v[layer] for v in side] for side in (a, b))
        if kind == "centred":
            x, y = centred_by_the_other_half(x), centred_by_the_other_half(y)
        return [
            alignments.DECODE[decoder](alignments.cosines(u, v, part.distortion)) for u, v in zip(x, y, strict=True)
        ]

    def add(layer: int, kind: str, decoder: str) -> dict[str, float]:
        scores = alignments.scores(found(layer, kind, decoder), gold.sure, gold.possible)
        for metric, value in scores.items():
            rows.append(
                {"probe": f"alignment, {decoder}", "set": part.name, "layer": layer, "pooling": "words", "transformation": kind,
                 "languages": "-".join(part.languages), "metric": metric, "value": value}
            )  # fmt: skip
        return scores

    with console.progress(f"{part.name}: alignment", made.layers + 1, unit="layers") as advance:
        aer = []
        for layer in range(made.layers + 1):
            aer.append(add(layer, "plain", part.decoder)["aer"])
            add(layer, "centred", part.decoder)
            advance(1, f"layer {layer} AER {aer[-1]:.3f}")
    best = int(np.argmin(aer))
    for decoder in DECODERS:
        if decoder != part.decoder:
            add(best, "plain", decoder)
            add(best, "centred", decoder)
    links = found(best, "plain", part.decoder)
    # Short pairs, which can be read.
    short = sorted(range(len(a)), key=lambda i: abs(len(gold.source[i]) + len(gold.target[i]) - 18))[:WORKED]
    worked = [
        {
            "source": gold.source[i], "target": gold.target[i], "links": sorted(links[i]), "sure": sorted(gold.sure[i]),
            "possible": sorted(gold.possible[i]), "cosines": alignments.cosines(a[i][best], b[i][best]).round(3).tolist(),
        }
        for i in short
    ]  # fmt: skip
    return rows, {part.name: {"layer": best, "decoder": part.decoder, "worked": worked}}


def centred_by_the_other_half(words: list[np.ndarray]) -> list[np.ndarray]:
    """Word vectors less the mean of the words in sentences of the other parity, [words, width] each."""
    means = (
        [np.concatenate(words[half::FOLD]).mean(axis=0) for half in range(FOLD)] if len(words) >= FOLD else [0.0, 0.0]
    )
    return [v - means[(i + 1) % FOLD] for i, v in enumerate(words)]


def compare_words(part: WordAlignment, before: Vectors, load: Callable[[str], Vectors], other: str) -> Rows:
    """Mean cosine of words that are aligned, and of random words, in two encoders (Moon et al. 2019).

    Args:
      load: the vectors of another encoder, by its folder.
      other: that folder.
    """
    gold = alignments.read_gold(part.pairs, part.gold)
    rng = np.random.default_rng(0)
    rows: Rows = []
    for encoder, made in (("before", before), (Path(other).name, load(other))):
        a, b = made.words(gold.source, part.languages[0]), made.words(gold.target, part.languages[1])
        kept = [
            [(i, j) for i, j in sorted(s) if i < x.shape[1] and j < y.shape[1]]
            for s, x, y in zip(gold.sure, a, b, strict=True)
        ]
        x = np.concatenate([v[:, [i for i, _ in links]] for v, links in zip(a, kept, strict=True)], axis=1)
        y = np.concatenate([v[:, [j for _, j in links]] for v, links in zip(b, kept, strict=True)], axis=1)
        if not x.shape[1]:
            raise UserError(f"{part.gold}: no sure link (i-j) there; {part.name} cannot be compared")
        order = rng.permutation(x.shape[1])
        for layer in range(made.layers + 1):
            u, v = retrieval.normalise(x[layer]), retrieval.normalise(y[layer])
            for metric, value in (
                ("aligned", (u * v).sum(axis=1).mean()),
                ("random", (u * v[order]).sum(axis=1).mean()),
            ):
                rows.append(
                    {"probe": f"aligned words, {encoder}", "set": part.name, "layer": layer, "pooling": "words", "transformation": "plain",
                     "languages": "-".join(part.languages), "metric": metric, "value": float(value)}
                )  # fmt: skip
    return rows


def probe_quality(part: Quality, made: Vectors) -> Rows:
    """Correlation of people's scores with cosines, and with regression on source, translation and both, layer by layer."""
    test = qualities.read_judged(part.test, part)
    fit = qualities.read_judged(part.train, part) if part.train else None

    def vectors(judged: qualities.Judged) -> tuple[np.ndarray, np.ndarray]:
        return made.sentences(judged.source, part.languages[0]), made.sentences(judged.translation, part.languages[1])

    tested, fitted = vectors(test), vectors(fit) if fit is not None else None
    rows: Rows = []
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
                    for metric, value in scores.items():
                        rows.append(
                            {"probe": probe, "set": part.name, "layer": layer, "pooling": pooling, "transformation": kind,
                             "languages": "-".join(part.languages), "metric": metric, "value": value}
                        )  # fmt: skip
            advance(1, f"layer {layer}")
    return rows


def through_pretraining(config: Analyze) -> Rows:
    """Identification and retrieval at each checkpoint of the run that `init` names: the same rows, with their `step`.

    Raises:
      UserError: `init` is not a run with checkpoints.
    """
    workdir = epath.Path(config.workdir)

    @functools.cache
    def vectors_at(step: int) -> Vectors:
        trained = read_trained(config.init, str(step))
        tokenizer = load_tokenizer(workdir / "vocabulary")
        return make_vectors(trained, tokenizer, config.max_length, workdir / "vectors" / str(step))

    def probe_step(part: Aligned, step: int) -> Any:
        return probe_aligned(part, vectors_at(step), config)

    rows: Rows = []
    for step in checkpoint_steps(config.init):
        for part in config.aligned:
            found, _ = kept(workdir, f"{part.name}.step{step}", probe_step, part, step)
            rows += [row | {"step": step} for row in found if row["probe"] in ("identification", "retrieval")]
        vectors_at.cache_clear()  # one checkpoint on the devices at a time
    return rows


def read_tuned(folder: str, like: Trained) -> Trained:
    """The encoder of a fine-tuned workdir with one model (or WORKDIR/models/NAME), or of a run.

    Raises:
      UserError: there is none, or it has another vocabulary.
    """
    path = epath.Path(folder)
    if path.parent.name == "models":
        stored = initial.read(path)
    elif (path / "models").exists():
        stored = initial.read(choose(path, ""))
    else:
        other = read_trained(path)
        if other.vocabulary.sha256 != like.vocabulary.sha256:
            raise UserError(f"{folder}: has another vocabulary, so its words cannot be compared")
        return other
    tree = nested(stored.params)
    params = tree.get("encoder", tree)
    return Trained(stored.model, params, like.vocabulary, stored.languages, -1)


def best_of(rows: Rows, name: str, probe: str, metric: str, kind: str) -> dict[str, Any]:
    """Layer and pooling of the highest mean over languages, and the mean."""
    groups: dict[tuple[int, str], list[float]] = {}
    for r in rows:
        if (r["set"], r["probe"], r["metric"], r["transformation"]) == (name, probe, metric, kind) and "step" not in r:
            groups.setdefault((r["layer"], r["pooling"]), []).append(r["value"])
    # Of equals the mean, and the highest layer.
    (layer, pooling), values = max(
        groups.items(), key=lambda group: (round(float(np.mean(group[1])), 9), group[0][1] != "first", group[0][0])
    )
    return {"layer": layer, "pooling": pooling, "value": float(np.mean(values))}


# Of each probe: the metric of the headline, and how it is called.
HEADLINES = {
    "identification": ("accuracy", "language identification"),
    "retrieval": ("accuracy", "sentence retrieval"),
    "similarity": ("v_measure", "families, V-measure"),
    "alignment": ("f1", "word alignment, F1"),
    "quality": ("pearson", "translation quality, Pearson"),
    "cka": ("cka", "CKA with the pivot"),
}


def headlines(rows: Rows) -> list[dict[str, Any]]:
    """Of each set and probe: plain, centred, normalised and projected at the layer and pooling that is best plain.

    Returns:
      probe (in words), set, layer, pooling, and a value a transformation, where there is one.
    """
    out = []
    for name, probe in dict.fromkeys((r["set"], r["probe"]) for r in rows if "step" not in r):
        if probe.split(",")[0] not in HEADLINES:
            continue
        metric, title = HEADLINES[probe.split(",")[0]]
        best = best_of(rows, name, probe, metric, "plain")
        at = (name, probe, metric, best["layer"], best["pooling"])
        found: dict[str, Any] = {"probe": title + probe[len(probe.split(",")[0]) :], "set": name, **best}
        for kind in TRANSFORMATIONS:
            values = [
                r["value"]
                for r in rows
                if (r["set"], r["probe"], r["metric"], r["layer"], r["pooling"]) == at
                and r["transformation"] == kind
                and "step" not in r
            ]
            if values:
                found[kind] = float(np.mean(values))
        out.append(found)
    return out


def table(rows: Rows) -> str:
    """The headline table as text."""
    cells = [
        [
            h["set"],
            h["probe"],
            str(h["layer"]),
            h["pooling"],
            *(f"{100 * h[k]:.1f}" if k in h else "" for k in TRANSFORMATIONS),
        ]
        for h in headlines(rows)
    ]
    return console.table(["set", "probe", "layer", "pooling", *TRANSFORMATIONS], cells)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """A line a value."""
    columns = ["probe", "set", "step", "layer", "pooling", "transformation", "languages", "metric"]
    out = [",".join([*columns, "value"])]
    for r in rows:
        cells = [f'"{v}"' if "," in (v := str(r.get(c, ""))) else v for c in columns]
        out.append(",".join([*cells, f"{r['value']:.6f}"]))
    return "\n".join(out) + "\n"
