# SPDX-License-Identifier: Apache-2.0
"""The page: whole, self-contained, and made from what a workdir holds."""

import json
import re

import pytest

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.report.page import write_report
from mlm_jax.report.plots import baseline
from mlm_jax.report.run import read_run, summary_table


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
    assert not re.search(r'(src|href)="(?!data:)', page) and "http" not in page
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "report").glob("*.png"))) == 6
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
        "targets",
        "validation",
        "unigram",
        "gained",
    ]
    assert lines[2].split()[:3] == ["l6", "0.2500", "0.1429"]
    assert lines[-1].split() == ["mean", "5.500", "6.000", "0.500"]


def test_the_legend_of_the_baselines_lies_on_no_language(tmp_path):
    make_run(tmp_path, 99)
    figure = baseline(read_run(tmp_path))
    figure.draw_without_rendering()
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


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
