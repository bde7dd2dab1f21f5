# SPDX-License-Identifier: Apache-2.0
"""How much a document is like text that the user names: its perplexity under an n-gram model of that text, and head, middle and tail by it.

CCNet (Wenzek et al. 2020, section 4.2) took Wikipedia, SentencePiece and 5-grams of KenLM; so is this, with a model trained here: interpolated
Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1998, section 4.1.6) over SentencePiece pieces, in sorted arrays of hashes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from mlm_jax.curate.thresholds import quantile
from mlm_jax.curate.words import U64, mix, n_gram_hashes, numbers
from mlm_jax.errors import UserError
from mlm_jax.files import write_json
from mlm_jax.formats import data_files, read_texts
from mlm_jax.stored import read_json, reading_arrays

ORDER = 5
PIECES = 8000
CHARACTERS = 5_000_000
HEAD, TAIL = 0.3, 0.6  # CCNet's shares: until the first is the head, after the second the tail
LONGEST = 100_000  # characters of a document that are scored
OPTION = "filters.perplexity"
SCORE = "log_perplexity"  # the name under which a document has it
BUCKETS = ("head", "middle", "tail")
ADVICE = "delete the folder that it is in, and run again"
_ARRAYS = ("grams", "chances", "weights")
_DIGITS = re.compile(r"\d")

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """Attributes:
    pieces: the SentencePiece model, serialized.
    order: the longest n-grams.
    grams: by length from 1: hashes of n-grams, sorted, uint64 [n-grams].
    chances: of the last piece of each after the others, natural logarithm, float32 [n-grams].
    weights: by length from 1, of each n-gram as a context: of the shorter one where what follows is not known, natural logarithm, 0 where
      none is known to follow; float32 [n-grams].
    unknown: natural logarithm of the chance of a piece that the text does not have.
    """

    pieces: bytes
    order: int
    grams: tuple[U64, ...]
    chances: tuple[F32, ...]
    weights: tuple[F32, ...]
    unknown: float

    @cached_property
    def processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.pieces)

    def save(self, folder: Path) -> None:
        """Write the model's files; who says that they are there, says so after it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pieces.model").write_bytes(self.pieces)
        write_json(folder / "model.json", {"order": self.order, "unknown": self.unknown})
        for name in _ARRAYS:
            for i, part in enumerate(getattr(self, name)):
                np.save(folder / f"{name}{i}.npy", part)

    @classmethod
    def load(cls, folder: Path) -> Model:
        """A model whose arrays stay on disk, so that those of many languages share the memory there is.

        Raises:
          UserError: it is damaged.
        """
        found = read_json(folder / "model.json", dict[str, Any], ADVICE)
        with reading_arrays(folder, ADVICE):
            order = int(found["order"])
            grams, chances, weights = (
                tuple(np.load(folder / f"{name}{i}.npy", "r", allow_pickle=False) for i in range(length))
                for name, length in zip(_ARRAYS, (order, order, order - 1), strict=True)
            )
            pieces = (folder / "pieces.model").read_bytes()
        return cls(pieces, order, grams, chances, weights, float(found["unknown"]))


def _lines(text: str) -> list[str]:
    text = (
        _DIGITS.sub("0", text[:LONGEST]).encode("utf-8", "replace").decode()
    )  # SentencePiece takes no half surrogate pairs
    return [line for raw in text.split("\n") if (line := raw.strip())]


BEGIN, END = 0, 1  # of a line; pieces are numbered from 2


@dataclass(frozen=True)
class _Stream:
    """Lines one after the other: pieces' numbers, and how far back each line's begin is; uint64 and int64 [pieces]."""

    ids: U64
    since: NDArray[np.int64]

    def ending(self, n: int) -> NDArray[np.int64]:
        """Where n-grams of one line end."""
        return np.flatnonzero(self.since >= n - 1)

    def hashes(self, n: int) -> U64:
        """Of the n pieces that end at each place; what would begin before the first is not there: place p is entry p - n + 1."""
        return n_gram_hashes(mix(self.ids + numbers(1, 8)[0]), n) if n else np.zeros(len(self.ids) + 1, np.uint64)


def _stream(processor: sentencepiece.SentencePieceProcessor, lines: Sequence[str]) -> _Stream:
    ids = np.array([i for line in processor.encode(lines, num_threads=1) for i in (-2, *line, -1)], np.int64) + 2
    places = np.arange(len(ids))
    return _Stream(ids.astype(np.uint64), places - np.maximum.accumulate(np.where(ids == BEGIN, places, 0)))


def _known(keys: U64, wanted: U64) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def train(
    texts: Iterable[str], order: int = ORDER, pieces: int = PIECES, least: int = 1, characters: int = CHARACTERS
) -> Model:
    """A model of texts.

    Args:
      pieces: size of the vocabulary, at most.
      least: n-grams of three pieces and more that occur fewer times are left out, for a smaller model.
      characters: that are read, from the first text on; they are in memory, with some 50 bytes for each.

    Raises:
      UserError: there is no text.
    """
    lines: list[str] = []
    for text in texts:
        lines += _lines(text)
        characters -= len(text)
        if characters <= 0:
            break
    if not lines:
        raise UserError(f"{OPTION}: the text that documents are to be compared with is empty; name text that has words")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=pieces,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf",
        max_sentence_length=1 << 20,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    arrays = _kneser_ney(_stream(processor, lines), processor.get_piece_size() + 1, order, least)
    return Model(written.getvalue(), order, **arrays)


def files_of(pattern: str, languages: Iterable[str]) -> dict[str, list[str]]:
    """Language → the files of clean text that there are of it.

    Args:
      pattern: a path or glob with {language} in it.

    Raises:
      UserError: there are none of any language.
    """
    wanted = sorted(languages)
    found = {language: files for language in wanted if (files := data_files(pattern.replace("{language}", language)))}
    if wanted and not found:
        raise UserError(
            f"{OPTION}: no file matches {pattern} for any of {', '.join(wanted[:10])}; check the path, and name languages by these codes"
        )
    return found


def train_of(files: Sequence[str]) -> Model:
    """A model of files of clean text: lines of text, or the field "text" of rows.

    Raises:
      UserError: one cannot be read, or there is no text.
    """
    return train((text for path in files for _, text in read_texts(path, "text", naming=OPTION)), least=2)


@dataclass(frozen=True)
class _Counted:
    """All different n-grams of one length: hashes of them, of their first and of their last pieces; how often they occur; whether they begin a line."""

    keys: U64
    contexts: U64
    suffixes: U64
    counts: NDArray[np.int64]
    begins: NDArray[np.bool_]


def _count(stream: _Stream, n: int) -> _Counted:
    last = stream.ending(n)
    keys, first, counts = np.unique(stream.hashes(n)[last - n + 1], return_index=True, return_counts=True)
    last = last[first]
    shorter = stream.hashes(n - 1)
    return _Counted(keys, shorter[last - n + 1], shorter[last - n + 2], counts, stream.since[last] == n - 1)


def _kneser_ney(stream: _Stream, vocabulary: int, order: int, least: int) -> dict[str, Any]:
    """The arrays of `Model`."""
    counted = {n: _count(stream, n) for n in range(1, order + 1)}
    grams: list[U64] = []
    chances: list[F32] = []
    weights: list[F32] = []
    unknown = 0.0
    for n in range(1, order + 1):
        part = counted[n]
        counts = part.counts
        if n < order:  # after how many different pieces it stands; what begins a line stands after none
            after, times = np.unique(counted[n + 1].suffixes, return_counts=True)
            at, known = _known(after, part.keys)
            counts = np.where(known & ~part.begins, times[at], np.where(part.begins, part.counts, 1))
        if n == 1:
            counts = np.where(part.begins, 0, counts)  # no line's begin is ever predicted
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = once / (once + 2 * twice) if once and twice else 0.5
        kept = (part.counts >= least) | (n < 3)
        keys, inverse = np.unique(part.contexts, return_inverse=True)
        totals = np.bincount(inverse, counts)
        share = np.where(kept, np.maximum(counts - discount, 0), 0) / totals[inverse]
        rest = np.maximum(1 - np.bincount(inverse, share), 0)
        if n == 1:
            lower = np.full(len(counts), 1 / vocabulary)
            unknown = float(np.log(max(rest[0], 1e-12) / vocabulary))
        else:
            at, _ = _known(grams[-1], part.suffixes[kept])
            lower = np.zeros(len(counts))
            lower[kept] = np.exp(chances[-1][at].astype(np.float64))
            useful = np.zeros(len(keys), bool)
            useful[inverse[kept]] = True
            at, known = _known(
                grams[-1], keys[useful]
            )  # what begins an n-gram that is kept occurs as often, and is kept
            assert known.all()
            weights.append(np.zeros(len(grams[-1]), np.float32))
            weights[-1][at] = np.log(np.maximum(rest[useful], 1e-12))
        grams.append(part.keys[kept])
        chances.append(np.log(np.maximum(share + rest[inverse] * lower, 1e-30)[kept]).astype(np.float32))
    return {
        "grams": tuple(grams),
        "chances": tuple(chances),
        "weights": tuple(weights),
        "unknown": unknown,
    }


def _log_chances(stream: _Stream, model: Model) -> NDArray[np.float64]:
    """Natural logarithms of the chances of all pieces and ends of lines, each after what stands before it in its line; float64 [pieces + ends]."""
    found = np.full(len(stream.ids), model.unknown)
    places = np.zeros(len(stream.ids), np.int64)  # among the known n-grams, of the one that ends here
    known = np.zeros(len(stream.ids), bool)
    for n in range(1, model.order + 1):
        wanted = stream.ending(n)
        if n > 1:
            after = wanted[known[wanted - 1]]
            found[after] += model.weights[n - 2][places[after - 1]]
            wanted = wanted[known[wanted]]  # what ends a known n-gram is known
        at, there = _known(model.grams[n - 1], stream.hashes(n)[wanted - n + 1])
        wanted, at = wanted[there], at[there]
        found[wanted] = model.chances[n - 1][at]
        known[:] = False
        known[wanted], places[wanted] = True, at
    return found[stream.since > 0]


def log_perplexity(text: str, model: Model) -> float:
    """Of a document, per piece, natural logarithm; infinite for one without text."""
    lines = _lines(text)
    return float(-_log_chances(_stream(model.processor, lines), model).mean()) if lines else math.inf


def cut_points(histogram: Mapping[int, int]) -> tuple[float, float]:
    """Where the head ends and where the tail begins, of a language's logarithms of perplexity as `thresholds.count_score` counts them."""
    return quantile(histogram, HEAD), quantile(histogram, TAIL)


def bucket(value: float, cuts: tuple[float, float]) -> str:
    """ "head", "middle" or "tail"."""
    return BUCKETS[(value >= cuts[0]) + (value >= cuts[1])]
