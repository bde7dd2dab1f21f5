# SPDX-License-Identifier: Apache-2.0
"""MLQA: trained on SQuAD 1.1, tested on 7 languages by each one's own rules (Lewis et al. 2020).

mlm-jax finetune configs/finetune/mlqa.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import mlqa


def get_config() -> Finetune:
    return mlqa()
