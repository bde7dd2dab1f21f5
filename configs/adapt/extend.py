# SPDX-License-Identifier: Apache-2.0
"""An encoder for languages that its vocabulary cuts into crumbs, or does not know: new pieces after the old ones (docs/adapt.md).

    mlm-jax adapt configs/adapt/extend.py --init RUN_OR_HF_FOLDER --workdir runs/extended
    mlm-jax pretrain mine.py --workdir runs/extended

Data: text/{language}.txt, one document per line, of the new languages. New rows begin as FOCUS has them (Dobler and de Melo 2023). Give
`mine.py` text of the old languages too, or they are forgotten.
"""

from mlm_jax.adapt.config import Adapt
from mlm_jax.config import Data, Sampling, Source, Vocabulary


def get_config() -> Adapt:
    return Adapt(
        change="extend",
        rows="focus",
        data=Data(sources=(Source("*", "text/{language}.txt"),)),
        vocabulary=Vocabulary(size=10_000),
        sampling=Sampling(exponent=0.3),
    )
