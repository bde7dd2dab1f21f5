# SPDX-License-Identifier: Apache-2.0
"""Which text is held out, and that none of it is trained on, whatever stream it comes by.

A stream's own documents divide by the hash of their text, so that one is held out in all streams of one language or in none. What
that cannot see is a sentence pair whose second side is a held-out document, a document that is a side of a held-out pair, or text
of a named validation file. So where a corpus has pairs or such files, the hashes of all held-out text are gathered first
(`gather`), and training leaves out what is among them (`HeldOut.take`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import storage
from mlm_jax.files import write_whole
from mlm_jax.formats import unpacked
from mlm_jax.overlap import text_hash
from mlm_jax.prepare.pool import run_all
from mlm_jax.prepare.sentence_pairs import sentences
from mlm_jax.prepare.slices import Pair, Slice, sides_of
from mlm_jax.prepare.sources import kind_of, language_slices, pair_slices, read_texts
from mlm_jax.prepare.tally import Tally
from mlm_jax.stored import read_arrays

T = TypeVar("T", bound=str | Pair)
S = TypeVar("S", cfg.Source, cfg.Parallel)
K = TypeVar("K", str, tuple[str, str])

FILE = "held_out.npz"
SMALL = 2**25  # bytes of a stream's files
MOST = 0.1  # of a small stream's documents, that may be held out

SHORTEST_SENTENCE = 16  # bytes: shorter ones (Contents, See also) stand in many documents and give nothing away


@dataclass(frozen=True)
class HeldOut:
    """What decides where a document or a sentence pair belongs.

    Attributes:
      file: an .npz; "": a document's own hash decides alone. Its `hashes` are those of held-out text, uint64 [n], sorted; its `most`, a
        float: of text that a stream with this share would hold out, whole documents only; 0: of all, and of their sentences.
      sha256: of the file.
    """

    file: str = ""
    sha256: str = ""

    def take(self, text: Slice[Any], batch: list[T], split: str, tally: Tally | None = None) -> list[T]:
        """The documents (or pairs) of a batch that are for a split.

        Args:
          text: the slice that they are of; where it is for both, they are divided by their hash, pairs by that of their first side.
          split: train or validation.
          tally: what training leaves out is counted there.
        """
        if text.part == "both":
            wanted = split == "validation"
            batch = [document for document in batch if is_held_out(sides_of(document)[0], text.fraction) == wanted]
        elif text.part != split:
            return []
        if split == "train" and self.file and batch:
            hashes, most = _load(self.file, self.sha256)
            return leave_out(batch, hashes, most, tally or Tally())
        return batch

    def divide(self, text: Slice[Any], batch: list[T]) -> dict[str, list[T]]:
        """A batch by what `take` has its documents (or pairs) for."""
        return {split: self.take(text, batch, split) for split in ("train", "validation")}


def is_held_out(document: str, fraction: float) -> bool:
    """Whether a document is for validation: decided by its text alone, so that it never moves."""
    if not fraction:
        return False
    digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def short_hash(text: str) -> int:
    """The first 64 bits of `text_hash`."""
    return int.from_bytes(text_hash(text)[:8], "little")


def parts_of(text: str) -> list[str]:
    """The sentences of a text, in order, that are long enough to be looked for."""
    found = [sentence for line in text.splitlines() for sentence in sentences(line, spaces=False)]
    return [sentence for sentence in found if len(sentence.encode()) >= SHORTEST_SENTENCE]


def hashes_of(text: str) -> list[int]:
    """Hashes of a held-out text and of its sentences."""
    return [short_hash(text), *map(short_hash, parts_of(text))]


def leave_out(batch: list[T], hashes: np.ndarray, most: float, tally: Tally) -> list[T]:
    """Training documents (or pairs) without what is held out.

    A pair goes when one of its sides, or a sentence of one, is held out; a document when all of it is, or loses the sentences
    that are.

    Args:
      hashes: uint64 [n], sorted.
      most: as in `HeldOut`'s file.
    """
    texts = [sides_of(document) for document in batch]
    if most:
        parts = [[side for side in sides if is_held_out(side, most)] for sides in texts]
    else:
        parts = [[part for side in sides for part in [*sides, *parts_of(side)]] for sides in texts]
    found = np.fromiter((short_hash(part) for own in parts for part in own), np.uint64)
    at = np.searchsorted(hashes, found)
    held = iter((hashes[np.minimum(at, len(hashes) - 1)] == found).tolist() if len(hashes) else [False] * len(found))
    kept: list[T] = []
    for document, own in zip(batch, parts, strict=True):
        bad = [part for part in own if next(held)]
        if not bad:
            kept.append(document)
        elif isinstance(document, str) and document not in bad and (rest := _without(document, bad)):
            tally.sentences_left_out += len(bad)
            kept.append(rest)  # type: ignore[arg-type]  # a document is a str
        else:
            tally.left_out += 1
    return kept


def _without(document: str, sentences: Iterable[str]) -> str:
    """A document without some of its sentences, each once; lines that are left empty go too."""
    for sentence in sentences:
        document = document.replace(sentence, "", 1)
    return "\n".join(line for text in document.splitlines() if (line := text.strip()))


def streams_of(
    data: cfg.Data, workers: int
) -> tuple[dict[str, list[Slice[cfg.Source]]], dict[tuple[str, str], list[Slice[cfg.Parallel]]]]:
    """The slices of every language and of every pair, with the share that each holds out.

    Raises:
      UserError: what `language_slices` and `pair_slices` refuse; the text cannot be read.
    """
    return with_fractions(language_slices(data), data, workers), with_fractions(pair_slices(data), data, workers)


def with_fractions(streams: dict[K, list[Slice[S]]], data: cfg.Data, workers: int) -> dict[K, list[Slice[S]]]:
    """The slices of streams with the share that each holds out: `validation_fraction`, and more of a stream of few documents.

    Only streams of files of together less than `SMALL` bytes, and the sample, are counted: others have enough, or cannot be read in a
    moment.

    Raises:
      UserError: the text cannot be read.
    """
    if not data.validation_fraction:
        return streams
    small = [name for name, slices in streams.items() if data.validation_documents and _is_small(slices)]
    jobs = [(name, text) for name in small for text in streams[name]]
    documents = dict.fromkeys(small, 0)
    if jobs:
        counted = run_all(_count, [(text,) for _, text in jobs], workers, "counting documents", lambda job: str(job[0]))
        for number, found in counted:
            documents[jobs[number][0]] += found
    fractions = dict.fromkeys(streams, data.validation_fraction)
    for name, number in documents.items():
        fractions[name] = max(data.validation_fraction, min(MOST, data.validation_documents / max(number, 1)))
    return {name: [replace(text, fraction=fractions[name]) for text in found] for name, found in streams.items()}


def _is_small(slices: Sequence[Slice[Any]]) -> bool:
    """Whether a stream divides by hash and is quickly counted."""
    paths = {path for text in slices for path in text.paths}
    named = {path for path in paths if cfg.is_named(path)}
    if any(text.part != "both" for text in slices) or any(not kind_of(path).small for path in named):
        return False
    size = sum(unpacked(path) * storage.size(path) for path in paths - named)
    return size < SMALL


def _count(text: Slice[Any]) -> int:
    return sum(map(len, read_texts(text)))


def gather(
    languages: dict[str, list[Slice[cfg.Source]]],
    pairs: dict[tuple[str, str], list[Slice[cfg.Parallel]]],
    folder: epath.Path,
    workers: int,
) -> HeldOut:
    """Read the text once for what is held out, where the hash of a document alone cannot tell.

    That is where there are pairs or named validation files, or, of the languages alone, where some hold out more than others.

    Args:
      languages, pairs: the slices of every stream.
      folder: gets held_out.npz, where there is something to look for.

    Raises:
      UserError: the text cannot be read.
    """
    slices: list[Slice[Any]] = [text for found in languages.values() for text in found]
    slices += [text for found in pairs.values() for text in found]
    held = [text for text in slices if text.part == "validation" or (text.part == "both" and text.fraction)]
    most = 0.0
    if not pairs and all(text.part == "both" for text in slices):
        # A document of two languages may be held out in the one that holds out more, and nowhere else.
        least, most = (choose(text.fraction for text in slices) for choose in (min, max))
        held = [text for text in held if text.fraction > least]
    if not held:
        return HeldOut()
    jobs = [(text, not most) for text in held]
    done = run_all(_gather_slice, jobs, workers, "gathering held-out text", lambda job: str(job[0]))
    hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *(found for _, found in done)]))
    content = io.BytesIO()
    np.savez(content, hashes=hashes, most=most)
    write_whole(folder / FILE, content.getvalue())
    return read(folder)


def read(folder: epath.Path) -> HeldOut:
    """What is held out of a prepared corpus."""
    file = folder / FILE
    if not file.exists():
        return HeldOut()
    return HeldOut(str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def _gather_slice(text: Slice[Any], with_sentences: bool) -> np.ndarray:
    """Hashes of what a slice holds out, uint64 [n]."""
    found: set[int] = set()
    for batch in read_texts(text):
        for document in HeldOut().take(text, batch, "validation"):
            for side in sides_of(document):
                found.update(hashes_of(side) if with_sentences else [short_hash(side)])
    return np.fromiter(found, np.uint64, len(found))


@cache
def _load(file: str, sha256: str) -> tuple[np.ndarray, float]:  # sha256: what the file held
    advice = f"delete {epath.Path(file).parent / 'manifest.json'} and run: mlm-jax prepare CONFIG"
    stored = read_arrays(file, advice, hashes=("uint64", 1), most=("float64", 0))
    return stored["hashes"], float(stored["most"])
