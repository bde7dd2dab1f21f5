# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of smoothing.py: XLM-R base on six large and six small languages of CC-100.

    mlm-jax study configs/studies/full_smoothing.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. Six values × three seeds of 30,000 updates.
"""

from dataclasses import replace

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import LARGE, SMALL, full, text_of


def get_config() -> Study:
    study: Study = run_config("studies/smoothing")["get_config"]()
    return replace(study, texts=None, base=full(text_of((*LARGE, *SMALL))), groups={"small": SMALL, "large": LARGE})
