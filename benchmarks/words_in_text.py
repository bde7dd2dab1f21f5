# SPDX-License-Identifier: Apache-2.0
"""What tagging gains when words are cut as in running text, with a tokenizer that marks a word by the space before it.

    python benchmarks/words_in_text.py FOLDER [--steps 600] [--seeds 0 1] [--keep OUT]     # FOLDER/ner and FOLDER/ntrex

A byte-level BPE vocabulary without a space before the text (GPT-2's and ModernBERT's kind) and a small masked LM are trained on English and German
text: NTREX, and the Wikipedia sentences of FOLDER/ner that no tagger is trained on. Then taggers of named entities (1,000 sentences of each
language, 500 to test, 4 epochs) are trained from it, with words cut in their sentences as `finetune` does, and each by itself as it did before. Printed
are pieces per word, the words that are cut otherwise than in text, and entity F1.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from mlm_jax import cli, console
from mlm_jax.encode.words import encode_words
from mlm_jax.finetune.config import Data
from mlm_jax.finetune.conll import read_conll
from mlm_jax.finetune.tasks import tag
from mlm_jax.results import read_results
from mlm_jax.tokenizers import Tokenizer, load_tokenizer

LANGUAGES = {"en": "eng", "de": "deu"}  # as ner/ and ntrex/ name them
TRAINED, TESTED = 1_000, 500
PRETRAIN = """from mlm_jax.config import *

def get_config():
    return Config(
        data=Data(sources=tuple(Source(x, "{folder}/" + x + ".txt") for x in {languages}), sequence_length=64),
        vocabulary=Vocabulary(path="{folder}/tokenizer.json"),
        model=Model(layers=3, width=128, heads=4, mlp_width=512, positions=128, position_offset=1),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=100),
        train=Train(steps={steps}, batch_size=32, log_every=100, validate_every=500, save_every=500, validation_blocks=8),
    )
"""
FINETUNE = """from dataclasses import replace
from mlm_jax.finetune.config import *

def get_config():
    return Finetune(
        regime="joint", source="en", select="last", seeds={seeds},
        data=Data(
            train=tuple(Labelled(x, "{data}/ner/" + x + ".train.conll", last={trained}) for x in {languages}),
            test=tuple(Labelled(x, "{data}/ner/" + x + ".test.conll", last={tested}) for x in {languages}),
        ),
        task=Task(kind="tag"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=5e-4),
        train=Train(epochs=4, batch_size=16),
    )
"""


def main() -> None:
    """Pretrain, fine-tune both ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pieces", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--keep", default="")
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder, Path(options.data))
    train_vocabulary(folder, options.pieces)
    fields: dict[str, Any] = {"folder": folder, "data": options.data, "languages": tuple(LANGUAGES)}
    fields |= {"steps": options.steps, "seeds": tuple(options.seeds), "trained": TRAINED, "tested": TESTED}
    (folder / "pretrain.py").write_text(PRETRAIN.format(**fields))
    (folder / "finetune.py").write_text(FINETUNE.format(**fields))
    encoder = str(folder / "encoder")
    assert not cli.main(["pretrain", str(folder / "pretrain.py"), "--workdir", encoder])
    tokenizer = load_tokenizer(folder / "encoder" / "vocabulary")
    rows = []
    ways = {"by themselves": alone, "in their text": encode_words}
    for name, way in ways.items():
        workdir = str(folder / name.replace(" ", "_"))
        tag.encode_words = way
        assert not cli.main(["finetune", str(folder / "finetune.py"), "--init", encoder, "--workdir", workdir])
        results = read_results(workdir)
        for language in LANGUAGES:
            words = [e.first for e in read_conll(f"{options.data}/ner/{language}.test.conll", Data(), True)][:TESTED]
            pieces, running = way(tokenizer, words, 0), encode_words(tokenizer, words, 0)
            count = sum(map(len, words))
            other = sum(a != b for x, y in zip(pieces, running, strict=True) for a, b in zip(x, y, strict=True))
            per_word = sum(len(word) for sentence in pieces for word in sentence) / count
            scores = [100 * row["test"]["entity_f1"] for row in results if row["language"] == language]
            seeds = ", ".join(f"{score:.1f}" for score in scores)
            rows.append([name, language, f"{per_word:.2f}", f"{other / count:.0%}", f"{np.mean(scores):.1f}", seeds])
    print(
        console.format_table(["words", "language", "pieces per word", "cut otherwise", "entity F1", "of seeds"], rows)
    )


def alone(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], unk: int) -> list[list[list[int]]]:
    """Each word's pieces by itself."""
    return [[ids or [unk] for ids in tokenizer.encode(list(words))] for words in sentences]


def write_text(folder: Path, data: Path) -> None:
    """What is pretrained on: a sentence per line."""
    for language, code in LANGUAGES.items():
        sentences = list(read_conll(str(data / "ner" / f"{language}.train.conll"), Data(), True))[TRAINED:]
        lines = [" ".join(e.first) for e in sentences] + (data / "ntrex" / f"{code}.txt").read_text().splitlines()
        np.random.default_rng(0).shuffle(lines)
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n")


def train_vocabulary(folder: Path, pieces: int) -> None:
    """tokenizer.json of a byte-level BPE, of the text."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    )  # fmt: skip
    made.train([str(folder / f"{language}.txt") for language in LANGUAGES], trainer)
    made.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
