# SPDX-License-Identifier: Apache-2.0
"""The pieces of words, as the tokenizer cuts them in running text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mlm_jax.tokenizers import Tokenizer

UNSEEN = ("Zs", "Zl", "Zp", "Cc", "Cf")  # categories of characters that a tokenizer may read as space, or not at all
SPACE = "\u2581"  # SentencePiece's
BEFORE = "a"  # what stands before a word that is tokenized apart from its sentence


def encode_words(
    tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], unk: int, texts: Sequence[str | None] = ()
) -> list[list[list[int]]]:
    """Ids of each word's pieces.

    A sentence is tokenized whole, and its pieces are given to words by their offsets: a tokenizer that marks a word by the
    space before it (byte-level BPE, SentencePiece without a dummy prefix) cuts words by themselves otherwise than in
    text. A piece of white space alone begins the next word.

    Args:
      unk: the piece of a word that the tokenizer makes nothing of.
      texts: each sentence as it was written, with its own spaces; None, or one in which the words do not follow each other:
        there is a space between any two.

    Returns:
      Of each sentence, each word's ids, at least one.
    """
    marks = [sum(at_edge(piece, SPACE) for piece in tokenizer.pieces) for at_edge in (str.startswith, str.endswith)]

    def cut(sentences: Sequence[Sequence[str]], texts: Sequence[str | None]) -> list[list[list[int]] | None]:
        placed = [_places(words, text) for words, text in zip(sentences, texts, strict=True)]
        encoded = tokenizer.encode_offsets([text for text, _ in placed])
        return [
            _by_word(text, owner, len(words), ids, offsets, marks[1] > marks[0])
            for words, (text, owner), (ids, offsets) in zip(sentences, placed, encoded, strict=True)
        ]

    found = cut(sentences, texts or [None] * len(sentences))
    # A text without spaces between words may have pieces across them.
    again = [i for i, pieces in enumerate(found) if pieces is None and texts and texts[i] is not None]
    for i, pieces in zip(again, cut([sentences[i] for i in again], [None] * len(again)), strict=True):
        found[i] = pieces
    return [
        [of_word or [unk] for of_word in pieces or _one_by_one(tokenizer, words)]
        for words, pieces in zip(sentences, found, strict=True)
    ]


def _places(words: Sequence[str], text: str | None) -> tuple[str, list[int]]:
    """A sentence's text, and of which word each of its characters is, and its end: a space is of the word before it."""
    if text is not None:
        owner: list[int] = []
        at = 0
        for i, word in enumerate(words):
            begin = text.find(word, at)
            if begin < 0 or text[at:begin].strip():
                break
            owner += [max(i - 1, 0)] * (begin - at) + [i] * len(word)
            at = begin + len(word)
        else:
            if not text[at:].strip():
                return text, owner + [len(words) - 1] * (len(text) - at + 1)
    return " ".join(words), [i for i, word in enumerate(words) for _ in f"{word} "]


def _by_word(
    text: str, owner: Sequence[int], words: int, ids: Sequence[int], offsets: Sequence[tuple[int, int]], after: bool
) -> list[list[int]] | None:
    """A sentence's pieces by word; None: some piece is of several words.

    Args:
      owner: of `_places`.
      after: whether white space ends the word before it, as where it is a suffix.
    """
    seen = [unicodedata.category(character) not in UNSEEN and character != SPACE for character in text]
    found: list[list[int]] = [[] for _ in range(words)]
    last = 0
    for piece, (begin, end) in zip(ids, offsets, strict=True):
        # White space, and what a normaliser makes of it, is of the word that what follows it is of.
        of = {owner[i] for i in range(begin, end) if seen[i]} or {owner[begin if after else end]}
        word = of.pop()
        if of or word < last:
            return None
        found[word].append(piece)
        last = word
    return found


def _one_by_one(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """The pieces of words that share some in their sentence: each after another word, or, where they share some even so, by itself."""
    found = [] if not words else tokenizer.encode([words[0]])
    after = tokenizer.encode_offsets([f"{BEFORE} {word}" for word in words[1:]])
    for word, (ids, offsets) in zip(words[1:], after, strict=True):
        text, owner = _places([BEFORE, word], None)
        pieces = _by_word(text, owner, 2, ids, offsets, after=False)
        found.append(pieces[1] if pieces else tokenizer.encode([word])[0])
    return found
