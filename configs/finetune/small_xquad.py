# SPDX-License-Identifier: Apache-2.0
"""Extractive questions in four languages, small enough for two cores; the figures are in docs/results-transfer.md.

    MLM_JAX_DATA=FOLDER mlm-jax finetune configs/finetune/small_xquad.py --init FOLDER --workdir runs/xquad

Data: FOLDER/xquad/xquad.{language}.json (XQuAD, Artetxe et al. 2020). English paragraphs 1 to 160 are trained on, the same
paragraphs' translations are not seen; the others are tested in every language.
"""

import os
from dataclasses import replace

from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train

FOLDER = os.environ.get("MLM_JAX_DATA", "data") + "/xquad"
LANGUAGES = ("en", "es", "de", "hi")


def get_config() -> Finetune:
    return Finetune(
        regime="zero_shot",
        source="en",
        data=Data(
            train=(Labelled("en", f"{FOLDER}/xquad.en.json", last=160),),
            test=tuple(Labelled(x, f"{FOLDER}/xquad.{x}.json", first=161) for x in LANGUAGES),
            max_length=256,
            stride=128,
        ),
        task=Task(kind="span"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-4),
        train=Train(epochs=3, batch_size=16),
    )
