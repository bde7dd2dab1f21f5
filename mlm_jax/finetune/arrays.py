# SPDX-License-Identifier: Apache-2.0
"""Token ids with their targets; `encode.rows` makes the arrays of a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlm_jax.encode import rows


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
      outside: numbers of the examples whose answers lie whole in no item.
    """

    language: str
    ids: list[np.ndarray] = field(default_factory=list)
    types: list[np.ndarray] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    starts: list[Any] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    truncated: int = 0
    outside: list[int] = field(default_factory=list)

    def add(self, owner: int, ids: Sequence[int], second_at: int, target: Any, starts: Any = None) -> None:
        """Add an item whose second text begins at a place."""
        self.ids.append(np.asarray(ids, np.int32))
        self.types.append((np.arange(len(ids)) >= second_at).astype(np.int32))
        self.targets.append(target)
        self.owners.append(owner)
        self.starts.append(starts)


@dataclass(frozen=True)
class Items(rows.Items):
    """Items of several languages with what is to be learned of each; see `Encoded`."""

    targets: list[Any]


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
        [number.get(part.language, 0) for part in parts for _ in part.ids],
        [target for part in parts for target in part.targets],
    )
