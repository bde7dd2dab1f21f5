# SPDX-License-Identifier: Apache-2.0
"""XLM-R base on CC-100 (Wenzek et al. 2020; Conneau et al. 2020), as it is downloaded: the corpus that XLM-R's authors gave out of theirs.

    mlm-jax pretrain configs/cc100.py --workdir gs://BUCKET/cc100

Text: `cc100/{language}.txt.xz`, a paragraph a line, documents apart by an empty line; the languages are the files' names (sw, zh-Hans,
bn_rom: romanised). A compressed file is read from its begin to its end by one process: to use more cores, unpack it into
`cc100/{language}.txt` and name that in the path, which is then read in slices.

Model, objective and optimizer are XLM-R's (configs/xlmr_base.py), and so is the sampling's exponent.
"""

from mlm_jax.config import Config, Data, Mesh, Objective, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.model import families


def get_config() -> Config:
    return Config(
        data=Data(
            sources=(Source("*", "cc100/{language}.txt.xz", documents="paragraph"),),
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
