# SPDX-License-Identifier: Apache-2.0
"""What saving costs the training: windows of steps with one save against the same without, in turns.

    python benchmarks/checkpoint.py                  # on the CPU, about 5 minutes
    python benchmarks/checkpoint.py --folder DISK    # where the checkpoints go; by default a temporary folder

The training loop's own jitted step and `Checkpoints`: a window with a save starts it, trains on while it is written and, should
that take longer than the window, waits for it; so all that a save costs is in its window. A window is 100 steps, as between
the saves of `--train.save_every 100`. The shape is `small` of step.py at 32,000 pieces, on whatever device is there
`xlmr_base` (`--shape xlmr_base`).
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
    step, state, on_device = our_step(shape, vocabulary)
    batch = on_device(batches(shape, vocabulary, 1)[0])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    blocked = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoints = Checkpoints(Path(folder) / "checkpoints", {})
        number = 0
        for window in range(2 * options.rounds + 2):  # the first of each kind warms up
            saves = window % 2 == 1
            start = time.perf_counter()
            if saves:
                checkpoints.save(number, state, None)
                blocked.append(time.perf_counter() - start)
            for _ in range(options.steps):
                number += 1
                state, last = step(state, batch)
                jax.block_until_ready(last)
            checkpoints.wait()
            if window >= 2:
                seconds[saves].append(time.perf_counter() - start)
        checkpoints.close()
    print(f"{jax.devices()[0].device_kind}, {size / 1e9:.2f} GB a checkpoint, {options.steps} steps a window")
    for saves, name in ((False, "without a save"), (True, "with a save")):
        shown = " ".join(f"{s:.2f}" for s in seconds[saves])
        print(
            f"{name:<16}{1e3 * statistics.median(seconds[saves]) / options.steps:8.1f} ms a step   windows (s): {shown}"
        )
    ratios = [a / b - 1 for a, b in zip(seconds[True], seconds[False], strict=True)]
    print(f"cost of saving: {100 * statistics.median(ratios):.2f} % (median of {len(ratios)} rounds: ", end="")
    print(
        ", ".join(f"{100 * r:.2f} %" for r in ratios), end=f"); blocked {statistics.median(blocked[1:]):.3f} s a save\n"
    )


if __name__ == "__main__":
    main()
