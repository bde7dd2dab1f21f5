# SPDX-License-Identifier: Apache-2.0
"""The twin of xlm_15_mlm_tlm.py that trains in a minute on a CPU: masked and translation LM, language embeddings.

    mlm-jax pretrain configs/tiny_xlm_tlm.py

Text: eight languages of the sample corpus, and its pairs of English with the others.
"""

import dataclasses

from mlm_jax.config import Config, Data, Objective, Optimizer, Parallel, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            parallel=tuple(Parallel(("en", code), ("sample:django",)) for code in LANGUAGES if code != "en"),
            sequence_length=64,
            validation_fraction=0.1,
        ),
        vocabulary=Vocabulary(model="bpe", size=3_000, character_coverage=0.995, sample_bytes=4_000_000),
        sampling=Sampling(exponent=0.7, parallel_share=0.5),
        model=dataclasses.replace(families.XLM_15, layers=2, width=64, heads=4, mlp_width=256, positions=64),
        objective=Objective(frequency_exponent=0.5),
        optimizer=Optimizer(
            learning_rate=2e-3, schedule="inverse_sqrt", warmup_steps=20, weight_decay=0.0, clip_norm=5.0
        ),
        train=Train(steps=300, batch_size=16, log_every=10, validate_every=100, save_every=100, validation_blocks=8),
    )
