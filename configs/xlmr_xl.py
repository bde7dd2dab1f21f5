# SPDX-License-Identifier: Apache-2.0
"""XLM-R XL (Goyal et al. 2021): 3.5 B parameters, pre-norm.

    mlm-jax pretrain configs/xlmr_xl.py --workdir gs://BUCKET/xlmr_xl

As xlmr_base.py but for its size. The learning rate is a guess: no source at hand prints one. The checkpoint has 250,880 embedding rows for 250,002 pieces.
"""

import dataclasses

from mlm_jax.config import Config, Mesh
from mlm_jax.model import families
from mlm_jax.shipped import run_config


def get_config() -> Config:
    base: Config = run_config("xlmr_base")["get_config"]()
    return dataclasses.replace(
        base,
        vocabulary=dataclasses.replace(base.vocabulary, size=families.XLMR_XL_VOCABULARY),
        model=families.XLMR_XL,
        optimizer=dataclasses.replace(base.optimizer, learning_rate=1e-4),
        mesh=Mesh(data=1, fsdp=-1),
    )
