# SPDX-License-Identifier: Apache-2.0
"""What translation LM adds: retrieval of held-out translations after masked LM alone, and after masked + translation LM.

    python benchmarks/translation_lm.py [--steps 3000] [--workdir FOLDER]

Both runs are configs/tiny_xlm_tlm.py, one with no blocks of sentence pairs and one with half; the same corpus, vocabulary,
seed and number of updates. Sentences are the sample corpus' held-out messages in English and each of seven languages,
as the mean of their tokens' last vectors; accuracy is the share whose nearest neighbour by cosine, among the held-out
messages of the other language, is the translation, averaged over both directions.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from mlm_jax import config as cfg
from mlm_jax.model.encoder import Encoder
from mlm_jax.prepare import sample
from mlm_jax.prepare.sources import is_held_out
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train.trained import read_trained

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_xlm_tlm.py"
LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--workdir", default="")
    options = parser.parse_args()
    folder = Path(options.workdir or tempfile.mkdtemp())
    accuracy = {}
    for name, share in (("masked LM", 0.0), ("masked + translation LM", 0.5)):
        workdir = folder / name.replace(" ", "_").replace("+", "and")
        command = [sys.executable, "-m", "mlm_jax", "pretrain", str(CONFIG), "--workdir", str(workdir)]
        command += ["--sampling.parallel_share", str(share), "--train.steps", str(options.steps)]
        command += ["--train.log_every", "500", "--train.validate_every", "1000", "--train.save_every", "1000"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        accuracy[name] = retrieval(str(workdir))
    languages = list(next(iter(accuracy.values())))
    print(f"{options.steps:,} updates; retrieval accuracy with English, %")
    print(f"{'':26}" + "".join(f"{language:>7}" for language in languages) + f"{'mean':>7}")
    for name, found in accuracy.items():
        mean = np.mean(list(found.values()))
        print(f"{name:26}" + "".join(f"{100 * found[x]:7.1f}" for x in languages) + f"{100 * mean:7.1f}")
    print(f"{'sentences':26}" + "".join(f"{len(held_out(language)):7}" for language in languages))


def held_out(language: str) -> list[tuple[str, str]]:
    """The pairs of English and a language that no training block holds."""
    fraction = cfg.load(str(CONFIG)).data.validation_fraction
    return [(a, b) for a, b in sample.pairs("en", language) if is_held_out(a, fraction)]


def retrieval(workdir: str) -> dict[str, float]:
    """Language → accuracy of finding translations, the mean of both directions."""
    trained = read_trained(workdir, "last")
    tokenizer = load_tokenizer(f"{workdir}/vocabulary")
    encoder = Encoder(trained.model, trained.vocabulary.size, jax.numpy.float32, languages=len(trained.languages))
    encode = jax.jit(lambda batch: encoder.apply({"params": trained.params}, batch))

    def vectors(texts: list[str], language: str) -> np.ndarray:
        words = trained.vocabulary
        ids = [[words.bos, *tokens[: LENGTH - 2], words.eos] for tokens in tokenizer.encode(texts)]
        tokens = np.full((len(ids), LENGTH), words.pad, np.int32)
        for row, found in enumerate(ids):
            tokens[row, : len(found)] = found
        segments = (np.arange(LENGTH) < np.array([len(found) for found in ids])[:, None]).astype(np.int32)
        batch = {
            "tokens": tokens,
            "segment_ids": segments,
            "positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape),
            "token_types": np.zeros_like(tokens),
            "language_ids": np.full_like(tokens, trained.languages.index(language)),
        }
        hidden = np.asarray(encode(batch))
        means = (hidden * segments[..., None]).sum(axis=1) / segments.sum(axis=1)[:, None]
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    found = {}
    for language in (x for x in trained.languages if x != "en"):
        english, other = (list(side) for side in zip(*held_out(language), strict=True))
        similarity = vectors(english, "en") @ vectors(other, language).T
        right = np.arange(len(english))
        found[language] = float(np.mean([np.mean(similarity.argmax(axis) == right) for axis in (0, 1)]))
    return found


if __name__ == "__main__":
    main()
