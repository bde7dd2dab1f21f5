# SPDX-License-Identifier: Apache-2.0
"""ModernBERT large (Warner et al. 2024), on many languages: 396 M parameters with its own 50,368 pieces.

    mlm-jax pretrain configs/modernbert_large.py --workdir gs://BUCKET/modernbert_large

As modernbert_base.py but for its size, a learning rate of 5e-4 and batches of 4,928. The paper's run was rolled back after
900 B tokens and went on at 5e-5, which is not expressed here.
"""

import dataclasses
import runpy
from pathlib import Path

from mlm_jax.config import Config, Mesh
from mlm_jax.model import families


def get_config() -> Config:
    base: Config = runpy.run_path(str(Path(__file__).parent / "modernbert_base.py"))["get_config"]()
    return dataclasses.replace(
        base,
        model=families.MODERNBERT_LARGE,
        optimizer=dataclasses.replace(base.optimizer, learning_rate=5e-4, weight_decay=1e-5 / 5e-4),
        train=dataclasses.replace(base.train, batch_size=4_928),
        mesh=Mesh(data=1, fsdp=-1),
    )
