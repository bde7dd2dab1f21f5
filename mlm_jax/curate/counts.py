# SPDX-License-Identifier: Apache-2.0
"""How many documents and bytes each step passed on, per language, why others went, and a sample of those."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from mlm_jax.curate.document import Document, Dropped

SAMPLE_LENGTH = 2_000  # characters of a sampled text


@dataclasses.dataclass
class Counts:
    """What a job, or all jobs of a step, counted. Adding two gives the same in any order.

    Attributes:
      passed: language → [documents, UTF-8 bytes].
      gone: language → reason → [documents, bytes]; of the language "" what went before one was identified.
      noted: what else was counted, by name: records read, characters repaired.
      samples: language → reason → documents that went, [hash, url, text]: those of the lowest hashes.
      size: samples that are kept per language and reason.
    """

    passed: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    gone: dict[str, dict[str, list[int]]] = dataclasses.field(default_factory=dict)
    noted: dict[str, int] = dataclasses.field(default_factory=dict)
    samples: dict[str, dict[str, list[list[str]]]] = dataclasses.field(default_factory=dict)
    size: int = 0

    def keep(self, document: Document) -> None:
        _add(self.passed.setdefault(document.language, [0, 0]), [1, len(document.text.encode())])
        if document.bucket:
            self.note(in_bucket(document.language, document.bucket))

    def drop(self, dropped: Dropped) -> None:
        size = len(dropped.text.encode(errors="surrogatepass"))
        _add(self.gone.setdefault(dropped.language, {}).setdefault(dropped.reason, [0, 0]), [1, size])
        if self.size:
            text = dropped.text[:SAMPLE_LENGTH].encode(errors="replace").decode()
            url = dropped.url[:SAMPLE_LENGTH].encode(errors="replace").decode()
            made = [blake2b(f"{url}\0{text}".encode(), digest_size=8).hexdigest(), url, text]
            self._sample(dropped.language, dropped.reason, [made])

    def note(self, name: str, number: int = 1) -> None:
        self.noted[name] = self.noted.get(name, 0) + number

    def _sample(self, language: str, reason: str, made: Iterable[list[str]]) -> None:
        kept = self.samples.setdefault(language, {}).setdefault(reason, [])
        kept[:] = sorted([*kept, *made])[: self.size]

    def add(self, other: Counts) -> None:
        for language, pair in other.passed.items():
            _add(self.passed.setdefault(language, [0, 0]), pair)
        for language, reasons in other.gone.items():
            for reason, pair in reasons.items():
                _add(self.gone.setdefault(language, {}).setdefault(reason, [0, 0]), pair)
        for name, number in other.noted.items():
            self.note(name, number)
        self.size = max(self.size, other.size)
        for language, sampled in other.samples.items():
            for reason, made in sampled.items():
                self._sample(language, reason, made)

    def to_json(self) -> dict[str, Any]:
        """As JSON, in an order that does not depend on that of the counting."""
        return {
            "passed": dict(sorted(self.passed.items())),
            "gone": {language: dict(sorted(reasons.items())) for language, reasons in sorted(self.gone.items())},
            "noted": dict(sorted(self.noted.items())),
            "samples": {language: dict(sorted(found.items())) for language, found in sorted(self.samples.items())},
            "size": self.size,
        }


def in_bucket(language: str, bucket: str) -> str:
    """The name under which the documents of a bucket are noted."""
    return f"{language}, {bucket}"


def sum_of(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of counts, each as JSON."""
    counts = Counts()
    for one in found:
        counts.add(Counts(**one))
    return counts.to_json()


def reasons_of(steps: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Reason → documents that went for it, in all the steps of curate.json."""
    counts: Counter[str] = Counter()
    for step in steps:
        for gone in step["gone"].values():
            counts.update({reason: documents for reason, (documents, _) in gone.items()})
    return counts


def _add(to: list[int], pair: Iterable[int]) -> None:
    for i, number in enumerate(pair):
        to[i] += number
