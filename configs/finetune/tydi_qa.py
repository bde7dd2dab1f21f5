# SPDX-License-Identifier: Apache-2.0
"""TyDi QA's gold passages: trained on English, tested on 9 languages (Clark et al. 2020; XTREME).

mlm-jax finetune configs/finetune/tydi_qa.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import tydi_qa


def get_config() -> Finetune:
    return tydi_qa()
