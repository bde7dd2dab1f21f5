# SPDX-License-Identifier: Apache-2.0
"""mmBERT small (Marone et al. 2025): 141 M parameters, 42 M of them in the layers.

    mlm-jax pretrain configs/mmbert_small.py --workdir gs://BUCKET/mmbert_small

As mmbert_base.py but for its width of 384 and 4 B tokens of warm-up.
"""

import dataclasses
import runpy
from pathlib import Path

from mlm_jax.config import Config
from mlm_jax.model import families


def get_config() -> Config:
    base = runpy.run_path(str(Path(__file__).parent / "mmbert_base.py"))
    config: Config = base["get_config"]()
    return dataclasses.replace(
        config,
        model=families.MMBERT_SMALL,
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=int(4e9 / base["TOKENS"])),
    )
