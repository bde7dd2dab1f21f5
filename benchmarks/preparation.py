# SPDX-License-Identifier: Apache-2.0
"""Preparation's text/s against SentencePiece's own batch encode, in one run.

    python benchmarks/preparation.py [TEXT.txt ...]

The same text, model and number of threads or processes on both sides. Ours reads, checks, divides,
encodes, packs, and writes the blocks; SentencePiece's side only encodes lines that are in memory. Text: the files
given, or the sample corpus 12 times over (31 MB). Process start-up is not counted; medians of three.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from etils import epath

from mlm_jax import config as cfg
from mlm_jax.prepare import sample
from mlm_jax.prepare.held_out import HeldOut
from mlm_jax.prepare.run import stream_jobs
from mlm_jax.prepare.shard import make_shard
from mlm_jax.prepare.sources import language_slices
from mlm_jax.prepare.vocabulary import train_vocabulary
from mlm_jax.tokenizers import load_pieces
from mlm_jax.vocabulary import vocabulary_of_file

WORKERS = os.cpu_count() or 1


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 1:
            lines = [line for path in sys.argv[1:] for line in Path(path).read_text().splitlines() if line.strip()]
        else:
            lines = [d for language in sample.sample_languages() for d in sample.sample_documents(language)] * 12
        (folder / "text.txt").write_text("\n".join(lines) + "\n")
        size = sum(len(line.encode()) for line in lines) / 1e6
        (folder / "vocabulary").mkdir()
        model = folder / "vocabulary" / "sentencepiece.model"
        model.write_bytes(train_vocabulary(cfg.Vocabulary(size=32_000), list(dict.fromkeys(lines))))
        words, pieces = vocabulary_of_file(model), load_pieces(model)
        data = cfg.Data(sources=(cfg.Source("xx", str(folder / "text.txt")),), shard_bytes=2 * 2**20)
        config = cfg.Config(workdir=name, data=data)
        ours, theirs = [], []
        with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
            for turn in range(-1, 3):  # the first warms up
                jobs = stream_jobs(
                    config,
                    epath.Path(config.workdir) / "corpus",
                    words,
                    HeldOut(),
                    ("xx",),
                    language_slices(data)["xx"],
                    {"xx": 0},
                )
                for path in folder.glob("corpus/*/*.done"):
                    path.unlink()
                begin = time.perf_counter()
                list(pool.map(make_shard, jobs))
                middle = time.perf_counter()
                pieces.encode(lines, num_threads=WORKERS)
                end = time.perf_counter()
                if turn >= 0:
                    ours.append(size / (middle - begin))
                    theirs.append(size / (end - middle))
        mine, other = statistics.median(ours), statistics.median(theirs)
        print(f"{size:.0f} MB, {len(lines):,} lines, {WORKERS} cores")
        print(f"{'preparation, text to blocks':34}{mine:8.2f} MB/s")
        print(f"{'SentencePiece, batch encode':34}{other:8.2f} MB/s")
        print(f"{'ratio':34}{mine / other:8.2f}x")


if __name__ == "__main__":
    main()
