# SPDX-License-Identifier: Apache-2.0
"""GLUE's nine tasks (Wang et al. 2019), each fine-tuned and measured on its validation set with its own metric.

mlm-jax evaluate configs/evaluate/glue.py --init RUN_OR_HF_FOLDER
"""

from mlm_jax.evaluate.config import Evaluate, Tuned
from mlm_jax.finetune.standard import GLUE, glue


def get_config() -> Evaluate:
    return Evaluate(tuned=tuple(Tuned(task, glue(task)) for task in GLUE))
