# SPDX-License-Identifier: Apache-2.0
"""One piece of text → its shard of blocks: what a preparation process does, on one machine or in Beam."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import google_crc32c
import numpy as np
import sentencepiece
from etils import epath

from mlm_jax import records
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.prepare import packing, sources
from mlm_jax.prepare.sources import Piece
from mlm_jax.vocabulary import Vocabulary, load_pieces

VERSION = 1  # of the blocks that the same text gives


@dataclass(frozen=True)
class Settings:
    """What the blocks depend on besides the text."""

    sequence_length: int
    packing: str
    validation_fraction: float
    vocabulary: Vocabulary
    model_path: str


@dataclass(frozen=True)
class Job:
    """A shard to be made.

    Attributes:
      folder: of the stream's SeqIO cache.
      piece: the text.
      language_ids: of the stream's one or two languages.
      shards: split → (number of this shard, how many there are).
    """

    folder: str
    piece: Piece
    language_ids: tuple[int, ...]
    shards: dict[str, tuple[int, int]]
    settings: Settings

    def __str__(self) -> str:
        return str(self.piece)

    def fingerprint(self) -> str:
        """Changes when the shard has to be made again."""
        what = (VERSION, self.piece.fingerprint(), self.language_ids, self.shards, asdict(self.settings))
        return hashlib.sha256(repr(what).encode()).hexdigest()

    def done_file(self) -> epath.Path:
        split, (number, count) = next(iter(self.shards.items()))
        return epath.Path(self.folder) / f"{split}-{number:05d}-of-{count:05d}.done"


def file_name(split: str, number: int, count: int) -> str:
    """A shard's file, as SeqIO names cached shards."""
    return f"{split}.tfrecord-{number:05d}-of-{count:05d}"


def make_shard(job: Job) -> dict[str, Any]:
    """Write a job's shards, unless they are there; returns what its .done file holds.

    Returns:
      fingerprint, and for each split: documents, bytes (UTF-8 of their text), tokens, blocks,
      file_bytes. Beside the shard lies each split's histogram of token ids, as .npz.

    Raises:
      UserError: the text cannot be read or the shard not written.
    """
    fingerprint = job.fingerprint()
    done = job.done_file()
    if done.exists():
        stored = json.loads(done.read_text())
        if stored["fingerprint"] == fingerprint:
            return stored
    try:
        result = {"fingerprint": fingerprint, "splits": {split: _write_split(job, split) for split in job.shards}}
        write_whole(done, json.dumps(result) + "\n")
    except OSError as e:
        raise UserError(
            f"{job.folder}: blocks of {job.piece} cannot be written ({e.strerror or e}); free space or mend "
            "permissions, then run again (finished shards are kept)"
        ) from e
    return result


def _write_split(job: Job, split: str) -> dict[str, int]:
    """Read the piece's documents of one split, encode, pack and write them.

    The text is read once for each split: that costs a few percent of encoding it, and keeps this a
    straight line from documents to file.
    """
    counts = {"documents": 0, "bytes": 0, "tokens": 0, "blocks": 0}
    histogram = np.zeros(job.settings.vocabulary.size, np.int64)
    number, count = job.shards[split]
    path = epath.Path(job.folder) / file_name(split, number, count)
    aside = path.parent / f"{path.name}.partial"
    offsets = [0]
    with aside.open("wb") as file:
        for block in blocks(job.piece, split, job.settings, job.language_ids, counts):
            payload = records.encode(block)
            file.write(frame(payload))
            offsets.append(offsets[-1] + len(payload) + 16)
            np.add.at(histogram, block["tokens"], 1)
            counts["tokens"] += len(block["tokens"])
            counts["blocks"] += 1
    write_whole(records.index_path(str(path)), np.array(offsets, "<u8").tobytes())
    ids = np.flatnonzero(histogram)
    np.savez(path.parent / f"{path.name}.histogram.npz", ids=ids, counts=histogram[ids])
    aside.replace(path)
    return counts | {"file_bytes": offsets[-1]}


def blocks(
    piece: Piece,
    split: str,
    settings: Settings,
    language_ids: tuple[int, ...],
    counts: dict[str, int] | None = None,
) -> Iterator[packing.Block]:
    """The blocks of a piece's documents of one split; `counts` gets their documents and bytes added."""
    counts = {"documents": 0, "bytes": 0} if counts is None else counts

    def encoded() -> Iterator[list[Any]]:
        for batch in sources.pairs(piece) if len(language_ids) == 2 else sources.documents(piece):
            part = sources.divide(piece, batch, settings.validation_fraction).get(split, [])
            if part:
                counts["documents"] += len(part)
                counts["bytes"] += len("".join("".join(document) for document in part).encode())
                yield encode(settings.model_path, part)

    return pack(encoded(), settings, language_ids)


def frame(payload: bytes) -> bytes:
    """A TFRecord record: length, its checksum, payload, its checksum (tensorflow/core/lib/io/record_writer.h)."""

    def checksum(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(payload))
    return length + checksum(length) + payload + checksum(payload)


def encode(model_path: str, batch: list[Any]) -> list[Any]:
    """Token ids of documents, or of both sides of pairs, without specials."""
    pieces = _pieces(model_path)
    if isinstance(batch[0], str):
        return pieces.encode(batch, num_threads=1)
    first, second = (pieces.encode([pair[i] for pair in batch], num_threads=1) for i in (0, 1))
    return list(zip(first, second, strict=True))


@cache
def _pieces(model_path: str) -> sentencepiece.SentencePieceProcessor:
    return load_pieces(model_path)


def pack(batches: Iterable[list[Any]], settings: Settings, language_ids: tuple[int, ...]) -> Iterator[packing.Block]:
    """Batches of encoded documents (or pairs) → blocks."""
    length, bos, eos = settings.sequence_length, settings.vocabulary.bos, settings.vocabulary.eos
    if len(language_ids) == 2:
        pair = (language_ids[0], language_ids[1])
        return packing.best_fit(packing.pair_segments(batches, length, bos, eos, pair), length)
    if settings.packing == "concatenate":
        return packing.concatenate(batches, length, bos, eos, language_ids[0])
    return packing.best_fit(packing.document_segments(batches, length, bos, eos, language_ids[0]), length)
