# SPDX-License-Identifier: Apache-2.0
"""XLM-R base on FineWeb-2 (Penedo et al. 2025), as it is downloaded: over a thousand languages, of which one takes some.

    hf download HuggingFaceFW/fineweb-2 --repo-type dataset --local-dir fineweb-2 --include "data/swh_Latn/train/*" "data/khm_Khmr/train/*"
    mlm-jax pretrain configs/fineweb2.py --workdir gs://BUCKET/fineweb2

Text: `fineweb-2/data/{language}/train/*.parquet`, a document a row, in the column `text`; the languages are the folders' names (ISO
639-3 and script, swh_Latn). Folders of what its filters removed (swh_Latn_removed) are left out. A file is read by ranges of row groups, in
as many processes as there are cores, and no more than a piece of a column is in memory. It has no English, which is FineWeb (HuggingFaceFW/fineweb): a source more, with a path of its own.

Model, objective and optimizer are XLM-R's (configs/xlmr_base.py); sampling counts tokens, because documents of the web differ in length.
"""

import dataclasses

from mlm_jax.config import Config, Sampling, Source
from mlm_jax.shipped import run_config


def get_config() -> Config:
    base: Config = run_config("xlmr_base")["get_config"]()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(
            base.data, sources=(Source("*", "fineweb-2/data/{language}/train/*.parquet", field="text"),)
        ),
        sampling=Sampling(exponent=base.sampling.exponent),
    )
