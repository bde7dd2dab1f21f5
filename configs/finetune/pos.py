# SPDX-License-Identifier: Apache-2.0
"""Universal part-of-speech tags, zero-shot from English on 33 languages (XTREME; Wu and Dredze 2019).

mlm-jax finetune configs/finetune/pos.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import pos


def get_config() -> Finetune:
    return pos()
