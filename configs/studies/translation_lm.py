# SPDX-License-Identifier: Apache-2.0
"""Translation LM: what blocks of sentence pairs do to retrieval, and to bits per byte.

XLM (Lample and Conneau 2019, sections 3.3 and 5.1) adds translation LM to masked LM, and zero-shot XNLI rises by 3.6 points; here the share of blocks
that hold pairs goes from none to a half, at equal updates, and translations of held-out paragraphs are retrieved by their vectors.

    mlm-jax study configs/studies/translation_lm.py --text FOLDER     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Four values × three seeds, about 35 minutes on two cores. Full size: configs/xlm_15_mlm_tlm.py, the same factor.
"""

from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.evaluate.config import Evaluate, Pairs, Retrieval
from mlm_jax.study.config import Curve, Factor, Measure, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import pairs_with, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LANGUAGES = ("de", "es", "fi", "ru", "tr")
METRIC = "held out accuracy"


def conclude(results: Results) -> list[Finding]:
    none, half = {"pairs": "0"}, {"pairs": "0.5"}
    return [
        lower(results, "Translation LM aligns languages (XLM, section 5.1)", METRIC, half, none, higher=True),
        lower(
            results,
            "Its blocks are taken from masked LM's, which has less of each language",
            "bits_per_byte",
            half,
            none,
            higher=True,
        ),
    ]


def get_config() -> Study:
    shares = tuple(Value(f"{x:g}", {"sampling.parallel_share": x}) for x in (0.0, 0.1, 0.25, 0.5))
    pairs, parallel = pairs_with("en", LANGUAGES, 6_000)
    base = small(text_of("train"), 1_500)
    held_out = tuple(Pairs((x, "en"), (f"{{text}}/held_out/{x}.txt", "{text}/held_out/en.txt")) for x in LANGUAGES)
    return Study(
        title="Translation LM: what blocks of pairs do",
        question="How many blocks of sentence pairs does it take for translations to be near each other?",
        paper="Lample and Conneau (2019), sections 3.3 and 5.1: MLM + TLM is 3.6 points above MLM on zero-shot XNLI.",
        texts=Texts({"train": dict.fromkeys(("en", *LANGUAGES), 8_000)}, pairs),
        base=replace(base, data=replace(base.data, parallel=parallel), sampling=Sampling(exponent=0.3)),
        factors=(Factor("pairs", shares),),
        measures=(
            Measure("retrieval", Evaluate(max_length=64, retrieval=(Retrieval("held out", held_out, layer=1),))),
        ),
        curves=(Curve(METRIC, "pairs", "language"), Curve("bits_per_byte", "pairs", "language")),
        conclude=conclude,
    )
