# SPDX-License-Identifier: Apache-2.0
"""Documents as records, and what becomes of those of the same text.

A document is known by its key, a hash of its text. Documents are grouped by it and stay in the order of their keys, so the corpus is
the same for any number of processes and any split of the input into files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from mlm_jax.curate.counts import Counts
from mlm_jax.curate.document import Document, Dropped

KEY = 16  # bytes of a document's key
COPIES = "copies"  # the score that says how many documents a kept one stands for


def document_key(text: str) -> bytes:
    """What a document is known by."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=KEY).digest()


def pack(key: bytes, document: Document, place: int = 0) -> bytes:
    """A document as a record; its place is the number of its first line among all of the corpus, once it has one."""
    d = document
    fields = [d.text, d.url, d.date, d.language, d.confidence, d.scores, d.bucket, place]
    return key + json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def unpack(record: bytes) -> tuple[bytes, Document, int]:
    """The key, the document and the place of a record."""
    *fields, place = json.loads(record[KEY:])
    return record[:KEY], Document(*fields), place


def first_of_copies(records: Iterable[bytes], counts: Counts) -> Iterator[tuple[bytes, Document]]:
    """Of the documents of each key the one with the least date and address, and how many they were.

    Holds one document of each key, so its caller gives it a part of the keys.
    """
    kept: dict[bytes, tuple[tuple[str, str, bytes], int]] = {}
    for record in records:
        key, document, _ = unpack(record)
        rank = (document.date or "9", document.url, record)
        there, number = kept.get(key, (rank, 0))
        kept[key] = (min(rank, there), number + 1)
        if number:
            _, gone, _ = unpack(max(rank, there)[-1])
            counts.drop(Dropped("copy", gone.url, gone.text, gone.language))
    for key in sorted(kept):
        rank, number = kept[key]
        _, document, _ = unpack(rank[-1])
        yield key, dataclasses.replace(document, scores=document.scores | {COPIES: number})
