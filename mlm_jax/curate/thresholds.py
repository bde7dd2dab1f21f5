# SPDX-License-Identifier: Apache-2.0
"""Bounds and stop words of each language, from its own documents (FineWeb-2: Penedo et al. 2025, section 3, and the values it published).

What one process sees of a language is a `Sketch`: counts only, of a bounded size. Sketches add up, and the sum is the same for any split of the
documents and in any order. From the sums:

- a document's language is believed from max(0.3, min(0.9, median - standard deviation)) of the language's confidences on;
- "deviation": a bound lies as many standard deviations from the language's mean as the published one lies from that of English;
- "tail": the tenth of the documents whose scores are worst goes, of those that are beyond the bound for English. FineWeb-2 took the tail of clean
  text, mostly Wikipedia; that of the corpus itself would take a tenth of good text too, per rule;
- stop words are the most frequent words, those that English has more often left out.

FineWeb-2 published the values for 1,929 languages, the first formula, and the methods' names. What we set ourselves, for want of a published number, are
the constants below.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from mlm_jax.curate.filters import LEAST_STOP_WORDS, RULES, Bounds, View
from mlm_jax.curate.words import strings

STEP = 1000  # scores are counted in thousandths, those above 1 to three digits
MOST = 10**9  # thousandths: a higher score counts as this
TAIL = 0.1
DEVIATIONS = 3.0  # from the mean, where there is no English to take the number from
FEWEST_DEVIATIONS = 1.0  # whatever English says: a bound within one would take a sixth of good documents
DOCUMENTS = 100  # a language of fewer has bounds that do not depend on the language, and those of `ANY_LANGUAGE`
# Text that repeats itself more is none in any language: of help pages in Khmer and Chinese, syllables as words, the most is 0.69.
ANY_LANGUAGE = {"repeated_lines": 0.7, **{f"repeated_{n}_grams": 0.7 for n in range(5, 11)}}
STOP_WORDS = (8, 30)  # at least and at most; of the published lists 8 is the shortest
STOP_WORD_SHARE = 0.15  # of a language's words, all together: what Gopher's eight are in English
TABLE = 20_000  # words per language that a sketch remembers
SAMPLED = 10_000  # words of a document that are counted

Histogram = Counter[int]  # score in thousandths → documents


def count_score(histogram: Histogram, score: float) -> None:
    """Scores are not negative."""
    if not score:  # as most are
        histogram[0] += 1
        return
    key = round(min(score * STEP, MOST))
    histogram[round(key, 3 - len(str(key))) if key > STEP else key] += 1


def quantile(histogram: Mapping[int, int], share: float) -> float:
    """The least score that at least this share of the documents does not exceed."""
    left = share * sum(histogram.values())
    for score in sorted(histogram):
        left -= histogram[score]
        if left <= 0:
            return score / STEP
    raise ValueError("an empty histogram has no quantiles")


def mean_and_deviation(histogram: Mapping[int, int]) -> tuple[float, float]:
    """Of a histogram's scores; sums in whole numbers, so that their order does not matter."""
    count = sum(histogram.values())
    total = sum(score * n for score, n in histogram.items())
    squares = sum(score * score * n for score, n in histogram.items())
    return total / count / STEP, math.sqrt(count * squares - total * total) / count / STEP


def _count_words(view: View) -> dict[str, int]:
    """The words with letters among the first of a document, and how often each occurs."""
    found = view.words
    chosen = np.flatnonzero(~found.symbols)[:SAMPLED]
    chosen = chosen[found.letters[chosen]]
    _, first, counts = np.unique(view.hashes[chosen], return_index=True, return_counts=True)
    return dict(zip(strings(view.text, found.at(chosen[first])), counts.tolist(), strict=True))


@dataclass
class Sketch:
    """What is counted of one language's documents.

    Attributes:
      documents: how many there are.
      scores: rule → histogram.
      confidences: of the language's identification, a histogram.
      words: level → word → occurrences, of the documents of that level: half of all have level 0, a quarter 1, and so on, by the text's hash. Once
        there are more than `TABLE` words, those of the lowest level go; since it depends on the sum only which do, the order does not matter.
      level: the lowest that is left.
    """

    documents: int = 0
    scores: dict[str, Histogram] = field(default_factory=dict)
    confidences: Histogram = field(default_factory=Counter)
    words: dict[int, Counter[str]] = field(default_factory=dict)
    level: int = 0

    def add(self, text: str | View, scores: Mapping[str, float], confidence: float) -> None:
        """Count a document, of which `filters.measure` gave the scores."""
        view = text if isinstance(text, View) else View(text)
        self.documents += 1
        for name, score in scores.items():
            if name not in self.scores:
                self.scores[name] = Counter()
            count_score(self.scores[name], score)
        count_score(self.confidences, confidence)
        digest = int.from_bytes(blake2b(view.text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        level = (digest & -digest).bit_length() - 1 if digest else 64
        if level >= self.level:
            self.words.setdefault(level, Counter()).update(_count_words(view))
            self._forget()

    def merge(self, other: Sketch) -> None:
        """Count the other's documents too."""
        self.documents += other.documents
        for name, histogram in other.scores.items():
            self.scores.setdefault(name, Counter()).update(histogram)
        self.confidences.update(other.confidences)
        self.level = max(self.level, other.level)
        for level, words in other.words.items():
            self.words.setdefault(level, Counter()).update(words)
        self._forget()

    def _forget(self) -> None:
        for level in [level for level in self.words if level < self.level]:
            del self.words[level]
        while sum(map(len, self.words.values())) > TABLE and len(self.words) > 1:
            self.level = min(self.words) + 1
            del self.words[min(self.words)]

    def to_json(self) -> dict[str, object]:
        return {
            "documents": self.documents,
            "scores": {name: _pairs(histogram) for name, histogram in sorted(self.scores.items())},
            "confidences": _pairs(self.confidences),
            "words": {str(level): dict(sorted(words.items())) for level, words in sorted(self.words.items())},
            "level": self.level,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> Sketch:
        return cls(
            stored["documents"],  # type: ignore[arg-type]
            {name: Counter(dict(pairs)) for name, pairs in stored["scores"].items()},  # type: ignore[attr-defined]
            Counter(dict(stored["confidences"])),  # type: ignore[call-overload]
            {int(level): Counter(words) for level, words in stored["words"].items()},  # type: ignore[attr-defined]
            stored["level"],  # type: ignore[arg-type]
        )


def _pairs(histogram: Histogram) -> list[list[int]]:
    return [list(pair) for pair in sorted(histogram.items())]


def least_confidence(sketch: Sketch) -> float:
    """From which confidence on a document is believed to be in its language."""
    if sketch.documents < DOCUMENTS:
        return 0.3
    _, deviation = mean_and_deviation(sketch.confidences)
    return max(0.3, min(0.9, quantile(sketch.confidences, 0.5) - deviation))


def stop_words(sketch: Sketch, english: Sketch | None = None) -> tuple[str, ...]:
    """The most frequent words, the first first; at equal counts by code point."""
    words: Counter[str] = sum(sketch.words.values(), Counter())
    total = sum(words.values())
    others: Counter[str] = sum(english.words.values(), Counter()) if english else Counter()
    whole = max(1, sum(others.values()))
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    found: list[str] = []
    covered = 0
    for word, count in ranked:
        if len(found) == STOP_WORDS[1] or (len(found) >= STOP_WORDS[0] and covered >= STOP_WORD_SHARE * total):
            break
        if others[word] * total <= count * whole:
            found.append(word)
            covered += count
    return tuple(found)


def derive(sketches: Mapping[str, Sketch], bounds: Bounds, english: str = "en") -> dict[str, Bounds]:
    """The bounds of each language.

    Args:
      sketches: language → the sum of its sketches.
      bounds: those for English, whose rules are those that are on.
      english: the language that they were published for.

    Returns:
      Language → bounds. A language with fewer than `DOCUMENTS` documents keeps to the rules only that are the same for every
      language, and to `ANY_LANGUAGE`.
    """
    reference = sketches.get(english)
    if reference and reference.documents < DOCUMENTS:
        reference = None
    found = {}
    for language, sketch in sorted(sketches.items()):
        if language == english:
            found[language] = bounds
            continue
        known = sketch.documents >= DOCUMENTS
        rules = {
            name: _bound(name, bound, sketch, reference) if known else ANY_LANGUAGE.get(name, bound)
            for name, bound in bounds.rules.items()
            if known or not RULES[name].per_language or name in ANY_LANGUAGE
        }
        words = stop_words(sketch, reference) if bounds.stop_words and known else ()
        found[language] = Bounds(rules, words if len(words) >= LEAST_STOP_WORDS else ())
    return found


def _bound(name: str, bound: float, sketch: Sketch, reference: Sketch | None) -> float:
    rule = RULES[name]
    if not rule.per_language:
        return bound
    histogram = sketch.scores[name]
    if rule.per_language == "tail":
        if rule.at_least:
            return min(bound, quantile(histogram, TAIL))
        return max(bound, quantile(histogram, 1 - TAIL))
    mean, deviation = mean_and_deviation(histogram)
    away = DEVIATIONS
    if reference:
        middle, spread = mean_and_deviation(reference.scores[name])
        away = max(FEWEST_DEVIATIONS, abs(bound - middle) / spread) if spread else DEVIATIONS
        if (bound - middle) * (-1 if rule.at_least else 1) < 0:  # English itself is beyond its bound on average
            away = FEWEST_DEVIATIONS
    found = mean - away * deviation if rule.at_least else mean + away * deviation
    return round(max(found, 0.0) if rule.at_least else min(max(found, 0.0), ANY_LANGUAGE.get(name, math.inf)), 3)
