# SPDX-License-Identifier: Apache-2.0
"""What languages are called in figures and tables."""

from __future__ import annotations


def label(code: str, most: int = 22) -> str:
    """A language's code as a figure can write it.

    Args:
      most: letters.
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in code)
