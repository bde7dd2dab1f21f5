# SPDX-License-Identifier: Apache-2.0
"""What the studies that fit two cores share: a small encoder, its schedule, and text of {text}/SET."""

from __future__ import annotations

from typing import Any

from mlm_jax.config import Config, Data, Model, Objective, Optimizer, Parallel, Source, Train, Vocabulary, with_sections
from mlm_jax.neutrality.config import Aligned, WordAlignment

LAYERS = 2


def text_of(name: str, languages: tuple[str, ...] | None = None) -> tuple[Source, ...]:
    """The sources of a set of a study's texts: of all its languages, or of these."""

    def source(language: str, code: str) -> Source:
        return Source(language, f"{{text}}/{name}/{code}.txt", validation=f"{{text}}/held_out/{code}.txt")

    return tuple(source(x, x) for x in languages) if languages else (source("*", "{language}"),)


def pairs_with(
    pivot: str, others: tuple[str, ...], count: int
) -> tuple[dict[str, tuple[tuple[str, str], int]], tuple[Parallel, ...]]:
    """Sentence pairs of a language with each other: what `Texts.pairs` has of them, and `Data.parallel`."""
    pairs = {f"{pivot}-{x}": ((pivot, x), count) for x in others}
    return pairs, tuple(Parallel((pivot, x), (f"{{text}}/{pivot}-{x}/{pivot}-{x}.tsv",)) for x in others)


def held_out(languages: tuple[str, ...], fit: int, test: int, classes: str = "") -> Aligned:
    """The paragraphs that are held out: probes are fitted on the first and tried on those after."""
    return Aligned("held-out", tuple((x, f"{{text}}/held_out/{x}.txt") for x in languages), fit, test, classes)


def words_of(data: str) -> tuple[WordAlignment, ...]:
    """English and French words aligned by hand, of a folder as configs/analyze/neutrality.py has it; none where none is named."""
    folder = f"{data}/word_alignment"
    return (WordAlignment("words", ("en", "fr"), f"{folder}/enfr.src-tgt", f"{folder}/enfr.gold"),) if data else ()


def of_width(width: int) -> dict[str, Any]:
    """The options of an encoder of this width."""
    return {"model.width": width, "model.heads": max(width // 32, 1), "model.mlp_width": 4 * width}


def of_updates(config: Config, steps: int) -> Config:
    """The config with so many updates, a tenth of them warm-up, and a validation at their end."""
    train = {"steps": steps, "log_every": max(steps // 10, 1), "validate_every": steps, "save_every": steps}
    return with_sections(config, train=train, optimizer={"warmup_steps": max(steps // 10, 1)})


def small(
    sources: tuple[Source, ...], steps: int, width: int = 128, layers: int = LAYERS, pieces: int = 8_000
) -> Config:
    """An encoder of a few layers on batches of 16 blocks of 64 tokens, without dropout: runs are too short to learn text by heart.

    Layers are normalised before they read, positions are rotary and 30 % of the tokens masked (ModernBERT, Warner et al. 2024): six languages of
    help text are predicted with 4.79 nats per masked token after 1,500 updates; three seeds lie within 0.04 bits per byte. With BERT's layers, positions and 15 % it is 6.23, which is
    what the pieces' frequencies alone would give (6.26): studies of such encoders would be studies of word counts. A rate of 5e-3 comes to
    anything from 4.6 to 6.0, by the seed; Muon at 8e-3 to 4.49.
    """
    made = Config(
        data=Data(sources=sources, sequence_length=64, shard_bytes=2**22),
        vocabulary=Vocabulary(size=pieces, sample_bytes=5_000_000),
        model=Model(
            layers=layers,
            width=width,
            heads=max(width // 32, 1),
            mlp_width=4 * width,
            dropout=0.0,
            attention_dropout=0.0,
            norm="pre",
            position_embedding="rotary",
        ),
        objective=Objective(mask_rate=0.3),
        optimizer=Optimizer(learning_rate=2e-3, clip_norm=1.0),
        train=Train(batch_size=16, validation_blocks=200),
    )
    return of_updates(made, steps)
