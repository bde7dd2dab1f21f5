# SPDX-License-Identifier: Apache-2.0
"""What all pages share: the frame, figures and tables, rendered by Jinja2 from the files in templates/."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("mlm_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Plot:
    """A PNG image and the sentence below it.

    Attributes:
      alt: what is read aloud; empty: the caption.
    """

    image: bytes
    caption: str
    alt: str = ""

    @property
    def base64(self) -> str:
        """The image as text, so that the page needs no other file."""
        return base64.b64encode(self.image).decode()


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      shown: its text.
      value: what its column is sorted by; None: nothing.
      share: strength of its colour, 0 to 1; None: no colour.
    """

    shown: str
    value: str | float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that a click on a heading sorts.

    Attributes:
      heads: headings; a newline divides one into lines.
      foot: rows that stay below the others.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Sequence[Cell]] = ()


def render(template: str, title: str, lead: str, **values: Any) -> str:
    """A page as HTML: a title, the finding in a sentence, and what the template makes of the values, which it escapes."""
    return ENVIRONMENT.get_template(template).render(title=title, lead=lead, **values)
