# SPDX-License-Identifier: Apache-2.0
"""A smaller encoder for your languages: of its vocabulary only the pieces that occur in their text (docs/adapt.md).

    mlm-jax adapt configs/adapt/trim.py --init RUN_OR_HF_FOLDER --workdir runs/small
    mlm-jax export runs/small SMALL

Data: text/{language}.txt, one document per line, of the languages that the encoder is wanted for. Give it much text: what occurs in
none of it cannot be written as well as before.
"""

from mlm_jax.adapt.config import Adapt
from mlm_jax.config import Data, Source


def get_config() -> Adapt:
    return Adapt(change="trim", data=Data(sources=(Source("*", "text/{language}.txt"),)))
