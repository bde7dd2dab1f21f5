# SPDX-License-Identifier: Apache-2.0
"""XLM-R large (Conneau et al. 2020, table 7): 560 M parameters, 100 languages, zero-shot XNLI 80.9.

    mlm-jax pretrain configs/xlmr_large.py --workdir gs://BUCKET/xlmr_large

As xlmr_base.py but for its size. The paper gives no learning rate; 4e-4 is RoBERTa large's, from memory. Six trillion token positions on 500 V100 GPUs.
"""

import dataclasses

from mlm_jax.config import Config
from mlm_jax.model import families
from mlm_jax.shipped import run_config


def get_config() -> Config:
    base: Config = run_config("xlmr_base")["get_config"]()
    return dataclasses.replace(
        base,
        vocabulary=dataclasses.replace(base.vocabulary, size=families.XLMR_VOCABULARY),
        model=families.XLMR_LARGE,
        optimizer=dataclasses.replace(base.optimizer, learning_rate=4e-4),
    )
