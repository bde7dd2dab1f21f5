# SPDX-License-Identifier: Apache-2.0
"""XNLI, translate-train: one model per language, each trained on MultiNLI translated into it (Conneau et al. 2018).

mlm-jax finetune configs/finetune/xnli_translate_train.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import xnli


def get_config() -> Finetune:
    return xnli("translate_train")
