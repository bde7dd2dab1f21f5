# SPDX-License-Identifier: Apache-2.0
"""Packed items → the arrays of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlm_jax.finetune.encode import Encoded
from mlm_jax.finetune.packing import Batch, Shape


@dataclass(frozen=True)
class Items:
    """Items of several languages, in columns; see `Encoded`.

    Attributes:
      language_ids: an id an item.
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


def to_arrays(items: Items, batch: Batch, shape: Shape, pad: int, kind: str, token_types: int) -> dict[str, np.ndarray]:
    """A batch.

    Args:
      kind: of the task.
      token_types: rows of the encoder's token type embedding; types beyond are the last.

    Returns:
      tokens, segment_ids (slot + 1; 0 is padding), positions, token_types, language_ids: int32 [rows, length]. starts (of
      each segment, int32) and there (whether an item is, bool): [rows, slots]. targets: tag: int32 [rows, length], -1 where nothing
      is scored; classify: int32 [rows, slots], -1 the same; regress: float32 [rows, slots]; span: int32 [rows, slots],
      places in the row, as `ends`.
    """
    square, slots = (shape.rows, shape.length), (shape.rows, shape.slots)
    out = {
        "tokens": np.full(square, pad, np.int32),
        "segment_ids": np.zeros(square, np.int32),
        "positions": np.zeros(square, np.int32),
        "token_types": np.zeros(square, np.int32),
        "language_ids": np.zeros(square, np.int32),
        "starts": np.zeros(slots, np.int32),
        "there": np.zeros(slots, bool),
        "targets": np.full(square if kind == "tag" else slots, -1, np.int32),
    }
    if kind == "regress":
        out["targets"] = np.zeros(slots, np.float32)
    if kind == "span":
        out["targets"], out["ends"] = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
    for row, members in enumerate(batch):
        at = 0
        for slot, item in enumerate(members):
            ids = items.ids[item]
            here = slice(at, at + len(ids))
            out["tokens"][row, here] = ids
            out["segment_ids"][row, here] = slot + 1
            out["positions"][row, here] = np.arange(len(ids))
            out["token_types"][row, here] = np.minimum(items.types[item], max(token_types - 1, 0))
            out["language_ids"][row, here] = items.language_ids[item]
            out["starts"][row, slot], out["there"][row, slot] = at, True
            target = items.targets[item]
            if target is not None:
                if kind == "tag":
                    out["targets"][row, here] = target
                elif kind == "span":
                    out["targets"][row, slot], out["ends"][row, slot] = at + target[0], at + target[1]
                else:
                    out["targets"][row, slot] = target
            at += len(ids)
    return out
