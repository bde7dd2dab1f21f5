# SPDX-License-Identifier: Apache-2.0
"""What a text's pieces are, and whether another vocabulary cuts it alike; both of a slice, in a process of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax.adapt.pieces import Pieces, longest_match, open_pieces, words
from mlm_jax.prepare.slices import Slice
from mlm_jax.prepare.sources import read_documents
from mlm_jax.tokenizers import Tokenizer, load_tokenizer
from mlm_jax.vocabulary import Vocabulary, read_vocabulary


@dataclass(frozen=True)
class Compared:
    """How two vocabularies cut some text.

    Attributes:
      documents, bytes: of it.
      tokens, unknown: by the old and by the new one.
      differing: documents that the new one cuts otherwise, though it has the pieces.
      first: of those.
    """

    documents: int = 0
    bytes: int = 0
    tokens: tuple[int, int] = (0, 0)
    unknown: tuple[int, int] = (0, 0)
    differing: int = 0
    first: str = ""

    def __add__(self, other: Compared) -> Compared:
        tokens, unknown = (
            (a[0] + b[0], a[1] + b[1]) for a, b in ((self.tokens, other.tokens), (self.unknown, other.unknown))
        )
        return Compared(
            self.documents + other.documents,
            self.bytes + other.bytes,
            tokens,
            unknown,
            self.differing + other.differing,
            self.first or other.first,
        )


@cache
def _open(folder: str) -> tuple[Vocabulary, Tokenizer]:
    path = epath.Path(folder)
    vocabulary = read_vocabulary(path)
    return vocabulary, load_tokenizer(path / vocabulary.file)


@cache
def _open_pieces(folder: str) -> Pieces:
    return open_pieces(epath.Path(folder), read_vocabulary(epath.Path(folder)))


def count_pieces(text: Slice[cfg.Source], folder: str, word_piece: bool) -> np.ndarray:
    """How often each id occurs in a slice, int64 [vocabulary size].

    Args:
      folder: of the vocabulary.
      word_piece: it is WordPiece, of which what is found of a word before it turns out to be [UNK] counts too: without those
        pieces the word might be written, by shorter ones.
    """
    vocabulary, tokenizer = _open(folder)
    counts = np.zeros(vocabulary.size, np.int64)
    for batch in read_documents(text):
        rows = tokenizer.encode(batch)
        counts += np.bincount(np.fromiter(itertools.chain(*rows), np.int64), minlength=len(counts))
        for document, row in zip(batch, rows, strict=True):
            if word_piece and vocabulary.unk in row:
                for word in words(_open_pieces(folder), document):
                    found, whole = longest_match(word, _open_pieces(folder))
                    counts[[] if whole else found] += 1
    return counts


def compare(text: Slice[cfg.Source], old: str, new: str, ids: Sequence[int], most: int = 0) -> Compared:
    """Cut a slice by two vocabularies.

    Args:
      old, new: their folders.
      ids: of each old piece the new id, -1 where it is gone.
      most: documents of the slice, the first; 0: all.
    """
    (was, ours), (now, theirs) = _open(old), _open(new)
    mapped, found = np.asarray(ids), Compared()
    for batch in read_documents(text):
        batch = batch[: most - found.documents] if most else batch
        rows = [[np.asarray(row, np.int64) for row in each.encode(batch)] for each in (ours, theirs)]
        differing = [document for document, a, b in zip(batch, *rows, strict=True) if not np.array_equal(mapped[a], b)]
        found += Compared(
            len(batch),
            sum(len(document.encode()) for document in batch),
            (sum(map(len, rows[0])), sum(map(len, rows[1]))),
            (sum(int((a == was.unk).sum()) for a in rows[0]), sum(int((b == now.unk).sum()) for b in rows[1])),
            len(differing),
            differing[0] if differing else "",
        )
        if most and found.documents >= most:
            break
    return found
