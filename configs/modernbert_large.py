# SPDX-License-Identifier: Apache-2.0
"""ModernBERT large (Warner et al. 2024), on many languages: 396 M parameters with its own 50,368 pieces.

    mlm-jax pretrain configs/modernbert_large.py --workdir gs://BUCKET/modernbert_large

As modernbert_base.py but for its size, 2 B tokens of warm-up, batches that grow from 448 to 4,928 blocks over 10 B, and learning rates:
5e-4 for 900 B tokens, 5e-5 from there on (the paper's run was rolled back to an earlier checkpoint there; a run has one past, so
it goes on). Then batches of 616 blocks of 8,192, and of 624 while the rate decays. Decoupled decay 1e-5, and 1e-6 at 900 B and in the last phase.
"""

import dataclasses

from mlm_jax.config import Config, Phase
from mlm_jax.model import families
from mlm_jax.phases import growing_batches
from mlm_jax.shipped import run_config


def get_config() -> Config:
    defined = run_config("modernbert_base")
    base: Config = defined["get_config"]()
    billion = defined["BILLION"]
    phases = (
        *growing_batches(448, 4_928, 10, 10 * billion, 1_024),
        Phase(900 * billion, learning_rate=5e-5, weight_decay=1e-6 / 5e-5),
        dataclasses.replace(defined["LONG"], batch_size=616, learning_rate=5e-5, weight_decay=1e-5 / 5e-5),
        Phase(1_950 * billion, batch_size=624, weight_decay=1e-6 / 5e-5),
    )
    return dataclasses.replace(
        base,
        model=dataclasses.replace(families.MODERNBERT_LARGE, rope_theta=10_000.0),
        optimizer=dataclasses.replace(
            base.optimizer, learning_rate=5e-4, weight_decay=1e-5 / 5e-4, warmup_steps=2 * billion
        ),
        train=dataclasses.replace(base.train, batch_size=448, phases=phases),
    )
