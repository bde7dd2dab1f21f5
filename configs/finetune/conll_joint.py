# SPDX-License-Identifier: Apache-2.0
"""CoNLL named entities, one model on all languages together (XLM-R, table 4); --regime zero_shot or in_language.

mlm-jax finetune configs/finetune/conll_joint.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import conll


def get_config() -> Finetune:
    return conll("joint")
