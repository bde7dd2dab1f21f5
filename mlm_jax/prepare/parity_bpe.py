# SPDX-License-Identifier: Apache-2.0
"""Parity-aware BPE (Foroutan et al. 2026): every merge is for the language whose sentences have most pieces.

BPE merges what is frequent in all text, which is that of large languages; the same sentence of a small one, or of another script, then has
several times as many pieces. Here the languages are compared on parallel text, and the next merge is the most frequent pair of the worst one's
training text. Pieces, byte fallback and normalisation are SentencePiece's, so that such a vocabulary is a SentencePiece BPE model like any other.
"""

from __future__ import annotations

import heapq
import itertools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mlm_jax import console
from mlm_jax.errors import UserError

SPACE = "\u2581"
LONGEST_PIECE = 16  # characters, as SentencePiece has it
FEWEST = 2  # occurrences of a pair that is merged


def words_of(texts: Iterable[str]) -> Counter[str]:
    """The words of normalised text, each with the mark of a space before it, and how often they occur."""
    return Counter(f"{SPACE}{word}" for text in texts for word in text.split(SPACE) if word)


def kind_of(character: str) -> str:
    """What of neighbouring characters a piece may hold together: the script, numbers, or something else."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return ""  # marks stand with the letters before them
    if category[0] == "N":
        return "number"
    if category[0] != "L":
        return "other"
    script = unicodedata.name(character, "?").split()[0]
    return "HAN" if script in ("CJK", "HIRAGANA", "KATAKANA") else script  # as SentencePiece takes them together


def may_merge(left: str, right: str) -> bool:
    """Whether two neighbouring pieces may become one."""
    if len(left) + len(right) > LONGEST_PIECE:
        return False
    a, b = kind_of(left[-1]), kind_of(right[0])
    return left == SPACE or not a or not b or a == b


class Merger:
    """Words cut into pieces, and how often each pair of neighbours occurs in each language.

    Attributes:
      pieces: per language, of its parallel text.
    """

    def __init__(
        self, training: Mapping[str, Counter[str]], parallel: Mapping[str, Counter[str]], alphabet: frozenset[str]
    ) -> None:
        self.languages = list(training)
        self.pieces = dict.fromkeys(self.languages, 0)
        self._words: list[list[str]] = []
        self._training: list[list[tuple[str, int]]] = []
        self._parallel: list[list[tuple[str, int]]] = []
        # By the piece that a pair makes: whichever pair it is, SentencePiece merges it.
        self._counts: dict[str, Counter[str]] = {language: Counter() for language in self.languages}
        self._where: defaultdict[str, set[int]] = defaultdict(set)
        self._heaps: dict[str, list[tuple[int, str]]] = {}
        self._may: dict[tuple[str, str], bool] = {}
        for word in sorted({word for found in (*training.values(), *parallel.values()) for word in found}):
            # A character that has no piece is spelt in bytes: nothing merges across it.
            number = len(self._words)
            self._words.append([c if c in alphabet else "" for c in word])
            self._training.append([(x, training[x][word]) for x in self.languages if word in training[x]])
            self._parallel.append([(x, parallel[x][word]) for x in self.languages if word in parallel[x]])
            for language, count in self._parallel[number]:
                self.pieces[language] += count * len(word)
            self._add(number, 1)
        for language, counts in self._counts.items():
            self._heaps[language] = [(-count, made) for made, count in counts.items()]
            heapq.heapify(self._heaps[language])

    def best(self, language: str, known: set[str]) -> str | None:
        """The piece that a language's most frequent pair makes, none of those known; None: all are rare."""
        heap, counts = self._heaps[language], self._counts[language]
        while heap:
            count, made = heap[0]
            if made in known or counts[made] != -count:
                heapq.heappop(heap)
                if made not in known and counts[made] >= FEWEST:
                    heapq.heappush(heap, (-counts[made], made))
                continue
            return made if -count >= FEWEST else None
        return None

    def merge(self, made: str) -> None:
        """Make one piece of every pair of neighbours that spells it, from left to right."""
        for number in sorted(self._where.pop(made, ())):
            before = len(self._words[number])
            self._add(number, -1)
            self._words[number] = joined(self._words[number], made)
            self._add(number, 1)
            for language, count in self._parallel[number]:
                self.pieces[language] -= count * (before - len(self._words[number]))

    def _fits(self, left: str, right: str) -> bool:
        pair = (left, right)
        if pair not in self._may:
            self._may[pair] = bool(left and right) and may_merge(left, right)
        return self._may[pair]

    def _add(self, number: int, sign: int) -> None:
        """Count the pairs of a word, or take them out."""
        word = self._words[number]
        for left, right in itertools.pairwise(word):
            if not self._fits(left, right):
                continue
            made = left + right
            if sign > 0:
                self._where[made].add(number)
            for language, count in self._training[number]:
                counts = self._counts[language]
                counts[made] += sign * count
                if sign > 0 and language in self._heaps:
                    heapq.heappush(self._heaps[language], (-counts[made], made))


def joined(word: Sequence[str], made: str) -> list[str]:
    """A word's pieces, with pairs of neighbours that spell `made` as one, from left to right."""
    out: list[str] = []
    i = 0
    while i < len(word):
        if i + 1 < len(word) and word[i] + word[i + 1] == made and word[i] and word[i + 1]:
            out.append(made)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def merges(
    training: Mapping[str, Counter[str]],
    parallel: Mapping[str, Counter[str]],
    alphabet: Iterable[str],
    count: int,
) -> list[str]:
    """The pieces of parity-aware BPE, in the order of their merges (algorithm 1 of the paper).

    Args:
      training: language → words and how often they occur.
      parallel: the same of text that is the same in all languages.
      alphabet: single characters that are pieces.
      count: of merges.

    Raises:
      UserError: the text gives fewer.
    """
    merger = Merger(training, parallel, frozenset(alphabet))
    found: list[str] = []
    known: set[str] = set()
    with console.progress("merging", count, unit="pieces") as advance:
        while len(found) < count:
            # Of equals the first by name; a language without another pair leaves its turn to the next.
            order = sorted(merger.languages, key=lambda language: (-merger.pieces[language], language))
            made = next((best for language in order if (best := merger.best(language, known)) is not None), None)
            if made is None:
                raise UserError(
                    f"vocabulary.size: the text gives {len(found):,} merges, {count - len(found):,} fewer than are wanted; lower it, or give "
                    "more text (vocabulary.sample_bytes)"
                )
            found.append(made)
            known.add(made)
            merger.merge(made)
            advance(1, order[0])
    return found
