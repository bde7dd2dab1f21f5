# SPDX-License-Identifier: Apache-2.0
"""XLM-100: masked LM on 100 languages of Wikipedia (XLM repository, README): 570 M parameters, zero-shot XNLI 70.7 to 71.3.

    mlm-jax pretrain configs/xlm_100.py --workdir gs://BUCKET/xlm_100

Text: `wikipedia/{language}/*.txt.gz`; 200,000 BPE pieces, no language embeddings. Optimizer and exponent are those of
xlm_15_mlm.py (0.5 to 0.7 for the exponent, from memory): the repository prints none of its own for this model.
"""

from mlm_jax.config import Config, Data, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families


def get_config() -> Config:
    return Config(
        data=Data(
            sources=(Source("*", "wikipedia/{language}/*.txt.gz"),), sequence_length=256, validation_fraction=0.001
        ),
        vocabulary=Vocabulary(model="bpe", size=families.XLM_100_VOCABULARY, sample_bytes=1_000_000_000),
        sampling=Sampling(exponent=0.7, count="documents"),
        model=families.XLM_100,
        objective=Objective(frequency_exponent=0.5, mask_specials="eos"),
        optimizer=Optimizer(
            learning_rate=1e-4, schedule="inverse_sqrt", warmup_steps=30_000, weight_decay=0.0, clip_norm=5.0
        ),
        train=Train(steps=500_000, batch_size=2_048, validate_every=5_000, save_every=2_000),
    )
