# SPDX-License-Identifier: Apache-2.0
"""Vectors of texts: translations, similarity as people see it, search and topics, in minutes on two cores; figures in docs/results-embeddings.md.

    python benchmarks/embedding_sets.py FOLDER FOLDER/embeddings        # search and topics, of XQuAD and the LibreOffice help
    MLM_JAX_DATA=FOLDER MLM_JAX_PROMPT="query: " mlm-jax evaluate configs/evaluate/embeddings.py --init ENCODER

Vectors are those the encoder was trained to make (`pooling` own), else the mean of its last layer; MLM_JAX_PROMPT is put before every text, MLM_JAX_PASSAGE before
a document ("query: " and "passage: " for e5, nothing for most others). Data: FOLDER/tatoeba/tatoeba.{language}-eng.{language} and .eng (Artetxe and
Schwenk 2019), FOLDER/ntrex/{language}.txt (Federmann et al. 2022), FOLDER/quality_estimation/ro-en.test.tsv (Fomicheva et al. 2022: how good a translation is,
which similarity follows in part). What is not there is left out.
"""

import os
from pathlib import Path

from mlm_jax.evaluate.config import (
    Classed,
    Classification,
    Clustering,
    Collection,
    Evaluate,
    Pairs,
    Retrieval,
    Scored,
    Search,
    Similarity,
)

FOLDER = os.environ.get("MLM_JAX_DATA", "data")
PROMPT = os.environ.get("MLM_JAX_PROMPT", "")
PASSAGE = os.environ.get("MLM_JAX_PASSAGE", PROMPT)
TATOEBA = ("deu", "hin", "jpn", "kat", "rus", "swh", "tel", "tur")
NEWS = ("deu", "hin", "swa")
ASKED = ("en", "de", "es", "hi")  # XQuAD's
TOPICS = ("en", "de", "el", "hi", "ja", "ru")


def get_config() -> Evaluate:
    sets = f"{FOLDER}/embeddings"

    def tatoeba(x: str) -> Pairs:
        return Pairs((x, "eng"), (f"{FOLDER}/tatoeba/tatoeba.{x}-eng.{x}", f"{FOLDER}/tatoeba/tatoeba.{x}-eng.eng"))

    def ntrex(x: str) -> Pairs:
        return Pairs((x, "eng"), (f"{FOLDER}/ntrex/{x}.txt", f"{FOLDER}/ntrex/eng.txt"))

    def questions(x: str) -> Collection:
        return Collection((x, "en"), f"{sets}/questions.{x}.tsv", f"{sets}/paragraphs.en.tsv", f"{sets}/answers.tsv")

    def topics(x: str, part: str) -> Classed:
        return Classed(x, f"{sets}/topics.{x}.{part}.tsv")

    quality = Scored(("ro", "en"), f"{FOLDER}/quality_estimation/ro-en.test.tsv", ("original", "translation", "mean"))
    has_sets, has_quality = Path(sets).is_dir(), Path(quality.path).is_file()
    found = [topics(x, "test") for x in TOPICS]
    return Evaluate(
        source="eng",
        retrieval=(
            Retrieval("tatoeba", tuple(map(tatoeba, TATOEBA)), pooling="own", prompt=PROMPT),
            Retrieval("ntrex", tuple(map(ntrex, NEWS)), pooling="own", prompt=PROMPT),
        ),
        similarity=(Similarity("quality", (quality,), prompt=PROMPT),) if has_quality else (),
        search=(Search("xquad", tuple(map(questions, ASKED)), prompts=(PROMPT, PASSAGE), recall=10),)
        if has_sets
        else (),
        clustering=(Clustering("topic_clusters", tuple(found), prompt=PROMPT),) if has_sets else (),
        classification=(Classification("topics", topics("en", "train"), tuple(found), prompt=PROMPT),)
        if has_sets
        else (),
    )
