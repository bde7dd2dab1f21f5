# SPDX-License-Identifier: Apache-2.0
"""XNLI, translate-test: trained on English, tested on test sets translated into English (Conneau et al. 2018).

The translations are yours: data/xnli_translate_test/{language}.tsv, of columns premise, hypothesis and label.

    mlm-jax finetune configs/finetune/xnli_translate_test.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import xnli


def get_config() -> Finetune:
    return xnli("translate_test")
