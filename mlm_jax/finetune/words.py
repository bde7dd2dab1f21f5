# SPDX-License-Identifier: Apache-2.0
"""Raw text → words as a tagger's training data had them: punctuation apart where it stood apart there."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etils import epath

from mlm_jax.files import write_json
from mlm_jax.stored import read_json

FILE = "words.json"  # of a workdir
APOSTROPHES = ("'", "\u2019")
KEPT = 20_000  # words with punctuation at an edge that are remembered, the most frequent
SOME = 50  # words of one writing, from which it is known how its words are
BETWEEN = " \t\r\n"  # words; other white space is a word or part of one, as in files of tagged words
Place = tuple[int, int]


@dataclass(frozen=True)
class Splitter:
    """How words are told apart.

    Attributes:
      before, after: punctuation that stands apart from a word that follows, or comes before.
      kept: words that have such punctuation at an edge all the same ("U.S.").
      endings: that begin with an apostrophe and stand apart ("'s").
      characters: whether words of Han characters and kana, which have no spaces between, are single characters.
    """

    before: str = ""
    after: str = ""
    kept: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    characters: bool = False

    def places(self, text: str) -> list[Place]:
        """(begin, end) of each word in characters of the text."""
        kept = frozenset((*self.kept, *self.endings))
        found: list[Place] = []
        begin = 0
        while begin < len(text):
            if text[begin] in BETWEEN:
                begin += 1
                continue
            end = begin
            while end < len(text) and text[end] not in BETWEEN:
                end += 1
            found += self._parts(text, begin, end, kept)
            begin = end
        return found

    def _parts(self, text: str, begin: int, end: int, kept: frozenset[str]) -> list[Place]:
        first: list[Place] = []
        last: list[Place] = []
        while begin < end and text[begin:end] not in kept:
            if text[begin] in self.before:
                size = _run(text[begin:end])
                first.append((begin, begin + size))
                begin += size
            elif text[end - 1] in self.after:
                size = _run(text[begin:end][::-1])
                last.append((end - size, end))
                end -= size
            else:
                ending = next((x for x in self.endings if text[begin:end].endswith(x) and len(x) < end - begin), "")
                if not ending:
                    break
                last.append((end - len(ending), end))
                end -= len(ending)
        middle = [(begin, end)] if begin < end else []
        if self.characters and middle:
            middle = _by_character(text, begin, end)
        return [*first, *middle, *reversed(last)]


SPACES = Splitter()  # words are what stands between spaces


def _run(text: str) -> int:
    """How often the first character is repeated: "..." is one word."""
    return len(text) - len(text.lstrip(text[0]))


def is_punctuation(character: str) -> bool:
    """Whether it is of Unicode's punctuation or symbols."""
    return unicodedata.category(character)[0] in "PS"


def is_unspaced(character: str) -> bool:
    """Whether it is a Han character or kana, whose words have no spaces between."""
    return unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))


def _by_character(text: str, begin: int, end: int) -> list[Place]:
    found: list[Place] = []
    for i in range(begin, end):
        if found and not is_unspaced(text[i]) and not is_unspaced(text[i - 1]):
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def learn(sentences: Iterable[Sequence[str]]) -> Splitter:
    """How the words of a tagger's training data are told apart.

    A mark of punctuation is split from a word's edge if it stands by itself more often than at that edge of a word.
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    alone: Counter[str] = Counter()
    begins: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    joined: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    lengths = [0, 0]  # words of Han characters and kana: of one, of more
    for word, count in counts.items():
        if all(map(is_punctuation, word)):
            alone.update(dict.fromkeys(word, count))
            continue
        if all(map(is_unspaced, word)):
            lengths[len(word) > 1] += count
        if is_punctuation(word[0]):
            if word[0] in APOSTROPHES:
                endings[word] += count
            else:
                begins[word[0]] += count
                joined[word] += count
        if is_punctuation(word[-1]) and len(word) > 1:
            ends[word[-1]] += count
            joined[word] += count
    before = "".join(sorted(c for c in alone if alone[c] > begins[c]))
    after = "".join(sorted(c for c in alone if alone[c] > ends[c]))
    kept = tuple(word for word, _ in joined.most_common(KEPT))
    often = tuple(sorted((x for x, count in endings.items() if count > 1), key=lambda x: (-len(x), x)))
    return Splitter(before, after, kept, often, lengths[0] > 9 * lengths[1] and lengths[0] >= SOME)


def write_splitter(workdir: epath.PathLike, splitter: Splitter) -> None:
    """Store it in a workdir."""
    write_json(epath.Path(workdir) / FILE, dataclasses.asdict(splitter))


def read_splitter(workdir: epath.PathLike) -> Splitter:
    """The splitter of a workdir; spaces alone where there is none, as of models that earlier versions made."""
    path = epath.Path(workdir) / FILE
    if not path.exists():
        return SPACES
    return read_json(path, Splitter)
