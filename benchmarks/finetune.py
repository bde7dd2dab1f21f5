# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning against transformers' Trainer on the same data, padded to 128 tokens: examples/s and peak memory.

    python benchmarks/finetune.py                    # about 6 minutes on two cores
    python benchmarks/finetune.py --rounds 1 --updates 6

Both sides: a classifier of three labels on an encoder of multilingual-e5-small's shape (12 layers of width 384, 12 heads, 250,002
pieces), float32 (on a GPU bfloat16, Trainer's `bf16`), dropout 0.1, AdamW, 32 examples per update. The examples are random
pieces; their lengths, log-normal with a median of 40 tokens and a mean of 42, are those of XNLI's pairs in XLM-R's vocabulary. Ours is `finetune`'s own loop, packing
included; theirs is Trainer with its defaults (fused AdamW, sdpa attention). Each run is a process of its own, the sides
take turns, and the first updates, which compile, are left out.

Needs the extra `[parity]` (torch, transformers and accelerate).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Encoder:
    """An encoder's shape; the default is multilingual-e5-small's."""

    layers: int = 12
    width: int = 384
    heads: int = 12
    mlp: int = 1536
    pieces: int = 250_002

    def model(self) -> Any:
        """Of our side."""
        from mlm_jax.config import Model

        return Model(
            layers=self.layers, width=self.width, heads=self.heads, mlp_width=self.mlp, positions=512, head="none"
        )


E5_SMALL = Encoder()
LABELS, BATCH, LENGTH, SKIPPED = 3, 32, 128, 2
SIDES = ("ours", "transformers")


def examples(count: int, pieces: int) -> tuple[list[np.ndarray], list[int]]:
    """Token ids of each example, and its label."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(40), 0.34, count).astype(int).clip(8, LENGTH)
    return [rng.integers(5, pieces, n, dtype=np.int32) for n in lengths], rng.integers(0, LABELS, count).tolist()


def ours(updates: int, encoder: Encoder = E5_SMALL) -> float:
    """Examples per second of `mlm_jax finetune`."""
    from dataclasses import replace

    import jax
    from etils import epath

    from mlm_jax import config as cfg
    from mlm_jax.finetune.arrays import Items
    from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Task, Train
    from mlm_jax.finetune.learner import Experiment, finetune_model, random_start
    from mlm_jax.mesh import make_mesh
    from mlm_jax.pretrained import Pretrained
    from mlm_jax.train.metrics import read_metrics
    from mlm_jax.vocabulary import Vocabulary

    ids, labels = examples(BATCH * updates, encoder.pieces)
    words = Vocabulary(encoder.pieces, 0, 1, 2, 3, 4, tuple(range(5)), "")
    config = Finetune(
        data=Data(max_length=LENGTH),
        task=Task(kind="classify"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=1, batch_size=BATCH, log_every=1, save_every=10**9),
    )
    items = Items(ids, [np.zeros(len(x), np.int32) for x in ids], [0] * len(ids), labels)
    start = random_start(Pretrained(encoder.model(), {}, words, ("en",), "random weights"), 0)
    names = [str(i) for i in range(LABELS)]
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment("ours", 0, items, names, "accuracy", (), lambda _: {})
        finetune_model(config, epath.Path(folder), start, experiment, make_mesh(cfg.Mesh(), devices=jax.devices()[:1]))
        records = [r for r in read_metrics(epath.Path(folder)) if r["kind"] == "train"]
    # The last batch has what was left over.
    timed = records[SKIPPED:-1]
    return sum(r["examples"] for r in timed) / (timed[-1]["seconds"] - records[SKIPPED - 1]["seconds"])


def transformers(updates: int, encoder: Encoder = E5_SMALL) -> float:
    """Examples per second of Trainer."""
    import torch
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainingArguments,
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
    )

    ids, labels = examples(BATCH * updates, encoder.pieces)
    pad = 1

    def padded(tokens: np.ndarray, label: int) -> dict[str, torch.Tensor]:
        row = torch.full((LENGTH,), pad)
        row[: len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        return {
            "input_ids": row,
            "attention_mask": (torch.arange(LENGTH) < len(tokens)).long(),
            "labels": torch.tensor(label),
        }

    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    model = XLMRobertaForSequenceClassification(
        XLMRobertaConfig(
            vocab_size=encoder.pieces, hidden_size=encoder.width, num_hidden_layers=encoder.layers,
            num_attention_heads=encoder.heads, intermediate_size=encoder.mlp, max_position_embeddings=514, num_labels=LABELS, pad_token_id=pad,
        )
    )  # fmt: skip
    times = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **rest):
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, num_train_epochs=1, use_cpu=not on_gpu, bf16=on_gpu, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, learning_rate=2e-5,
        )  # fmt: skip
        data = [padded(tokens, label) for tokens, label in zip(ids, labels, strict=True)]
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()
    return BATCH * (len(times) - SKIPPED) / (times[-1] - times[SKIPPED - 1])


def main() -> None:
    """Run both sides in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        speed = {"ours": ours, "transformers": transformers}[options.side](options.updates)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"speed": speed, "peak": peak}))
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, str(Path(__file__)), "--side", side, "--updates", str(options.updates)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {side}: {found[side][-1]['speed']:.1f} examples/s", flush=True)
    speed = {side: statistics.median(r["speed"] for r in found[side]) for side in SIDES}
    peak = {side: max(r["peak"] for r in found[side]) for side in SIDES}
    print("\n| | examples/s | peak GB | ratio | wanted |\n| --- | --- | --- | --- | --- |")
    ratio = f"{speed['ours'] / speed['transformers']:.2f} × speed, {peak['ours'] / peak['transformers']:.2f} × memory"
    print(f"| mlm_jax | {speed['ours']:.1f} | {peak['ours']:.2f} | {ratio} | 2 × |")
    print(f"| transformers | {speed['transformers']:.1f} | {peak['transformers']:.2f} | | |")


if __name__ == "__main__":
    main()
