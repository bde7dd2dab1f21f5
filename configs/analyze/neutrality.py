# SPDX-License-Identifier: Apache-2.0
"""The probes of Libovický, Rosa and Fraser (2019, 2020): what an encoder's layers know of language; docs/results-neutrality.md.

    MLM_JAX_DATA=FOLDER mlm-jax analyze configs/analyze/neutrality.py --init RUN_OR_HF_FOLDER

Data: FOLDER/tatoeba/tatoeba.{language}-eng.{language} and .eng, whose first 200 lines fit and next 800 test; FOLDER/ntrex/{language}.txt,
aligned over languages (Federmann et al. 2022); FOLDER/word_alignment/{enfr,zhen}.src-tgt and .gold; FOLDER/quality_estimation/
ro-en.{train,test}.tsv (Fomicheva et al. 2020).
"""

import os

from mlm_jax.neutrality.config import Aligned, Analyze, Quality, WordAlignment

FOLDER = os.environ.get("MLM_JAX_DATA", "data")
# NTREX's 56 languages, of 25 genera.
NEWS = """
afr amh arb bul cat ces cym dan deu ell eng est eus fas fin fra gle glg hau heb hin hun ind isl ita jpn kat kaz
kor lav lit mar mkd mlt nld nob pan pol por ron rus slk slv spa swa swe tam tel tha tur ukr urd vie yor zho-CN zul
"""


def get_config() -> Analyze:
    def tatoeba(x: str) -> Aligned:
        files = tuple((y, f"{FOLDER}/tatoeba/tatoeba.{x}-eng.{y}") for y in (x, "eng"))
        return Aligned(f"tatoeba.{x}", files, fit=200, test=800)

    return Analyze(
        pivot="eng",
        aligned=(
            *map(tatoeba, ("deu", "hin", "jpn")),
            Aligned("ntrex", tuple((x, f"{FOLDER}/ntrex/{x}.txt") for x in NEWS.split()), fit=100, test=100),
        ),
        word_alignment=(
            WordAlignment(
                "en-fr", ("eng", "fra"), f"{FOLDER}/word_alignment/enfr.src-tgt", f"{FOLDER}/word_alignment/enfr.gold"
            ),
            WordAlignment(
                "zh-en", ("zho", "eng"), f"{FOLDER}/word_alignment/zhen.src-tgt", f"{FOLDER}/word_alignment/zhen.gold"
            ),
        ),
        quality=(
            Quality(
                "ro-en",
                ("ron", "eng"),
                f"{FOLDER}/quality_estimation/ro-en.test.tsv",
                f"{FOLDER}/quality_estimation/ro-en.train.tsv",
            ),
        ),
        max_length=128,
    )
