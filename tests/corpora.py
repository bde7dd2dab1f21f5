# SPDX-License-Identifier: Apache-2.0
"""A prepared corpus made on the spot, without TensorFlow or a trained vocabulary."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import numpy as np
import sentencepiece

from mlm_jax import config as cfg
from mlm_jax import manifest, records, vocabulary
from mlm_jax.config import Config
from mlm_jax.manifest import Manifest, Shard, Split, Stream
from mlm_jax.prepare import packing
from mlm_jax.train.metrics import TIMES, read_metrics


def write_shard(path: Path, blocks: list[dict[str, np.ndarray]]) -> Shard:
    """Write blocks as TFRecord, and its index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets, out = [0], b""
    for block in blocks:
        out += records.frame(records.encode_block(block))
        offsets.append(len(out))
    path.write_bytes(out)
    Path(records.index_path(str(path))).write_bytes(np.array(offsets, "<u8").tobytes())
    return Shard(f"{path.parent.name}/{path.name}", len(blocks), len(out))


def block(tokens: np.ndarray, language: int, lengths: list[int] | None = None) -> dict[str, np.ndarray]:
    """A block of spans of the given lengths, one a segment."""
    lengths = lengths or [len(tokens)]
    return {
        "tokens": np.asarray(tokens),
        "span_lengths": np.array(lengths),
        "span_segments": np.arange(1, len(lengths) + 1),
        "span_languages": np.full(len(lengths), language),
        "span_types": np.zeros(len(lengths), int),
        "span_positions": np.zeros(len(lengths), int),
        "next_sentence": np.array([], int),
    }


def make_corpus(
    folder: Path,
    sizes: dict[str, int],
    length: int = 16,
    vocabulary_size: int = 100,
    sha256: str = "0" * 64,
    shards: int = 2,
    seed: int = 0,
) -> Manifest:
    """Write a corpus of random blocks: `sizes` blocks a language in `shards` shards, 3 for validation.

    Token 5 + i of every block names the block, so that tests can see which one they got.
    """
    rng = np.random.default_rng(seed)
    languages = tuple(sorted(sizes))
    streams = []
    for language, name in enumerate(languages):
        splits = {}
        for split, count in (("train", sizes[name]), ("validation", 3)):
            blocks = []
            for number in range(count):
                # Skewed, so that there are frequencies to learn.
                tokens = 5 + (rng.exponential(12, length).astype(int) + 7 * language) % (vocabulary_size - 5)
                tokens[0], tokens[1] = 3, 5 + number % (vocabulary_size - 5)
                blocks.append(block(tokens, language))
            files = shards if split == "train" else 1
            parts = [
                write_shard(
                    folder / f"mlm_jax_{name}" / f"{split}.tfrecord-{i:05d}-of-{files:05d}",
                    blocks[count * i // files : count * (i + 1) // files],
                )
                for i in range(files)
            ]
            splits[split] = Split(count, count * length * 3, count * length, count, tuple(parts))
        streams.append(Stream(name, (name,), f"mlm_jax_{name}", splits["train"], splits["validation"], 4.0))
    made = Manifest(
        schema=manifest.SCHEMA,
        sequence_length=length,
        packing="concatenate",
        vocabulary_size=vocabulary_size,
        vocabulary_sha256=sha256,
        languages=languages,
        streams=tuple(streams),
        settings={},
        tools={},
    )
    manifest.write_manifest(made, folder)
    return made


def make_workdir(folder: Path, sizes: dict[str, int], **sections) -> Config:
    """A workdir with a real tiny SentencePiece model and a random corpus, and a config to train on it."""
    words = ["".join(chr(97 + (i * k + k) % 26) for k in range(1, 5)) for i in range(60)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(words[i:] + words[:i]) for i in range(60)]),
        model_writer=model,
        vocab_size=100,
        model_type="bpe",
        pad_id=vocabulary.PAD,
        eos_id=vocabulary.EOS,
        unk_id=vocabulary.UNK,
        bos_id=vocabulary.BOS,
        control_symbols=["<mask>"],
        minloglevel=2,
    )
    (folder / "vocabulary").mkdir(parents=True)
    (folder / "vocabulary" / "sentencepiece.model").write_bytes(model.getvalue())
    described = vocabulary.vocabulary_of_file(folder / "vocabulary" / "sentencepiece.model")
    vocabulary.write_vocabulary(described, folder / "vocabulary")
    make_corpus(folder / "corpus", sizes, vocabulary_size=described.size, sha256=described.sha256)
    return tiny_config(str(folder), **sections)


def make_pair_workdir(folder: Path, sizes: dict[str, int], **sections) -> Config:
    """A workdir whose corpus holds pairs of English with each language: a text of six pieces, and the same pieces each one on, so
    that there is something to learn. Blocks have up to two pairs; every fifth pair has a hard negative, and every seventh is the one
    before again."""
    config = make_workdir(folder, {"en": 8, **dict.fromkeys(sizes, 8)}, **sections)
    prepared = dataclasses.replace(manifest.read_manifest(folder / "corpus"), sequence_length=32)
    rng, size = np.random.default_rng(0), prepared.vocabulary_size - 5
    streams = []
    for name, number in sizes.items():
        pairs: list[tuple[list[int], ...]] = []
        for i in range(number):
            first = rng.integers(0, size, rng.integers(3, 7))
            again = i % 7 == 6
            pair = pairs[-1][:2] if again else ((5 + first).tolist(), (5 + (first + 1) % size).tolist())
            pairs.append((*pair, rng.integers(5, size, 4).tolist()) if i % 5 == 4 else pair)
        ids = prepared.languages.index("en"), prepared.languages.index(name)
        splits = {}
        for split, part in (("train", pairs), ("validation", pairs[: number // 4])):
            length = prepared.sequence_length
            spans = packing.text_pairs([part], length, 3, 1, ids)
            blocks = list(packing.best_fit(spans, length, 2, partial(packing.pairs_block, sides=3)))
            file = folder / "corpus" / f"mlm_jax_en.{name}" / f"{split}.tfrecord-00000-of-00001"
            tokens = sum(len(block["tokens"]) for block in blocks)
            splits[split] = Split(number, tokens * 3, tokens, len(blocks), (write_shard(file, blocks),))
        streams.append(Stream(f"en-{name}", ("en", name), f"mlm_jax_en.{name}", **splits, unigram_loss=None))
    made = dataclasses.replace(prepared, packing="pairs", streams=tuple(streams))
    manifest.write_manifest(made, folder / "corpus")
    parallel = tuple(cfg.Parallel(("en", name), ("none",), fields=("a", "b", "c")) for name in sizes)
    data = {"packing": "pairs", "pairs_per_block": 2, "parallel": parallel, "sequence_length": 32}
    model = {"head": "none", "positions": 32}
    return cfg.with_sections(config, data=data, objective={"learn": "contrastive"}, model=model)


def tiny_config(workdir: str, **sections) -> Config:
    """Two layers of width 32 on blocks of 16 tokens; sections' options replace the defaults."""
    base = Config(
        workdir=workdir,
        data=cfg.Data(sources=(cfg.Source("*", "none"),), sequence_length=16),
        model=cfg.Model(layers=2, width=32, heads=2, mlp_width=64, positions=16),
        optimizer=cfg.Optimizer(learning_rate=1e-3, warmup_steps=5),
        train=cfg.Train(steps=12, batch_size=8, log_every=2, validate_every=6, save_every=4),
    )
    return dataclasses.replace(
        base, **{name: dataclasses.replace(getattr(base, name), **options) for name, options in sections.items()}
    )


def logged(workdir) -> list[dict]:
    """All that a run logs, without what depends on the machine's speed."""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_metrics(workdir)]


def write_config(path: Path, config: Config) -> Path:
    """A config file that returns just this config."""
    path.write_text(
        f"from mlm_jax.config import *\nfrom mlm_jax.config import Source, Stage\n\n\ndef get_config():\n    return {config!r}\n"
    )
    return path
