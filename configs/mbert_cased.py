# SPDX-License-Identifier: Apache-2.0
"""Multilingual BERT, cased (Devlin et al. 2019; google-research/bert, multilingual.md): 104 languages of Wikipedia.

    mlm-jax pretrain configs/mbert_cased.py --workdir gs://BUCKET/mbert_cased

Text: `wikipedia/{language}/*.txt.gz`, one sentence per line, a blank line between articles. Vocabulary and data are both
sampled at exponent 0.7; 119,547 WordPieces. Masked LM with 10 static masks, of 15 % of the tokens, specials counted, and
next-sentence prediction.

The multilingual recipe was never published. Batch 256, a million updates, learning rate 1e-4, 10,000 steps of
warm-up, decay 0.01 and clipping at 1 are BERT's, from memory of its paper; it trained nine tenths of the updates on
128 tokens, which needs a run of its own (--data.sequence_length 128, then --init). The README counts 110M
parameters, XLM-R's table 7 172M; with this vocabulary there are 178,566,653.
"""

from mlm_jax.config import Config, Data, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families


def get_config() -> Config:
    return Config(
        data=Data(
            sources=(Source("*", "wikipedia/{language}/*.txt.gz", documents="paragraph"),),
            sequence_length=512,
            packing="next_sentence",
            pairings=10,
            validation_fraction=0.001,
        ),
        vocabulary=Vocabulary(model="wordpiece", size=families.MBERT_CASED_VOCABULARY, sample_bytes=2_000_000_000),
        sampling=Sampling(exponent=0.7),
        model=families.MBERT,
        objective=Objective(static_masks=1, mask_count="all"),
        optimizer=Optimizer(learning_rate=1e-4, warmup_steps=10_000, b2=0.999),
        train=Train(steps=1_000_000, batch_size=256, validate_every=10_000, save_every=5_000),
    )
