# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of joint.py: Nepali, as in XLM's table 4, alone, with English, with Hindi, and with seven languages of CC-100.

    mlm-jax study configs/studies/full_joint.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. Four values × two objectives × three seeds, 4,000 updates on Nepali in each: its 1.4 GB are seen some ten times.
"""

from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import full, of_updates, text_of

SMALL, NEAR, FAR, MORE = "ne", "hi", "en", ("bn", "fr", "gu", "mr", "ru")
EACH = 4_000  # updates on Nepali


def get_config() -> Study:
    joint = run_config("studies/joint")
    study: Study = joint["get_config"]()
    others = joint["others_of"](SMALL, NEAR, FAR, MORE, of_updates, EACH)
    base = replace(full(text_of((SMALL, NEAR, FAR, *MORE))), sampling=Sampling(exponent=0.0))
    return replace(study, texts=None, base=base, factors=(others, joint["LM"]), groups={"small": (SMALL,)})
