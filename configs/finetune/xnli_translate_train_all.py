# SPDX-License-Identifier: Apache-2.0
"""XNLI, translate-train-all: one model trained on MultiNLI in 15 languages (XLM-R, table 1).

mlm-jax finetune configs/finetune/xnli_translate_train_all.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import xnli


def get_config() -> Finetune:
    return xnli("translate_train_all")
