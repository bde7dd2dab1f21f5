# SPDX-License-Identifier: Apache-2.0
"""Whether a document stays: its language's confidence, the published rules by the bounds of its language, evaluation sets."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from mlm_jax.curate import filters, perplexity, thresholds
from mlm_jax.curate.c4 import apply_c4
from mlm_jax.curate.config import Curate, Filters
from mlm_jax.curate.contamination import Evaluation, contaminating, read_evaluation
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.filters import Bounds, View
from mlm_jax.curate.perplexity import Model
from mlm_jax.curate.thresholds import Sketch
from mlm_jax.errors import UserError
from mlm_jax.formats import ending, has_fields, read_rows
from mlm_jax.lines import at_line, parse_json, read_lines
from mlm_jax.patterns import matching_files
from mlm_jax.rows import Reading

UNSURE = "unsure language"
DRAWN = 6  # languages whose histograms are kept for the page
BINS = 40


def chosen_bounds(chosen: Filters) -> Bounds:
    """The rules that are on, with the bounds for English."""
    families = {
        filters.GOPHER: chosen.quality,
        filters.REPETITION: chosen.repetition,
        filters.FINEWEB: chosen.fineweb,
    }
    on = [family for family, wanted in families.items() if wanted]
    if chosen.thresholds == "published":
        return filters.published(on)
    made = filters.fineweb2()
    rules = {name: bound for name, bound in made.rules.items() if filters.RULES[name].family in on}
    return Bounds(rules, made.stop_words if chosen.quality else ())


def measured(document: Document, view: View, bounds: Bounds, models: Mapping[str, Model]) -> Document:
    """A document with its scores by each rule that is on, and its perplexity where there is a model of its language.

    Args:
      view: of its text.
    """
    scores = document.scores | filters.measure(view, tuple(bounds.rules))
    if document.language in models:
        scores[perplexity.SCORE] = round(perplexity.log_perplexity(document.text, models[document.language]), 4)
    return dataclasses.replace(document, scores=scores)


def counted(document: Document, bounds: Bounds) -> dict[str, float]:
    """Of a measured document's scores those that bounds and cut points are derived from."""
    return {name: document.scores[name] for name in (*bounds.rules, perplexity.SCORE) if name in document.scores}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What documents have to keep to.

    Attributes:
      least: language → the least confidence that it is the document's.
      bounds: language → of the rules that are on.
      c4: whether C4's rules are on.
      contamination: files of evaluation sets.
      cuts: language → the logarithms of perplexity where its head ends and its tail begins; of those with clean text.
      buckets: those that stay.
    """

    least: Mapping[str, float]
    bounds: Mapping[str, Bounds]
    c4: bool
    contamination: tuple[str, ...]
    cuts: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    buckets: tuple[str, ...] = perplexity.BUCKETS

    def __call__(self, document: Document) -> Document | Dropped:
        """A document that stays, in its bucket, its text without the lines that C4 leaves out; or why it goes."""

        def gone(reason: str) -> Dropped:
            return Dropped(reason, document.url, document.text, document.language)

        # First, as of few words or of one that is repeated no language is sure, and that is not why they go.
        if reason := filters.judge(document.text, self.bounds[document.language], document.scores):
            return gone(reason)
        if document.confidence < self.least[document.language]:
            return gone(UNSURE)
        if document.language in self.cuts:
            told = perplexity.bucket(document.scores[perplexity.SCORE], self.cuts[document.language])
            if told not in self.buckets:
                return gone(f"{told} by perplexity")
            document = dataclasses.replace(document, bucket=told)
        if self.contamination:
            sets = contaminating(document.text, evaluation_sets(self.contamination))
            if sets:
                return gone(f"in {sets[0]}")
        if self.c4:
            text, reason = apply_c4(document.text)
            return gone(reason) if reason else dataclasses.replace(document, text=text)
        return document


def make_rules(config: Curate, sketches: Mapping[str, Sketch]) -> Rules:
    """The rules of each language, from what was counted of it."""
    bounds = chosen_bounds(config.filters)
    if config.filters.thresholds == "published":
        of = {language: Bounds(bounds.rules, bounds.stop_words if language == "en" else ()) for language in sketches}
    else:
        of = thresholds.derive(sketches, bounds)
    least = config.identify.least
    confidences = {language: least or thresholds.least_confidence(sketch) for language, sketch in sketches.items()}
    cuts = {
        language: perplexity.cut_points(sketch.scores[perplexity.SCORE])
        for language, sketch in sketches.items()
        if perplexity.SCORE in sketch.scores
    }
    return Rules(confidences, of, config.filters.c4, config.contamination, cuts, config.filters.buckets)


def described(rules: Rules, sketches: Mapping[str, Sketch]) -> dict[str, Any]:
    """The rules as curate.json has them, with histograms of the largest languages."""
    largest = sorted(sketches, key=lambda language: (-sketches[language].documents, language))[:DRAWN]
    histograms: dict[str, Any] = {}
    for language in largest:
        sketch = sketches[language]
        bounds = {"confidence": rules.least[language], **rules.bounds[language].rules}
        for name, counts in {"confidence": sketch.confidences, **sketch.scores}.items():
            cuts = rules.cuts[language] if name == perplexity.SCORE else [bounds[name]] if name in bounds else []
            histograms.setdefault(name, {})[language] = {**binned(counts), "thresholds": list(cuts)}
    return {
        "languages": {
            language: {
                "confidence": rules.least[language],
                "bounds": dict(rules.bounds[language].rules),
                "stop words": list(rules.bounds[language].stop_words),
                "perplexity": [math.exp(cut) for cut in rules.cuts.get(language, ())],
            }
            for language in sorted(rules.least)
        },
        "histograms": histograms,
    }


def binned(counts: Mapping[int, int]) -> dict[str, Any]:
    """A histogram of thousandths in at most `BINS` bins up to its 99th percentile."""
    low, high = min(counts), round(thresholds.quantile(counts, 0.99) * thresholds.STEP)
    width = max(1, -(-(high + 1 - low) // BINS))
    bins = [0] * (-(-(high + 1 - low) // width))
    for score, number in counts.items():
        bins[min((score - low) // width, len(bins) - 1)] += number
    return {"edges": [(low + i * width) / thresholds.STEP for i in range(len(bins) + 1)], "counts": bins}


@functools.cache
def evaluation_sets(patterns: tuple[str, ...]) -> Evaluation:
    """What the named files of evaluation sets hold, each a set by its name.

    Raises:
      UserError: no file matches, or one cannot be read.
    """
    sets: dict[str, list[str]] = {}
    for pattern in patterns:
        paths = matching_files(pattern)
        if not paths:
            raise UserError(f"contamination: no file matches {pattern}; check the path")
        for path in paths:
            sets.setdefault(PurePath(path).parent.name or PurePath(path).stem, []).extend(texts_of(path))
    if len(sets) > 64:
        raise UserError(f"contamination: {len(sets)} sets, each a folder; at most 64")
    return read_evaluation(sets)


def texts_of(path: str) -> Iterator[str]:
    """The texts of an evaluation set: every string of JSON, of Parquet and the like; else what tabs separate in each line."""
    if not has_fields(path) or ending(path) == ".tsv":  # which may have no names in its first line
        for _, line in read_lines(path):
            yield from line.split("\t")
        return
    if ending(path) == ".json":
        with contextlib.suppress(UserError):  # it may be one object of many lines (SQuAD), or lines of objects
            yield from strings_in(
                parse_json("\n".join(line for _, line in read_lines(path)), functools.partial(at_line, path))
            )
            return
    for _, row in read_rows(path, Reading()):
        yield from strings_in(row)


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings_in(part)


def added(sketches: Iterable[Mapping[str, Any]]) -> dict[str, Sketch]:
    """Language → the sum of what jobs counted, of each the JSON."""
    found: dict[str, Sketch] = {}
    for stored in sketches:
        for language, sketch in stored.items():
            found.setdefault(language, Sketch()).merge(Sketch.from_json(sketch))
    return found
