# SPDX-License-Identifier: Apache-2.0
"""The pieces of words, as the tokenizer cuts them in running text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mlm_jax.tokenizers import Tokenizer

UNSEEN = ("Zs", "Zl", "Zp", "Cc", "Cf")  # categories of characters that a tokenizer may read as space, or not at all
SPACE = "\u2581"  # SentencePiece's
BEFORE = "a"  # what stands before a word that is tokenized apart from its sentence


def encode_words(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], unk: int) -> list[list[list[int]]]:
    """Ids of each word's pieces.

    A sentence is tokenized whole, with a space between words, and its pieces are given to words by their offsets: a tokenizer
    that marks a word by the space before it (byte-level BPE, SentencePiece without a dummy prefix) cuts words by
    themselves otherwise than in text. A piece of white space alone begins the next word.

    Args:
      unk: the piece of a word that the tokenizer makes nothing of.

    Returns:
      Of each sentence, each word's ids, at least one.
    """
    encoded = tokenizer.encode_offsets([" ".join(words) for words in sentences])
    marks = [sum(at_edge(piece, SPACE) for piece in tokenizer.pieces) for at_edge in (str.startswith, str.endswith)]
    found = []
    for words, (ids, offsets) in zip(sentences, encoded, strict=True):
        pieces = _by_word(words, ids, offsets, marks[1] > marks[0]) or _one_by_one(tokenizer, words)
        found.append([of_word or [unk] for of_word in pieces])
    return found


def _by_word(
    words: Sequence[str], ids: Sequence[int], offsets: Sequence[tuple[int, int]], after: bool = False
) -> list[list[int]] | None:
    """A sentence's pieces by word; None: some piece is of several words.

    Args:
      after: whether white space ends the word before it, as where it is a suffix.
    """
    text = " ".join(words)
    owner = [
        i for i, word in enumerate(words) for _ in f"{word} "
    ]  # of each character; a space is of the word before it
    seen = [unicodedata.category(character) not in UNSEEN and character != SPACE for character in text]
    found: list[list[int]] = [[] for _ in words]
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
        pieces = _by_word([BEFORE, word], ids, offsets)
        found.append(pieces[1] if pieces else tokenizer.encode([word])[0])
    return found
