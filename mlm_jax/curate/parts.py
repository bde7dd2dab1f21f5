# SPDX-License-Identifier: Apache-2.0
"""What each step makes of its records: functions of an iterable of records, whoever brings them (`run.py`, `beam.py`).

Documents are grouped by parts of their keys. Within a part they are in the order of their keys, and so each has its place: the number of its
first line among all of the corpus, by which paragraphs and near copies are known.

    files → read → documents by part → copies → documents, paragraphs by range of their hash → choose_paragraphs → lines by part
          → measure → documents, and sketches that add up to rules → keep → documents, bands by range of their hash → find_links → find_clusters
          → sizes by part → near → documents by language and shard → write_shard
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import zstandard
from etils import epath
from numpy.typing import DTypeLike

from mlm_jax.curate import spill
from mlm_jax.curate.archives import DAMAGED, TRUNCATED
from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.filters import Bounds, Views
from mlm_jax.curate.groups import RECORD, fullness, order_of
from mlm_jax.curate.keyed import document_key, first_of_copies, pack, unpack
from mlm_jax.curate.near_duplicates import document_records, sizes_of
from mlm_jax.curate.paragraphs import keep_paragraphs, paragraph_records
from mlm_jax.curate.perplexity import Model
from mlm_jax.curate.reading import read_documents
from mlm_jax.curate.rules import Rules, counted, measured
from mlm_jax.curate.spill import Records
from mlm_jax.curate.thresholds import Sketch
from mlm_jax.files import make_folder, writing

PLACES = 44  # bits of the number of a line among those of its part; the bits above are the part's
TOGETHER = 1 << 16  # records that are told apart at once, at least
A_GROUP = 64  # records of a group among them, about
MEASURED = 1 << 18  # characters of documents that are measured together, at least
SAMPLES, EXCERPT = 3, 400  # documents per language, and characters of each, that the page shows


def new_counts(config: Curate) -> Counts:
    return Counts(size=max(config.dropped, 1))


# --- where records go


def part_of(record: bytes, parts: int) -> int:
    """The part that a document's key is in; parts are in the order of their keys."""
    return int.from_bytes(record[:4], "big") * parts >> 32


def ranges_of(records: Records, parts: int) -> np.ndarray:
    """The range of hashes that each record's key is in; uint64 [records]."""
    return (records["key"] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)


def parts_of(records: Records) -> np.ndarray:
    """The part of the documents that each record says something of; uint64 [records]."""
    return records["where"] >> np.uint64(PLACES)


def shard_of(record: bytes, shards: int) -> int:
    """The file, of a language's, that a document is in; files are in the order of their keys."""
    return int.from_bytes(record[:8], "big") * shards >> 64


def apart(
    batches: Iterable[Records], group: Callable[[Records], np.ndarray], groups: int
) -> Iterator[tuple[int, bytes]]:
    """Records told apart by the number of their group: (group, its records), several times per group."""
    most = max(TOGETHER, groups * A_GROUP)
    waiting: list[Records] = []

    def told() -> Iterator[tuple[int, bytes]]:
        records = np.concatenate(waiting)
        waiting.clear()
        numbers = group(records)
        order = np.argsort(numbers, kind="stable")
        records, numbers = records[order], numbers[order]
        cuts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(records)]
        for first, last in itertools.pairwise(cuts):
            if last > first:
                yield int(numbers[first]), records[first:last].tobytes()

    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        if count >= most:
            yield from told()
            count = 0
    if waiting:
        yield from told()


def gathered(packed: Iterable[bytes], dtype: DTypeLike) -> Iterator[Records]:
    """What `apart` packed."""
    return (np.frombuffer(one, dtype) for one in packed)


# --- the steps


def read(path: str, config: Curate, counts: Counts, damaged: list[str]) -> Iterator[bytes]:
    """An input file → its documents; a file that is cut off or damaged is named."""
    for made in read_documents(path, config, counts):
        if isinstance(made, Dropped):
            counts.drop(made)
            if made.reason in (TRUNCATED, DAMAGED) and path not in damaged:
                damaged.append(path)
            continue
        counts.keep(made)
        yield pack(document_key(made.text), made)


def copies(records: Iterable[bytes], part: int, config: Curate, counts: Counts) -> Iterator[tuple[bytes, Records]]:
    """A part of the keys → one document of each, with its place; and a record for each of its paragraphs."""
    place = part << PLACES
    for key, document in first_of_copies(records, counts):
        counts.keep(document)
        wanted = config.duplicates.paragraphs
        found = (
            paragraph_records(document.text, order_of(document, fullness(document)), place)
            if wanted
            else np.empty(0, RECORD)
        )
        yield pack(key, document, place), found
        place += document.text.count("\n") + 1


def measure(
    records: Iterable[bytes],
    chosen: Records | None,
    bounds: Bounds,
    models: Mapping[str, Model],
    counts: Counts,
    sketches: dict[str, Sketch],
) -> Iterator[bytes]:
    """Documents → without copied paragraphs, with scores; and what thresholds are derived from, added to the sketches.

    Args:
      chosen: the lines of these documents that stay, sorted (dtype `WHERE`); None: all.
      models: language → model of its clean text, of those that have any.
    """
    waiting: list[tuple[bytes, Document, int]] = []

    def told() -> Iterator[bytes]:
        views = Views(document.text for _, document, _ in waiting)
        for (key, document, place), view in zip(waiting, views, strict=True):
            made = measured(document, view, bounds, models)
            counts.keep(made)
            sketches.setdefault(made.language, Sketch()).add(view, counted(made, bounds), made.confidence)
            yield pack(key, made, place)
        waiting.clear()

    size = 0
    for record in records:
        key, document, place = unpack(record)
        text, gone = keep_paragraphs(document.text, place, chosen) if chosen is not None else (document.text, 0)
        if gone and not text:
            counts.drop(Dropped("copied paragraphs", document.url, document.text, document.language))
            continue
        counts.note("paragraphs that were copies", gone)
        waiting.append((key, dataclasses.replace(document, text=text), place))
        size += len(text)
        if size >= MEASURED:
            yield from told()
            size = 0
    yield from told()


def keep(records: Iterable[bytes], rules: Rules, config: Curate, counts: Counts) -> Iterator[tuple[bytes, Records]]:
    """Documents → those that pass every rule; and a record for each of their bands of MinHash."""
    for record in records:
        key, document, place = unpack(record)
        made = rules(document)
        if isinstance(made, Dropped):
            counts.drop(made)
            continue
        counts.keep(made)
        wanted = config.duplicates.near
        found = (
            document_records(made.text, made.language, order_of(made, fullness(made)), place)
            if wanted
            else np.empty(0, RECORD)
        )
        yield pack(key, made, place), found


def near(records: Iterable[bytes], clusters: Records, counts: Counts) -> Iterator[tuple[str, bytes]]:
    """Documents → those that stay of their cluster, each to its language.

    Args:
      clusters: the sizes of the clusters of these documents, sorted by where (dtype `SIZE`); of one that is not there, 1.
    """
    for record in records:
        key, document, place = unpack(record)
        size = int(sizes_of(np.array([place]), clusters)[0])
        if not size:
            counts.drop(Dropped("near copy", document.url, document.text, document.language))
            continue
        made = dataclasses.replace(document, scores=document.scores | {"cluster": size})
        counts.keep(made)
        yield made.language, pack(key, made, place)


def write_shard(records: Iterable[bytes], workdir: str, language: str, shard: int) -> dict[str, Any]:
    """The documents of a shard → corpus/LANGUAGE/SHARD.jsonl.zst, whole or not there; the first of them.

    Args:
      records: in the order of their keys.
    """
    folder = epath.Path(workdir) / "corpus" / language
    make_folder(folder)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    number, first = 0, []
    with writing(folder / shard_name(shard), "wb") as file:
        for record in records:
            _, document, _ = unpack(record)
            file.write(compressor.compress(_line(document)))
            number += 1
            if number <= SAMPLES:
                first.append(document.text[:EXCERPT])
        file.write(compressor.flush())
    return {"documents": number, "first": first}


def shard_name(shard: int) -> str:
    """The name of a language's file."""
    return f"{shard:05}.jsonl.zst"


def _line(document: Document) -> bytes:
    """A document as a line of the corpus."""
    d = document
    scores = {name: round(score, 4) for name, score in d.scores.items()}
    shown: dict[str, Any] = {"text": d.text, "url": d.url, "date": d.date, "language": d.language}
    if d.bucket:
        shown["bucket"] = d.bucket
    return json.dumps(shown | {"confidence": round(d.confidence, 4)} | scores, ensure_ascii=False).encode() + b"\n"


def merged(batches: Iterable[Records], dtype: DTypeLike) -> Records:
    """Records of one part, sorted, in memory."""
    return spill.sort(np.concatenate([np.empty(0, dtype), *batches]))
