# SPDX-License-Identifier: Apache-2.0
"""What the optimizers make of the same updates: AdamW, StableAdamW and Muon on configs/tiny_xlmr.py.

    nice -n 19 python benchmarks/muon.py [--steps 1000] [--keep FOLDER] [--rates 1e-3 2e-3 4e-3 8e-3] [--optimizers adamw muon]

Each optimizer trains with each peak learning rate: the same corpus, vocabulary, seed, batches and number of updates, a
linear schedule after a tenth of the updates. Printed are the macro validation losses at the end and the tokens per second. `--keep` names a folder for the runs: called again, the benchmark continues there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mlm_jax import console
from mlm_jax.train.metrics import read_metrics

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_xlmr.py"
OPTIMIZERS = ("adamw", "stable_adamw", "muon")


def main() -> None:
    """Train every run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--keep", default="")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS, choices=OPTIMIZERS)
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp())
    prepared = folder / "prepared"
    run("prepare", str(CONFIG), "--workdir", str(prepared))
    rows = []
    for name in options.optimizers:
        losses, speeds = [], []
        for rate in options.rates:
            workdir = folder / f"{name}_{rate:g}"
            if not workdir.exists():
                workdir.mkdir()
                for part in ("vocabulary", "corpus"):
                    shutil.copytree(prepared / part, workdir / part)
            run(
                *("pretrain", str(CONFIG), "--workdir", str(workdir), "--train.steps", str(options.steps)),
                *("--optimizer.name", name, "--optimizer.learning_rate", str(rate)),
                *("--optimizer.warmup_share", "0.1", "--train.validate_every", "250"),
            )
            records = read_metrics(workdir)
            losses += [r["macro_loss"] for r in records if r["kind"] == "validation" and r["step"] == options.steps]
            speeds += [r["tokens_per_second"] for r in records if r["kind"] == "train"]
        rows.append([name, *(f"{loss:.3f}" for loss in losses), f"{min(losses):.3f}", f"{np.median(speeds):,.0f}"])
    print(f"{options.steps:,} updates\n")
    print(console.format_table(["optimizer", *(f"{rate:g}" for rate in options.rates), "best", "tokens/s"], rows))


def run(*arguments: str) -> None:
    """A command of mlm_jax, its lines on standard error."""
    subprocess.run([sys.executable, "-m", "mlm_jax", *arguments], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
