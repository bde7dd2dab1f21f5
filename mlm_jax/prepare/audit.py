# SPDX-License-Identifier: Apache-2.0
"""A prepared corpus read back: a sample of every stream's blocks against its text, and a table of what each language has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console, manifest, records
from mlm_jax.errors import UserError
from mlm_jax.manifest import Manifest, Split, Stream
from mlm_jax.phases import corpus_name, lengths, with_length
from mlm_jax.prepare import held_out, shard
from mlm_jax.prepare.held_out import HeldOut, short_hash
from mlm_jax.prepare.run import SPLITS, stream_settings
from mlm_jax.prepare.slices import Slice, sides_of
from mlm_jax.prepare.sources import read_texts
from mlm_jax.vocabulary import read_vocabulary

BLOCKS = 20  # of each split of a stream, that are made again
DOCUMENTS = 10_000  # of each stream, that are looked at for duplicates


def audit(config: cfg.Config) -> str:
    """Read back a prepared workdir.

    The first blocks of each stream's splits are made again from the text and compared token for token; how much of the text their
    tokens give back was measured when they were made (`coverage`).

    Blocks of every length of the run are compared.

    Returns:
      A table, a row per language and pair, of the first length.

    Raises:
      UserError: a block is not what the text gives, or a training document is held out too; or what reading text raises.
    """
    workdir = epath.Path(config.workdir)
    corpus = workdir / "corpus"
    made, words = manifest.read_manifest(corpus), read_vocabulary(workdir / "vocabulary")
    held = held_out.read(corpus)
    folders = [(workdir / corpus_name(config, length), with_length(config, length)) for length in lengths(config)]
    every = [(x, manifest.read_manifest(x), stream_settings(of_length, words, held)) for x, of_length in folders]
    languages, pairs = held_out.streams_of(config.data, config.data.workers or 1)
    slices: dict[tuple[str, ...], Sequence[Slice[Any]]] = {(x,): found for x, found in languages.items()}
    for pair, of_pair in pairs.items():
        slices[pair] = of_pair
    rows = []
    with console.progress("reading back", len(made.streams), unit="streams") as advance:
        for stream in made.streams:
            found = slices.get(stream.languages)
            if found is None:
                raise UserError(f"{corpus}: {stream.name} is not in data.sources or data.parallel any more")
            for folder, mine, settings in every:
                same = next(x for x in mine.streams if x.name == stream.name)
                for split in SPLITS:
                    compare(folder, mine, same, split, found, settings)
            again = config.data.packing == "next_sentence" and len(stream.languages) == 1
            rows.append(_row(stream, duplicates(found, held), config.data.pairings if again else 1))
            advance(1, stream.name)
    return console.format_table(
        ["language", "documents", "validation", "unknown", "tokens/byte", "left out", "in no block", "in both"], rows
    )


def compare(
    corpus: epath.Path,
    made: Manifest,
    stream: Stream,
    split: str,
    slices: Sequence[Slice[Any]],
    settings: shard.Settings,
) -> None:
    """Make the first blocks of a split again.

    Raises:
      UserError: the stored ones are others.
    """
    shards = (stream.train if split == "train" else stream.validation).shards
    text = next((text for text in slices if text.part in (split, "both")), None)
    if text is None or not shards:
        return
    ids = tuple(made.languages.index(name) for name in stream.languages)
    again = itertools.islice(shard.make_blocks(text, split, settings, ids), BLOCKS)
    path = corpus / shards[0].file
    offsets = np.frombuffer(epath.Path(records.index_path(str(path))).read_bytes(), "<u8")
    with path.open("rb") as file:
        for number, block in enumerate(again):
            wanted = records.frame(records.encode_block(block))
            if number >= len(offsets) - 1 or file.read(len(wanted)) != wanted:
                raise UserError(
                    f"{path}: block {number} is not what {text} gives: the text, the options or the file changed; prepare into "
                    "another --workdir"
                )


def duplicates(slices: Sequence[Slice[Any]], held: HeldOut) -> int:
    """How many of a stream's first training documents (or sides of pairs) are among its first held-out ones, but for case and spaces.

    Raises:
      UserError: the text cannot be read.
    """
    train: list[int] = []
    validation: set[int] = set()
    for text in [next((x for x in slices if x.part == part), None) for part in ("validation", "train", "both")]:
        if text is None:
            continue
        seen = 0
        for batch in read_texts(text):
            hashes = {
                split: [short_hash(side) for document in part for side in sides_of(document)]
                for split, part in held.divide(text, batch).items()
            }
            validation.update(hashes["validation"])
            train += hashes["train"]
            seen += len(batch)
            if seen >= DOCUMENTS:
                break
    return sum(number in validation for number in train)


def _row(stream: Stream, both: int, rounds: int) -> list[str]:
    train: Split = stream.train
    return [
        stream.name,
        f"{train.documents:,}",
        f"{stream.validation.documents:,}",
        f"{100 * train.unknown:.2f} %",
        f"{train.tokens / rounds / max(train.bytes, 1):.3f}",
        f"{train.left_out:,}",
        f"{train.in_no_block:,}",
        f"{both:,}",
    ]
