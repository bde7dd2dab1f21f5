# SPDX-License-Identifier: Apache-2.0
"""Token ids with their targets, and the arrays of a batch of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlm_jax.finetune.packing import Batch, Shape


@dataclass
class Encoded:
    """Items of one language, in columns: an item is an example, or one window of it.

    Attributes:
      language: of the text.
      ids: token ids with specials, int32 [length] each.
      types: 1 in the second text, else 0, int32 [length] each.
      targets: what the task's `targets` writes into a batch; None without labels.
      owners: index of the item's example.
      starts: what the task's `decode` needs of each item: places of words' first pieces, or of a window.
      places: what it needs of each example: the places of a paragraph's tokens in characters, int64 [tokens, 2].
      truncated: examples that were cut to fit.
    """

    language: str
    ids: list[np.ndarray] = field(default_factory=list)
    types: list[np.ndarray] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    starts: list[Any] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    truncated: int = 0

    def add(self, owner: int, ids: Sequence[int], second_at: int, target: Any, starts: Any = None) -> None:
        """Add an item whose second text begins at a place."""
        self.ids.append(np.asarray(ids, np.int32))
        self.types.append((np.arange(len(ids)) >= second_at).astype(np.int32))
        self.targets.append(target)
        self.owners.append(owner)
        self.starts.append(starts)


@dataclass(frozen=True)
class Items:
    """Items of several languages, in columns; see `Encoded`.

    Attributes:
      language_ids: an id per item.
    """

    ids: list[np.ndarray]
    types: list[np.ndarray]
    targets: list[Any]
    language_ids: list[int]

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]


def join(parts: Sequence[Encoded], languages: Sequence[str]) -> Items:
    """All items of several languages.

    Args:
      languages: in the order of the encoder's language ids; one that is not there gets 0, which encoders without language
        embeddings do not read.
    """
    number = {language: i for i, language in enumerate(languages)}
    return Items(
        [ids for part in parts for ids in part.ids],
        [types for part in parts for types in part.types],
        [target for part in parts for target in part.targets],
        [number.get(part.language, 0) for part in parts for _ in part.ids],
    )


def placed(items: Items, batch: Batch) -> Iterator[tuple[int, int, slice, int]]:
    """Where each item of a batch lies: (row, slot, positions in the row, number of the item)."""
    for row, members in enumerate(batch):
        at = 0
        for slot, item in enumerate(members):
            yield row, slot, slice(at, at + len(items.ids[item])), item
            at += len(items.ids[item])


def to_arrays(items: Items, batch: Batch, shape: Shape, pad: int, token_types: int) -> dict[str, np.ndarray]:
    """What an encoder and a head read of a batch; the targets are the task's.

    Args:
      token_types: rows of the encoder's token type embedding; types beyond are the last.

    Returns:
      tokens, segment_ids (slot + 1; 0 is padding), positions, token_types, language_ids: int32 [rows, length]. starts (of
      each segment), int32 [rows, slots]; valid (whether a slot has an item), bool [rows, slots].
    """
    square, slots = (shape.rows, shape.length), (shape.rows, shape.slots)
    out = {
        "tokens": np.full(square, pad, np.int32),
        "segment_ids": np.zeros(square, np.int32),
        "positions": np.zeros(square, np.int32),
        "token_types": np.zeros(square, np.int32),
        "language_ids": np.zeros(square, np.int32),
        "starts": np.zeros(slots, np.int32),
        "valid": np.zeros(slots, bool),
    }
    for row, slot, here, item in placed(items, batch):
        out["tokens"][row, here] = items.ids[item]
        out["segment_ids"][row, here] = slot + 1
        out["positions"][row, here] = np.arange(len(items.ids[item]))
        out["token_types"][row, here] = np.minimum(items.types[item], max(token_types - 1, 0))
        out["language_ids"][row, here] = items.language_ids[item]
        out["starts"][row, slot], out["valid"][row, slot] = here.start, True
    return out
