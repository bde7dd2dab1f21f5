# SPDX-License-Identifier: Apache-2.0
"""Named entities in four languages, small enough for two cores; the figures are in docs/results-transfer.md.

    MLM_JAX_DATA=FOLDER mlm-jax finetune configs/finetune/small_ner.py --init FOLDER --regime joint --workdir runs/ner_joint

Data: FOLDER/ner/{language}.train.conll and .test.conll, a word, a tab and its IOB2 tag per line (WikiNEuRal, Tedeschi et al. 2021):
1,500 sentences to train on, 200 others to choose by, 500 to test.
"""

import os
from dataclasses import replace

from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train

FOLDER = os.environ.get("MLM_JAX_DATA", "data") + "/ner"
LANGUAGES = ("en", "de", "es", "nl")


def get_config() -> Finetune:
    return Finetune(
        regime="zero_shot",
        source="en",
        data=Data(
            train=tuple(Labelled(x, f"{FOLDER}/{x}.train.conll", last=1_500) for x in LANGUAGES),
            dev=tuple(Labelled(x, f"{FOLDER}/{x}.train.conll", first=4_801) for x in LANGUAGES),
            test=tuple(Labelled(x, f"{FOLDER}/{x}.test.conll", last=500) for x in LANGUAGES),
            max_length=128,
        ),
        task=Task(kind="tag"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-4),
        train=Train(epochs=5, batch_size=16),
    )
