# SPDX-License-Identifier: Apache-2.0
"""Grouping documents by key: the record that a document gives, and what one sees of a group in sorted records.

A record is (key, order, where). Records of one key are a group. Its first, by order and then by where, is the one that is kept. A document's
order depends on the document alone, so what is kept does not depend on which file a document stands in or who reads it when: of equal documents
one is kept, and it does not matter which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np

from mlm_jax.curate.document import Document
from mlm_jax.curate.spill import Records

RECORD = np.dtype([("key", np.uint64), ("order", np.uint64), ("where", np.uint64)])


def order_of(document: Document, quality: float = 0.0) -> int:
    """Which of several documents is kept: the one of the least order, a whole number under 2**64.

    Args:
      quality: from 0 to 1, in 256 steps; of two documents the better is kept, of equals the one of the smaller hash.
    """
    parts = (document.text, document.url, document.date, document.language)
    digest = blake2b(digest_size=7)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return (255 - int(min(max(quality, 0.0), 1.0) * 255) << 56) | int.from_bytes(digest.digest(), "little")


def fullness(document: Document) -> float:
    """How much text a document has, from 0 to 1, by the logarithm: a quality for `order_of`, so that what several have stays where the most is
    beside it, and not in a scrap of another page that the filters take."""
    return math.log2(1 + len(document.text)) / 25


def make_records(keys: np.ndarray, order: int, where: np.ndarray | int) -> Records:
    """A record per key: `RECORD` [keys].

    Args:
      keys: uint64 [keys].
      where: one number of all, or uint64 [keys].
    """
    records = np.empty(len(keys), RECORD)
    records["key"], records["order"], records["where"] = keys, order, where
    return records


def with_heads(chunks: Iterable[Records]) -> Iterator[tuple[Records, Records, np.ndarray]]:
    """For each chunk of sorted records: the records, for each the first record of its group, and whether it is that
    record itself; `RECORD` [records] twice, bool [records]."""
    head = None
    for chunk in chunks:
        new = np.ones(len(chunk), bool)
        new[1:] = chunk["key"][1:] != chunk["key"][:-1]
        if head is not None:
            new[0] = chunk["key"][0] != head["key"]
        firsts = np.maximum.accumulate(np.where(new, np.arange(len(chunk)), -1))
        heads = chunk[np.maximum(firsts, 0)]
        if head is not None:
            heads[firsts < 0] = head
        head = heads[-1]
        yield chunk, heads, new
