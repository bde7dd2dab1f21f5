# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of freezing.py: XLM-R base on XNLI's 15 languages, fine-tuned on XNLI, WikiANN and parts of speech with up to nine layers frozen.

    mlm-jax study configs/studies/full_freezing.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz and parallel/en-{language}.tsv; with MLM_JAX_DATA word_alignment/ as in configs/analyze/neutrality.py; the tasks' data come by their names
from TensorFlow Datasets. Two values × two seeds of 30,000 updates, each fine-tuned fifteen times.
"""

from dataclasses import replace
from functools import partial

from mlm_jax.finetune import standard
from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import OTHERS, with_pairs

LAYERS = 12
FROZEN = {"nothing": -1, "embeddings": 0, "3 layers": 3, "6 layers": 6, "9 layers": 9}
TASKS = {"inference": standard.xnli(), "names": standard.wikiann(), "parts of speech": standard.pos()}
METRICS = {"inference": "accuracy", "names": "entity_f1", "parts of speech": "accuracy"}


def get_config() -> Study:
    freezing = run_config("studies/freezing")
    study: Study = freezing["get_config"]()
    of = freezing["tuned"]
    return replace(
        study,
        texts=None,
        base=with_pairs(),
        measures=tuple(
            m for task, tune in TASKS.items() for name, n in FROZEN.items() for m in of(task, name, n, tune)
        ),
        groups={"others": OTHERS},
        curves=freezing["curves"](METRICS, LAYERS),
        draw=partial(freezing["draw"], metrics=METRICS, layers=LAYERS),
        conclude=partial(
            freezing["conclude"], metrics=METRICS, chosen=("embeddings", "3 layers", "6 layers"), layers=LAYERS
        ),
    )
