# SPDX-License-Identifier: Apache-2.0
"""XLM-R base on FineWeb-2 (Penedo et al. 2025), as it is downloaded: over a thousand languages, of which one takes some.

    hf download HuggingFaceFW/fineweb-2 --repo-type dataset --local-dir fineweb-2 --include "data/swh_Latn/train/*" "data/khm_Khmr/train/*"
    mlm-jax pretrain configs/fineweb2.py --workdir gs://BUCKET/fineweb2

Text: `fineweb-2/data/{language}/train/*.parquet`, a document a row, in the column `text`; the languages are the folders' names (ISO
639-3 and script, swh_Latn). Folders of what its filters removed (swh_Latn_removed) are left out. A file is read by ranges of row groups, in
as many processes as there are cores, and no more than a piece of a column is in memory. It has no English, which is FineWeb (HuggingFaceFW/fineweb): a source more, with a path of its own.

Model, objective and optimizer are XLM-R's (configs/xlmr_base.py); sampling counts bytes, because documents of the web differ in length.
"""

from mlm_jax.config import Config, Data, Mesh, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families


def get_config() -> Config:
    return Config(
        data=Data(
            sources=(Source("*", "fineweb-2/data/{language}/train/*.parquet", field="text"),),
            sequence_length=512,
            validation_fraction=0.001,
        ),
        vocabulary=Vocabulary(size=families.XLMR_VOCABULARY, byte_fallback=False, sample_bytes=500_000_000),
        sampling=Sampling(exponent=0.3),
        model=families.XLMR_BASE,
        objective=Objective(mask_specials="all"),
        optimizer=Optimizer(learning_rate=7e-4, schedule="linear", warmup_steps=10_000, clip_norm=0.0),
        train=Train(steps=1_500_000, batch_size=8_192, validate_every=10_000, save_every=2_000),
        mesh=Mesh(data=-1),
    )
