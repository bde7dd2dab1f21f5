# SPDX-License-Identifier: Apache-2.0
"""The training step against transformers' XLMRobertaForMaskedLM in PyTorch: tokens/s and peak memory.

    python benchmarks/step.py                        # both vocabularies, about 5 minutes on two cores
    python benchmarks/step.py --vocabularies 32000 --rounds 1

Both sides: 4 layers of width 256, 4 heads, MLP 1,024, blocks of 128 tokens x 16, float32, dropout 0.1,
15 % of the tokens scored, AdamW with decay on matrices only, gradients clipped to norm 1. Ours is the
training loop's own jitted step, masking on the device included; theirs gets batches that are masked
already, sdpa attention and fused AdamW, the fastest of PyTorch's three. Each run is a process of its own, the
sides take turns, and a step's time is the median over all runs' steps.

Needs the extra `[parity]` (torch and transformers).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

LAYERS, WIDTH, HEADS, MLP, LENGTH, BATCH = 4, 256, 4, 1024, 128, 16
MASK_RATE, SPECIALS = 0.15, 5
SIDES = ("ours", "transformers")


def batches(vocabulary: int, number: int) -> list[np.ndarray]:
    """Blocks of random ids, int32 [BATCH, LENGTH]; how they are distributed changes no side's work."""
    rng = np.random.default_rng(0)
    return [rng.integers(SPECIALS, vocabulary, (BATCH, LENGTH), dtype=np.int32) for _ in range(number)]


def ours(vocabulary: int, steps: int) -> list[float]:
    """Seconds of each step of `mlm_jax.train`, compilation left out."""
    import jax

    from mlm_jax import config as cfg
    from mlm_jax import mesh as meshes
    from mlm_jax import objectives
    from mlm_jax.input.mixture import batch_shapes
    from mlm_jax.model.encoder import Encoder
    from mlm_jax.train.optimizer import make_optimizer
    from mlm_jax.train.state import make_initializer
    from mlm_jax.train.step import make_train_step
    from mlm_jax.vocabulary import Vocabulary

    config = cfg.Config(
        data=cfg.Data(sequence_length=LENGTH),
        model=cfg.Model(layers=LAYERS, width=WIDTH, heads=HEADS, mlp_width=MLP, positions=LENGTH),
        objective=cfg.Objective(mask_rate=MASK_RATE),
        train=cfg.Train(batch_size=BATCH),
    )
    words = Vocabulary(vocabulary, 0, 1, 2, 3, 4, tuple(range(SPECIALS)), "")
    mesh = meshes.make_mesh(config.mesh, BATCH, jax.devices()[:1])
    model = Encoder(config.model, vocabulary, jax.numpy.float32, LAYERS)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    initialize, plan = make_initializer(config, model, optimizer, mesh)
    sharding = meshes.batch_sharding(mesh)
    step = make_train_step(config, model, optimizer, words, objectives.make_tables(words), mesh, plan)
    state = initialize()
    seconds = []
    with meshes.mesh_context(mesh):
        for tokens in batches(vocabulary, steps):
            start = time.perf_counter()
            batch = {name: np.zeros(shape, kind) for name, (shape, kind) in batch_shapes(BATCH, LENGTH).items()} | {
                "tokens": tokens,
                "segment_ids": np.ones_like(tokens),
                "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape),
            }
            state, window = step(state, jax.device_put(batch, sharding))
            jax.block_until_ready(window)
            seconds.append(time.perf_counter() - start)
    return seconds


def transformers(vocabulary: int, steps: int) -> list[float]:
    """Seconds of each step of XLMRobertaForMaskedLM."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attn_implementation="sdpa",
    )
    model = XLMRobertaForMaskedLM(config).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=1e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.01,
        fused=True,
    )
    rng = np.random.default_rng(1)
    seconds = []
    for tokens in batches(vocabulary, steps):
        scored = rng.random(tokens.shape) < MASK_RATE
        ids = torch.from_numpy(np.where(scored, 4, tokens).astype(np.int64))
        labels = torch.from_numpy(np.where(scored, tokens, -100).astype(np.int64))
        start = time.perf_counter()
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(side: str, vocabulary: int, steps: int, warmup: int) -> tuple[list[float], float]:
    """Run a side in a process of its own: seconds of its steps after the warm-up, and its peak in bytes."""
    here = os.path.dirname(os.path.abspath(__file__))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.path.dirname(here)}
    command = [sys.executable, __file__, "--side", side, "--vocabularies", str(vocabulary)]
    out = subprocess.run(
        [*command, "--steps", str(steps + warmup)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    result = json.loads(out.splitlines()[-1])
    return result["seconds"][warmup:], result["peak"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 250_002])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--steps", type=int, default=12, help="timed steps a run")
    parser.add_argument("--warmup", type=int, default=3, help="steps before those")
    parser.add_argument("--side", choices=SIDES, help="run one side here and print its figures as JSON")
    options = parser.parse_args()

    if options.side:
        run = {"ours": ours, "transformers": transformers}[options.side]
        seconds = run(options.vocabularies[0], options.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak": peak}))
        return

    print(f"{'vocabulary':>10}  {'side':<12}  {'ms/step':>8}  {'tokens/s':>9}  {'peak GB':>8}", flush=True)
    for vocabulary in options.vocabularies:
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        peaks: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side in SIDES:
                times, peak = measure(side, vocabulary, options.steps, options.warmup)
                seconds[side] += times
                peaks[side].append(peak)
        median = {side: float(np.median(seconds[side])) for side in SIDES}
        peak = {side: float(np.median(peaks[side])) for side in SIDES}
        for side in SIDES:
            rate = BATCH * LENGTH / median[side]
            print(f"{vocabulary:>10,}  {side:<12}  {median[side] * 1e3:>8.1f}  {rate:>9,.0f}  {peak[side] / 1e9:>8.2f}")
        ours_, theirs = SIDES
        print(
            f"{vocabulary:>10,}  {'ratio':<12}  speed {median[theirs] / median[ours_]:.2f}x, "
            f"memory {peak[ours_] / peak[theirs]:.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
