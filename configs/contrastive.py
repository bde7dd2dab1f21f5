# SPDX-License-Identifier: Apache-2.0
"""Sentence vectors of an encoder that is there: translations, titles with their articles, questions with answers, entailment.

    mlm-jax pretrain configs/contrastive.py --init xlm-roberta-base --workdir gs://BUCKET/contrastive

As multilingual e5's first stage (Wang et al. 2024, section 2) in its main choices: mean pooling, prefixes, InfoNCE at a temperature of 0.01, 30,000
updates. Its batches have 32,768 of a billion pairs; here they have 8,192 blocks of up to four pairs, in the memory of 512 (`train.accumulate`). Besides, each
batch is of one kind of text, contradictions are hard negatives (Gao, Yao and Chen 2021), and the first 256 and 512 dimensions serve by themselves (Kusupati et al. 2022).

Text: `pairs/en-{xx}.tsv`, a sentence and its translation; `pairs/articles.jsonl` of any language, with title, body; `pairs/questions.jsonl`, with question and
answer; `pairs/entailment.jsonl`, with anchor, positive and, as hard negatives, contradictions.
"""

import runpy
from pathlib import Path

from mlm_jax.config import Config, Contrastive, Data, Objective, Optimizer, Parallel, Sampling, Train

QUERIES, ANSWERS = (
    ("query: ", "query: "),
    ("query: ", "passage: "),
)  # e5: of two texts alike, and of a question with its answer


def get_config() -> Config:
    languages = runpy.run_path(str(Path(__file__).parent / "xlm_15_mlm.py"))["LANGUAGES"]
    translations = tuple(
        Parallel(("en", code), (f"pairs/en-{code}.tsv",), prefixes=QUERIES) for code in languages if code != "en"
    )
    return Config(
        data=Data(
            parallel=(
                *translations,
                Parallel(
                    ("articles", "articles"), ("pairs/articles.jsonl",), fields=("title", "body"), prefixes=ANSWERS
                ),
                Parallel(
                    ("questions", "questions"),
                    ("pairs/questions.jsonl",),
                    fields=("question", "answer"),
                    prefixes=ANSWERS,
                ),
                Parallel(
                    ("entailment", "entailment"),
                    ("pairs/entailment.jsonl",),
                    fields=("anchor", "positive", "negative"),
                    prefixes=QUERIES,
                ),
            ),
            sequence_length=256,
            packing="pairs",
            pairs_per_block=4,
        ),
        sampling=Sampling(exponent=0.5, count="documents"),
        objective=Objective(learn="contrastive"),
        contrastive=Contrastive(temperature=0.01, margin=0.0, matryoshka=(256, 512), batches="by_stream"),
        optimizer=Optimizer(learning_rate=2e-4, warmup_share=0.05, weight_decay=0.01),
        train=Train(steps=30_000, batch_size=8_192, accumulate=16, validation_blocks=64),
    )
