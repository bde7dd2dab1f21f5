# SPDX-License-Identifier: Apache-2.0
"""Natural language inference in six languages, small enough for two cores; the figures are in docs/results-transfer.md.

    MLM_JAX_DATA=FOLDER mlm-jax finetune configs/finetune/small_xnli.py --init FOLDER --workdir runs/xnli_zero_shot

Data: FOLDER/xnli/{language}.dev.tsv and .test.tsv, lines of label, premise and hypothesis (XNLI, Conneau et al. 2018). The dev sets
are what is trained on: 2,490 pairs, the same translated. So nothing chooses a checkpoint: the last is tested, on 1,000 test pairs.
"""

import os
from dataclasses import replace

from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train

FOLDER = os.environ.get("MLM_JAX_DATA", "data") + "/xnli"
LANGUAGES = ("en", "sw", "de", "es", "hi", "zh")


def get_config() -> Finetune:
    return Finetune(
        regime="zero_shot",
        source="en",
        data=Data(
            train=tuple(Labelled(x, f"{FOLDER}/{x}.dev.tsv") for x in LANGUAGES),
            test=tuple(Labelled(x, f"{FOLDER}/{x}.test.tsv", last=1_000) for x in LANGUAGES),
            columns=("label", "premise", "hypothesis"),
            text="premise",
            pair="hypothesis",
            max_length=128,
        ),
        task=Task(kind="classify", pooling="mean"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=1e-4),
        train=Train(epochs=3, batch_size=32),
    )
