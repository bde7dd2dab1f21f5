# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of neutrality.py: XLM-R base on XNLI's 15 languages, probed at ten checkpoints.

    mlm-jax study configs/studies/full_neutrality.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz, parallel/en-{language}.tsv, and held_out/{language}.txt, the same sentences in every language. Two values × three seeds of 30,000 updates.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.config import with_sections
from mlm_jax.shipped import run_config
from mlm_jax.study.config import Measure, Study
from mlm_jax.study.full import PIVOT, UPDATES, held_out, with_pairs

LAYER, EACH = 8, 400  # sentences that probes are fitted on, and as many that they are tried on


def get_config() -> Study:
    neutrality = run_config("studies/neutrality")
    study: Study = neutrality["get_config"]()
    checkpoints = neutrality["CHECKPOINTS"]
    base = with_sections(
        with_pairs(),
        train={"save_every": UPDATES // checkpoints, "keep_last": checkpoints},
    )
    return replace(
        study,
        texts=None,
        base=base,
        measures=(Measure("probes", neutrality["probes_of"](held_out(EACH, EACH), PIVOT)),),
        curves=neutrality["curves"](LAYER),
        conclude=partial(neutrality["conclude"], layer=LAYER, updates=UPDATES),
    )
