# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of schedules.py: mmBERT's schedules of masks and languages, each by itself, on XLM-R base and twelve languages of CC-100.

    mlm-jax study configs/studies/full_schedules.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. Three × two values × three seeds of 30,000 updates.
"""

from dataclasses import replace

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import LARGE, SMALL, UPDATES, full, text_of


def get_config() -> Study:
    schedules = run_config("studies/schedules")
    study: Study = schedules["get_config"]()
    return replace(
        study,
        texts=None,
        base=full(text_of((*LARGE, *SMALL))),
        factors=schedules["factors"](LARGE, UPDATES),
        groups={"small": SMALL, "large": LARGE},
    )
