# SPDX-License-Identifier: Apache-2.0
"""Texts that somebody else wrote, in pages: names, labels, sentences."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

ISOLATE, END = "\u2068", "\u2069"  # what is between them has no part in the direction of the text around
# What no XML has, and the bidi controls but for those two.
OPAQUE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066\u2067]")
REPLACED = "\N{REPLACEMENT CHARACTER}"


def isolated(value: Any) -> Any:
    """JSON, in which texts with letters that run from right to left, or with bidi controls, turn none of what they will stand in: `readable`."""
    if isinstance(value, dict):
        return {isolated(name): isolated(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(isolated, value))
    if not isinstance(value, str):
        return value
    turns = any(unicodedata.bidirectional(c) in ("R", "AL") or c in (ISOLATE, END) for c in value)
    return f"{ISOLATE}{readable(value)}{END}" if turns else readable(value)


def readable(value: Any) -> Any:
    """A text as a page may have it: what is in no XML, and what would turn the text around it, is replaced."""
    if type(value) is not str or (value.isascii() and value.isprintable()):
        return value
    text, depth = "", 0
    for c in OPAQUE.sub(REPLACED, value):
        depth += (c == ISOLATE) - (c == END)
        text += c if depth >= 0 else REPLACED
        depth = max(depth, 0)
    return text + END * depth


def drawn(text: str) -> str:
    """A text as a figure may have it, where each stands for itself."""
    return OPAQUE.sub(REPLACED, text.replace(ISOLATE, "").replace(END, ""))
