# SPDX-License-Identifier: Apache-2.0
"""The main text of pages: that of several sites' markup, of the shared pages, and of pages made to break a reader."""

from __future__ import annotations

import re
import resource
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax.curate.encodings import decode
from mlm_jax.curate.main_text import main_text
from tests.curate.web import pages, truth

pytest.importorskip("resiliparse")

BODY = """<h1>The title</h1><p>A first <b>para</b>graph with <a href=x>a link</a> in it.</p><ul><li>An item of a list</li><li>And one more</li></ul>
<table><tr><td>one cell</td><td>another cell</td></tr></table><p>Line one<br>line two.</p><blockquote>Quoted words.</blockquote>
<figure><img src=x alt="menu"><pre><code>let x = 1;</code></pre><figcaption>Under a figure.</figcaption></figure>"""
TEXT = [
    "The title", "A first paragraph with a link in it.", "An item of a list", "And one more", "one cell another cell", "Line one", "line two.",
    "Quoted words.", "let x = 1;", "Under a figure.",
]  # fmt: skip
MENU = "<ul><li><a href=/>Home menu</a><li><a href=/a>About menu</a><li><a href=/b>News menu</a><li><a href=/c>Contact menu</a></ul>"

SITES = {
    "html5": f"<header>Site menu</header><nav>{MENU}</nav><main><article><header>{BODY}</header></article></main><aside>menu</aside><footer>menu</footer>",
    "roles": f'<div role=banner>menu</div><div role="navigation">{MENU}</div><div>{BODY}</div><div role=contentinfo>menu</div>',
    "blog": f'<div id="page"><div class="site-header">menu</div><div id="main-menu">{MENU}</div><div class="entry-content">{BODY}</div>'
    f'<div class="widget sidebar">menu</div><div class="share-buttons">menu</div><div id="footer">menu</div></div>',
    "docbook": f'<div class="navheader"><table><tr><th>menu</th></tr></table></div><div class="section">{BODY}</div><div class="navfooter">menu</div>',
    "sphinx": f'<div class="related" role="navigation">menu</div><div class="body">{BODY}</div><div class="sphinxsidebar">menu</div>',
    "camel case": f'<div class="topNav">menu</div><div class="contentContainer">{BODY}</div><div class="cookieBanner">menu</div>',
    "popups": f'<a class="skip-main-content" href=#x>menu</a><div id="help-popup">menu</div><div class="modal-dialog">menu</div>{BODY}',
    "no names": f"{MENU}<div><div>{BODY}</div></div>",
    "scripts": f"<script>var menu = '<p>menu</p>'</script><style>.menu {{}}</style><!-- <p>menu</p> -->{BODY}<noscript>menu</noscript>",
    "names on the body": f'<body class="has-menu nav-open" id="sidebar"><div class="has-menu">{BODY}</div></body>',
    "a table of links": f"<table><tr><td><a href=/>Site menu</a><td><a href=/a>Module menu</a><td><a href=/b>Class menu</a><td><a href=/c>Index menu</a></table>{BODY}",
    "names of what others have": f'<body class="has-sidebar"><div class="with-toc"><div class="is-menu">{BODY}</div></div></body>',
    "a wrapper with such a name": f'<div class="nav-wrapper">{BODY}</div>',
}  # fmt: skip


@pytest.mark.parametrize("site", SITES)
def test_the_text_and_no_menu_of_several_sites(site):
    assert main_text(f"<!DOCTYPE html><html>{SITES[site]}</html>").split("\n") == TEXT


def test_a_page_of_links_has_no_text():
    links = "".join(f"<li><a href=/{i}>Page number {i}</a></li>" for i in range(30))
    assert main_text(f"<body><ul>{links}</ul></body>") == ""
    assert main_text(f"<body><h1>A title</h1><ul>{links}</ul></body>") == "A title"
    related = "".join(f"<li><a href=/{i}>A page related to this {i}</a></li>" for i in range(3))
    assert main_text(f"<p>Text of the page.</p><ul>{related}</ul>").count("\n") == 3


def test_boxes_of_a_text_stay_and_bars_of_a_site_go():
    prose = "A box of a book tells what else there is to know about this. It may have <a href=x>a link</a> in its sentences."
    plain = "A box of a book tells what else there is to know about this. It may have a link in its sentences."
    for box in ("<aside class=footnote>", '<div class="sidebar">', "<div role=complementary>"):
        kind = box.split()[0][1:].rstrip(">")
        assert main_text(f"<p>Text.</p>{box}<p>{prose}</p></{kind}>") == f"Text.\n{plain}"
        assert main_text(f"<p>Text.</p>{box}{MENU}<p>Menu.</p></{kind}>") == "Text."


def test_a_heading_may_be_called_as_a_menu_is():
    page = '<h2 id="menu">The menu</h2><section id="sidebar"><p>What it does.</p></section><div id="method-i-convert_menu">A method.</div>'
    assert main_text(page) == "The menu\nWhat it does.\nA method."
    assert main_text('<p>Text.</p><div id="main-menu">Menu.</div>') == "Text."


def test_marks_of_links_leave_no_trace():
    assert (
        main_text("<p>a<a href=x>b</a>c \ufdd0d\ufdd1 <a href=y>never closed <p>and more")
        == "abc \ufffdd\ufffd never closed\nand more"
    )
    blocks = "<a href=x><div>One card</div><div>its text</div></a>"
    assert main_text(f"<p>Text.</p>{blocks}") == "Text.\nOne card\nits text"
    assert main_text(f"{blocks * 3}<p>Text.</p>") == "Text."


def test_text_that_scripts_show_stays():
    assert main_text("<p hidden>For one system.</p><p>For all.</p>") == "For one system.\nFor all."
    assert main_text("<p>seen</p><div aria-hidden=true>not read aloud</div>") == "seen"


def hostile() -> dict[str, str]:
    many = 20_000
    return {
        "nested": "<div>" * 100_000 + "deep" + "</div>" * 100_000,
        "nested lists": "<ul><li>" * 50_000 + "deep",
        "nested tables": "<table><tr><td>" * 30_000 + "deep",
        "formatting that is never closed": "".join(f"<p><font size={i}>x" for i in range(many)),
        "hidden in quotes": "".join(f'<p><font size="<{i}">x' for i in range(many)),
        "of all names": "<b><i><u><s><tt><em>" * 3 + "<p>x" * 100_000,
        "never ended": "<b " * 100_000,
        "split by its own removal": "".join(f"<p><fo<b>nt size={i}>x" for i in range(many)),
        "attributes": "<p " + " ".join(f"a{i}=b" for i in range(3 * many)) + ">x",
        "links": "<a href=x>y" * 50_000,
        "links without end": "<a b>" * 100_000,
        "classes": "".join(f'<p class="nav-{i}">x' for i in range(many)),
        "names": '<p class="' + "-" * 490 + '">x' + " id" * 100_000,
        "less than": "<" * 500_000,
        "NUL and half pairs": "<p>a\0b\ud800c</p>\udfff",
        "one line": "x" * 20_000_000,
    }


@pytest.mark.parametrize("name", hostile())
def test_pages_made_to_break_a_reader(name):
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    text = main_text(hostile()[name])
    text.encode()
    assert "\0" not in text
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


TAGS = [
    "<p>",
    "</p>",
    "<div class=nav>",
    "<a href=x>",
    "</a>",
    "<table>",
    "<td>",
    "<b>",
    "</b>",
    "<svg>",
    "<template>",
    "<!--",
    "<![CDATA[",
    "&amp;",
    "&#0;",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(TAGS) | st.text(max_size=20), max_size=30).map("".join))
def test_any_markup_has_some_text(page):
    text = main_text(page)
    text.encode()
    assert all(line == " ".join(line.split()) and line for line in text.split("\n")) or not text


def words(text: str) -> Counter[str]:
    """Words, and letters of scripts that put no spaces between them."""
    unspaced = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    return Counter(re.findall(rf"[{unspaced}]|[^\W{unspaced}]+", text))


def test_shared_pages_keep_their_body_and_lose_their_menus():
    """The body is the element DisplayArea, which nothing in the extraction knows."""
    from resiliparse.parse.html import HTMLTree

    known = truth()
    kept = whole = menus_kept = menus = 0
    for page in pages():
        html = decode(page.data, page.charset)
        tree = HTMLTree.parse(re.sub("</?(?:span|b|em|i|strong)[^>]*>", "", html))  # glued as they are shown
        area = tree.body.query_selector("#DisplayArea") if tree.body else None
        if area is None or known[page.url]["kind"] not in ("page", "mixed", "near"):
            continue
        for element in tree.body.query_selector_all("script, style, noscript"):
            element.decompose()
        body, everything = words(area.text), words(tree.body.text)
        got, menu = words(main_text(html)), everything - body
        kept, whole = kept + (got & body).total(), whole + body.total()
        menus_kept, menus = menus_kept + ((got - body) & menu).total(), menus + menu.total()
    assert whole > 100_000 and menus > 10_000
    assert kept / whole >= 0.95 and menus_kept / menus <= 0.05
