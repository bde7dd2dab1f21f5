# SPDX-License-Identifier: Apache-2.0
"""mmBERT base (Marone et al. 2025): ModernBERT on 1,833 languages, added in three stages; 308 M parameters.

    mlm-jax pretrain configs/mmbert_base.py --workdir gs://BUCKET/mmbert_base

Text: `text/{language}/*.txt.gz`; 256,000 pieces (theirs are Gemma 2's: give its tokenizer.json as --vocabulary.path). The
stages, from the paper and the released configs: 60 languages at exponent 0.7, 110 at 0.5, all at 0.3, with 30, 15 and 5 % hidden, for
2.3, 0.6 and 0.1 T tokens; blocks of 1,024 with RoPE theta 10,000, and from the second stage on of 8,192 with 160,000 (both in
local layers too), always 4,608 per batch, warmed up over 60 B tokens; the last stage decays the rate to 0.02 of 8e-4.

Name the languages of the stages in FIRST and SECOND; as they stand all languages take part in each. Where sources differ:
the README gives the first stage 2.0 T tokens, the blog 2.3; the released config of that stage hides 25 %, not 30. There batches grow
from 48, per device or in all, by a few blocks at a time; here from 768, as ModernBERT's, in five steps. Decoupled decay 8e-5 there is
weight_decay 0.1 here.
"""

import dataclasses

from mlm_jax.config import Config, Data, Objective, Optimizer, Phase, Sampling, Source, Stage, Train, Vocabulary
from mlm_jax.model import families
from mlm_jax.phases import growing_batches

FIRST: tuple[str, ...] = ()  # 60 languages
SECOND: tuple[str, ...] = ()  # those and 50 more
BILLION = 1_000_000_000
ENDS = (2_300 * BILLION, 2_900 * BILLION, 3_000 * BILLION)  # of the stages, in tokens
LONG = Phase(ENDS[0], sequence_length=8_192, rope_theta=160_000.0, rope_local_theta=160_000.0)


def get_config() -> Config:
    return Config(
        data=Data(
            sources=(Source("*", "text/{language}/*.txt.gz"),),
            sequence_length=1024,
            packing="segments",
            validation_fraction=0.001,
        ),
        vocabulary=Vocabulary(model="bpe", size=families.MMBERT_VOCABULARY, sample_bytes=1_000_000_000),
        sampling=Sampling(exponent=0.7, languages=FIRST, stages=(Stage(ENDS[0], 0.5, SECOND), Stage(ENDS[1], 0.3))),
        model=dataclasses.replace(families.MMBERT_BASE, rope_theta=10_000.0, rope_local_theta=10_000.0),
        objective=Objective(mask_rate=0.3, mask_rate_schedule=((ENDS[0], 0.15), (ENDS[1], 0.05))),
        optimizer=Optimizer(
            name="stable_adamw",
            learning_rate=8e-4,
            schedule="wsd",
            warmup_steps=3 * BILLION,
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
            batch_size=768,
            phases=(*growing_batches(768, 4_608, 5, 60 * BILLION, 1_024), LONG),
            validate_every=5_000,
            save_every=2_000,
        ),
    )
