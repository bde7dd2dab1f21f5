# SPDX-License-Identifier: Apache-2.0
"""An encoder with a vocabulary of its own for your languages, whose rows begin from the old ones (docs/adapt.md).

    mlm-jax adapt configs/adapt/replace.py --init RUN_OR_HF_FOLDER --workdir runs/replaced
    mlm-jax pretrain mine.py --workdir runs/replaced

Data: text/{language}.txt, one document per line, of all languages wanted. Pieces that the old vocabulary has keep their rows; the others
begin as FOCUS has them (Dobler and de Melo 2023). Much of the text is cut otherwise, so the encoder has to be trained on before it is used.
"""

from mlm_jax.adapt.config import Adapt
from mlm_jax.config import Data, Sampling, Source, Vocabulary


def get_config() -> Adapt:
    return Adapt(
        change="replace",
        rows="focus",
        data=Data(sources=(Source("*", "text/{language}.txt"),)),
        vocabulary=Vocabulary(size=32_000, model="unigram"),
        sampling=Sampling(exponent=0.3),
    )
