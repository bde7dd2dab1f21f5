# SPDX-License-Identifier: Apache-2.0
"""What the studies that fit two cores share: a small encoder, its schedule, and text of {text}/SET."""

from __future__ import annotations

from mlm_jax.config import Config, Data, Model, Optimizer, Source, Train, Vocabulary


def text_of(name: str, languages: tuple[str, ...] | None = None) -> tuple[Source, ...]:
    """The sources of a set of a study's texts: of all its languages, or of these."""

    def source(language: str, code: str) -> Source:
        return Source(language, f"{{text}}/{name}/{code}.txt", validation=f"{{text}}/held_out/{code}.txt")

    return tuple(source(x, x) for x in languages) if languages else (source("*", "{language}"),)


def small(sources: tuple[Source, ...], steps: int, width: int = 128, layers: int = 2, pieces: int = 8_000) -> Config:
    """An encoder of a few layers on batches of 16 blocks of 64 tokens, without dropout: runs are too short to learn text by heart."""
    return Config(
        data=Data(sources=sources, sequence_length=64, shard_bytes=2**22),
        vocabulary=Vocabulary(size=pieces, sample_bytes=5_000_000),
        model=Model(
            layers=layers,
            width=width,
            heads=max(width // 32, 1),
            mlp_width=4 * width,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=max(steps // 10, 1), clip_norm=1.0),
        train=Train(
            steps=steps,
            batch_size=16,
            log_every=max(steps // 10, 1),
            validate_every=steps,
            save_every=steps,
            validation_blocks=200,
        ),
    )
