# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of translation_lm.py: XLM-R base on XNLI's 15 languages, with sentence pairs of English and each other.

    mlm-jax study configs/studies/full_translation_lm.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz, parallel/en-{language}.tsv, and held_out/{language}.txt, the same sentences in every language. Four values × three seeds of 30,000 updates.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.evaluate.config import Pairs
from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import HELD_OUT, OTHERS, PIVOT, with_pairs

LAYERS, SHOWN = (4, 8, 12), 8  # XTREME retrieves by a layer in the middle


def get_config() -> Study:
    translation = run_config("studies/translation_lm")
    study: Study = translation["get_config"]()
    base = with_pairs()
    pairs = tuple(Pairs((x, PIVOT), (HELD_OUT.format(language=x), HELD_OUT.format(language=PIVOT))) for x in OTHERS)
    measures, curves = translation["measured"](pairs, LAYERS)
    conclude = partial(translation["conclude"], layer=SHOWN)
    return replace(study, texts=None, base=base, measures=measures, curves=curves, conclude=conclude)
