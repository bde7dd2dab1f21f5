# SPDX-License-Identifier: Apache-2.0
"""The twin of mmbert_base.py that trains in a minute on a CPU: rotary positions, GeGLU, local layers, stages and phases.

    mlm-jax pretrain configs/tiny_mmbert.py

Text: eight languages of the sample corpus, two of them from the second stage on, in which blocks grow from 64 to 128 tokens. Batches grow
from 8 blocks to 16 at first. All is stated in tokens.
"""

import dataclasses

from mlm_jax.config import Config, Data, Objective, Optimizer, Phase, Sampling, Source, Stage, Train, Vocabulary
from mlm_jax.model import families
from mlm_jax.phases import growing_batches

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")
ENDS = (200_000, 250_000, 300_000)  # of the stages, in tokens
LONG = Phase(ENDS[0], sequence_length=128, batch_size=8, rope_theta=160_000.0, rope_local_theta=160_000.0)


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            sequence_length=64,
            packing="segments",
            validation_fraction=0.1,
        ),
        vocabulary=Vocabulary(model="bpe", size=3_000, character_coverage=0.995, sample_bytes=4_000_000),
        sampling=Sampling(exponent=0.7, languages=LANGUAGES[:6], stages=(Stage(ENDS[0], 0.3),)),
        model=dataclasses.replace(
            families.MMBERT_BASE,
            layers=4,
            width=64,
            heads=4,
            mlp_width=96,
            positions=128,
            window=32,
            rope_theta=10_000.0,
            rope_local_theta=10_000.0,
        ),
        objective=Objective(mask_rate=0.3, mask_rate_schedule=((ENDS[0], 0.15), (ENDS[1], 0.05))),
        optimizer=Optimizer(
            name="stable_adamw",
            learning_rate=2e-3,
            schedule="wsd",
            warmup_steps=15_000,
            decay_steps=ENDS[2] - ENDS[1],
            final_share=0.02,
            b2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
            clip_norm=0.0,
        ),
        train=Train(
            steps=ENDS[2],
            unit="tokens",
            batch_size=8,
            phases=(*growing_batches(8, 16, 2, 20_000, 64), LONG),
            log_every=10,
            validate_every=100,
            save_every=100,
            validation_blocks=8,
        ),
    )
