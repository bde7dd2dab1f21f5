# SPDX-License-Identifier: Apache-2.0
"""What every step of curating a corpus passes on: a document, or why one went."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Document:
    """One page's text, its paragraphs apart by line ends, and what is known of it.

    `language` is a code of `names.py`'s table, with a script where two are written ("sr_Cyrl"); empty until it is identified.
    `scores` are what the filters measured, by the filter's name.
    """

    text: str
    url: str = ""
    date: str = ""  # ISO 8601
    language: str = ""
    confidence: float = 0.0
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    bucket: str = ""  # head, middle or tail, by perplexity; empty where there is no clean text of its language


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What does not go on, and for which reason: the name of a step or of a filter."""

    reason: str
    url: str = ""
    text: str = ""  # for the sample that a person looks at; empty where there was none
    language: str = ""
