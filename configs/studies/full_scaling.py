# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of scaling.py: widths 256 to 768 at three numbers of updates, and width 1,024 predicted by them and trained.

    mlm-jax study configs/studies/full_scaling.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. Four widths × three numbers of updates × three seeds, less those that are predicted at fewer updates.
"""

from mlm_jax.config import with_sections
from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import OTHERS, PIVOT, UPDATES, full, of_updates, of_width, text_of

WIDTHS = (256, 512, 768, 1_024)
COUNTS = (UPDATES // 4, UPDATES // 2, UPDATES)


def get_config() -> Study:
    base = with_sections(full(text_of((PIVOT, *OTHERS))), model={"causal": True})
    study: Study = run_config("studies/scaling")["study"](base, WIDTHS, COUNTS, of_width, of_updates)
    return study
