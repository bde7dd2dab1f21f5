# SPDX-License-Identifier: Apache-2.0
"""`mlm-jax embed` against sentence-transformers with the same encoder and text: texts per second, and per second of processor time.

    python benchmarks/embed.py FOLDER TEXT.txt --peer VENV/bin/python
    python benchmarks/embed.py FOLDER TEXT.txt                        # ours alone

FOLDER is an encoder's, of Hugging Face or sentence-transformers; mean pooling and vectors of length 1 on both sides. Each run is a process of its
own, and the sides take turns; either goes through the text once before, which compiles. Theirs is `SentenceTransformer.encode` as it
is (float32, batches of 32 sorted by length), and with `--peer_batch` others; ours is `embed_file`, from file to file, in float32 and in bfloat16
(`--dtype`). Both have as many threads as the process may use. The last column is the largest difference of any number in our vectors to theirs.

The peer is another Python, which has sentence-transformers: pip install -c constraints.txt sentence-transformers torch transformers
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
from typing import Any

import numpy as np

LENGTH = 512


def speed(texts: int, embed: Callable[[], None]) -> tuple[float, float]:
    """Texts per second, and per second of processor time, of the second time that they are embedded."""
    embed()
    wall, used = time.perf_counter(), time.process_time()
    embed()
    return texts / (time.perf_counter() - wall), texts / (time.process_time() - used)


def ours(folder: str, path: str, out: str, dtype: str) -> tuple[float, float]:
    """The speed of `embed_file`, from the text to vectors on disk; the encoder and its tokenizer are read before, as theirs are."""
    from mlm_jax import config as cfg
    from mlm_jax.encode import embed
    from mlm_jax.encode.sentences import SentenceEncoder
    from mlm_jax.start import encoder_workdir

    with encoder_workdir(folder) as workdir:
        read = embed.read_pretrained(workdir, mesh=embed.make_mesh(cfg.ALL_DEVICES))
        tokenizer = embed.load_tokenizer(Path(workdir) / "vocabulary")
        embed.read_pretrained = lambda *_: read  # type: ignore[assignment]
        embed.load_tokenizer = lambda _: tokenizer  # type: ignore[assignment]
        built: list[SentenceEncoder] = []

        def build(*given: Any) -> SentenceEncoder:
            built[:] = built or [make(*given)]
            return built[0]

        make, embed.make_sentence_encoder = embed.make_sentence_encoder, build
        wanted = embed.Wanted(dtype=dtype, pooling="mean", normalise=True, max_length=LENGTH)
        with open(path, encoding="utf-8") as file:
            texts = sum(1 for _ in file)
        return speed(texts, lambda: print(embed.embed_file(workdir, path, out, wanted), file=sys.stderr))


def theirs(folder: str, path: str, out: str, batch: str) -> tuple[float, float]:
    """The speed of `SentenceTransformer.encode`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    encoder = Transformer(folder, max_seq_length=LENGTH)
    pooling = Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device="cpu")
    texts = Path(path).read_text(encoding="utf-8").splitlines()
    return speed(len(texts), lambda: np.save(out, model.encode(texts, batch_size=int(batch))))


def main() -> None:
    """Run the sides in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("text")
    parser.add_argument("--peer", default="", help="a Python with sentence-transformers")
    parser.add_argument("--peer_batch", nargs="+", default=["32"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, how, out = options.side
        print(json.dumps({"ours": ours, "theirs": theirs}[side](options.folder, options.text, out, how)))
        return
    sides = [("theirs", batch) for batch in options.peer_batch if options.peer]
    sides += [("ours", dtype) for dtype in options.dtype]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for side, how in sides:
                python = options.peer if side == "theirs" else sys.executable
                out = f"{folder}/{side}-{how}.npy"
                command = [python, __file__, options.folder, options.text, "--side", side, how, out]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                found[side, how].append(tuple(json.loads(done.stdout.splitlines()[-1])))
                print(f"round {number + 1}, {side} {how}: {found[side, how][-1][0]:.1f} texts/s", flush=True)
        made = {side: np.load(f"{folder}/{side[0]}-{side[1]}.npy") for side in sides}
    wall, used = ({x: statistics.median(v[i] for v in values) for x, values in found.items()} for i in range(2))
    print("\n| | texts/s | ratio | per second of processor time | ratio | largest difference |\n" + "| --- " * 6 + "|")
    base = sides[0]
    for side in sides:
        name = "mlm_jax" if side[0] == "ours" else "sentence-transformers, batches of"
        difference = f"{np.abs(made[side] - made[base]).max():.1e}"
        print(
            f"| {name} {side[1]} | {wall[side]:.1f} | {wall[side] / wall[base]:.2f} × | {used[side]:.1f} | "
            f"{used[side] / used[base]:.2f} × | {difference} |"
        )


if __name__ == "__main__":
    main()
