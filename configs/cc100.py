# SPDX-License-Identifier: Apache-2.0
"""XLM-R base on CC-100 (Wenzek et al. 2020; Conneau et al. 2020), as it is downloaded: the corpus that XLM-R's authors gave out of theirs.

    mlm-jax pretrain configs/cc100.py --workdir gs://BUCKET/cc100

Text: `cc100/{language}.txt.xz`, a paragraph a line, documents apart by an empty line; the languages are the files' names (sw, zh-Hans,
bn_rom: romanised). A compressed file is read from its begin to its end by one process: to use more cores, unpack it into
`cc100/{language}.txt` and name that in the path, which is then read in slices.

Model, objective and optimizer are XLM-R's (configs/xlmr_base.py), and so is the sampling's exponent.
"""

import dataclasses

from mlm_jax.config import Config, Sampling, Source
from mlm_jax.shipped import run_config


def get_config() -> Config:
    base: Config = run_config("xlmr_base")["get_config"]()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, sources=(Source("*", "cc100/{language}.txt.xz", documents="paragraph"),)),
        sampling=Sampling(exponent=base.sampling.exponent),
    )
