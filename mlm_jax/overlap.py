# SPDX-License-Identifier: Apache-2.0
"""Texts that stand in two sets of which one tests what was learned from the other: found by the hash of the text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from mlm_jax import console
from mlm_jax.errors import UserError

# A text's place, FILE:LINE, and its hash.
Hashed = tuple[str, bytes]


def text_hash(*texts: str) -> bytes:
    """16 bytes that tell a text, or the texts of a pair together, from others; case, Unicode form and white space do not matter."""
    tidied = (" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)
    return blake2b("\n".join(tidied).encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Overlap:
    """How many texts of a set stand in another.

    Attributes:
      set, other: their names.
      counts: language → texts of the set that stand in the other, in any language; those with none are left out.
      totals: language → texts of the set.
      example: the places of one such text, in the set and in the other.
    """

    set: str
    other: str
    counts: Mapping[str, int]
    totals: Mapping[str, int]
    example: tuple[str, str]

    def __str__(self) -> str:
        shares = ", ".join(
            f"{count:,} of {self.totals[x]:,} of {x}" if x else f"{count:,} of {self.totals[x]:,}"
            for x, count in self.counts.items()
        )
        here, there = self.example
        return f"{self.set}: {shares} stand in {self.other} too, e.g. {here} is {there}"


def find_overlap(
    name: str, texts: Mapping[str, Sequence[Hashed]], other: str, others: Iterable[Hashed]
) -> Overlap | None:
    """The texts of a set that stand in another; None: there are none.

    Args:
      texts: of the set, by language.
      others: the texts of the other, in all languages.
    """
    there = {key: place for place, key in reversed(list(others))}
    found = {language: [(place, there[key]) for place, key in part if key in there] for language, part in texts.items()}
    counts = {language: len(part) for language, part in found.items() if part}
    if not counts:
        return None
    totals = {language: len(part) for language, part in texts.items()}
    return Overlap(name, other, counts, totals, found[max(counts, key=lambda x: counts[x] / totals[x])][0])


def report_overlap(found: Overlap | None, allowed: float, option: str) -> None:
    """Say what overlaps.

    Args:
      allowed: the largest share of a language's texts that may.
      option: that sets it.

    Raises:
      UserError: it is more.
    """
    if found is None:
        return
    if any(count > allowed * found.totals[x] for x, count in found.counts.items()):
        raise UserError(
            f"{found}; more than {option} {allowed:g} allows: what is tested was learned. Take them out of either set, or set "
            f"--{option} 1"
        )
    console.warn(str(found))
