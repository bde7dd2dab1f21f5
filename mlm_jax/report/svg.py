# SPDX-License-Identifier: Apache-2.0
"""Figures as SVG within a page: text as text, in the page's font, and colours that follow its light or dark mode."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

# No backend is chosen: figures that are made without pyplot need no display, and a notebook's own figures have theirs.
import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from mlm_jax.report.texts import drawn, readable

# Okabe and Ito's colours, which colour-blind readers can tell apart; LINE is the grid's.
BLUE, ORANGE, GREEN, GREY, PALE, LINE = "#0072b2", "#d55e00", "#009e73", "#555555", "#b8c4cc", "#e6e9ec"
PINK, SKY, AMBER = "#cc79a7", "#56b4e9", "#e69f00"
SERIES = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, GREY)  # of lines and points that are told apart by their legend

# Colour → what style.css calls it.
VARIABLES = {
    "#000000": "currentColor", BLUE: "var(--blue)", ORANGE: "var(--orange)", GREEN: "var(--green)",
    GREY: "var(--soft)", PALE: "var(--pale)", LINE: "var(--line)",
}  # fmt: skip

# A point is a pixel of the page. Names may have dollar signs, so that nothing is a formula.
STYLE: Any = {
    "figure.dpi": 72, "font.size": 10, "axes.labelsize": 10, "axes.titlesize": 10, "xtick.labelsize": 10, "ytick.labelsize": 10,
    "legend.fontsize": 10, "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "mlm_jax", "text.parse_math": False,
}  # fmt: skip

styled = matplotlib.rc_context(STYLE)
"""Decorates what makes figures."""


def png(figure: Figure, dpi: int = 200) -> bytes:
    """A figure as a PNG file."""
    return _saved(figure, format="png", dpi=dpi)


def _saved(figure: Figure, **options: Any) -> bytes:
    for text in figure.findobj(Text):
        if drawn(text.get_text()) != text.get_text():
            text.set_text(drawn(text.get_text()))
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A PNG lacks the letters that no font here has; the page's own text is in the reader's.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names that leave no room for the plot
        figure.savefig(file, **options)
    return file.getvalue()


def svg(figure: Figure, prefix: str, alt: str) -> str:
    """A figure as an element of a page, without its title, which the page has.

    Args:
      prefix: of its ids, which are unique in a page.
      alt: what is read aloud.
    """
    figure.suptitle("")
    root = ElementTree.fromstring(_saved(figure, format="svg", transparent=True))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(name): value for name, value in element.attrib.items()}
        if element.tag == "g":
            attributes.pop("id", None)
        if "id" in attributes:
            attributes["id"] = prefix + attributes["id"]
        for name in ("href", "clip-path"):
            if name in attributes and not attributes[name].startswith("data:"):
                attributes[name] = attributes[name].replace("#", f"#{prefix}", 1)
        if "style" in attributes:
            attributes["style"] = _restyled(attributes["style"])
        element.attrib.clear()
        element.attrib.update(attributes)
    width = figure.get_figwidth() * 72
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update(
        {"viewBox": view, "role": "img", "aria-label": readable(alt), "style": f"--width: {width:.0f}px"}
    )
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """A name without its namespace, which HTML does not want."""
    return name.rpartition("}")[2]


def _restyled(style: str) -> str:
    style = re.sub(r"font: (?:\w+ )*?([\d.]+px) [^;]*", r"font-size: \1", style)
    return re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), style)
