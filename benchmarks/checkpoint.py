# SPDX-License-Identifier: Apache-2.0
"""What saving costs the training: windows of steps with one save against the same without, in turns.

    python benchmarks/checkpoint.py                  # on the CPU, about 5 minutes
    python benchmarks/checkpoint.py --folder DISK    # where the checkpoints go; by default a temporary folder

The training loop's own jitted step and `Checkpoints`: a window with a save starts it, trains on while it is written and, should
that take longer than the window, waits for it; so all that a save costs is in its window. The cost is per save's over that of 100
steps, as with `--train.save_every 100`, whatever the length of a window (`--steps`). Time is the wall's; on a machine that
others use too the processor time of all threads, copying and writing included, is steadier. The shape is step.py's `small` at
32,000 pieces, or `--shape xlmr_base` on whatever device is there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from step import SHAPES, batches, our_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder")
    options = parser.parse_args()

    import jax

    from mlm_jax.train.checkpoints import Checkpoints

    shape = SHAPES[options.shape]
    if shape.device:
        jax.config.update("jax_platforms", shape.device)
    vocabulary = shape.vocabularies[0]
    step, initialize, on_device = our_step(shape, vocabulary)
    state = initialize()
    batch = on_device(batches(shape, vocabulary, 1)[0])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    blocked = []
    print(
        f"{jax.devices()[0].device_kind}, {size / 1e9:.2f} GB a checkpoint, {options.steps} steps a window", flush=True
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoints = Checkpoints(Path(folder) / "checkpoints", {}, {})
        number = 0
        for window in range(2 * options.rounds + 2):  # the first of each kind warms up
            saves = window % 2 == 1
            start = time.perf_counter(), time.process_time()
            if saves:
                checkpoints.save(number, state, None)
                blocked.append(time.perf_counter() - start[0])
            for _ in range(options.steps):
                number += 1
                state, last = step(state, {}, batch)
                jax.block_until_ready(last)
            checkpoints.wait()
            took = time.perf_counter() - start[0], time.process_time() - start[1]
            print(
                f"{'with' if saves else 'without'} a save: {took[0]:.2f} s, {took[1]:.2f} s of processor time",
                flush=True,
            )
            if window >= 2:
                seconds[saves].append(took)
        checkpoints.close()
    for i, name in enumerate(("time", "processor time")):
        pairs = zip(seconds[True], seconds[False], strict=True)
        costs = sorted((saved[i] - plain[i]) / (plain[i] * 100 / options.steps) for saved, plain in pairs)
        shown = ", ".join(f"{100 * cost:.2f} %" for cost in costs)
        print(f"cost of a save every 100 steps in {name}: {100 * statistics.median(costs):.2f} % ({shown})")
    print(f"the training stood still for {statistics.median(blocked[1:]):.3f} s per save")


if __name__ == "__main__":
    main()
