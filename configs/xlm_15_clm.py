# SPDX-License-Identifier: Apache-2.0
"""XLM, causal LM on 15 languages of Wikipedia (Conneau and Lample 2019, section 3.1).

    mlm-jax pretrain configs/xlm_15_clm.py --workdir gs://BUCKET/xlm_15_clm

As xlm_15_mlm.py, but each token is predicted from those before it; validation is perplexity per language.
"""

import dataclasses

from mlm_jax.config import Config, Objective
from mlm_jax.model import families
from mlm_jax.shipped import run_config


def get_config() -> Config:
    config: Config = run_config("xlm_15_mlm")["get_config"]()
    return dataclasses.replace(config, model=families.XLM_15_CAUSAL, objective=Objective())
