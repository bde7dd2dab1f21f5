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


def pack(key: bytes, document: Document) -> bytes:
    """A document as a record."""
    d = document
    fields = [d.text, d.url, d.date, d.language, d.confidence, d.scores]
    return key + json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def unpack(record: bytes) -> tuple[bytes, Document]:
    """The key and the document of a record."""
    return record[:KEY], Document(*json.loads(record[KEY:]))


def first_of_copies(records: Iterable[bytes], counts: Counts) -> Iterator[tuple[bytes, Document]]:
    """Of the documents of each key the one with the least date and address, and how many they were.

    Holds one document of each key, so its caller gives it a part of the keys.
    """
    kept: dict[bytes, tuple[tuple[str, str], bytes, int]] = {}
    for record in records:
        key, document = unpack(record)
        rank = (document.date or "9", document.url)
        there = kept.get(key)
        if there is None:
            kept[key] = (rank, record, 1)
            continue
        counts.drop(Dropped("copy", document.url, document.text, document.language))
        first, best = min((rank, record), there[:2])  # of one rank the language's confidence may differ
        kept[key] = (first, best, there[2] + 1)
    for key in sorted(kept):
        _, record, number = kept[key]
        _, document = unpack(record)
        yield key, dataclasses.replace(document, scores=document.scores | {COPIES: number})
