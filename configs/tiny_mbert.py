# SPDX-License-Identifier: Apache-2.0
"""The twin of mbert_cased.py that trains in a minute on a CPU: WordPiece, NSP, static masks.

    mlm-jax pretrain configs/tiny_mbert.py

Text: eight languages of the sample corpus; messages of one sentence make blocks without a pair.
"""

import dataclasses

from mlm_jax.config import Config, Data, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            sequence_length=64,
            packing="next_sentence",
            pairings=4,
            validation_fraction=0.1,
        ),
        vocabulary=Vocabulary(model="wordpiece", size=3_000, character_coverage=0.995, sample_bytes=4_000_000),
        sampling=Sampling(exponent=0.7),
        model=dataclasses.replace(families.MBERT, layers=2, width=64, heads=4, mlp_width=256, positions=64),
        objective=Objective(static_masks=1),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=20, b2=0.999),
        train=Train(steps=300, batch_size=16, log_every=10, validate_every=100, save_every=100, validation_blocks=8),
    )
