# SPDX-License-Identifier: Apache-2.0
"""A small encoder on your own text, for one GPU: a starting point to copy.

    mlm-jax pretrain configs/own_text.py

Text: one file per language, `text/{language}.txt`, one document per line; the languages are the files' names.
The model has 6 layers of width 512 and 32,000 pieces (35 M parameters).
"""

from mlm_jax.config import Config, Data, Model, Optimizer, Sampling, Source, Train, Vocabulary


def get_config() -> Config:
    return Config(
        data=Data(sources=(Source("*", "text/{language}.txt"),), sequence_length=256),
        vocabulary=Vocabulary(size=32_000),
        sampling=Sampling(exponent=0.3),
        model=Model(layers=6, width=512, heads=8, mlp_width=2048, positions=256),
        optimizer=Optimizer(learning_rate=5e-4, warmup_steps=2_000),
        train=Train(steps=50_000, batch_size=256, validate_every=2_500, save_every=2_500),
    )
