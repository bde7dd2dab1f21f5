# SPDX-License-Identifier: Apache-2.0
"""mmBERT base (Marone et al. 2025): ModernBERT on 1,833 languages, added in three stages; 308 M parameters.

    mlm-jax pretrain configs/mmbert_base.py --workdir gs://BUCKET/mmbert_base

Text: `text/{language}/*.txt.gz`; 256,000 pieces (theirs are Gemma 2's: give its tokenizer.json as --vocabulary.path). The
stages: 60 languages at exponent 0.7, 110 at 0.5, all at 0.3, with 30, 15 and 5 % hidden, for 2.3, 0.6 and 0.1 T tokens in
batches of 4,608 blocks of 1,024; the last stage decays the rate to 0.02 of 8e-4.

Name the languages of the stages in FIRST and SECOND; as they stand all languages take part in each. Where sources differ:
the README gives the first stage 2.0 T tokens, the blog 2.3; the released config of that stage hides 25 %, not 30. Batches are
warmed up there and blocks grow to 8,192 tokens in the second stage, neither of which is expressed here: for the latter
start a second run with --init. Decoupled decay 8e-5 there is weight_decay 0.1 here.
"""

from mlm_jax.config import Config, Data, Objective, Optimizer, Sampling, Source, Stage, Train, Vocabulary
from mlm_jax.model import families

FIRST: tuple[str, ...] = ()  # 60 languages
SECOND: tuple[str, ...] = ()  # those and 50 more
TOKENS = 4_608 * 1_024  # a batch
ENDS = tuple(int(tokens / TOKENS) for tokens in (2.3e12, 2.9e12, 3.0e12))


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
        model=families.MMBERT_BASE,
        objective=Objective(mask_rate=0.3, mask_rate_schedule=((ENDS[0], 0.15), (ENDS[1], 0.05))),
        optimizer=Optimizer(
            name="stable_adamw",
            learning_rate=8e-4,
            schedule="wsd",
            warmup_steps=int(3e9 / TOKENS),
            decay_steps=ENDS[2] - ENDS[1],
            final_share=0.02,
            b2=0.95,
            epsilon=1e-8,
            weight_decay=0.1,
            clip_norm=0.0,
        ),
        train=Train(steps=ENDS[2], batch_size=4_608, validate_every=5_000, save_every=2_000),
    )
