# SPDX-License-Identifier: Apache-2.0
"""The vocabulary's own exponent: how its sample's languages are drawn, and into how many pieces each is cut.

XLM-R (Conneau et al. 2020, section 5.2): with a vocabulary whose sample favours large languages small ones fall into many pieces. Here the exponent by which both the
vocabulary's sample and the batches are drawn goes from 1 to 0.1; what a vocabulary does is seen in the tokens of the same held-out paragraphs, which training does not move.

    mlm-jax study configs/studies/vocabulary_exponent.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Five values × three seeds of 300 updates, about 10 minutes on two cores. Full size: full_vocabulary_exponent.py.
"""

from mlm_jax.study.config import Curve, Study, vary
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LARGE, SMALL = ("de", "es", "fr", "ru", "ja"), ("fi", "hi", "id", "km", "tr")


def conclude(results: Results) -> list[Finding]:
    even, natural = {"exponent": "0.3"}, {"exponent": "1"}
    return [
        lower(
            results,
            "Small languages are cut into fewer pieces (XLM-R, section 5.2)",
            "tokens_per_document",
            even,
            natural,
            "small",
        ),
        lower(results, "and large ones into more", "tokens_per_document", even, natural, "large", higher=True),
        lower(results, "Languages are cut more evenly", "gini", even, natural),
    ]


def get_config() -> Study:
    return Study(
        title="The vocabulary's own exponent",
        question="Into how many pieces is a language with little text cut?",
        paper="Conneau et al. (2020), section 5.2: vocabularies and batches are drawn with the same exponent.",
        texts=Texts({"train": dict.fromkeys(LARGE, 20_000) | dict.fromkeys(SMALL, 600)}),
        base=small(text_of("train"), 300),
        factors=(vary("sampling.exponent", 1.0, 0.7, 0.5, 0.3, 0.1, of_vocabulary=True),),
        groups={"small": SMALL, "large": LARGE},
        curves=(
            Curve("tokens_per_document", "exponent"),
            Curve("tokens_per_document", "exponent", "language"),
            Curve("gini", "exponent", groups=("all",)),
        ),
        conclude=conclude,
    )
