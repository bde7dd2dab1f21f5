# SPDX-License-Identifier: Apache-2.0
"""The main text of a web page: what a reader came for, without menus, side bars, footers and banners.

Resiliparse parses the page as browsers do and renders its text. What is left out is told by the page's own words: HTML's elements and ARIA's
roles for navigation, names of classes and ids that sites give theirs, and lists whose lines are links and nothing else. Text that is hidden by
the `hidden` attribute stays: scripts show it (tabs, versions for several systems).
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resiliparse.parse.html import HTMLTree

LARGEST = 2_000_000  # characters of a page that are read: a tree takes up to 200 bytes for each

# Elements without text of the page's own; images for what stands in their place (by Resiliparse's own option whole figures would go).
# A header within an article or the main part has its title.
ELEMENTS = [
    "nav", "footer", "dialog", "menu", "button", "label", "img", "area", "header:not(article header):not(main header)",
    "[role=navigation]", "[role=banner]", "[role=contentinfo]", "[role=search]", "[role=dialog]", "[role=alertdialog]",
    "[role=menu]", "[role=menubar]", "[role=toolbar]", "[aria-hidden=true]",
]  # fmt: skip

# Elements that say nothing of the text's parts, and of which a few bytes make a parser build any number: they are opened again in every
# paragraph until they are closed (HTML standard, "the list of active formatting elements"). A comment in their place joins nothing.
INLINE = re.compile(r"</?(?:b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?:[\s/][^>]*)?(?:>|$)", re.IGNORECASE)
NOTHING = "<!---->"
# A tag of so many attributes that comparing each with each takes seconds.
LONG_TAG = re.compile(r"<[^<>]{20000,}>")

NAMES = re.compile(r"""\s(?:class|id)\s*=\s*(?:"([^"]{1,500})"|'([^']{1,500})'|([^\s>"']{1,500}))""", re.IGNORECASE)
OUTER = re.compile(r"<(?:html|body|main|article)\s[^<>]{1,2000}>", re.IGNORECASE)
# What sites call their navigation, as a whole name or as a part of one between - and _ ("site-footer").
# A name of what something has or is ("has-sidebar") says it of another element.
NAVIGATION = re.compile(
    r"(?!(?:has|is|with|without|no|show|hide|js)[-_])(?:.*[-_])?(?:nav(?:bar|igation|links?|list|menu|header|footer|area|row\d?|path|tabs?|items?|panel|pills)?|doc-?nav|(?:top|main|sub|mega|drop)?-?menu(?:bar)?"
    r"|(?:sphinx|left|right)?side-?bars?|(?:site|page|main|global)?-?footer|(?:site|global|top)-?header|masthead|title-?area|tab-?list|src-?link|viewcode-link|breadcrumbs?"
    r"|popup|modal|overlay|tool-?tip|lightbox|off-?canvas|cookies?|consent|gdpr|pagination|pager|paginator|toc|toctree|share|sharing|social|skip(?:-?(?:link|nav))?|advert\w*|ads?"
    r"|sponsor\w*|newsletter|copyright|header-?links?|lang(?:uage)?-?(?:switcher|selector|list)|search-?(?:box|form|bar)|tool-?bar|top-?bar"
    r"|mw-editsection|edit-?section|printfooter|catlinks)(?:[-_].*)?",
    re.IGNORECASE,
)
# An id may be a heading's words, or the name of what a page describes: of the parts of "method-convert-menu" there are more than a site's areas have.
NO_HEADING = ":not(h1):not(h2):not(h3):not(h4):not(h5):not(h6):not(section):not(dt):not(p):not(pre):not(tr)"
PARTS, ID_PARTS = re.compile("[-_]+"), 3
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
MOST_NAMES = 60  # of a page that become rules
# The class rules are wrong about a page, one class on everything, where they leave less than this part of its text.
LEAST_LEFT = 1 / 3

# What a link says is put between two noncharacters, which no text has, so that the rendered lines tell it. A link that is never closed is none.
BEGIN, END = "\ufdd0", "\ufdd1"
LINK_BEGINS = re.compile(r"<a\s[^<>]{0,1000}?href[^<>]{0,2000}>", re.IGNORECASE)
LINK_ENDS = re.compile(r"</a\s*>", re.IGNORECASE)
LINKED = re.compile(f"{BEGIN}([^{BEGIN}{END}]{{1,1000}}){END}")
MARKS = re.compile(f"[{BEGIN}{END}]")
BETWEEN_LINKS = " \t\xa0|·•»›«‹>/,:;[](){}-–—→←↑"
LONGEST_MENU_LINE = 300  # characters
# Links from which on they are a menu before the text, and lines of links within and after it, where related pages are listed.
LINKS_BEFORE, LINKS_WITHIN = 4, 10
NO_TEXT = re.compile(f"[\ud800-\udfff{BEGIN}{END}]")

# Asides and side bars that are text: they say so much without links, which is this part of them, in sentences.
ASIDES = ["aside", "[role=complementary]"]
TEXT = "data-is-text"  # the attribute that they are marked with
LEAST_ASIDE = 60  # characters
MOSTLY = 0.8
SENTENCE = re.compile(r"[.!?…。！？｡।॥։؟۔။៖។]")
MOST_ASIDES = 200  # of a page that are looked at


def main_text(page: str) -> str:
    """The main text of a page's HTML: paragraphs, headings, items and rows of tables, each on a line; empty where there is only navigation.

    Time and memory grow with the page's length, whatever is in it: its first `LARGEST` characters are read.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    page = NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", page[:LARGEST].replace("\0", ""))
    marked = LINK_ENDS.sub(END + "</a>", LINK_BEGINS.sub(rf"\g<0>{BEGIN}", LONG_TAG.sub(NOTHING, page)))
    tree = HTMLTree.parse(INLINE.sub(NOTHING, marked))
    rules = _class_rules(page)
    bars = [rule for rule in rules if "bar" in rule.lower()]
    _keep_asides(tree, ASIDES + bars)

    def rendered(leave_out: list[str]) -> list[str]:
        return _lines(extract_plain_text(tree, skip_elements=leave_out, list_bullets=False))

    always = ELEMENTS + [f"{rule}:not([{TEXT}])" for rule in ASIDES]
    lines = rendered(always)
    if rules:
        fewer = rendered(always + [f"{rule}:not([{TEXT}])" if rule in bars else rule for rule in rules])
        if _size_without_links(fewer) >= LEAST_LEFT * _size_without_links(lines):
            lines = fewer
    return "\n".join(_without_menus(lines))


def _keep_asides(tree: HTMLTree, selectors: list[str]) -> None:
    """Mark those asides and side bars that are a part of the text: footnotes, boxes of a book, with sentences and few links."""
    if tree.body is None:
        return
    for element in tree.body.query_selector_all(", ".join(selectors))[:MOST_ASIDES]:
        text = element.text or ""
        plain = LINKED.sub("", text)
        words = " ".join(MARKS.sub("", plain).split())
        if len(words) >= LEAST_ASIDE and len(plain) >= MOSTLY * len(text) and SENTENCE.search(words):
            element[TEXT] = ""


def _lines(rendered: str) -> list[str]:
    """The lines of a rendered page, with white space made single, and each link's marks on each of its lines."""
    text = LINKED.sub(lambda link: "\n".join(f"{BEGIN}{part}{END}" for part in link[1].split("\n")), rendered)
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if MARKS.sub("", line)]


def _size_without_links(lines: list[str]) -> int:
    return sum(len(LINKED.sub("", line)) for line in lines)


def _class_rules(page: str) -> list[str]:
    """CSS selectors of those classes and ids of a page that are named as navigation is."""
    names = {name for name in _names(page) if _is_navigation(name)}
    if not names:
        return []
    outer = {name for tag in OUTER.findall(page) for name in _names(tag)}
    chosen = sorted(names - outer)[:MOST_NAMES]
    classes = [f'[class~="{name}"]' for name in chosen]
    return classes + [f'[id="{name}"]{NO_HEADING}' for name in chosen if len(PARTS.findall(name)) < ID_PARTS]


def _names(page: str) -> set[str]:
    """The classes and ids in a page."""
    return {name for value in {"".join(found) for found in NAMES.findall(page)} for name in value.split()}


@functools.lru_cache(1 << 14)
def _is_navigation(name: str) -> bool:
    plain = len(name) <= 50 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return plain and NAVIGATION.fullmatch(CAMEL.sub("-", name)) is not None


def _without_menus(lines: list[str]) -> list[str]:
    """Lines without their links' marks, and without long runs of those that are links and nothing else; none where all are."""
    kept: list[str] = []
    run: list[str] = []
    links = 0  # in the run, of which a line may have several
    for line in lines:
        plain = " ".join(MARKS.sub("", line).split())
        if not plain:
            continue
        if (
            BEGIN in line
            and len(plain) <= LONGEST_MENU_LINE
            and not MARKS.sub("", LINKED.sub("", line)).strip(BETWEEN_LINKS)
        ):
            run.append(plain)
            links += line.count(BEGIN)
            continue
        if len(run) < LINKS_WITHIN if kept else links < LINKS_BEFORE:
            kept += run
        run, links = [], 0
        kept.append(plain)
    return kept + run if kept and len(run) < LINKS_WITHIN else kept
