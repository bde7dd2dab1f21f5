# SPDX-License-Identifier: Apache-2.0
"""The twin of mmbert_base.py that trains in a minute on a CPU: rotary positions, GeGLU, local layers, stages.

    mlm-jax pretrain configs/tiny_mmbert.py

Text: eight languages of the sample corpus, two of them from step 200 on.
"""

import dataclasses

from mlm_jax.config import Config, Data, Objective, Optimizer, Sampling, Source, Stage, Train, Vocabulary
from mlm_jax.model import families

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            sequence_length=64,
            packing="segments",
            validation_fraction=0.1,
        ),
        vocabulary=Vocabulary(model="bpe", size=3_000, character_coverage=0.995, sample_bytes=4_000_000),
        sampling=Sampling(exponent=0.7, languages=LANGUAGES[:6], stages=(Stage(200, 0.3),)),
        model=dataclasses.replace(
            families.MMBERT_BASE, layers=4, width=64, heads=4, mlp_width=96, positions=128, window=32
        ),
        objective=Objective(mask_rate=0.3, mask_rate_schedule=((200, 0.15), (250, 0.05))),
        optimizer=Optimizer(
            name="stable_adamw",
            learning_rate=2e-3,
            schedule="wsd",
            warmup_steps=20,
            decay_steps=50,
            final_share=0.02,
            b2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
            clip_norm=0.0,
        ),
        train=Train(steps=300, batch_size=16, log_every=10, validate_every=100, save_every=100, validation_blocks=8),
    )
