# SPDX-License-Identifier: Apache-2.0
"""XQuAD: trained on SQuAD 1.1, tested on 11 languages (Artetxe et al. 2020).

mlm-jax finetune configs/finetune/xquad.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import xquad


def get_config() -> Finetune:
    return xquad()
