# SPDX-License-Identifier: Apache-2.0
"""Sentence vectors of every layer against transformers on the same sentences: sentences/s.

    python benchmarks/embedding.py                   # about 3 minutes on two cores
    python benchmarks/embedding.py --rounds 1 --sentences 256

Both sides: an encoder of multilingual-e5-small's shape (12 layers of width 384, 12 heads, 250,002 pieces) in float32 (on a GPU bfloat16),
which of every sentence and layer gives the first token's vector and the mean of all, as `analyze` asks for. The sentences are random pieces; their lengths,
log-normal with a median of 34 tokens, are those of NTREX's English in XLM-R's vocabulary. Ours is `analyze`'s own path: sorted by
length, written to disk. Theirs is XLMRobertaModel in PyTorch (sdpa attention, inference mode) on batches of 32 in the order they come,
padded to the longest; with `--sorted`, sorted by length too, as its user might do by hand. Each run is a process of its own, and the sides
take turns; either side first goes through all sentences once, which compiles. Beside the wall clock's sentences per second stand those of
a second of processor time, which other programs on the machine disturb less.

Needs the extra `[parity]` (torch and transformers).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from finetune import E5_SMALL, Encoder

LENGTH, BATCH = 128, 32
SIDES = ("ours", "transformers")


def sentences(count: int, pieces: int = E5_SMALL.pieces) -> list[np.ndarray]:
    """Token ids of each sentence, without specials."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(32), 0.5, count).astype(int).clip(2, LENGTH - 2)
    return [rng.integers(5, pieces, n, dtype=np.int32) for n in lengths]


def speed(count: int, embed: Callable[[str], None]) -> tuple[float, float]:
    """Sentences per second, and per second of processor time, of the second time that they are embedded."""
    embed("first")
    wall, used = time.perf_counter(), time.process_time()
    embed("second")
    return count / (time.perf_counter() - wall), count / (time.process_time() - used)


def ours(ids: list[np.ndarray], encoder: Encoder = E5_SMALL) -> tuple[float, float]:
    """The speed of `mlm_jax.neutrality.vectors`."""
    import jax

    from mlm_jax import config as cfg
    from mlm_jax.finetune.learner import random_start
    from mlm_jax.mesh import make_mesh
    from mlm_jax.neutrality.vectors import make_vectors
    from mlm_jax.pretrained import Pretrained
    from mlm_jax.vocabulary import Vocabulary

    words = Vocabulary(encoder.pieces, 0, 1, 2, 3, 4, tuple(range(5)), "")
    start = random_start(Pretrained(encoder.model(), {}, words, ("en",), "random weights"), 0)
    tokenizer = SimpleNamespace(encode=lambda texts: [ids[int(text)].tolist() for text in texts])
    with tempfile.TemporaryDirectory() as folder:
        made = make_vectors(start, tokenizer, make_mesh(cfg.Mesh(), devices=jax.devices()[:1]), LENGTH, folder)  # type: ignore[arg-type]
        text = [str(i) for i in range(len(ids))]
        return speed(len(ids), lambda name: made.sentences(text, name))


def transformers(ids: list[np.ndarray], encoder: Encoder = E5_SMALL) -> tuple[float, float]:
    """The speed of XLMRobertaModel."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    pad = 1
    torch.manual_seed(0)
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=encoder.pieces, hidden_size=encoder.width, num_hidden_layers=encoder.layers,
            num_attention_heads=encoder.heads, intermediate_size=encoder.mlp, max_position_embeddings=514, pad_token_id=pad,
        ),
        add_pooling_layer=False,
    ).eval().to(device, dtype)  # fmt: skip

    def embed_part(part: list[np.ndarray]) -> np.ndarray:
        length = max(map(len, part)) + 2
        tokens = torch.full((len(part), length), pad)
        for row, found in enumerate(part):
            tokens[row, : len(found) + 2] = torch.tensor([0, *found.tolist(), 2])
        tokens = tokens.to(device)
        mask = (tokens != pad).long()
        with torch.inference_mode():
            hidden = torch.stack(model(tokens, attention_mask=mask, output_hidden_states=True).hidden_states).float()
            weight = mask[None, :, :, None].float()
            return torch.stack([hidden[:, :, 0], (hidden * weight).sum(2) / weight.sum(2)]).cpu().numpy()

    def embed(_: str) -> None:
        for begin in range(0, len(ids), BATCH):
            embed_part(ids[begin : begin + BATCH])

    return speed(len(ids), embed)


def main() -> None:
    """Run both sides in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=768)
    parser.add_argument("--sorted", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        ids = sentences(options.sentences)
        if options.sorted and options.side == "transformers":
            ids = sorted(ids, key=len)
        print(json.dumps({"ours": ours, "transformers": transformers}[options.side](ids)))
        return
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, str(Path(__file__)), "--side", side, "--sentences", str(options.sentences)]
            done = subprocess.run(command + ["--sorted"] * options.sorted, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found[side].append(tuple(json.loads(done.stdout.splitlines()[-1])))
            print(f"round {number + 1}, {side}: {found[side][-1][0]:.1f} sentences/s", flush=True)
    wall, used = ({x: statistics.median(v[i] for v in values) for x, values in found.items()} for i in range(2))
    print(
        "\n| | sentences/s | ratio | wanted | per second of processor time | ratio |\n| --- | --- | --- | --- | --- | --- |"
    )
    ratios = [f"{x['ours'] / x['transformers']:.2f} ×" for x in (wall, used)]
    print(f"| mlm_jax | {wall['ours']:.1f} | {ratios[0]} | 2 × | {used['ours']:.1f} | {ratios[1]} |")
    print(f"| transformers | {wall['transformers']:.1f} | | | {used['transformers']:.1f} | |")


if __name__ == "__main__":
    main()
