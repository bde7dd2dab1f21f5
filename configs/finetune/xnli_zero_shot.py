# SPDX-License-Identifier: Apache-2.0
"""XNLI, zero-shot: trained on English MultiNLI, tested on 15 languages (Conneau et al. 2018; XTREME).

mlm-jax finetune configs/finetune/xnli_zero_shot.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import xnli


def get_config() -> Finetune:
    return xnli("zero_shot")
