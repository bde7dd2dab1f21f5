# SPDX-License-Identifier: Apache-2.0
"""WikiANN named entities, zero-shot from English on 40 languages; --regime joint or in_language (Pan et al. 2017).

mlm-jax finetune configs/finetune/wikiann.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.standard import wikiann


def get_config() -> Finetune:
    return wikiann()
