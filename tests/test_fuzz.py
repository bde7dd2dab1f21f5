# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, its reader reads it or refuses it in a line that names it."""

import itertools

import pytest

from tests import fuzz

# Of `fuzz.make_targets`: those that take well below a millisecond.
QUICK = (
    "manifest", "token_counts", "held_out", "histogram", "done", "vocabulary", "config", "stored_config", "checkpoints_config", "starts", "initial",
    "tensors", "metrics", "finetune_config", "results", "splitter", "config_file", "text", "paragraphs", "jsonl_text", "jsonl", "tsv", "conll",
    "conllu", "tagged_jsonl", "squad", "pairs", "vocab_txt", "sentencepiece", "tokenizer_json", "csv_text", "csv", "json", "csv_pairs", "saved",
    "parquet_l_text", "parquet_m_text", "arrow_n_text", "arrow_o_text", "parquet_l", "parquet_m", "arrow_n", "arrow_o", "parquet_l_cut", "parquet_m_cut",
)  # fmt: skip
PAGES = (
    "page_metrics",
    "page_sampling",
    "page_config",
    "page_results",
    "page_dev",
    "analysis_rows",
    "analysis_figures",
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return fuzz.make_targets(tmp_path_factory.mktemp("fuzz"))


def findings(target, name, count):
    whole = target.file.read_bytes()
    assert not fuzz.judge(target, whole)
    found = [fuzz.judge(target, content) for content in itertools.islice(fuzz.cases(name, whole, 1), count)]
    target.file.write_bytes(whole)
    return [problem for problem in found if problem]


@pytest.mark.parametrize("name", QUICK)
def test_a_file_is_read_or_refused(targets, name):
    assert not findings(targets[name], name, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_written_or_its_files_are_refused(targets, name):
    assert not findings(targets[name], name, 20)


@pytest.mark.slow
def test_three_hundred_rounds():
    tried, found = fuzz.fuzz([], 1e9, 300, 0, None)
    assert tried.total() > 5_000 and not found, "\n".join(found.values())
