# SPDX-License-Identifier: Apache-2.0
"""Names that look like HTML are text on every page."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from mlm_jax.errors import UserError
from mlm_jax.report.neutrality import write_analysis_page
from mlm_jax.report.page import write_report
from mlm_jax.report.results import write_results_page
from mlm_jax.report.texts import isolated, readable
from mlm_jax.results import BenchmarkRow, probe_rows
from tests.report.test_page import make_run

HOSTILE = '<b onclick="x()">&amp;\'</b>'
ESCAPED = "&lt;b onclick=&#34;x()&#34;&gt;&amp;amp;&#39;&lt;/b&gt;"


def run_page(folder, name=HOSTILE):
    make_run(folder, 2)
    for file in ("sampling.json", "metrics.jsonl"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace('"l1"', json.dumps(name)))
    return write_report(folder)


def results_page(folder, name=HOSTILE):
    rows = [
        BenchmarkRow(
            task=name, language=language, metric="accuracy", value=value, every={}, examples=9, protocol={name: 1}
        )
        for language, value in (("en", 0.5), (name, 0.25))
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "config.json").write_text('{"source": "en"}')
    return write_results_page(folder)


def analysis_page(folder, name=HOSTILE):
    rows = [
        row for layer in (0, 1) for row in probe_rows("retrieval", name, layer, "mean", "plain", "", {"accuracy": 1.0})
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    pair = {"source": [name, "b"], "target": ["a"], "links": [[0, 0]], "sure": [[0, 0]], "possible": [[0, 0]]}
    figures = {name: {"layer": 1, "decoder": "argmax", "worked": [pair | {"cosines": [[0.5], [0.1]]}]}}
    (folder / "figures.json").write_text(json.dumps(figures))
    return write_analysis_page(folder)


@pytest.mark.parametrize("write", [run_page, results_page, analysis_page])
def test_names_are_text(tmp_path, write):
    page = write(tmp_path).read_text()
    assert ESCAPED in page and HOSTILE not in page
    assert not re.search(r'<[^>]*onclick="', page)
    assert page.count("<html") == page.count("</html>") == page.count("<style>") == 1
    # The frame is whole, and needs no other file.
    assert page.startswith("<!doctype html>") and "width=device-width" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


class Parsed(HTMLParser):
    """What a page consists of, and what it says."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, sorted(name for name, _ in attributes)))

    def handle_data(self, data):
        self.text += data


# Markup, formulas, bidi controls and letters from right to left, what has no width, combining marks, scripts that fonts lack.
PIECES = st.sampled_from(
    ["<script>alert(1)</script>", "</td>", "<!--", "-->", "]]>", "<![CDATA[", "&lt;", "&", '"', "'", " onclick=x", "$x$", "$\\frac{$", "{{ 7*7 }}", "{% raw %}",
     "\u202e", "\u202a", "\u2066", "\u2067", "\u2068", "\u2069", "\u200f", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u0301" * 9, "עברית", "العربية", "中文",
     "\U0001f468\u200d\U0001f469", "\0", "\x1b[2J", "\x7f", "\ufffe", "a", "Z", "7", " ", "/", "\\", "%", "`", "="]
)  # fmt: skip
LETTERS = PIECES | st.characters(exclude_categories=("Cs", "Zl", "Zp", "Cc"))
NAMES = st.lists(LETTERS, min_size=1, max_size=8).map("".join)
LONG_NAMES = st.lists(LETTERS, min_size=1, max_size=24).map("".join)  # fewer of them, where a page takes seconds
FEW = settings(max_examples=12, deadline=None, derandomize=True)
plain_pages = {}


def check(tmp_path_factory, write, name):
    def page_of(name):
        folder = tmp_path_factory.mktemp("p") / "run"
        folder.mkdir()
        return write(folder, name).read_text()

    if write not in plain_pages:
        plain_pages[write] = page_of("qq")
    plain = plain_pages[write]
    try:
        page = page_of(name)
    except UserError:
        if "\0" in name:  # which no file of a workdir holds
            return
        raise
    found, expected = Parsed(page), Parsed(plain)
    assert found.elements == expected.elements
    # Every bidi isolate ends, and there is no other control.
    assert not set(page) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\0\x1b\ufffe")
    depth = 0
    for c in found.text:
        depth += (c == "\u2068") - (c == "\u2069")
        assert depth >= 0
    assert not depth
    if not set(name) & set("\u202a\u202e\u2066\u2067\u2068\u2069\0\x1b\x7f\ufffe"):
        told = found.text.replace("\u2068", "").replace("\u2069", "")
        assert told.count(name) >= min(expected.text.count("qq"), 1)
    for figure in re.findall("<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(figure)


@FEW
@given(name=NAMES)
def test_whatever_a_benchmark_is_called_the_page_is_the_same(tmp_path_factory, name):
    check(tmp_path_factory, results_page, name)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@FEW
@given(name=NAMES)
def test_whatever_a_probed_set_is_called_the_page_is_the_same(tmp_path_factory, name):
    check(tmp_path_factory, analysis_page, name)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@settings(FEW, max_examples=5)
@given(name=LONG_NAMES)
def test_whatever_a_language_is_called_the_page_is_the_same(tmp_path_factory, name):
    check(tmp_path_factory, run_page, name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("e\u0301 中文 \u200d", "e\u0301 中文 \u200d"),
        ("a\u202eb", "a\ufffdb"),
        ("\u2068a", "\u2068a\u2069"),
        ("a\u2069b", "a\ufffdb"),
        ("\u2068a\u2069b", "\u2068a\u2069b"),
        ("\0\x1b\ufffe\ud800", "\ufffd" * 4),
        (Markup("\u202e"), Markup("\u202e")),
        (7, 7),
    ],
)
def test_what_would_turn_a_page_around_is_replaced(text, shown):
    assert readable(text) == shown


def test_names_from_right_to_left_stand_apart():
    assert isolated(["a\u2066b", "\x1b", "é", 7]) == ["a\ufffdb", "\ufffd", "é", 7]
    assert isolated({"עברית": ["x", ("\u2069\u202e",)]}) == {"\u2068עברית\u2069": ["x", ("\u2068\ufffd\ufffd\u2069",)]}
