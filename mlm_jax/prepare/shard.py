# SPDX-License-Identifier: Apache-2.0
"""A slice of the text → its shard of blocks: what a preparation process does, on one machine or in Beam."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NotRequired, TypedDict

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import records
from mlm_jax.errors import UserError
from mlm_jax.files import said, sync, write_whole, writing
from mlm_jax.prepare import packing, sources
from mlm_jax.prepare.held_out import HeldOut
from mlm_jax.prepare.sentence_pairs import sentence_pairs, sentences
from mlm_jax.prepare.slices import Pair, Slice, sides_of
from mlm_jax.prepare.tally import Tally, read_back
from mlm_jax.stored import read_json
from mlm_jax.tokenizers import Tokenizer, load_tokenizer
from mlm_jax.vocabulary import Vocabulary

VERSION = 2  # of the blocks that the same text gives
PAIRS_VERSION = 3  # of those of sentence pairs


@dataclass(frozen=True)
class Settings:
    """What the blocks depend on besides the text."""

    sequence_length: int
    packing: str
    held_out: HeldOut
    vocabulary: Vocabulary
    folder: str  # of the vocabulary
    pairings: int = 1
    pairs_per_block: int = 0
    sides: int = 2  # texts that a pair may have

    def fingerprint(self) -> tuple[Any, ...]:
        """What they depend on, wherever the workdir lies."""
        of_pairs = (self.pairs_per_block, self.sides) if self.packing == "pairs" else ()
        return (self.sequence_length, self.packing, self.held_out.sha256, self.vocabulary, self.pairings, *of_pairs)


def settings_of(data: cfg.Data, words: Vocabulary, held_out: HeldOut, folder: str, length: int = 0) -> Settings:
    """The settings of a corpus.

    Args:
      folder: of the vocabulary.
      length: of its blocks; 0: `data.sequence_length`.
    """
    length = length or data.sequence_length
    of_pairs = cfg.pairs_per_block(dataclasses.replace(data, sequence_length=length)), cfg.sides_of_pairs(data)
    return Settings(length, data.packing, held_out, words, folder, data.pairings, *of_pairs)


@dataclass(frozen=True)
class Job:
    """A shard to be made.

    Attributes:
      folder: of the stream's SeqIO cache.
      text: its slice.
      language_ids: of the stream's one or two languages.
      shards: split → (number of this shard, how many there are).
    """

    folder: str
    text: Slice[Any]
    language_ids: tuple[int, ...]
    shards: dict[str, tuple[int, int]]
    settings: Settings

    def __str__(self) -> str:
        return str(self.text)

    def fingerprint(self) -> str:
        """A hash that changes when the shard has to be made again."""
        version = PAIRS_VERSION if self.settings.packing == "next_sentence" else VERSION
        what = (version, self.text.fingerprint(), self.language_ids, self.shards, self.settings.fingerprint())
        return hashlib.sha256(repr(what).encode()).hexdigest()

    def done_file(self) -> epath.Path:
        split, (number, count) = next(iter(self.shards.items()))
        return epath.Path(self.folder) / f"{split}-{number:05d}-of-{count:05d}.done"


def file_name(split: str, number: int, count: int) -> str:
    """A shard's file, as SeqIO names cached shards."""
    return f"{split}.tfrecord-{number:05d}-of-{count:05d}"


class DoneSplit(TypedDict):
    """What a .done file says of a split: fields of `Tally`, and what was written."""

    documents: int
    bytes: int
    left_out: int
    sentences_left_out: int
    in_no_block: int
    unpaired: int
    cut: NotRequired[int]
    characters: int
    lost: dict[str, int]
    tokens: int
    blocks: int
    file_bytes: int


class Done(TypedDict):
    """What a .done file says."""

    fingerprint: str
    splits: dict[str, DoneSplit]


def make_shard(job: Job) -> dict[str, Any]:
    """Write a job's shards, unless they are there; returns what its .done file holds.

    A shard that was deleted, or is of another size than its .done file says, is made again.

    Returns:
      fingerprint, and for each split: its `Tally`, tokens, blocks, file_bytes. Beside the shard lies each split's histogram
      of token ids, as .npz.

    Raises:
      UserError: the text cannot be read or the shard not written.
    """
    fingerprint = job.fingerprint()
    done = job.done_file()
    if done.exists():
        with contextlib.suppress(UserError):  # a damaged one says nothing, and the shard is made again
            stored: Any = read_json(done, Done)
            same = stored["fingerprint"] == fingerprint and stored["splits"].keys() == job.shards.keys()
            if same and all(_is_there(job, stored, split) for split in job.shards):
                return stored
    try:
        result = {"fingerprint": fingerprint, "splits": {split: _write_split(job, split) for split in job.shards}}
        sync(job.folder)
        write_whole(done, json.dumps(result) + "\n")
    except OSError as e:
        again = "then run the same command again: finished shards are kept"
        raise UserError(f"{said(e, job.folder, again)} (blocks of {job.text})") from e
    return result


def _is_there(job: Job, stored: dict[str, Any], split: str) -> bool:
    """Whether a finished split's shard, index and histogram are there, in the sizes they were written in."""
    path = epath.Path(job.folder) / file_name(split, *job.shards[split])
    made = stored["splits"][split]
    sizes = {str(path): made["file_bytes"], records.index_path(str(path)): 8 * (made["blocks"] + 1)}
    return epath.Path(f"{path}.histogram.npz").exists() and all(
        epath.Path(file).exists() and epath.Path(file).stat().length == size for file, size in sizes.items()
    )


def _write_split(job: Job, split: str) -> dict[str, Any]:
    """Read the slice's documents of one split, encode, pack and write them.

    The text is read once for each split: that costs a few percent of encoding it, and keeps this a
    straight line from documents to file.
    """
    tally = Tally()
    histogram = np.zeros(job.settings.vocabulary.size, np.int64)
    number, count = job.shards[split]
    path = epath.Path(job.folder) / file_name(split, number, count)
    offsets = [0]
    with writing(path, "wb", listed=False) as file:
        for block in make_blocks(job.text, split, job.settings, job.language_ids, tally):
            payload = records.encode_block(block)
            file.write(records.frame(payload))
            offsets.append(offsets[-1] + len(payload) + records.FRAMING)
            np.add.at(histogram, block["tokens"], 1)
    write_whole(records.index_path(str(path)), np.array(offsets, "<u8").tobytes(), listed=False)
    ids = np.flatnonzero(histogram)
    stored = io.BytesIO()  # NumPy opens no gs:// itself
    np.savez(stored, ids=ids, counts=histogram[ids])
    write_whole(path.parent / f"{path.name}.histogram.npz", stored.getvalue(), listed=False)
    return vars(tally) | {"tokens": int(histogram.sum()), "blocks": len(offsets) - 1, "file_bytes": offsets[-1]}


def make_blocks(
    text: Slice[Any],
    split: str,
    settings: Settings,
    language_ids: tuple[int, ...],
    tally: Tally | None = None,
) -> Iterator[packing.Block]:
    """The blocks of a slice's documents of one split, which are counted in `tally`."""
    tokenizer, tally = _tokenizer(settings.folder, settings.vocabulary.sha256), tally or Tally()

    def encode(batch: list[str]) -> list[list[int]]:
        tokens = tokenizer.encode(batch)
        read_back(tokenizer, settings.vocabulary, batch, tokens, tally)
        return tokens

    length, bos, eos = settings.sequence_length, settings.vocabulary.bos, settings.vocabulary.eos
    texts = _texts(text, split, settings, tally)
    if len(language_ids) == 2:
        pair = (language_ids[0], language_ids[1])
        if settings.packing == "pairs":
            encoded_pairs = (_encode_pairs(encode, batch, text.source.prefixes) for batch in texts)
            found = packing.text_pairs(encoded_pairs, length, bos, eos, pair, tally)
            close = partial(packing.pairs_block, sides=settings.sides)
            yield from packing.best_fit(found, length, settings.pairs_per_block, close)
            return
        pairs = (list(zip(*(encode([p[i] for p in batch]) for i in (0, 1)), strict=True)) for batch in texts)
        yield from packing.best_fit(packing.pair_segments(pairs, length, bos, eos, pair), length)
        return
    (language,) = language_ids

    def encode_documents(batch: list[str]) -> list[list[int]]:
        tokens = encode(batch)
        tally.in_no_block += sum(not document for document in tokens)
        return tokens

    if settings.packing == "concatenate":
        yield from packing.concatenate(map(encode_documents, texts), length, bos, eos, language)
    elif settings.packing == "segments":
        segments = packing.document_segments(map(encode_documents, texts), length, bos, eos, language)
        yield from packing.best_fit(segments, length)
    else:
        # Validation pairs are made once: more would be the same text again.
        for number in range(settings.pairings if split == "train" else 1):
            # Documents are counted in the first round only, blocks and their tokens in each.
            counted = tally if number == 0 else Tally()
            again = texts if number == 0 else _texts(text, split, settings, counted)
            encoded = (_encode_sentences(encode, batch) for batch in again)
            yield from sentence_pairs(encoded, length, bos, eos, language, f"{text}/{split}/{number}", counted)
            if number:
                tally.unpaired += counted.unpaired


def _texts(text: Slice[Any], split: str, settings: Settings, tally: Tally) -> Iterator[list[Any]]:
    """A slice's documents (or pairs) of one split, in batches."""
    for batch in sources.read_texts(text):
        part = settings.held_out.take(text, batch, split, tally)
        if part:
            tally.documents += len(part)
            tally.bytes += len("".join("".join(document) for document in part).encode())
            yield part


def _encode_pairs(
    encode: Callable[[list[str]], list[list[int]]], batch: list[Pair], prefixes: tuple[str, str]
) -> list[tuple[list[int], ...]]:
    """Pairs → the token ids of their texts, behind their prefixes; a hard negative that is empty is none."""
    pairs = [[(prefixes[i > 0], side) for i, side in enumerate(sides_of(pair))] for pair in batch]
    tokens = iter(encode([prefix + side for pair in pairs for prefix, side in pair]))
    return [tuple(next(tokens) for _ in pair) for pair in pairs]


def _encode_sentences(encode: Callable[[list[str]], list[list[int]]], batch: list[str]) -> list[list[list[int]]]:
    """Documents → their sentences' token ids."""
    cut = [sentences(document) for document in batch]
    tokens = iter(encode([sentence for document in cut for sentence in document]))
    return [[next(tokens) for _ in document] for document in cut]


@cache
def _tokenizer(folder: str, sha256: str) -> Tokenizer:  # sha256: another file in the same place is another tokenizer
    return load_tokenizer(folder)
