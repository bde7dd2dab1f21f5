# SPDX-License-Identifier: Apache-2.0
"""What all pages share: the frame, figures and tables, rendered by Jinja2 from the files in templates/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from matplotlib.figure import Figure

from mlm_jax.language_names import language_name
from mlm_jax.report.svg import svg
from mlm_jax.report.texts import readable

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("mlm_jax.report"),
    autoescape=True,
    finalize=readable,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
      panels: its parts, SVG elements, which stand side by side where there is room.
      title: what it shows.
      caption: the sentence below it.
      width: pixels, of a panel.
    """

    panels: Sequence[str]
    title: str
    caption: str
    width: int

    @property
    def is_wide(self) -> bool:
        """Whether it has a line of the page for itself."""
        return len(self.panels) > 1 or self.width > 640


def plot_of(figures: Sequence[Figure], caption: str, prefix: str) -> Plot:
    """Panels, of which each has the plot's title, as a page has them.

    Args:
      prefix: of their ids, which no other plot of the page has.
    """
    title = " ".join(figures[0].get_suptitle().split())
    parts = [svg(figure, f"{prefix}-{number}-", f"{title}. {caption}") for number, figure in enumerate(figures)]
    return Plot(parts, title, caption, round(72 * figures[0].get_figwidth()))


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      shown: its text.
      value: what its column is sorted by; None: nothing.
      share: strength of its colour, 0 to 1; None: no colour.
      note: what stands small beside its text.
    """

    shown: str
    value: str | float | None = None
    share: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table that a click on a heading sorts.

    Attributes:
      heads: headings; a newline divides one into lines.
      foot: rows that stay below the others.
      widths: of each column how wide a page has to be for it: 0 a phone, 1 a tablet, 2 a desk; empty: all are always there.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    foot: Sequence[Sequence[Cell]] = ()
    widths: Sequence[int] = ()

    def css(self, column: int, share: float | None = None) -> str:
        """The classes of a cell of a column."""
        width = self.widths[column] if self.widths else 0
        return " ".join([f"wide{width}"] * bool(width) + ["shade"] * (share is not None))


def language_cell(code: str) -> Cell:
    """A language's or a pair's name, as far as it is known, and its code."""
    name = language_name(code)
    return Cell(name, name, note=code) if name else Cell(code, code)


def render(template: str, title: str, lead: str, **values: Any) -> str:
    """A page as HTML: a title, the finding in a sentence, and what the template makes of the values, which it escapes."""
    return ENVIRONMENT.get_template(template).render(title=title, lead=lead, **values)
