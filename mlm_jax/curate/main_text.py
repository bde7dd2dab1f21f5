# SPDX-License-Identifier: Apache-2.0
"""The main text of a web page: what a reader came for, without menus, side bars, footers and banners.

Resiliparse parses the page as browsers do and renders its text. What is left out is told by the page's own words: HTML's elements and ARIA's
roles for navigation, names of classes and ids that sites give theirs, and lists whose lines are links and nothing else. Text that is hidden by
the `hidden` attribute stays: scripts show it (tabs, versions for several systems).
"""

from __future__ import annotations

import functools
import html
import re

LARGEST = 2_000_000  # characters of a page that are read: a tree takes up to 200 bytes for each

# Elements without text of the page's own; images for what stands in their place (by Resiliparse's own option whole figures would go).
# A header within an article or the main part has its title.
ELEMENTS = [
    "nav", "footer", "aside", "dialog", "menu", "button", "label", "img", "area", "header:not(article header):not(main header)",
    "[role=navigation]", "[role=banner]", "[role=contentinfo]", "[role=search]", "[role=complementary]", "[role=dialog]", "[role=alertdialog]",
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
NAVIGATION = re.compile(
    r"(?:.*[-_])?(?:nav(?:bar|igation|links?|list|menu|header|footer|area)?|doc-?nav|(?:top|main|sub|mega|drop)?-?menu(?:bar)?"
    r"|(?:sphinx|left|right)?side-?bars?|(?:site|page|main|global)?-?footer|(?:site|global|top)-?header|masthead|breadcrumbs?"
    r"|popup|modal|overlay|tool-?tip|lightbox|off-?canvas|cookies?|consent|gdpr|pagination|pager|paginator|toc|toctree|share|sharing|social|skip(?:-?(?:link|nav))?|advert\w*|ads?"
    r"|sponsor\w*|newsletter|copyright|header-?links?|lang(?:uage)?-?(?:switcher|selector|list)|search-?(?:box|form|bar)|tool-?bar|top-?bar"
    r"|mw-editsection|edit-?section|printfooter|catlinks)(?:[-_].*)?",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
MOST_NAMES = 60  # of a page that become rules
# The class rules are wrong about a page, one class on everything, where they leave less than this part of its text.
LEAST_LEFT = 1 / 3

LINK = re.compile(r"<a\s([^<>]{1,1000})>(.{0,300}?)</a", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"<[^<>]{0,300}>")
BETWEEN_LINKS = re.compile(r"\s*[|·•»›>/,:]\s*")
LONGEST_MENU_LINE = 300  # characters
# Lines that are links, from which on they are a menu: before the text, and within and after it, where related pages are listed.
LINKS_BEFORE, LINKS_WITHIN = 4, 10
SURROGATE = re.compile("[\ud800-\udfff]")


def main_text(page: str) -> str:
    """The main text of a page's HTML: paragraphs, headings, items and rows of tables, each on a line; empty where there is only navigation.

    Time and memory grow with the page's length, whatever is in it: its first `LARGEST` characters are read.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    page = SURROGATE.sub("\N{REPLACEMENT CHARACTER}", page[:LARGEST].replace("\0", ""))
    tree = HTMLTree.parse(INLINE.sub(NOTHING, LONG_TAG.sub(NOTHING, page)))

    def rendered(leave_out: list[str]) -> str:
        return extract_plain_text(tree, skip_elements=leave_out, list_bullets=False)

    text = rendered(ELEMENTS)
    if rules := _class_rules(page):
        shorter = rendered(ELEMENTS + rules)
        if len(shorter) >= LEAST_LEFT * len(text):
            text = shorter
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "\n".join(_without_menus([line for line in lines if line], _link_texts(page)))


def _class_rules(page: str) -> list[str]:
    """CSS selectors of those classes and ids of a page that are named as navigation is."""
    names = {name for name in _names(page) if _is_navigation(name)}
    if not names:
        return []
    outer = {name for tag in OUTER.findall(page) for name in _names(tag)}
    chosen = sorted(names - outer)[:MOST_NAMES]
    return [f'[{attribute}="{name}"]' for name in chosen for attribute in ("class~", "id")]


def _names(page: str) -> set[str]:
    """The classes and ids in a page."""
    return {name for value in {"".join(found) for found in NAMES.findall(page)} for name in value.split()}


@functools.lru_cache(1 << 14)
def _is_navigation(name: str) -> bool:
    plain = len(name) <= 50 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return plain and NAVIGATION.fullmatch(CAMEL.sub("-", name)) is not None


def _link_texts(page: str) -> set[str]:
    """What the links of a page say."""
    texts = {text for attributes, text in LINK.findall(page) if "href" in attributes.lower()}
    return {" ".join(html.unescape(TAG.sub("", text)).split()) for text in texts} - {""}


def _without_menus(lines: list[str], links: set[str]) -> list[str]:
    """Lines without long runs of those that are links and nothing else; none where all are."""
    kept: list[str] = []
    run: list[str] = []
    for line in lines:
        if _only_links(line, links):
            run.append(line)
            continue
        if len(run) < (LINKS_WITHIN if kept else LINKS_BEFORE):
            kept += run
        run = []
        kept.append(line)
    return kept + run if kept and len(run) < LINKS_WITHIN else kept


def _only_links(line: str, links: set[str]) -> bool:
    if line in links:
        return True
    return len(line) <= LONGEST_MENU_LINE and all(part in links for part in BETWEEN_LINKS.split(line) if part)
