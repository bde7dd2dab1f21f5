# SPDX-License-Identifier: Apache-2.0
"""XTREME (Hu et al. 2020), all nine tasks: what is fine-tuned on English and tested on up to 40 languages, and retrieval.

    mlm-jax evaluate configs/evaluate/xtreme.py --init RUN_OR_HF_FOLDER

Data come by their names from TensorFlow Datasets; BUCC's are yours: data/bucc2018/{language}-en.{dev,test}.{language,en,gold}
(Zweigenbaum et al. 2017). Retrieval reads the mean of the last layer, as `layer` and `pooling` say; XTREME took layer 7 of base models.
"""

from mlm_jax.evaluate.config import Corpora, Evaluate, Mining, Pairs, Retrieval, Tuned
from mlm_jax.finetune import standard

BUCC = ("de", "fr", "ru", "zh")
TATOEBA = tuple(x for x in standard.WIKIANN if x not in ("en", "ms", "my", "yo"))


def get_config() -> Evaluate:
    def tatoeba(x: str) -> Pairs:
        name = f"tfds:tatoeba/tatoeba_{x}:train"
        return Pairs((x, "en"), (f"{name}#source_sentence", f"{name}#target_sentence"))

    def bucc(x: str) -> Corpora:
        def files(split: str) -> tuple[str, str, str]:
            stem = f"data/bucc2018/{x}-en.{split}"
            return f"{stem}.{x}", f"{stem}.en", f"{stem}.gold"

        return Corpora((x, "en"), files("dev"), files("test"))

    return Evaluate(
        tuned=(
            Tuned("xnli", standard.xnli()),
            Tuned("paws_x", standard.paws_x()),
            Tuned("pos", standard.pos()),
            Tuned("wikiann", standard.wikiann()),
            Tuned("xquad", standard.xquad()),
            Tuned("mlqa", standard.mlqa()),
            Tuned("tydi_qa", standard.tydi_qa()),
        ),
        retrieval=(Retrieval("tatoeba", tuple(map(tatoeba, TATOEBA))),),
        mining=(Mining("bucc", tuple(map(bucc, BUCC))),),
    )
