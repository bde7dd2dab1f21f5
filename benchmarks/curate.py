# SPDX-License-Identifier: Apache-2.0
"""Curating's MB/s per core against datatrove's on the same documents, in one run.

    python benchmarks/curate.py TEXT.txt[.gz] ...

Filters: all of Gopher's and FineWeb's scores of every document, and the decision; datatrove stops at the first rule that a document breaks. MinHash: shingles,
signatures, bands, clusters and which documents stay, both with 14 bands of 8 hashes of 64 bits and files between the steps. A file's lines are documents 40 at
a time; of a line with tabs the last column is taken. The peer splits English into words by its spaCy tokenizer, which takes most of its time, so it is measured with words split at
spaces too. Processor time of one process; medians of three turns about. datatrove: `pip install --no-deps datatrove`, and "xxhash<4" fsspec loguru dill multiprocess humanize rich nltk huggingface_hub spacy tokenizers regex.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlm_jax.curate import filters, spill
from mlm_jax.curate.document import Document
from mlm_jax.curate.groups import RECORD, order_of
from mlm_jax.curate.near_duplicates import SIZE, document_records, find_clusters, find_links, sizes_of
from mlm_jax.lines import read_lines

LINES = 40  # per document
TURNS = 3
TOGETHER = 100  # documents that are measured together, about as many as `curate` takes


def read_documents(paths: list[str]) -> list[str]:
    """The texts that both sides work on; a tenth of them twice, with a word added."""
    texts = []
    for path in paths:
        lines = [line.rsplit("\t", 1)[-1] for _, line in read_lines(path)]
        texts += ["\n".join(lines[at : at + LINES]) for at in range(0, len(lines), LINES)]
    return texts + [f"{text} again" for text in texts[::10]]


def filter_ours(texts: list[str]) -> int:
    bounds = filters.published()
    views = (view for at in range(0, len(texts), TOGETHER) for view in filters.Views(texts[at : at + TOGETHER]))
    return sum(filters.judge(view.text, bounds, filters.measure(view)) == "" for view in views)


def spaces() -> Any:
    """A tokenizer of datatrove's that splits at spaces."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Spaces(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return Spaces()


def filter_theirs(texts: list[str], language: Any = "eng_Latn") -> int:
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    steps = [kind(language=language) for kind in (GopherRepetitionFilter, FineWebQualityFilter, GopherQualityFilter)]
    return sum(all(step.filter(Theirs(text=text, id="")) is True for step in steps) for text in texts)


def minhash_ours(texts: list[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        documents = (Document(text, str(i), language="en") for i, text in enumerate(texts))
        records = (document_records(d.text, d.language, order_of(d), int(d.url)) for d in documents)
        runs = spill.write_runs(records, Path(name) / "runs", RECORD)
        links = find_links(runs, Path(name) / "links")
        clusters = spill.open_sorted(find_clusters(links, Path(name)), SIZE)
        return int((sizes_of(np.arange(len(texts)), clusters) > 0).sum())


def minhash_theirs(texts: list[str], language: Any = "eng_Latn") -> int:
    from datatrove.data import Document as Theirs
    from datatrove.pipeline import dedup

    config = dedup.MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    with tempfile.TemporaryDirectory() as name:
        documents = [Theirs(text=text, id=str(i)) for i, text in enumerate(texts)]
        dedup.MinhashDedupSignature(f"{name}/signatures", config, language=language).run(iter(documents))
        for bucket in range(config.num_buckets):
            step = dedup.MinhashDedupBuckets(f"{name}/signatures", f"{name}/buckets", config=config)
            step.run(None, bucket, config.num_buckets)
        dedup.MinhashDedupCluster(f"{name}/buckets", f"{name}/gone", config).run(None, 0, 1)
        return sum(1 for _ in dedup.MinhashDedupFilter(f"{name}/gone").run(iter(documents)))


def timed(function: Callable[[list[str]], int], texts: list[str]) -> tuple[float, int]:
    """MB/s, and how many documents stay."""
    begin = time.process_time()
    kept = function(texts)
    return sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - begin), kept


def main() -> None:
    """Print the table."""
    texts = read_documents(sys.argv[1:])
    print(f"{len(texts):,} documents, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB")
    print("step     words by   MB/s ours  theirs  ratio   documents left: ours, theirs")
    for name, words, ours, theirs in (
        ("filters", "spaCy", filter_ours, filter_theirs),
        ("filters", "spaces", filter_ours, lambda listed: filter_theirs(listed, spaces())),
        ("minhash", "spaCy", minhash_ours, minhash_theirs),
        ("minhash", "spaces", minhash_ours, lambda listed: minhash_theirs(listed, spaces())),
    ):
        few = texts[:20]
        ours(few), theirs(few)  # what is loaded once
        turns = [(timed(ours, texts), timed(theirs, texts)) for _ in range(TURNS)]
        mine, peer = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))
        ratio = statistics.median(turn[0][0] / turn[1][0] for turn in turns)
        (_, left), (_, peers_left) = turns[0]
        print(f"{name:8} {words:8} {mine:11.2f} {peer:7.2f} {ratio:6.2f}   {left:,}, {peers_left:,}", flush=True)


if __name__ == "__main__":
    main()
