# SPDX-License-Identifier: Apache-2.0
"""Retrieval, news text and XNLI in a few minutes on two cores; the figures are in docs/results-transfer.md.

    MLM_JAX_DATA=FOLDER mlm-jax evaluate configs/evaluate/small.py --init FOLDER

Data: FOLDER/tatoeba/tatoeba.{language}-eng.{language} and .eng (Artetxe and Schwenk 2019), FOLDER/ntrex/{language}.txt (Federmann et
al. 2022), whose sentences are aligned over languages.
"""

import os

from mlm_jax.evaluate.config import Evaluate, Pairs, Retrieval

FOLDER = os.environ.get("MLM_JAX_DATA", "data")
LANGUAGES = ("deu", "hin", "jpn", "rus", "spa", "swh", "tur")
NEWS = {"deu": "deu", "jpn": "jpn", "swh": "swa"}  # as the files are named


def get_config() -> Evaluate:
    def tatoeba(x: str) -> Pairs:
        return Pairs((x, "eng"), (f"{FOLDER}/tatoeba/tatoeba.{x}-eng.{x}", f"{FOLDER}/tatoeba/tatoeba.{x}-eng.eng"))

    def ntrex(x: str) -> Pairs:
        return Pairs((x, "eng"), (f"{FOLDER}/ntrex/{NEWS[x]}.txt", f"{FOLDER}/ntrex/eng.txt"))

    return Evaluate(
        source="eng",
        retrieval=(
            Retrieval("tatoeba", tuple(map(tatoeba, LANGUAGES))),
            Retrieval("tatoeba_margin", tuple(map(tatoeba, LANGUAGES)), score="margin"),
            Retrieval("ntrex", tuple(map(ntrex, NEWS))),
        ),
    )
