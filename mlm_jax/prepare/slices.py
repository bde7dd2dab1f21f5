# SPDX-License-Identifier: Apache-2.0
"""A slice of the text, which a process can read on its own; and what a kind of source has to do."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from mlm_jax import config as cfg
from mlm_jax import storage
from mlm_jax.errors import UserError
from mlm_jax.formats import known_format
from mlm_jax.lines import LONGEST_LINE

S = TypeVar("S", cfg.Source, cfg.Parallel)
Pair = tuple[str, ...]  # two sides, and hard negatives of the second


def sides_of(document: str | Pair) -> tuple[str, ...]:
    """The texts of a document, which is one, or of a sentence pair, without hard negatives that are empty."""
    return (document,) if isinstance(document, str) else tuple(side for side in document if side)


@dataclass(frozen=True)
class Slice(Generic[S]):
    """A part of one language's or one pair's text.

    Attributes:
      source: what it is a slice of, its languages resolved.
      part: what its documents are for; "both" divides them by their hash.
      fraction: of them that is then held out.
      paths: the file; two for aligned parallel files; or the data set's name.
      start, end: of a file, in the unit of its format: bytes, or row groups.
      longest: bytes that a document may have.
      index, count: which of how many shards, for data sets.
      strict: a pair with an empty side is refused, and not left out.
    """

    source: S
    part: Literal["train", "validation", "both"]
    paths: tuple[str, ...]
    start: int = 0
    end: int | None = None
    index: int = 0
    count: int = 1
    fraction: float = 0.0
    longest: int = LONGEST_LINE
    strict: bool = False

    def __str__(self) -> str:
        found = known_format(self.paths[0])
        where = f" {found.unit if found else 'bytes'} {self.start:,} to {self.end:,}" if self.start else ""
        shard = f" shard {self.index} of {self.count}" if self.count > 1 else ""
        return " and ".join(self.paths) + where + shard

    def fingerprint(self) -> str:
        """A hash that changes when what would be read does: the slice, or its files' sizes and times."""
        named = cfg.is_named(self.paths[0])
        found = [storage.stamp(path) for path in self.paths if not named and storage.exists(path)]
        return hashlib.sha256(repr((dataclasses.asdict(self), found)).encode()).hexdigest()

    def is_whole(self, pair: Pair, place: Callable[[], str]) -> bool:
        """Whether both sides of a pair have text.

        Args:
          place: of the row, FILE:LINE, on demand.

        Raises:
          UserError: one has none, and the slice is strict.
        """
        if pair[0] and pair[1]:
            return True
        if self.strict:
            which = "second" if pair[0] else "first"
            raise UserError(f"{place()}: the {which} text of the pair is empty; give it some, or remove the row")
        return False


@dataclass(frozen=True)
class SourceKind:
    """How the text behind one kind of path is found and read; `sources.KINDS` has them all. Each raises UserError where it cannot.

    Attributes:
      slices: the slices of a source.
      documents: of a slice, in batches and in a fixed order; text without line breaks at its ends, never empty.
      pair_slices, pairs: the same for sentence pairs, without those that have an empty side (`Slice.is_whole`); None: there are none of this kind.
      languages: what the language "*" stands for; None: "*" needs a path with {language}.
      examples: for fine-tuning, of a path with its split and of a language: the names of the fields, and the rows as JSON has them;
        None: there are none of this kind.
      small: whether the documents are counted in a moment.
    """

    slices: Callable[[cfg.Source, cfg.Data], list[Slice[cfg.Source]]]
    documents: Callable[[Slice[cfg.Source]], Iterator[list[str]]]
    pair_slices: Callable[[cfg.Parallel, cfg.Data], list[Slice[cfg.Parallel]]] | None = None
    pairs: Callable[[Slice[cfg.Parallel]], Iterator[list[Pair]]] | None = None
    languages: Callable[[], list[str]] | None = None
    examples: Callable[[str, str], tuple[set[str], Iterator[dict[str, Any]]]] | None = None
    small: bool = False
