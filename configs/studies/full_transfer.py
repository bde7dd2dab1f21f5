# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of transfer.py: XLM-R base on each of eight languages of CC-100 alone and with each other.

    mlm-jax study configs/studies/full_transfer.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. 36 runs × three seeds, 100 million tokens of each language in every run.
"""

from dataclasses import replace

from mlm_jax.config import with_sections
from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import full, of_updates, text_of

EACH = 96  # updates on each language, of a million tokens


def get_config() -> Study:
    transfer = run_config("studies/transfer")
    study: Study = transfer["get_config"]()
    languages = transfer["LANGUAGES"]
    base = with_sections(full(text_of(languages)), sampling={"exponent": 0.0}, model={"causal": True})
    return replace(study, texts=None, base=base, factors=(transfer["pairs_of"](languages, of_updates, EACH),))
