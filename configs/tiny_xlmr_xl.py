# SPDX-License-Identifier: Apache-2.0
"""The twin of xlmr_xl.py that trains in a minute on a CPU: pre-norm.

    mlm-jax pretrain configs/tiny_xlmr_xl.py

Text: eight languages of the sample corpus. Positions begin at row 1, as the padding of a vocabulary of ours is 0.
"""

import dataclasses

from mlm_jax.config import Config, Data, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            sequence_length=64,
            validation_fraction=0.1,
        ),
        vocabulary=Vocabulary(size=3_000, character_coverage=0.995, sample_bytes=4_000_000),
        sampling=Sampling(exponent=0.3),
        model=dataclasses.replace(
            families.XLMR_XL, layers=2, width=64, heads=4, mlp_width=256, positions=64, position_offset=1
        ),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=20),
        train=Train(steps=300, batch_size=16, log_every=10, validate_every=100, save_every=100, validation_blocks=8),
    )
