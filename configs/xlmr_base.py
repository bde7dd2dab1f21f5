# SPDX-License-Identifier: Apache-2.0
"""XLM-R base (Conneau et al. 2020, table 7 and section 3): 270 M parameters, 100 languages.

    mlm-jax pretrain configs/xlmr_base.py --workdir gs://BUCKET/xlmr_base

Text: `text/{language}/*.txt.gz`, one document per line; the paper used 2.5 TB of CommonCrawl, which CCNet
rebuilds. Vocabulary: 250,002 unigram pieces, trained on a sample drawn at exponent 0.3. Batch 8,192
blocks of 512 tokens, 1.5 million updates on 500 V100 GPUs (the paper names these for its largest model).

The paper gives no learning rate. 7e-4 with 10,000 steps of warm-up and a linear decay is what
fairseq's RoBERTa page advises at this batch size; b2 0.98, epsilon 1e-6, decay 0.01 and no clipping are
RoBERTa's. Sampling counts documents there, and does here: with one sentence per line, sentences. As in fairseq, 15 % of
all tokens are hidden, <s> and </s> among them.
"""

from mlm_jax.config import Config, Data, Mesh, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families


def get_config() -> Config:
    return Config(
        data=Data(sources=(Source("*", "text/{language}/*.txt.gz"),), sequence_length=512, validation_fraction=0.001),
        vocabulary=Vocabulary(size=families.XLMR_VOCABULARY, byte_fallback=False, sample_bytes=500_000_000),
        sampling=Sampling(exponent=0.3, count="documents"),
        model=families.XLMR_BASE,
        objective=Objective(mask_specials="all"),
        optimizer=Optimizer(learning_rate=7e-4, schedule="linear", warmup_steps=10_000, clip_norm=0.0),
        train=Train(steps=1_500_000, batch_size=8_192, validate_every=10_000, save_every=2_000),
        mesh=Mesh(data=-1),
    )
