# SPDX-License-Identifier: Apache-2.0
"""The fault drill: four processes train, one is killed with SIGKILL at a random moment, all are started again; many times.

    python -m tests.drill --kills 20     # a line a kill; about a minute each on two cores

The moment is within the start of the processes in every second round, else within the training, which saves every 5 steps.
Asserted each time: all end within the time limit, each that JAX or Python can speak for in one line, and the restart goes on
from the newest checkpoint that was there. At the end: the losses are those of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

# Before JAX, which the imports below bring.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from mlm_jax.starts import last_saved
from mlm_jax.train.metrics import read_metrics
from mlm_jax.train.pretraining import train
from tests.corpora import make_workdir
from tests.processes import Processes

TIMEOUT = 20  # hosts.timeout


def losses(workdir: str) -> list[float]:
    return [r["loss"] for r in read_metrics(workdir) if r["kind"] == "train"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = {
            "train": {"steps": 200 * options.kills, "log_every": 1, "validate_every": 50, "save_every": 5},
            "model": {"layers": 1, "width": 16, "mlp_width": 32},
        }
        whole, run = (make_workdir(folder / n, {"de": 40, "en": 90, "sw": 7}, **sections) for n in ("whole", "run"))
        for kill in range(options.kills):
            before = last_saved(Path(run.workdir))
            processes = Processes(folder / "said", run, 4, 1, timeout=TIMEOUT)
            at_start = kill % 2 == 1
            if not at_start:
                processes.wait_until(lambda said: "parameters," in said)
                time.sleep(2)  # the steps that were not saved leave the metrics
                processes.wait_for_step(before + 1)
            time.sleep(rng.uniform(0, 15 if at_start else 8))
            victim = rng.randrange(4)
            processes.started[victim].kill()
            killed = time.monotonic()
            statuses = processes.wait(TIMEOUT + 60)
            seconds, after = time.monotonic() - killed, last_saved(Path(run.workdir))
            assert statuses[victim] == -signal.SIGKILL, statuses
            # 2: it did not find the others, where the victim died before they had met.
            assert all(s in (2, 75, -signal.SIGABRT) for i, s in enumerate(statuses) if i != victim), statuses
            assert after >= before, "a checkpoint was lost"
            said = [text.count("\n") + bool(text) for text in processes.errors()]
            assert max(said) <= 1, processes.errors()
            went = [line for line in processes.said("out")[0].splitlines() if "parameters," in line]
            assert not went or (f"continuing at step {before:,} " if before else "from step 0 ") in went[0], went
            when = "starting" if at_start else "training"
            print(
                f"{kill + 1:2} {when}, process {victim}: saved {before} -> {after}, all ended after {seconds:.1f} s, "
                f"statuses {statuses}, lines {said}",
                flush=True,
            )
        assert train(run, jax.devices()[:1]).step == train(whole, jax.devices()[:1]).step
        np.testing.assert_allclose(losses(run.workdir), losses(whole.workdir), rtol=1e-4)
        worst = np.max(np.abs(np.array(losses(run.workdir)) / losses(whole.workdir) - 1))
        print(
            f"{options.kills} kills; {len(losses(run.workdir)):,} losses differ by at most {worst:.1e} of an unbroken run's"
        )


if __name__ == "__main__":
    main()
