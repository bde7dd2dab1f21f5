# SPDX-License-Identifier: Apache-2.0
"""The twin of contrastive.py that trains in a minute on a CPU, from random weights: translations find each other.

    mlm-jax pretrain configs/tiny_contrastive.py

Text: the sample corpus' pairs of English with seven languages. Of its monolingual text the vocabulary is made.
"""

from mlm_jax.config import (
    Config,
    Contrastive,
    Data,
    Model,
    Objective,
    Optimizer,
    Parallel,
    Sampling,
    Source,
    Train,
    Vocabulary,
)

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            parallel=tuple(Parallel(("en", code), ("sample:django",)) for code in LANGUAGES if code != "en"),
            sequence_length=64,
            packing="pairs",
            validation_fraction=0.1,
        ),
        vocabulary=Vocabulary(size=3_000, character_coverage=0.995, sample_bytes=4_000_000),
        sampling=Sampling(exponent=0.7),
        model=Model(layers=2, width=64, heads=4, mlp_width=256, positions=64, position_offset=1),
        objective=Objective(learn="contrastive"),
        contrastive=Contrastive(matryoshka=(16, 32)),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=20),
        train=Train(steps=300, batch_size=64, log_every=10, validate_every=100, save_every=100, validation_blocks=16),
    )
