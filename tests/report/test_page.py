# SPDX-License-Identifier: Apache-2.0
"""The page: whole, self-contained, and made from what a workdir holds."""

import dataclasses
import html
import itertools
import json
import re

import jax
import numpy as np
import pytest
from etils import epath

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.manifest import write_manifest
from mlm_jax.neutrality.headlines import analysis_cautions
from mlm_jax.report.card import language_table
from mlm_jax.report.neutrality import finding, heat_map
from mlm_jax.report.page import COLUMNS, SCORE_COLUMNS, write_report
from mlm_jax.report.plots import baseline, new_axes, sampling, spread, validation, widen
from mlm_jax.report.results import headline
from mlm_jax.report.run import SCORES, Run, language_rows, read_run, summary_table
from mlm_jax.report.svg import styled
from mlm_jax.results import BenchmarkRow, probe_rows
from mlm_jax.starts import note_start, read_starts
from tests.corpora import make_corpus


def make_run(folder, languages, validations=2):
    """A workdir as a run of two lines of metrics leaves it, its last line cut off by a kill."""
    names = [f"l{i}" for i in range(languages)]
    config = cfg.Config(workdir=str(folder), train=cfg.Train(steps=20, batch_size=4))
    (folder / "config.json").write_text(cfg.config_to_json(config))
    rows = [
        {
            "language": name,
            "is_pair": False,
            "documents": 9,
            "bytes": 900,
            "tokens": 100 * (i + 1),
            "blocks": i + 1,
            "natural": (i + 1) / sum(range(languages + 1)),
            "rates": [1 / languages],
            "draws": 80 / languages,
            "epochs": 80 / languages / (i + 1),
            "unigram_loss": 6.0 if i else None,
        }
        for i, name in enumerate(names)
    ]
    (folder / "sampling.json").write_text(json.dumps(rows))
    records = []
    for step in (10, 20):
        records.append(
            {"kind": "train", "step": step, "seconds": step / 2, "loss": 9 - step / 10, "learning_rate": 1e-3}
            | {"tokens_per_second": 1000.0, "input_wait": 0.1, "mfu": None, "blocks": dict.fromkeys(names, step)}
        )
        found = {
            n: {"loss": 5.5, "accuracy": 0.2, "perplexity": 300.0, "bits_per_byte": 2.5, "targets": 40} for n in names
        }
        if len(records) <= 2 * validations:
            records.append(
                {"kind": "validation", "step": step, "seconds": step / 2, "macro_loss": 5.5, "macro_bits_per_byte": 2.5}
                | {"languages": found}
            )
    text = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "metrics.jsonl").write_text(text + '{"kind": "train", "st')


@pytest.mark.parametrize("languages", [1, 7, 98])
def test_the_page_is_one_file_with_everything_in_it(tmp_path, languages):
    make_run(tmp_path, languages)
    path = write_report(tmp_path)
    page = path.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "http" not in page
    # Of one language no shares and no baselines are drawn; of many, 30 at most in a panel.
    panels = {1: 3, 7: 6, 98: 3 + 3 * 4}[languages]
    assert page.count("<svg ") == len(list((tmp_path / "report").glob("*.png"))) == panels
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids) and set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    for i in range(languages):
        assert f">l{i}</td>" in page
    assert "width=device-width" in page and "train.batch_size = 4" in page
    assert not list((tmp_path / "report").glob("*.partial"))


def test_the_table_ends_with_the_mean(tmp_path):
    make_run(tmp_path, 7)
    lines = summary_table(tmp_path).splitlines()
    assert lines[0].split() == [
        "language",
        "natural",
        "smoothed",
        "epochs",
        "unknown",
        "tokens/document",
        "targets",
        "validation",
        "unigram",
        "gained",
    ]
    assert lines[2].split()[:3] == ["l6", "0.2500", "0.1429"]
    assert lines[-1].split() == ["mean", "5.500", "6.000", "0.500"]


def hold_out(folder, documents, tokens=300):
    """A corpus beside a run of `make_run`, whose languages hold out so many documents; the first has `tokens`, each other as many more."""
    made = make_corpus(folder / "corpus", {f"l{i}": 4 for i in range(len(documents))})
    streams = tuple(
        dataclasses.replace(
            stream, validation=dataclasses.replace(stream.validation, documents=count, tokens=(i + 1) * tokens)
        )
        for i, (stream, count) in enumerate(zip(made.streams, documents, strict=True))
    )
    write_manifest(dataclasses.replace(made, streams=streams), folder / "corpus")


def test_tokens_per_held_out_document_and_their_gini_are_shown(tmp_path):
    make_run(tmp_path, 3)
    hold_out(tmp_path, (8, 8, 8))
    # 37.5, 75 and 112.5 per document: a mean difference of (4 × 37.5 + 2 × 75) / 9, over twice the mean of 75.
    said = "The Gini coefficient of tokens per held-out document over 3 languages is 0.222 (0: all have as many). It tells how evenly"
    page, text = write_report(tmp_path).read_text(), summary_table(tmp_path)
    assert said in page and text.splitlines()[-1].startswith(said) and "the same text in all of them" in text
    for shown in ("37.5", "75.0", "112.5"):
        assert f">{shown}</td>" in page and f" {shown} " in text
    assert said in "\n".join(language_table(epath.Path(tmp_path), ()))


@pytest.mark.parametrize("documents", [(8, 8, 9), (8, 8, 0), (0, 0, 0), (8,)])
def test_there_is_no_gini_of_held_out_text_that_cannot_be_the_same(tmp_path, documents):
    make_run(tmp_path, len(documents))
    hold_out(tmp_path, documents)
    assert "Gini" not in write_report(tmp_path).read_text() + summary_table(tmp_path)
    assert [row.tokens_per_document for row in language_rows(read_run(tmp_path))][::-1] == [
        300 * (i + 1) / n if n else None for i, n in enumerate(documents)
    ]


@pytest.mark.parametrize("manifest", [None, '{"schema": 1}', "{"])
def test_a_run_whose_corpus_is_gone_or_older_is_reported_without_tokens_per_document(tmp_path, manifest):
    make_run(tmp_path, 3)
    if manifest is not None:
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus/manifest.json").write_text(manifest)
    assert "Gini" not in write_report(tmp_path).read_text() + summary_table(tmp_path)
    assert {row.tokens_per_document for row in language_rows(read_run(tmp_path))} == {None}
    assert "Gini" not in "\n".join(language_table(epath.Path(tmp_path), ()))


def test_the_legend_of_the_baselines_lies_on_no_language(tmp_path):
    make_run(tmp_path, 99)
    for figure in [panel for draw in (baseline, sampling) for panel in styled(draw)(read_run(tmp_path))]:
        figure.draw_without_rendering()
        assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_every_language_is_named_in_letters_that_a_phone_shows(tmp_path):
    make_run(tmp_path, 99)
    page = write_report(tmp_path).read_text()
    for figure in ("sampling", "seen", "baseline"):
        drawn = "".join(re.findall(rf"<svg(?:(?!</svg>).)*#{figure}-.*?</svg>", page, flags=re.DOTALL))
        there = re.findall(r">(l\d+)</text>", drawn)
        assert sorted(there) == sorted(f"l{i}" for i in range(99) if i or figure != "baseline")
    assert {float(size) for size in re.findall(r"font-size: ([\d.]+)px", page)} == {10.0}
    widths = {int(width) for width in re.findall(r"<svg [^>]*--width: (\d+)px", page)}
    assert widths == {340}  # of a phone's 390, less the margins


def test_narrow_pages_lack_columns_that_can_be_asked_for(tmp_path):
    make_run(tmp_path, 3)
    page = write_report(tmp_path).read_text()
    heads = re.findall(r"<th( class=[^>]*)?>([^<]*)</th>", page)
    columns = COLUMNS | {name: SCORE_COLUMNS[name] for name in SCORES["language_model"]}
    assert len(heads) == len(columns) and f"> all {len(columns)} columns</label>" in page
    assert [head.split("\n")[0] for css, head in heads if not css] == ["language", "validation", "unigram", "gained"]
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page, flags=re.DOTALL)[1:]:
        assert len(re.findall('class="wide2"', row)) == len([c for c in columns.values() if c[2] == 2])


def test_one_language_is_compared_with_none(tmp_path):
    make_run(tmp_path, 1)
    page = write_report(tmp_path).read_text()
    assert "an encoder of 1 language<" in page and "mean over languages; piece" not in page


def test_a_page_says_where_its_run_comes_from(tmp_path):
    make_run(tmp_path, 2)
    folder = epath.Path(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "<code>random parameters</code>" in page and "stopped and continued" not in page  # of an earlier version
    note_start(folder, ".venv/bin/mlm-jax prepare c.py")
    note_start(folder, "mlm-jax pretrain c.py --train.steps '<20>'")
    note_start(folder, "mlm-jax pretrain c.py --train.steps '<20>'")
    for step in (12, 20):  # the second had nothing left to do
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
        note_start(folder, "mlm-jax pretrain c.py --train.steps '<20>'")
    (tmp_path / "started.jsonl").open("a").write('{"cut o')
    assert [start["step"] for start in read_starts(folder)] == [0, 0, 12, 20]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"init": "runs/e5"}))
    page = write_report(tmp_path).read_text()
    assert "<code>runs/e5</code>" in page and "mlm-jax prepare" not in page and "UTC, at step 12<" in page
    assert page.count("<code>mlm-jax pretrain c.py --train.steps &#39;&lt;20&gt;&#39;</code>") == 2
    assert f"jax {jax.__version__}, python" in page
    assert "stopped and continued, at step 12." in page


def test_colours_are_the_mode_s(tmp_path):
    make_run(tmp_path, 7)
    page = write_report(tmp_path).read_text()
    drawn = "".join(re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}", drawn)) <= {"#ffffff"} and "stroke: var(--blue)" in drawn
    for name in set(re.findall(r"var\((--[a-z]+)\)", page)) - {"--width", "--share"}:
        assert page.count(f"{name}: #") == 2  # light and dark


@pytest.mark.parametrize("name", ["en-$x$_{y", "$\\frac{", "a_b^c", "<b>&amp;"])
def test_names_are_no_formulas(tmp_path, name):
    make_run(tmp_path, 3)
    for file in ("sampling.json", "metrics.jsonl"):
        path = tmp_path / file
        path.write_text(path.read_text().replace('"l1"', json.dumps(name)))
    assert f">{html.escape(name, quote=False)}</text>" in write_report(tmp_path).read_text()


def test_lines_are_labelled_in_their_order_best_and_worst_first(tmp_path):
    make_run(tmp_path, 99)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()[:-1]]
    for record in lines:
        for i in range(99):
            if record["kind"] == "validation":
                record["languages"][f"l{i}"]["loss"] = 5 + (i * 37 % 99) / 1000
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    texts = styled(validation)(read_run(tmp_path)).axes[0].texts
    names = [t.get_text() for t in texts]
    by_loss = sorted(range(99), key=lambda i: i * 37 % 99)
    assert names[:5] == [f"l{i}" for i in by_loss[:5]]
    assert [n for n in names if n.startswith("l")][-5:] == [f"l{i}" for i in by_loss[-5:]]
    places = [t.xyann[1] for t in texts]
    assert all(b - a > 0.07 for a, b in itertools.pairwise(places)) and places[0] >= 0 and places[-1] <= 1


def test_places_are_those_wanted_where_nothing_is_near():
    assert spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([0.0, 0.0, 1.0, 1.0], 0.1) == pytest.approx([0.0, 0.1, 0.9, 1.0])


@pytest.mark.parametrize(
    ("plain", "centred", "tested", "said"),
    [
        (0.988, 0.988, {}, "leaves sentence retrieval where it was (98.8 and 98.8 %)"),
        (0.988, 0.9925, {"toy": 160}, "leaves sentence retrieval where it was (98.8 and 99.2 %, within ± 2.8)"),
        (1.0, 1.0, {"toy": 160}, "leaves sentence retrieval where it was (100.0 and 100.0 %, within ± 1.7)"),
        (0.5, 0.6, {"toy": 160}, "leaves sentence retrieval where it was (50.0 and 60.0 %, within ± 11.0)"),
        (0.5, 0.6, {"toy": 1600}, "raises sentence retrieval from 50.0 to 60.0 %"),
        (0.6, 0.5, {"toy": 1600}, "lowers sentence retrieval from 60.0 to 50.0 %"),
    ],
)
def test_a_difference_within_the_noise_is_no_headline(plain, centred, tested, said):
    rows = [
        row
        for kind, value in (("plain", plain), ("centred", centred))
        for row in probe_rows("retrieval", "toy", 1, "mean", kind, "de-en", {"accuracy": value})
    ]
    assert finding(rows, tested) == f"Taking away each language's mean {said}."


def test_an_analysis_of_too_little_says_so():
    config = {"aligned": [{"name": "toy", "files": [["de", "d"], ["en", "e"]], "fit": 40, "test": 40}]}
    projected, families = analysis_cautions(config, 384)
    assert projected.startswith("toy: projections into 384 dimensions are fitted on 40 sentences")
    assert families == "toy: families are found among 2 languages, so their V-measure says little"
    config["aligned"][0] |= {"fit": 384, "files": [[str(i), ""] for i in range(10)]}
    assert analysis_cautions(config, 384) == []


@pytest.mark.parametrize(
    ("others", "said"), [(0.55, "en as the others within the noise"), (0.2, "en 40.0 above the others")]
)
def test_a_transfer_gap_within_the_noise_is_none(others, said):
    rows = [
        BenchmarkRow(task="ner", language=x, metric="f1", value=v, every={}, examples=100, protocol={})
        for x, v in (("en", 0.6), ("de", others), ("fr", others))
    ]
    assert headline(rows, "en").endswith(f"on average, {said}.")


def test_noise_is_no_slope():
    _, axes = new_axes("")
    axes.plot([1, 2], [98.78, 98.82])
    widen(axes, 5, 0, 100)
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(5) and low < 98.78 and high <= 100


def test_a_run_without_validation_has_a_page(tmp_path):
    make_run(tmp_path, 3, validations=0)
    records = [r for r in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"validation"' not in r]
    (tmp_path / "metrics.jsonl").write_text("\n".join(records[:-1]) + "\n")
    assert "Nothing was held out" in write_report(tmp_path).read_text()


def test_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"config.json: missing, so there is no run"):
        write_report(tmp_path)
    make_run(tmp_path, 2)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="nothing logged yet"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "st\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:1: not JSON"):
        write_report(tmp_path)


@pytest.mark.parametrize(("count", "wide"), [(3, False), (12, False), (13, True)])
def test_heat_maps_of_few_languages_have_numbers_and_fit_a_phone(count, wide):
    values = np.full((count, count), 98.7)
    np.fill_diagonal(values, np.nan)
    figure = styled(heat_map)(values, [f"l{i}" for i in range(count)], np.arange(count), "t")
    numbers = [t.get_text() for t in figure.axes[0].texts]
    assert numbers == ([] if wide else ["" if i == j else "99" for i in range(count) for j in range(count)])
    assert len(figure.axes) == 1 + wide and (wide or figure.get_figwidth() * 72 == 340)
    assert figure.axes[0].images[0].get_clim() == (90, 100)


@pytest.mark.parametrize(("continued", "steps"), [((), [10, 20, 30]), ((14,), [10, 30]), ((5, 14, 25), [10, 20, 30])])
def test_the_first_line_after_a_continue_is_no_part_of_the_median(continued, steps):
    train = [{"step": step, "tokens_per_second": 10.0} for step in (10, 20, 30)]
    run = Run("run", train, [], [], {}, continued)
    assert [r["step"] for r in run.steady] == steps  # all, where nothing would be left
