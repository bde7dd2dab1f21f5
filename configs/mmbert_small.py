# SPDX-License-Identifier: Apache-2.0
"""mmBERT small (Marone et al. 2025): 141 M parameters, 42 M of them in the layers.

    mlm-jax pretrain configs/mmbert_small.py --workdir gs://BUCKET/mmbert_small

As mmbert_base.py but for its width of 384, 4 B tokens of warm-up, batches that grow over 100 B, and a rate of 4e-4 from the second
stage on, which the last decays to 0.04 of it (the released configs).
"""

import dataclasses

from mlm_jax.config import Config
from mlm_jax.model import families
from mlm_jax.phases import growing_batches
from mlm_jax.shipped import run_config


def get_config() -> Config:
    base = run_config("mmbert_base")
    config: Config = base["get_config"]()
    long = dataclasses.replace(base["LONG"], learning_rate=4e-4)
    phases = (*growing_batches(768, 4_608, 5, 100 * base["BILLION"], 1_024), long)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, width=families.MMBERT_SMALL.width, heads=families.MMBERT_SMALL.heads),
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=4 * base["BILLION"], final_share=0.04),
        train=dataclasses.replace(config.train, phases=phases),
    )
