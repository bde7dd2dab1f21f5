# SPDX-License-Identifier: Apache-2.0
"""Your own classes of texts: a classifier trained on English, tested on two languages more, and used on all the encoder knows.

    mlm-jax finetune configs/finetune/own_classes.py --init RUN_OR_HF_FOLDER
    mlm-jax predict runs/own_classes texts.tsv labels.jsonl

Data: data/classes/{language}.train.tsv, .dev.tsv and .test.tsv, whose first line names the columns: text and label.
"""

from dataclasses import replace

from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train


def get_config() -> Finetune:
    return Finetune(
        regime="zero_shot",
        source="en",
        data=Data(
            train=(Labelled("en", "data/classes/en.train.tsv"),),
            dev=(Labelled("en", "data/classes/en.dev.tsv"),),
            test=tuple(Labelled(x, f"data/classes/{x}.test.tsv") for x in ("en", "de", "sw")),
            text="text",
            label="label",
            max_length=128,
        ),
        task=Task(kind="classify", pooling="mean"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=3, batch_size=32),
    )
