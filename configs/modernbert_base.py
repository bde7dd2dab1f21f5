# SPDX-License-Identifier: Apache-2.0
"""ModernBERT base (Warner et al. 2024), on many languages: 150 M parameters with its own 50,368 pieces.

    mlm-jax pretrain configs/modernbert_base.py --workdir gs://BUCKET/modernbert_base

Text: `text/{language}/*.txt.gz`. The paper's three phases (section 2.2, appendix A): 1.7 T tokens in blocks of 1,024 with RoPE theta
10,000 and a learning rate of 8e-4 after 3 B tokens, in batches that grow from 768 to 4,608 blocks over 50 B (there by single
blocks, here in five steps); 250 B in blocks of 8,192 with theta 160,000 (10,000 in local layers) at 3e-4; and 50 B more in which the
rate falls as 1 - sqrt. 30 % hidden throughout, no clipping. Not the paper's, but said of the released configs by others, and not checked: 576 blocks
of 8,192 per batch, the rate's end at a thousandth, decay 1e-5 in each phase. That is decoupled there: weight_decay 1e-5 / 8e-4 and 1e-5 / 3e-4 here.
"""

import dataclasses

from mlm_jax.config import Config, Data, Objective, Optimizer, Phase, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families
from mlm_jax.phases import growing_batches

BILLION = 1_000_000_000
LONG = Phase(
    1_700 * BILLION,
    sequence_length=8_192,
    batch_size=576,
    learning_rate=3e-4,
    weight_decay=1e-5 / 3e-4,
    rope_theta=160_000.0,
)


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
        model=dataclasses.replace(families.MODERNBERT_BASE, rope_theta=10_000.0),
        objective=Objective(mask_rate=0.3),
        optimizer=Optimizer(
            name="stable_adamw",
            learning_rate=8e-4,
            schedule="wsd",
            warmup_steps=3 * BILLION,
            decay_steps=50 * BILLION,
            final_share=0.001,
            b2=0.98,
            weight_decay=1e-5 / 8e-4,
            clip_norm=0.0,
        ),
        train=Train(
            steps=2_000 * BILLION,
            unit="tokens",
            batch_size=768,
            phases=(*growing_batches(768, 4_608, 5, 50 * BILLION, 1_024), LONG),
            validate_every=5_000,
            save_every=2_000,
        ),
    )
