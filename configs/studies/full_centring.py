# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of centring.py: XLM-R base on XNLI's 15 languages, and what six transformations take out of its vectors.

    mlm-jax study configs/studies/full_centring.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz, parallel/en-{language}.tsv, held_out/{language}.txt, the same sentences in every language, and held_out/topics.txt, what each of them is about
(SIB-200 has that of FLORES); with MLM_JAX_DATA word_alignment/ as in configs/analyze/neutrality.py. Two values × three seeds of 30,000 updates.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Measure, Study
from mlm_jax.study.full import held_out, with_pairs

LAYER, FIT, TEST = 8, 700, 300


def get_config() -> Study:
    centring = run_config("studies/centring")
    study: Study = centring["get_config"]()
    base = with_pairs()
    probes = centring["probes_of"](held_out(FIT, TEST, "held_out/topics.txt"))
    return replace(
        study,
        texts=None,
        base=base,
        measures=(Measure("probes", probes),),
        curves=centring["curves"](LAYER),
        conclude=partial(centring["conclude"], layer=LAYER),
    )
