# SPDX-License-Identifier: Apache-2.0
"""The words of a text in any script, by a rule and without a model: places and 64-bit hashes of all words at once, as arrays.

Where a script puts spaces between words, a word is a run of letters, marks and digits, apostrophes inside it included. Where it puts
none, the rule of `mlm_jax/words.py` for masking holds as far as characters tell: in Han, Thai, Lao, Khmer, Burmese and the others of
`EACH_PIECE` each letter with what is written on and around it (about a syllable) is a word; in Hiragana and in Katakana a run is.
Symbols that stand together are a word of their own ("...", "),").
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlm_jax.words import EACH_PIECE, HIRAGANA, JOINING, KATAKANA, OPENING, RUNS

SPACE, SYMBOL, SPACED, EACH, HIRA, KATA, MARK = range(7)  # kinds of characters
LAST = 0x32400  # above it no letters are assigned (The Unicode Standard 16.0)
KIND, LETTER, DIGIT, OPENS, STACKS = 7, 8, 16, 32, 64  # bits: of the kind, and beside it
LONGEST = 1_000_000  # characters of a text that are looked at at once: arrays of them take 100 bytes per character
_APOSTROPHES = (0x27, 0x2019)
ZERO_WIDTH_SPACE = 0x200B  # which Khmer, Thai and Burmese may have between words; for Unicode it is no white space
_ONE = np.uint64(1)

U64 = NDArray[np.uint64]


@functools.cache
def _table() -> NDArray[np.uint8]:
    """The kind of each code point and the bits beside it, uint8 [0x110000]."""
    block = np.full(0x110000, SPACED, np.uint8)
    for first, last, kind in (
        *((*pair, EACH) for pair in EACH_PIECE),
        *((*pair, HIRA) for pair in RUNS[HIRAGANA]),
        *((*pair, KATA) for pair in RUNS[KATAKANA]),
    ):
        block[first : last + 1] = kind
    kinds, bits = np.full(0x110000, SYMBOL, np.uint8), np.zeros(0x110000, np.uint8)
    for code in range(LAST):
        character = chr(code)
        if character.isalnum() or character == "_":
            kinds[code] = block[code]
            bits[code] = LETTER * character.isalpha() + DIGIT * character.isdecimal()
        elif character.isspace() or code == ZERO_WIDTH_SPACE:
            kinds[code] = SPACE
        elif unicodedata.category(character)[0] == "M":
            kinds[code] = MARK
    kinds[[ord(c) for c in JOINING]] = MARK
    for c in OPENING:  # the vowels before their consonant; the others put the next consonant below this one
        bits[ord(c)] |= STACKS if kinds[ord(c)] == MARK else OPENS
    return kinds | bits


@dataclass(frozen=True)
class Words:
    """Where a text's words are.

    Attributes:
      codes: the text's code points, uint32 [characters].
      starts, ends: of each word, int64 [words].
      symbols: whether a word is of symbols only, bool [words].
      letters: whether it has a letter, bool [words].
    """

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    symbols: NDArray[np.bool_]
    letters: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Words:
        """Those at some places, or where `places` is true."""
        return Words(self.codes, self.starts[places], self.ends[places], self.symbols[places], self.letters[places])

    def without_symbols(self) -> Words:
        return self.at(~self.symbols)


def code_points(text: str) -> NDArray[np.uint32]:
    """uint32 [characters]; half surrogate pairs stay what they are."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def find_words(text: str) -> Words:
    """The words of a text, symbols among them, in order."""
    codes = code_points(text)
    bits = _table()[codes]
    kinds = bits & KIND
    if not len(codes):
        none = np.zeros(0, np.int64)
        return Words(codes, none, none, none.astype(bool), none.astype(bool))
    inside = (codes == _APOSTROPHES[0]) | (codes == _APOSTROPHES[1])
    if inside.any():
        letter = (kinds == SPACED) | (kinds == MARK)
        inside[1:-1] &= letter[:-2] & letter[2:]
        inside[[0, -1]] = False
        kinds[inside] = SPACED
    marks = kinds == MARK
    if marks.any():  # a mark is of the kind of what it stands on
        base = np.maximum.accumulate(np.where(marks, 0, np.arange(len(kinds))))
        kinds = np.where(marks & (kinds[base] == MARK), SPACE, kinds[base])
    begins = np.ones(len(kinds), bool)
    begins[1:] = kinds[1:] != kinds[:-1]
    each = kinds == EACH
    if each.any():
        goes_on = marks[1:] | ((bits[:-1] & (OPENS | STACKS)) != 0)
        begins[1:] |= each[1:] & ~goes_on
    filled = kinds != SPACE
    begins &= filled
    starts = np.flatnonzero(begins)
    last = filled.copy()
    last[:-1] &= begins[1:] | ~filled[1:]
    ends = np.flatnonzero(last) + 1
    letters = np.logical_or.reduceat(bits & LETTER != 0, starts) if len(starts) else np.zeros(0, bool)
    return Words(codes, starts, ends, kinds[starts] == SYMBOL, letters)


def strings(text: str, found: Words) -> list[str]:
    """The words themselves."""
    return [text[a:b] for a, b in zip(found.starts.tolist(), found.ends.tolist(), strict=True)]


def words(text: str) -> list[str]:
    """The words of a text, symbols among them, in order."""
    return strings(text, find_words(text))


def plain_words(text: str) -> Words:
    """The words of a text without case, symbols, and which digits stand in its numbers: what copies of a text have in common."""
    found = find_words(text.lower()).without_symbols()
    digits = _table()[found.codes] & DIGIT != 0
    return Words(np.where(digits, np.uint32(48), found.codes), found.starts, found.ends, found.symbols, found.letters)


def mix(values: U64) -> U64:
    """A bijection of 64-bit numbers whose bits depend on all bits (splitmix64's finaliser: Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.cache
def numbers(count: int, seed: int = 0) -> U64:
    """That many odd random numbers (splitmix64), the same ever after; uint64 [count]."""
    steps = np.arange(1, count + 1, dtype=np.uint64) + (np.uint64(seed) << np.uint64(32))
    found = mix(steps * np.uint64(0x9E3779B97F4A7C15)) | _ONE
    found.flags.writeable = False
    return found


_PLACES = 1024


def sequence_hashes(values: U64, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> U64:
    """A hash of each run values[start:end]; uint64 [runs]: sums of products (multilinear hashing), then mixed. Runs are in order, apart."""
    first = np.zeros(len(values), np.int64)
    first[starts[starts < ends]] = starts[starts < ends]
    within = np.arange(len(values)) - np.maximum.accumulate(first)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * numbers(_PLACES)[within % _PLACES], out=sums[1:])
    return mix(sums[ends] - sums[starts] + (ends - starts).astype(np.uint64) * numbers(1, 1)[0])


def word_hashes(found: Words) -> U64:
    """A 64-bit hash of each word; uint64 [words]."""
    return sequence_hashes(found.codes.astype(np.uint64) + _ONE, found.starts, found.ends)


def hash_words(listed: Sequence[str]) -> U64:
    """The same hashes of words that stand in a list; uint64 [words]."""
    lengths = np.array([len(word) for word in listed], np.int64)
    ends = np.cumsum(lengths)
    return sequence_hashes(code_points("".join(listed)).astype(np.uint64) + _ONE, ends - lengths, ends)


def n_gram_hashes(hashes: U64, n: int, places: NDArray[np.int64] | None = None) -> U64:
    """A hash of each run of n words, in order; uint64 [words - n + 1], empty where there are fewer words.

    Args:
      places: where runs begin, if not everywhere.
    """
    count = max(0, len(hashes) - n + 1)
    total = np.zeros(count if places is None else len(places), np.uint64)
    for i, factor in enumerate(numbers(n, 2)):
        total += (hashes[i : i + count] if places is None else hashes[places + i]) * factor
    return mix(total)
