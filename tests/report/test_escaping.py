# SPDX-License-Identifier: Apache-2.0
"""Names that look like HTML are text on every page."""

import json
import re

import pytest

from mlm_jax.report.neutrality import write_analysis_page
from mlm_jax.report.page import write_report
from mlm_jax.report.results import write_results_page
from mlm_jax.results import BenchmarkRow, probe_rows
from tests.report.test_page import make_run

HOSTILE = '<b onclick="x()">&amp;\'</b>'
ESCAPED = "&lt;b onclick=&#34;x()&#34;&gt;&amp;amp;&#39;&lt;/b&gt;"


def run_page(folder):
    make_run(folder, 2)
    for name in ("sampling.json", "metrics.jsonl"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"l1"', json.dumps(HOSTILE)))
    return write_report(folder)


def results_page(folder):
    rows = [
        BenchmarkRow(
            task=HOSTILE, language=language, metric="accuracy", value=value, every={}, examples=9, protocol={HOSTILE: 1}
        )
        for language, value in (("en", 0.5), (HOSTILE, 0.25))
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "config.json").write_text('{"source": "en"}')
    return write_results_page(folder)


def analysis_page(folder):
    rows = [
        row
        for layer in (0, 1)
        for row in probe_rows("retrieval", HOSTILE, layer, "mean", "plain", "", {"accuracy": 1.0})
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    pair = {"source": [HOSTILE, "b"], "target": ["a"], "links": [[0, 0]], "sure": [[0, 0]], "possible": [[0, 0]]}
    figures = {HOSTILE: {"layer": 1, "decoder": "argmax", "worked": [pair | {"cosines": [[0.5], [0.1]]}]}}
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
