# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of vocabulary_exponent.py: 250,002 pieces, six large and six small languages of CC-100.

    mlm-jax study configs/studies/full_vocabulary_exponent.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz, and held_out/{language}.txt, the same sentences in every language. What a vocabulary does is seen without training: one update per run.
"""

from dataclasses import replace

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import LARGE, SMALL, full, text_of


def get_config() -> Study:
    study: Study = run_config("studies/vocabulary_exponent")["get_config"]()
    base = full(text_of((*LARGE, *SMALL), held_out=True), steps=1)
    return replace(study, texts=None, base=base, seeds=(0,), groups={"small": SMALL, "large": LARGE})
