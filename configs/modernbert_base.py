# SPDX-License-Identifier: Apache-2.0
"""ModernBERT base (Warner et al. 2024), on many languages: 150 M parameters with its own 50,368 pieces.

    mlm-jax pretrain configs/modernbert_base.py --workdir gs://BUCKET/modernbert_base

Text: `text/{language}/*.txt.gz`. The paper's first phase: 1.7 T tokens in batches of 4,608 blocks of 1,024 (warmed up from
768, which is not expressed here), 30 % hidden, learning rate 8e-4 after 3 B tokens, no clipping. Its later phases, 250 B
tokens of 8,192 at 3e-4 and 50 B of decay, are runs of their own, started with --init. Decoupled decay 1e-5 there is
weight_decay 1e-5 / 8e-4 here.
"""

from mlm_jax.config import Config, Data, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families


def get_config() -> Config:
    return Config(
        data=Data(
            sources=(Source("*", "text/{language}/*.txt.gz"),),
            sequence_length=1024,
            packing="segments",
            validation_fraction=0.001,
        ),
        vocabulary=Vocabulary(model="bpe", size=families.MODERNBERT_VOCABULARY, sample_bytes=500_000_000),
        sampling=Sampling(exponent=0.3),
        model=families.MODERNBERT_BASE,
        objective=Objective(mask_rate=0.3),
        optimizer=Optimizer(
            name="stable_adamw",
            learning_rate=8e-4,
            schedule="wsd",
            warmup_steps=640,
            decay_steps=10_600,
            b2=0.98,
            weight_decay=1e-5 / 8e-4,
            clip_norm=0.0,
        ),
        train=Train(steps=360_000, batch_size=4_608, validate_every=5_000, save_every=2_000),
    )
