# SPDX-License-Identifier: Apache-2.0
"""Multilingual BERT, uncased (google-research/bert, multilingual.md): 102 languages, lower-cased, without accents.

    mlm-jax pretrain configs/mbert_uncased.py --workdir gs://BUCKET/mbert_uncased

As mbert_cased.py but for its 105,879 pieces. Google advises against it: it takes accents off where they matter.
"""

import dataclasses

from mlm_jax.config import Config
from mlm_jax.model import families
from mlm_jax.shipped import run_config


def get_config() -> Config:
    cased: Config = run_config("mbert_cased")["get_config"]()
    return dataclasses.replace(
        cased,
        vocabulary=dataclasses.replace(cased.vocabulary, size=families.MBERT_UNCASED_VOCABULARY, lowercase=True),
    )
