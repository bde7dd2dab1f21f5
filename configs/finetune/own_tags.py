# SPDX-License-Identifier: Apache-2.0
"""Your own tagged words: named entities, parts of speech. Trained on English, tested on every language.

    mlm-jax finetune configs/finetune/own_tags.py --init RUN_OR_HF_FOLDER

Data: data/ner/{language}.train.conll, .dev.conll and .test.conll, a word, a tab and its tag per line, a blank line between sentences.
"""

from dataclasses import replace

from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train

LANGUAGES = ("en", "de", "es", "nl")


def get_config() -> Finetune:
    def files(split: str) -> tuple[Labelled, ...]:
        return tuple(Labelled(x, f"data/ner/{x}.{split}.conll") for x in LANGUAGES)

    return Finetune(
        regime="zero_shot",
        source="en",
        data=Data(train=files("train"), dev=files("dev"), test=files("test"), max_length=128),
        task=Task(kind="tag"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=5e-5),
        train=Train(epochs=3, batch_size=32),
    )
