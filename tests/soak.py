# SPDX-License-Identifier: Apache-2.0
"""The soak: two processes train for hours, something befalls them every one to five minutes, and the end is bit for bit an unbroken run's.

    python -m tests.soak --minutes 120     # a line a fault; then an unbroken run, which takes a tenth of that

What befalls them is drawn at random: SIGKILL of one or of both, SIGTERM or SIGINT of one, SIGKILL of one while both start, or SIGSTOP of
one and, seconds later, SIGCONT. The run saves every 20 steps and validates every 50. Asserted each time: all end within the time limit,
each that can say so in one line, no checkpoint is lost, and the restart goes on from the newest. At the end: what is logged and the
newest checkpoint of both runs, every array of it, are equal bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

# Before JAX, which the imports below bring.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import orbax.checkpoint as ocp

from mlm_jax.starts import last_saved
from tests.corpora import logged, make_workdir
from tests.processes import Processes

TIMEOUT = 60  # hosts.timeout
EVERY = 20  # steps from save to save
FAULTS = ("kill one", "kill both", "terminate", "interrupt", "kill at start", "stop and continue")
# Reading waits, so that hours of a tiny model are not millions of steps, nor take the machine.
SLOWLY = """
import sys, time
from mlm_jax.__main__ import main
from mlm_jax.input.mixture import Mixture

draw = Mixture.draw

def slowly(self, number):
    time.sleep(0.05)
    return draw(self, number)

Mixture.draw = slowly
del sys.argv[1]
sys.exit(main())
"""


def restored(workdir: str, step: int) -> list[np.ndarray]:
    """A checkpoint's arrays, which two processes wrote."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        path = Path(workdir).absolute() / "checkpoints" / str(step) / "state"
        stored = checkpointer.metadata(path).item_metadata
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored.tree)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpointer.restore(path, wanted))]


def begins(processes: Processes) -> bool:
    """Wait until the training begins; False where a process has ended, as where a busy machine lets one come too late."""
    while "parameters," not in processes.said("out")[0]:
        if any(p.poll() is not None for p in processes.started):
            return False
        time.sleep(0.05)
    return True


def befall(fault: str, processes: Processes, rng: random.Random) -> bool:
    """Do it; whether the processes end of it."""
    one = rng.choice(processes.started)
    match fault:
        case "kill both":
            for process in processes.started:
                process.kill()
        case "terminate":
            one.send_signal(signal.SIGTERM)
        case "interrupt":
            one.send_signal(signal.SIGINT)
        case "stop and continue":
            one.send_signal(signal.SIGSTOP)
            time.sleep(rng.uniform(1, 20))
            one.send_signal(signal.SIGCONT)
            return False
        case _:
            one.kill()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--least", type=float, default=60, help="seconds from fault to fault, at least")
    parser.add_argument("--most", type=float, default=300, help="and at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts, hung = random.Random(options.seed), Counter(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = {
            "train": {"steps": 10_000_000, "log_every": 5, "validate_every": 50, "save_every": EVERY, "keep_last": 50},
            "model": {"layers": 1, "width": 16, "mlp_width": 32},
        }
        whole, run = (make_workdir(folder / n, {"de": 40, "en": 90, "sw": 7}, **sections) for n in ("whole", "run"))
        deadline = time.monotonic() + 60 * options.minutes
        processes = None
        while time.monotonic() < deadline:
            before, fault = last_saved(Path(run.workdir)), rng.choice(FAULTS)
            if processes is None:
                processes = Processes(folder / "said", run, 2, 1, timeout=TIMEOUT, program=SLOWLY)
                if fault == "kill at start":
                    time.sleep(rng.uniform(0, 15))
                else:
                    if not begins(processes):
                        print(f"the processes did not meet, or one ended: {processes.wait()}; again", flush=True)
                        processes = None
                        continue
                    began = next(line for line in processes.said("out")[0].splitlines() if "parameters," in line)
                    assert (f"continuing at step {before:,} " if before else "from step 0 ") in began, began
            elif fault == "kill at start":
                continue
            if fault != "kill at start":
                time.sleep(min(rng.uniform(options.least, options.most), max(deadline - time.monotonic(), 1)))
            newest = last_saved(Path(run.workdir))
            ended = befall(fault, processes, rng)
            counts[fault] += 1
            at = time.monotonic()
            if ended:
                try:
                    statuses = processes.wait(TIMEOUT + 60)
                except subprocess.TimeoutExpired:
                    hung.append(fault)
                    print(f"{fault}: not all ended", processes.said("out"), processes.said("err"), flush=True)
                    statuses = [p.wait() for p in processes.started]
                # 2: it did not find the other, which died before they had met.
                assert all(s in (2, 75, 130, 143, -signal.SIGABRT, -signal.SIGKILL) for s in statuses), statuses
                said = [text.count("\n") + bool(text) for text in processes.errors()]
                assert max(said) <= 1, processes.errors()
                processes = None
            else:
                statuses = [p.poll() for p in processes.started]
                assert statuses == [None, None], (statuses, processes.said("err"))
            after = last_saved(Path(run.workdir))
            assert after >= newest, "a checkpoint was lost"
            print(
                f"{sum(counts.values()):3} {fault}: saved {before:,} -> {after:,}, {time.monotonic() - at:.1f} s, statuses {statuses}",
                flush=True,
            )
        if processes:
            befall("kill both", processes, rng)
            processes.wait()
        steps = [int(p.name) for p in (Path(run.workdir) / "checkpoints").iterdir() if p.name.isdecimal()]
        common = max((step for step in steps if step % EVERY == 0), default=0)
        assert common, "no checkpoint that an unbroken run saves too; soak for longer"
        print(f"{dict(counts)}; now an unbroken run to step {common:,}", flush=True)
        unbroken = Processes(folder / "unbroken", whole, 2, 1, timeout=TIMEOUT)
        while last_saved(Path(whole.workdir)) < common:
            assert unbroken.started[0].poll() is None, unbroken.said("err")
            time.sleep(0.1)
        befall("kill both", unbroken, rng)
        unbroken.wait()

        lines = [[line for line in logged(c.workdir) if line["step"] <= common] for c in (run, whole)]
        assert lines[0] == lines[1], next((a, b) for a, b in zip(*lines, strict=False) if a != b)
        pairs = list(zip(restored(run.workdir, common), restored(whole.workdir, common), strict=True))
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)
        print(
            f"{sum(counts.values())} faults in {options.minutes:g} minutes, {common:,} steps: {len(lines[0]):,} lines of metrics and "
            f"{len(pairs)} arrays of the checkpoint are an unbroken run's, bit for bit"
        )
        assert not hung, hung


if __name__ == "__main__":
    main()
