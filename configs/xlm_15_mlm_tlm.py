# SPDX-License-Identifier: Apache-2.0
"""XLM, masked and translation LM on 15 languages (Conneau and Lample 2019, section 3.3): zero-shot XNLI 75.1.

    mlm-jax pretrain configs/xlm_15_mlm_tlm.py --workdir gs://BUCKET/xlm_15_mlm_tlm

As xlm_15_mlm.py, and half of the blocks hold sentence pairs of English with each other language, `parallel/en-{xx}.tsv`:
positions begin again with the second sentence, each token has its language's embedding, and both sides are masked
together. The paper alternates the two objectives update by update and fills a pair batch with 4,000 tokens of similar
lengths; here every batch has both, and pairs are packed, each attending within itself.
"""

import dataclasses

from mlm_jax.config import Config, Parallel
from mlm_jax.shipped import run_config


def get_config() -> Config:
    mlm = run_config("xlm_15_mlm")
    config: Config = mlm["get_config"]()
    pairs = tuple(Parallel(("en", code), (f"parallel/en-{code}.tsv",)) for code in mlm["LANGUAGES"] if code != "en")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, parallel=pairs),
        sampling=dataclasses.replace(config.sampling, parallel_share=0.5),
    )
