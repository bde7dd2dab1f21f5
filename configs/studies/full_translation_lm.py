# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of translation_lm.py: XLM-R base on XNLI's 15 languages, with sentence pairs of English and each other.

    MLM_JAX_DATA=DATA mlm-jax study configs/studies/full_translation_lm.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz, parallel/en-{language}.tsv, and held_out/{language}.txt, the same sentences in every language; with MLM_JAX_DATA word_alignment/ as in
configs/analyze/neutrality.py. Four values × three seeds of 30,000 updates.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import held_out, with_pairs

LAYER, FIT, TEST = 8, 700, 300  # XTREME retrieves by a layer in the middle


def get_config() -> Study:
    translation = run_config("studies/translation_lm")
    study: Study = translation["get_config"]()
    measures, curves = translation["measured"](held_out(FIT, TEST), LAYER)
    return replace(
        study,
        texts=None,
        base=with_pairs(),
        measures=measures,
        curves=curves,
        conclude=partial(translation["conclude"], layer=LAYER),
    )
