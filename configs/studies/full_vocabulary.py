# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of vocabulary.py: 32,000 to 250,000 pieces at equal parameters, on seven languages of CC-100.

    mlm-jax study configs/studies/full_vocabulary.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz, and held_out/{language}.txt, the same sentences in every language. Four sizes × three kinds × three seeds of 30,000 updates.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import HELD_OUT, full, text_of

LARGE, SMALL = ("de", "es", "ru"), ("km", "sw", "ur", "uz")
# Pieces → width, for about 190 million parameters in twelve layers.
SIZES = {32_000: 1_024, 64_000: 960, 128_000: 768, 250_000: 576}


def get_config() -> Study:
    vocabulary = run_config("studies/vocabulary")
    study: Study = vocabulary["get_config"]()
    return replace(
        study,
        texts=None,
        base=full(text_of((*LARGE, *SMALL), held_out=True)),
        factors=vocabulary["factors"](SIZES, 64, HELD_OUT),
        groups={"small": SMALL, "large": LARGE},
        conclude=partial(vocabulary["conclude"], few=min(SIZES), many=max(SIZES)),
    )
