# SPDX-License-Identifier: Apache-2.0
"""The twin of distill.py that trains in a minute on a CPU: one layer of half the width learns from `tiny_xlmr`.

    mlm-jax pretrain configs/tiny_xlmr.py
    mlm-jax pretrain configs/tiny_distill.py

Text: eight languages of the sample corpus. The vocabulary is the teacher's.
"""

from mlm_jax.config import Config, Data, Distillation, Model, Objective, Optimizer, Sampling, Source, Train

LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "ja", "ru")


def get_config() -> Config:
    return Config(
        data=Data(
            sources=tuple(Source(code, "sample:django") for code in LANGUAGES),
            sequence_length=64,
            packing="segments",
            validation_fraction=0.1,
        ),
        sampling=Sampling(exponent=0.3),
        model=Model(layers=1, width=32, heads=4, mlp_width=128, positions=64, position_offset=1),
        objective=Objective(learn="distillation"),
        distillation=Distillation(teacher="runs/tiny_xlmr", relations=1.0, masked=1.0),
        optimizer=Optimizer(learning_rate=2e-3, warmup_steps=20),
        train=Train(steps=200, batch_size=16, log_every=10, validate_every=100, save_every=100, validation_blocks=8),
    )
