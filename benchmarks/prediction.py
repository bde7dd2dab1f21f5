# SPDX-License-Identifier: Apache-2.0
"""Prediction before and after it ran as `evaluate` does: examples/s of short sentences, pairs and question windows.

    python benchmarks/prediction.py                            # about 10 minutes on two cores
    python benchmarks/prediction.py --rounds 1 --examples 200

Both run the same fine-tuned classifier (12 layers of width 384, 250,002 pieces) by `encode.run`. "packed" is what `predict` did before: examples
share rows of 256 tokens (or of the longest window), and each token is compared with all others of its row; all layers are compiled one
after another on CPU. "by length" is what it does now: a row per example, batches of like lengths, one loop over the layers. Items are random pieces
with log-normal lengths: sentences with a median of 15 tokens (Tatoeba's English), pairs of 45 (XNLI's), and windows of 384, of which
a fifth are shorter (SQuAD's paragraphs). The two take turns, and medians are shown; the first pass compiles. Examples per second of processor time
are disturbed less by other programs than those per second of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import numpy as np

from mlm_jax import config as cfg
from mlm_jax.encode.rows import Batch, Items, Shape, by_length, pack
from mlm_jax.encode.run import Function, make_run, tokens_per_batch
from mlm_jax.mesh import make_mesh
from mlm_jax.model.encoder import apply_encoder, make_encoder, parameter_shapes
from mlm_jax.model.task_head import TaskHead, pool

PIECES, PAD, WIDTH, LAYERS, CLASSES = 250_002, 1, 384, 12, 3


def lengths_of(kind: str, count: int) -> list[int]:
    """Tokens of each item."""
    rng = np.random.default_rng(0)
    if kind == "windows":
        return np.where(rng.random(count // 16) < 0.8, 384, rng.integers(120, 384, count // 16)).tolist()
    median, count = (15, count) if kind == "sentences" else (45, count // 3)
    return rng.lognormal(np.log(median), 0.45, count).astype(int).clip(4, 128).tolist()


def packed(lengths: Sequence[int]) -> Iterator[tuple[Batch, Shape]]:
    """The batches that `predict` made before."""
    length = max(-(-max(lengths) // 16) * 16, 256)
    tokens = 4_096 if jax.default_backend() == "cpu" else 32_768
    shape = Shape(max(1, tokens // length), length, length // 8)
    return ((batch, shape) for batch in pack(lengths, range(len(lengths)), shape, 256))


def classifier(model: cfg.Model, training: bool) -> Function:
    """Scores of a batch's texts, float32 [rows, slots, classes], from parameters of encoder and head."""
    encoder = make_encoder(model, PIECES, layers=LAYERS, training=training)
    head = TaskHead(model, CLASSES, "tanh", 0.0, encoder.dtype)

    def scores(params, batch):
        hidden = apply_encoder(encoder, params["encoder"], batch)
        return head.apply({"params": params["head"]}, pool(hidden, batch["starts"], batch["segment_ids"], "first"))

    return scores


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    wall, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=1_000, help="sentences; of the others fewer")
    given = parser.parse_args()
    model = cfg.Model(layers=LAYERS, width=WIDTH, heads=12, mlp_width=4 * WIDTH, positions=512, head="none")
    mesh = make_mesh(cfg.Mesh(), devices=jax.devices()[:1])
    rng = np.random.default_rng(0)
    head = TaskHead(model, CLASSES, "tanh", 0.0, np.dtype(np.float32))
    vectors = np.zeros((1, 1, WIDTH), np.float32)
    shapes = {
        "encoder": parameter_shapes(model, PIECES),
        "head": jax.eval_shape(head.init, jax.random.key(0), vectors)["params"],
    }
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.02, leaf.shape).astype(np.float32), shapes)
    params = jax.device_put(params, mesh.devices.flat[0])
    tokens = tokens_per_batch(mesh)
    policies = {
        "packed": (packed, classifier(model, True)),
        "by length": (lambda lengths: by_length(lengths, tokens, 1), classifier(model, False)),
    }
    print(f"{jax.devices()[0].device_kind}; {given.examples} sentences")
    print("| items | policy | first pass (s) | examples/s | per CPU second | positions | attention cells |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in ("sentences", "pairs", "windows"):
        lengths = lengths_of(kind, given.examples)
        ids = [rng.integers(5, PIECES, n, dtype=np.int32) for n in lengths]
        items = Items(ids, [np.zeros(n, np.int32) for n in lengths], [0] * len(ids))
        runs = {name: make_run(of, mesh, PAD, 1, batching) for name, (batching, of) in policies.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(given.rounds + 1):
            for name, run in runs.items():
                times[name].append(timed(partial(deque, run(items, params), 0)))
        for name, (first, *others) in times.items():
            wall, used = (len(ids) / statistics.median(t[i] for t in others) for i in range(2))
            made = [shape for _, shape in policies[name][0](lengths)]
            positions, cells = (sum(s.rows * s.length**power for s in made) for power in (1, 2))
            print(
                f"| {kind} | {name} | {first[0]:.1f} | {wall:,.1f} | {used:,.1f} | {positions:,} | {cells:,} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
