# SPDX-License-Identifier: Apache-2.0
"""The published rules that say which documents are text: each by name, a score and a bound.

All scores of a document are measured at once, in one reading; deciding needs the scores and the bounds only, so that bounds may be derived
from the scores of the whole corpus (`thresholds.py`). Of a text of over a million characters the beginning is measured. Sources:

- Gopher: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", section A.1.1 and table A1.
- FineWeb: Penedo et al. 2024, "The FineWeb Datasets", section 3.6.
- FineWeb-2: Penedo et al. 2025, and the pipeline published with it: which of them are on, with 0.1 for `repeated_line_characters`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlm_jax.curate.words import LONGEST, U64, Words, find_words, mix, numbers, strings, word_hashes

SHORT_LINE = 30  # characters

# What ends a sentence: Unicode 16's property Sentence_Terminal, and three of Khmer that FineWeb-2 counts too.
_TERMINAL = """
21 2E 3F 589 61D 61E 61F 6D4 700 701 702 7F9 837 839 83D 83E 964 965 104A 104B 1362 1367 1368 166E 1735 1736 17D4 17D5 17D6
17D9 17DA 1803 1809 1944 1945 1AA8 1AA9 1AAA 1AAB 1B4E 1B4F 1B5A 1B5B 1B5E 1B5F 1B7D 1B7E 1B7F 1C3B 1C3C 1C7E 1C7F 2024 203C
203D 2047 2048 2049 2CF9 2CFA 2CFB 2E2E 2E3C 2E53 2E54 2E60 2E61 3002 A4FF A60E A60F A6F3 A6F7 A876 A877 A8CE A8CF A92F A9C8
A9C9 AA5D AA5E AA5F AAF0 AAF1 ABEB FE12 FE15 FE16 FE52 FE56 FE57 FF01 FF0E FF1F FF61 10A56 10A57 10F55 10F56 10F57 10F58
10F59 10F86 10F87 10F88 10F89 11047 11048 110BE 110BF 110C0 110C1 11141 11142 11143 111C5 111C6 111CD 111DE 111DF 11238 11239
1123B 1123C 112A9 113D4 113D5 1144B 1144C 115C2 115C3 115C9 115CA 115CB 115CC 115CD 115CE 115CF 115D0 115D1 115D2 115D3 115D4
115D5 115D6 115D7 11641 11642 1173C 1173D 1173E 11944 11946 11A42 11A43 11A9B 11A9C 11C41 11C42 11EF7 11EF8 11F43 11F44 16A6E
16A6F 16AF5 16B37 16B38 16B44 16D6E 16D6F 16E98 1BC9F 1DA88
"""
TERMINAL = tuple(chr(int(code, 16)) for code in _TERMINAL.split())
BULLETS = ("•", "-")
ELLIPSES = ("...", "…")


Repeats = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Views:
    """Texts that are measured together: their words, one after the other, and what each repeats, all found at once. A text of the web is
    short, and numpy takes longer to be called than for its words."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = [text[:LONGEST] for text in texts]
        self.words = find_words("\n".join(self.texts))
        self.hashes = word_hashes(self.words)  # uint64 [words]
        # The first character and the first word of each text, and what would be the next text's; int64 [texts + 1].
        self.characters = np.cumsum([0, *(len(text) + 1 for text in self.texts)])
        self.cuts = np.searchsorted(self.words.starts, self.characters)
        sizes = np.diff(self.cuts)
        self._ends = np.repeat(self.cuts[1:], sizes)  # of the text that a word is in; int64 [words]
        # Equal n-grams of two texts have two sums.
        salted = self.hashes + np.repeat(mix(np.arange(1, len(sizes) + 1, dtype=np.uint64)), sizes)
        self._sums = [salted]
        none = np.zeros(0, np.int64)
        self._repeats: list[Repeats] = [(np.arange(len(self.words)), none, none, none)]

    def __iter__(self) -> Iterator[View]:
        return (View(text, self, number) for number, text in enumerate(self.texts))

    def repeats(self, n: int) -> Repeats:
        """The n-grams of words, n from 2, that occur more than once in their text: the places of all occurrences, in order; at each a number for the
        n-gram and how often it occurs; int64 [occurrences] each; and where each text's begin, int64 [texts + 1].

        What is repeated at n words is at n - 1, so each n looks only at what the one before left.
        """
        while len(self._repeats) < n:
            m = len(self._repeats)
            places, sums = self._repeats[-1][0], self._sums[-1]
            within = places + m < self._ends[places]
            places = places[within]
            sums = sums[within] + self.hashes[places + m] * numbers(16)[m]
            order = np.argsort(sums)
            inorder = sums[order]
            new = np.ones(len(places) + 1, bool)
            np.not_equal(inorder[1:], inorder[:-1], out=new[1:-1])
            gram = np.cumsum(new[:-1])  # from 1
            count = np.diff(np.flatnonzero(new))[gram - 1]
            grams, counts = np.empty_like(gram), np.empty_like(gram)
            grams[order], counts[order] = gram, count
            kept = np.flatnonzero(counts > 1)
            self._sums.append(sums[kept])
            places = places[kept]
            self._repeats.append((places, grams[kept], counts[kept], np.searchsorted(places, self.cuts)))
        return self._repeats[n - 1]


class View:
    """A text and its parts, each found once when a rule first asks for it."""

    def __init__(self, text: str, views: Views | None = None, number: int = 0) -> None:
        self._views, self._number = views or Views([text]), number
        self.text = text[:LONGEST]

    def _of_words(self, values: np.ndarray) -> np.ndarray:
        """Of what is there for each word of all texts, this one's."""
        return values[self._views.cuts[self._number] : self._views.cuts[self._number + 1]]

    @cached_property
    def words(self) -> Words:
        found, (first, end) = self._views.words, self._views.characters[self._number : self._number + 2]
        return Words(
            found.codes[first : end - 1],
            self._of_words(found.starts) - first,
            self._of_words(found.ends) - first,
            self._of_words(found.symbols),
            self._of_words(found.letters),
        )

    @cached_property
    def hashes(self) -> U64:
        """Of each word; uint64 [words]."""
        return self._of_words(self._views.hashes)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Of each word, in characters; int64 [words]."""
        return self.words.ends - self.words.starts

    @cached_property
    def lengths_before(self) -> list[int]:
        """The characters of the words before each word, and of all words."""
        return [0, *np.cumsum(self.lengths).tolist()]

    def repeats(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Views.repeats`, of this text; int64 [occurrences] each."""
        places, grams, counts, cuts = self._views.repeats(n)
        own = slice(cuts[self._number], cuts[self._number + 1])
        return places[own] - self._views.cuts[self._number], grams[own], counts[own]

    @cached_property
    def repeated_lines(self) -> tuple[int, int]:
        """How many lines stand earlier in the text too, and their characters."""
        return _count_repeated(self.lines)

    @cached_property
    def repeated_paragraphs(self) -> tuple[int, int]:
        return _count_repeated(self.paragraphs)

    @cached_property
    def lines(self) -> list[str]:
        """Those that are not blank, without white space at their ends."""
        return [line for raw in self.text.split("\n") if (line := raw.strip())]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What blank lines separate."""
        found, open_lines = [], []
        for raw in [*self.text.split("\n"), ""]:
            if line := raw.strip():
                open_lines.append(line)
            elif open_lines:
                found.append("\n".join(open_lines))
                open_lines = []
        return found


def _share(count: float, whole: int) -> float:
    return float(count) / whole if whole else 0.0


def _count_repeated(parts: list[str]) -> tuple[int, int]:
    """How many parts stand earlier in the list too, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    if len(set(parts)) == len(parts):
        return 0, 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count, characters


def top_n_gram(view: View, n: int) -> float:
    """The characters of the most frequent n-gram's occurrences, single spaces within, per character of the text. At equal counts: the first."""
    if len(view.words) < n:
        return 0.0
    places, _, counts = view.repeats(n)
    at, count = 0, 1
    if len(places):
        most = int(counts.argmax())
        at, count = int(places[most]), int(counts[most])
    return _share((int(view.lengths[at : at + n].sum()) + n - 1) * count, len(view.text))


def repeated_n_grams(view: View, n: int) -> float:
    """The characters of n-grams that occur earlier in the text, none counted twice, per character of the text."""
    places, grams, _ = view.repeats(n)
    if not len(places):
        return 0.0
    ends = view.lengths_before
    seen: set[int] = set()
    characters = free = 0
    for at, gram in zip(places.tolist(), grams.tolist(), strict=True):
        if at < free:
            continue
        if gram in seen:
            characters += ends[at + n] - ends[at]
            free = at + n
        else:
            seen.add(gram)
    return _share(characters, len(view.text))


def _mean_word_length(view: View) -> float:
    lengths = view.lengths[~view.words.symbols]
    return _share(int(lengths.sum()), len(lengths))


def _words_with_letters(view: View) -> float:
    """The share of words that have a letter. Punctuation at a word is a part of it and no word, as where words are what spaces part (Gopher):
    counted as words, as datatrove does, it takes Maltese, Georgian and Basque news."""
    found = view.words
    follows = np.zeros(len(found), bool)
    follows[1:] = found.starts[1:] == found.ends[:-1]
    attached = follows.copy()
    attached[:-1] |= follows[1:]
    return _share(int(found.letters.sum()), int((~(found.symbols & attached)).sum()))


def _ellipses(text: str) -> int:
    return sum(text.count(x) for x in ELLIPSES)


@dataclass(frozen=True)
class Rule:
    """Attributes:
    score: of a view of the text.
    at_least: whether a document goes whose score is less; else one whose score is more.
    bound: as published for English.
    per_language: how FineWeb-2 takes it from the language's own documents: "deviation" or "tail" of `thresholds.py`; empty: it does not.
    family: who published it.
    """

    score: Callable[[View], float]
    at_least: bool
    bound: float
    per_language: str
    family: str


def _top(n: int) -> Callable[[View], float]:
    return lambda view: top_n_gram(view, n)


def _again(n: int) -> Callable[[View], float]:
    return lambda view: repeated_n_grams(view, n)


GOPHER, REPETITION, FINEWEB = "Gopher's quality", "Gopher's repetition", "FineWeb"

# In the order that documents are tried in: its name is the reason why a document goes.
RULES: dict[str, Rule] = {
    "few_words": Rule(lambda v: int((~v.words.symbols).sum()), True, 50, "", GOPHER),
    "many_words": Rule(lambda v: int((~v.words.symbols).sum()), False, 100_000, "", GOPHER),
    "repeated_paragraphs": Rule(
        lambda v: _share(v.repeated_paragraphs[0], len(v.paragraphs)), False, 0.3, "", REPETITION
    ),
    "repeated_paragraph_characters": Rule(
        lambda v: _share(v.repeated_paragraphs[1], len(v.text)), False, 0.2, "", REPETITION
    ),
    "repeated_lines": Rule(lambda v: _share(v.repeated_lines[0], len(v.lines)), False, 0.3, "deviation", REPETITION),
    "repeated_line_characters": Rule(
        lambda v: _share(v.repeated_lines[1], sum(map(len, v.lines))), False, 0.2, "", REPETITION
    ),
    **{
        f"top_{n}_gram": Rule(_top(n), False, bound, "deviation", REPETITION)
        for n, bound in ((2, 0.2), (3, 0.18), (4, 0.16))
    },
    **{
        f"repeated_{n}_grams": Rule(_again(n), False, bound, "deviation", REPETITION)
        for n, bound in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    },
    "unfinished_lines": Rule(
        lambda v: _share(sum(line.endswith(TERMINAL) for line in v.lines), len(v.lines)), True, 0.12, "tail", FINEWEB
    ),
    "short_lines": Rule(
        lambda v: _share(sum(len(line) <= SHORT_LINE for line in v.lines), len(v.lines)), False, 0.67, "", FINEWEB
    ),
    "lists": Rule(lambda v: _share(v.text.count("\n"), len(v.words)), False, 0.3, "tail", FINEWEB),
    "short_words": Rule(_mean_word_length, True, 3, "deviation", GOPHER),
    "long_words": Rule(_mean_word_length, False, 10, "deviation", GOPHER),
    "hashes": Rule(lambda v: _share(v.text.count("#"), len(v.words)), False, 0.1, "", GOPHER),
    "ellipses": Rule(lambda v: _share(_ellipses(v.text), len(v.words)), False, 0.1, "", GOPHER),
    "bullets": Rule(
        lambda v: _share(sum(line.startswith(BULLETS) for line in v.lines), len(v.lines)), False, 0.9, "", GOPHER
    ),
    "lines_with_ellipses": Rule(
        lambda v: _share(sum(line.endswith(ELLIPSES) for line in v.lines), len(v.lines)), False, 0.3, "", GOPHER
    ),
    "words_without_letters": Rule(_words_with_letters, True, 0.8, "tail", GOPHER),
}
STOP_WORDS = "few_stop_words"  # the reason of the one rule that needs a list
LEAST_STOP_WORDS = 2
ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher's

FINEWEB_BOUNDS = {"repeated_line_characters": 0.01}  # FineWeb's bound for a rule of Gopher's

# FineWeb-2 leaves these out: extracted text has no blank lines, short lines are some languages' style, and lines that repeat have
# two rules already. `repeated_line_characters` has another bound there.
FINEWEB2_OFF = ("repeated_paragraphs", "repeated_paragraph_characters", "short_lines")
FINEWEB2_BOUNDS = {"repeated_line_characters": 0.1}


@dataclass(frozen=True)
class Bounds:
    """What documents of one language must keep to.

    Attributes:
      rules: rule → bound; rules that are not there are off.
      stop_words: of which a document must have two; none: that rule is off.
    """

    rules: Mapping[str, float]
    stop_words: Collection[str] = ()


def published(families: Collection[str] = (GOPHER, REPETITION, FINEWEB)) -> Bounds:
    """The bounds for English."""
    stop_words = ENGLISH_STOP_WORDS if GOPHER in families else ()
    rules = {name: rule.bound for name, rule in RULES.items() if rule.family in families}
    if FINEWEB in families:
        rules |= FINEWEB_BOUNDS
    return Bounds(rules, stop_words)


def fineweb2() -> Bounds:
    """The rules that FineWeb-2 applies; for English, the others' bounds come from `thresholds.derive`."""
    bounds = published()
    rules = {name: bound for name, bound in bounds.rules.items() if name not in FINEWEB2_OFF}
    return Bounds(rules | FINEWEB2_BOUNDS, bounds.stop_words)


def measure(text: str | View, names: Collection[str] = tuple(RULES)) -> dict[str, float]:
    """A document's scores by rule."""
    view = text if isinstance(text, View) else View(text)
    scores: dict[str, float] = {}
    for name in names:
        same = _SAME.get(name)
        scores[name] = scores[same] if same in scores else float(RULES[name].score(view))
    return scores


# Rules of one score.
_SAME = {"many_words": "few_words", "long_words": "short_words"}


def decide(scores: Mapping[str, float], bounds: Bounds) -> str:
    """The first rule that a document breaks; empty where it keeps to all. A rule without a score is kept to."""
    for name, rule in RULES.items():
        if name not in bounds.rules or name not in scores:
            continue
        score, bound = scores[name], bounds.rules[name]
        if score < bound if rule.at_least else score > bound:
            return name
    return ""


def stop_words_in(text: str, stop_words: Collection[str]) -> int:
    """How many of the stop words a text has."""
    return len(set(stop_words).intersection(strings(text[:LONGEST], find_words(text[:LONGEST]))))


def judge(text: str, bounds: Bounds, scores: Mapping[str, float] | None = None) -> str:
    """The reason why a document goes, a rule's name; empty: it stays.

    Args:
      scores: as `measure` gave them, where it has been done.
    """
    reason = decide(measure(text, list(bounds.rules)) if scores is None else scores, bounds)
    if not reason and bounds.stop_words and stop_words_in(text, bounds.stop_words) < LEAST_STOP_WORDS:
        return STOP_WORDS
    return reason
