# SPDX-License-Identifier: Apache-2.0
"""PAWS-X, zero-shot from English on 7 languages; --regime translate_train or translate_train_all (Yang et al. 2019).

mlm-jax finetune configs/finetune/paws_x.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import paws_x


def get_config() -> Finetune:
    return paws_x()
