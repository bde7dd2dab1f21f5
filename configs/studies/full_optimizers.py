# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of optimizers.py: AdamW, StableAdamW, Muon, and causal LM first, on XLM-R base and twelve languages of CC-100.

    mlm-jax study configs/studies/full_optimizers.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. Four ways × two numbers of updates × three seeds; Muon's peak rate is four times AdamW's, as it came out of benchmarks/muon.py at small size, and
is to be tried before.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import UPDATES, full, of_updates, text_of

LANGUAGES = ("de", "en", "es", "fr", "hi", "ja", "ru", "sw", "th", "tr", "ur", "vi")
COUNTS = (UPDATES * 3 // 4, UPDATES)


def get_config() -> Study:
    optimizers = run_config("studies/optimizers")
    study: Study = optimizers["get_config"]()
    return replace(
        study,
        texts=None,
        base=full(text_of(LANGUAGES)),
        factors=optimizers["factors"](COUNTS, of_updates, muon=2.8e-3),
        conclude=partial(optimizers["conclude"], updates=COUNTS),
    )
