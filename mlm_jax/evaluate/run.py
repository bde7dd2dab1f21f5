# SPDX-License-Identifier: Apache-2.0
"""A suite of benchmarks: what `evaluate` does, and its table of tasks × languages."""

from __future__ import annotations

import functools
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console, manifest
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.sentences import Embed, make_embedder, prompt_of
from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.evaluate.config import Evaluate, LanguageModel, Made, Mining, Retrieval, experiment
from mlm_jax.evaluate.embeddings import measure_vectors
from mlm_jax.evaluate.language_model import Measure, make_measure
from mlm_jax.evaluate.sets import read_aligned, two_columns
from mlm_jax.fairness import evenness, gini, tokens_per_text
from mlm_jax.fields import differences
from mlm_jax.files import copy_whole, in_bucket, is_aside, link, make_folder, sync, write_json, write_whole
from mlm_jax.finetune import run as finetuning
from mlm_jax.finetune.config import Finetune
from mlm_jax.language_names import same_language
from mlm_jax.lock import locked
from mlm_jax.mesh import make_mesh
from mlm_jax.metrics.labels import spearman
from mlm_jax.overlap import Hashed, find_overlap, report_overlap, text_hash
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.results import (
    BENCHMARK,
    BenchmarkRow,
    FinetunedRow,
    benchmark_cautions,
    benchmark_row,
    compute_once,
    finetuned_cautions,
    write_results,
)
from mlm_jax.stored import read_json
from mlm_jax.tokenizers import Tokenizer, load_tokenizer

LOWER_IS_BETTER = ("loss", "perplexity", "bits_per_byte")


def run(config: Evaluate) -> tuple[list[BenchmarkRow], signal.Signals | None]:
    """Run every benchmark that is not done yet.

    Returns:
      The rows of results.json so far, a task and language each: task, language, metric, value, every metric, examples, and
      the protocol. And the signal that stopped the run, if one did.

    Raises:
      UserError: bad input.
    """
    workdir = epath.Path(config.workdir)
    rows = own_benchmarks(config, workdir)
    for tuned in config.tuned:
        made = experiment(config, tuned)
        with locked(made.workdir, "evaluate"):
            share_encoder(workdir, epath.Path(made.workdir), made)
            console.say(f"{tuned.name}:")
            found, stopped_by = finetuning.run_finetuning(made)
        if stopped_by is not None:
            return rows, stopped_by
        console.say(finetuning.table(found, made.source))
        rows += from_experiment(tuned.name, found)
    sizes = pretraining_sizes(config.init)
    write_results(workdir, rows, BENCHMARK, "every")
    write_json(workdir / "summary.json", summary(rows, config.source, sizes), 1)
    return rows, None


def own_benchmarks(config: Evaluate, workdir: epath.Path) -> list[BenchmarkRow]:
    """What is measured on the encoder as it is: its vectors, and its language model."""
    mesh = make_mesh(config.mesh)
    tokenizer = load_tokenizer(workdir / "vocabulary")
    pretrained = functools.cache(lambda: replace(read_pretrained(workdir, mesh=mesh), dtype=config.dtype))

    @functools.cache
    def embedder(layer: int, pooling: Made) -> Embed:
        own = pretrained().vectors or SentenceVectors()
        vectors = own if pooling == "own" else replace(own, pooling=pooling, layer=layer, normalise=False, dimensions=0)
        embed = remembering(make_embedder(pretrained(), tokenizer, mesh, vectors, config.max_length))
        return lambda texts, language, prompt="": embed(texts, language, prompt_of(own, prompt))

    @functools.cache
    def measure() -> Measure:
        return make_measure(pretrained(), tokenizer, mesh, config.max_length)

    rows: list[BenchmarkRow] = []
    for part in config.retrieval:
        done = workdir / "done" / f"{part.name}.json"
        rows += compute_once(done, retrieve, part, embedder, tokenizer, config.workdir)
    for mining in config.mining:
        done = workdir / "done" / f"{mining.name}.json"
        rows += compute_once(done, mine, mining, embedder, tokenizer, config.overlap)
    for part_of_vectors in config.of_vectors:
        done = workdir / "done" / f"{part_of_vectors.name}.json"
        rows += compute_once(done, measure_vectors, part_of_vectors, embedder)
    for texts in config.language_model:
        rows += compute_once(workdir / "done" / f"{texts.name}.json", measure_texts, texts, measure)
    return rows


def remembering(embed: Embed) -> Embed:
    """The same, embedding once what several benchmarks or pairs of languages share."""
    known: dict[tuple[str, str, tuple[str, ...]], np.ndarray] = {}

    def embed_new(sentences: Sequence[str], language: str, prompt: str = "") -> np.ndarray:
        key = (language, prompt, tuple(sentences))
        if key not in known:
            known[key] = embed(sentences, language, prompt)
        return known[key]

    return embed_new


def with_prompt(embed: Embed, prompt: str) -> Embed:
    """The same with a prompt before each sentence."""
    return functools.partial(embed, prompt=prompt) if prompt else embed


def retrieve(
    part: Retrieval, embedder: Callable[[int, Made], Embed], tokenizer: Tokenizer, workdir: str
) -> list[BenchmarkRow]:
    """Retrieval accuracy, mean reciprocal rank and nDCG@10 per language, and `with_tokens`."""
    embed = with_prompt(embedder(part.layer, part.pooling), part.prompt)
    margin = part.neighbours if part.score == "margin" else 0
    rows: list[BenchmarkRow] = []
    texts = []
    protocol = {name: getattr(part, name) for name in ("layer", "pooling", "score", "neighbours", "both_ways")}
    protocol |= {"prompt": part.prompt} if part.prompt else {}
    with console.progress(part.name, len(part.pairs), unit="languages") as advance:
        for pairs in part.pairs:
            first, second = read_aligned(pairs, workdir)
            texts.append((first, second))
            a, b = embed(first, pairs.languages[0]), embed(second, pairs.languages[1])
            scores = retrieval.ranking_scores(a, b, margin, part.both_ways, (first, second))
            rows.append(benchmark_row(part.name, pairs.languages[0], "accuracy", scores, len(first), protocol))
            advance(1, f"{pairs.languages[0]} {100 * scores['accuracy']:.1f}")
    return with_tokens(rows, texts, tokenizer)


def mine(
    part: Mining, embedder: Callable[[int, Made], Embed], tokenizer: Tokenizer, overlap: float = 1.0
) -> list[BenchmarkRow]:
    """F1 of mined pairs per language, at the threshold that is best on dev, and `with_tokens` of the gold pairs.

    Args:
      overlap: the largest share of the sentences that may stand in the dev corpora.

    Raises:
      UserError: more do, or a file cannot be read.
    """
    embed = with_prompt(embedder(part.layer, part.pooling), part.prompt)
    rows: list[BenchmarkRow] = []
    texts = []
    with console.progress(part.name, len(part.corpora), unit="languages") as advance:
        for corpora in part.corpora:
            dev, test = (hashed_sides(corpora.languages, paths) for paths in (corpora.dev, corpora.test))
            on_dev = find_overlap(part.name, test, "dev", [item for side in dev.values() for item in side])
            report_overlap(on_dev, overlap, "overlap")
            found, gold = mine_one(embed, corpora.dev, corpora.languages, part.neighbours)
            threshold = retrieval.best_threshold(found, gold)
            found, gold = mine_one(embed, corpora.test, corpora.languages, part.neighbours)
            scores = retrieval.mined_scores(found, gold, threshold)
            texts.append(gold_sentences(corpora.test))
            protocol: dict[str, Any] = {
                "threshold": threshold,
                "neighbours": part.neighbours,
                "layer": part.layer,
                "pooling": part.pooling,
            }
            protocol |= {"prompt": part.prompt} if part.prompt else {}
            rows.append(benchmark_row(part.name, corpora.languages[0], "f1", scores, len(gold), protocol))
            advance(1, f"{corpora.languages[0]} {100 * scores['f1']:.1f}")
    return with_tokens(rows, texts, tokenizer)


def with_tokens(
    rows: list[BenchmarkRow], texts: Sequence[tuple[list[str], list[str]]], tokenizer: Tokenizer
) -> list[BenchmarkRow]:
    """The rows of parallel sentences with what the vocabulary makes of them in `every`: tokens per sentence of the row's language and of the
    other side (tokens_other); and where all rows have the very same other side, gini, over all languages, the other side's among them.

    Args:
      texts: of each row, the sentences of its language and their translations.
    """
    each = [[tokens_per_text(tokenizer, side) for side in sides] for sides in texts]
    is_one_text = len({tuple(other) for _, other in texts}) == 1
    over_all = {"gini": gini([each[0][1], *(own for own, _ in each)])} if is_one_text else {}
    for row, (own, other) in zip(rows, each, strict=True):
        row["every"] |= {"tokens": own, "tokens_other": other, **over_all}
    return rows


def gold_sentences(paths: tuple[str, str, str]) -> tuple[list[str], list[str]]:
    """The sentences of the gold pairs of two corpora, on either side."""
    first, second = (dict(row for _, row in two_columns(path)) for path in paths[:2])
    pairs = [ids for _, ids in two_columns(paths[2])]
    return [first[a] for a, _ in pairs], [second[b] for _, b in pairs]


def mine_one(
    embed: Embed, paths: tuple[str, str, str], languages: tuple[str, str], k: int
) -> tuple[list[tuple[float, int, int]], set[tuple[int, int]]]:
    """Candidates of two corpora by falling score, and the gold pairs, both by the sentences' numbers.

    As LASER's scripts (mine_bitexts.py, bucc.py) and XTREME's count: a sentence that occurs several times is mined once, and
    since no one can say which of its ids is meant, pairs with it do not count as found; gold has all its pairs.

    Raises:
      UserError: a line without a tab, an id that is there twice, or a gold pair of an id that is not there.
    """
    numbers: list[dict[str, int]] = []
    vectors, lines = [], []  # lines: of each sentence that is mined, its number; None of one that occurs several times
    for path, language in zip(paths[:2], languages, strict=True):
        known: dict[str, int] = {}
        where: dict[str, list[int]] = {}
        for i, (at, (key, sentence)) in enumerate(two_columns(path)):
            if known.setdefault(key, i) != i:
                raise UserError(f"{at}: the id {key} is there before; each sentence has its own")
            where.setdefault(sentence, []).append(i)
        numbers.append(known)
        spelt = Counter(sentence.strip() for sentence, places in where.items() for _ in places)
        lines.append([places[0] if spelt[sentence.strip()] == 1 else None for sentence, places in where.items()])
        vectors.append(embed(list(where), language))
    gold = set()
    for place, (a, b) in two_columns(paths[2]):
        for key, known, path in ((a, numbers[0], paths[0]), (b, numbers[1], paths[1])):
            if key not in known:
                raise UserError(f"{place}: {key} is not an id of {path}")
        gold.add((numbers[0][a], numbers[1][b]))
    found = []
    for score, i, j in retrieval.candidates(vectors[0], vectors[1], k):
        first, second = lines[0][i], lines[1][j]
        if first is not None and second is not None:
            found.append((score, first, second))
    return found, gold


def hashed_sides(languages: tuple[str, str], paths: tuple[str, str, str]) -> dict[str, list[Hashed]]:
    """Language → places and hashes of the sentences of its corpus."""
    return {
        language: [(where, text_hash(sentence)) for where, (_, sentence) in two_columns(path)]
        for language, path in zip(languages, paths[:2], strict=True)
    }


def measure_texts(part: LanguageModel, make: Callable[[], Measure]) -> list[BenchmarkRow]:
    """Language-model measures per language."""
    rows: list[BenchmarkRow] = []
    with console.progress(part.name, len(part.texts), unit="languages") as advance:
        for text in part.texts:
            found, examples = make()(text, part.lines)
            if "bits_per_byte" in found:
                rows.append(
                    benchmark_row(part.name, text.language, "bits_per_byte", found, examples, {"lines": part.lines})
                )
            advance(1, f"{text.language} loss {found['loss']:.3f}")
    return rows


def from_experiment(name: str, rows: Sequence[FinetunedRow]) -> list[BenchmarkRow]:
    """A fine-tuning experiment's results: a row per language, the mean over seeds."""
    out: list[BenchmarkRow] = []
    for language in dict.fromkeys(r["language"] for r in rows):
        mine = [r for r in rows if r["language"] == language]
        every = {m: float(np.mean([r["test"][m] for r in mine])) for m in mine[0]["test"]}
        first = mine[0]
        protocol = {
            "regime": first["regime"], "model": first["model"], "trained_on": first["trained_on"], "select": first["select"],
            "seeds": [r["seed"] for r in mine], "updates": [r["step"] for r in mine],
        }  # fmt: skip
        if len(mine) > 1:
            values = [100 * r["test"][first["metric"]] for r in mine]
            protocol["range over seeds"] = f"{min(values):.1f} to {max(values):.1f}"
        out.append(benchmark_row(name, language, mine[0]["metric"], every, mine[0]["examples"], protocol))
    if out:
        out[0]["cautions"] = finetuned_cautions(rows)
        for other in out[1:]:
            other["cautions"] = []
    return out


def share_encoder(source: epath.Path, target: epath.Path, config: Finetune) -> None:
    """Let an experiment's workdir start from the evaluation's encoder, without a copy where links can be made.

    Raises:
      UserError: it holds an experiment with another config.
    """
    stored = target / "config.json"
    if stored.exists() and any(d.may_change is None for d in differences(read_json(stored, dict[str, Any]), config)):
        raise UserError(f"{target}: holds another experiment; move it away, or use another --workdir")
    make_folder(target / "vocabulary")
    # In this order: a workdir with the second has the whole encoder.
    for name in ("initial.safetensors", "initial.json"):
        if not (target / name).exists():
            if in_bucket(source) or in_bucket(target):
                copy_whole(source / name, target / name)
            else:
                link(source / name, target / name)
                sync(target)
    for path in (source / "vocabulary").iterdir():
        if path.is_file() and not is_aside(path) and not (target / "vocabulary" / path.name).exists():
            copy_whole(path, target / "vocabulary" / path.name)
    finetuning.note_budget(target)
    write_whole(stored, cfg.config_to_json(config))


def pretraining_sizes(init: str) -> dict[str, int]:
    """Language → tokens it was pretrained on, where `init` is a run that has its corpus still."""
    corpus = epath.Path(init or ".") / "corpus"
    if not init or not (corpus / "manifest.json").exists():
        return {}
    return {s.name: s.train.tokens for s in manifest.read_manifest(corpus).monolingual}


def summary(rows: Sequence[BenchmarkRow], source: str, sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """Of each task: its mean over languages; the transfer gap, the source's value less the mean of the others'; and Spearman's correlation
    of value and pretraining tokens over the languages both are known of (at least three)."""
    out: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(r["task"] for r in rows):
        values = {r["language"]: r["value"] for r in rows if r["task"] == task}
        found = {"mean": float(np.mean(list(values.values())))}
        others = [value for language, value in values.items() if language != source]
        if source in values and others:
            found["gap"] = values[source] - float(np.mean(others))
        known = [language for language in values if language in sizes]
        if len(known) > 2:
            found["size_correlation"] = spearman([sizes[x] for x in known], [values[x] for x in known])
        out[task] = found
    return out


def table(rows: Sequence[BenchmarkRow], source: str, sizes: dict[str, int]) -> str:
    """Tasks × languages, with mean, transfer gap and correlation with pretraining size."""
    languages = list(dict.fromkeys(r["language"] for r in rows))
    summaries = summary(rows, source, sizes)
    gaps = any("gap" in found for found in summaries.values())
    correlations = any("size_correlation" in found for found in summaries.values())
    cells = []
    for task, found in summaries.items():
        mine = {r["language"]: r for r in rows if r["task"] == task}
        metric = next(iter(mine.values()))["metric"]
        scale = 1 if metric in LOWER_IS_BETTER else 100

        def show(value: float | None, factor: float = scale) -> str:
            return "" if value is None else f"{factor * value:.{1 if factor == 100 else 3}f}"

        correlation = found.get("size_correlation")
        cells.append(
            [
                task,
                metric,
                *(show(mine[x]["value"]) if x in mine else "" for x in languages),
                show(found["mean"]),
                *([show(found.get("gap"))] if gaps else []),
                *(["" if correlation is None else f"{correlation:.2f}"] if correlations else []),
            ]
        )
    more = [*([f"{source} - others"] if gaps else []), *(["ρ size"] if correlations else [])]
    shown = console.format_table(["task", "metric", *languages, "mean", *more], cells)
    return "\n".join([shown, *evenness_of(rows), *benchmark_cautions(rows), *unknown_source(rows, source)])


def evenness_of(rows: Sequence[BenchmarkRow]) -> list[str]:
    """How evenly the vocabulary cuts the parallel sentences of each task whose languages have the same other side."""
    said = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = {row["language"]: row["every"] for row in rows if row["task"] == task and "gini" in row["every"]}
        if mine:
            (other, *_) = mine.values()
            tokens = {language: every["tokens"] for language, every in mine.items()}
            said.append(evenness(task, tokens | {"the other side": other["tokens_other"]}, other["gini"]))
    return said


def unknown_source(rows: Sequence[BenchmarkRow], source: str) -> list[str]:
    """The caution that there is no transfer gap, in a list, where the source is there by another code.

    Where it is not there at all, as the pivot of retrieval is not, there is no gap to miss.
    """
    languages = list(dict.fromkeys(r["language"] for r in rows))
    near = [x for x in languages if same_language(x, source)]
    if source in languages or not near:
        return []
    return [f"source: {source} is none of {', '.join(languages)}, so there is no transfer gap; set --source {near[0]}"]
