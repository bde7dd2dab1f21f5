# SPDX-License-Identifier: Apache-2.0
"""Smoothing: what the sampling exponent gives small languages, and takes from large ones.

mBERT drew languages with exponent 0.7, XLM with 0.5 to 0.7, XLM-R with 0.3 (Conneau et al. 2020, section 5.2 and figure 5: low-resource
languages gain from a smaller exponent, high-resource ones lose); UniMax (Chung et al. 2023) draws evenly up to a cap of repeats. Here: five
languages with 20,000 paragraphs each and five with 600, a vocabulary that does not depend on the exponent, 1,000 updates of 1,024 tokens.

    mlm-jax study configs/studies/smoothing.py --text FOLDER     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Six values × three seeds, about 15 minutes on two cores. Full size: full_smoothing.py.
"""

from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LARGE, SMALL = ("de", "es", "fr", "ru", "ja"), ("fi", "hi", "id", "km", "tr")
EXPONENTS = (1.0, 0.7, 0.5, 0.3, 0.1)


def conclude(results: Results) -> list[Finding]:
    by = "bits_per_byte"

    def even(exponent: str, claim: str, group: str, higher: bool = False) -> Finding:
        return lower(results, claim, by, {"smoothing": exponent}, {"smoothing": "1"}, group, higher)

    return [
        even("0.3", "Low-resource languages gain from drawing them more often (XLM-R, section 5.2)", "small"),
        even("0.3", "High-resource languages lose by it (XLM-R, section 5.2)", "large", True),
        even("0.1", "and where languages are drawn nearly alike", "large", True),
    ]


def get_config() -> Study:
    values = [Value(f"{x:g}", {"sampling.exponent": x}) for x in EXPONENTS]
    values.append(Value("UniMax", {"sampling.strategy": "unimax", "sampling.max_epochs": 30.0}))
    return Study(
        title="Smoothing: what small languages gain, and large ones lose",
        question="How often should a language be drawn that has little text?",
        paper=(
            "Conneau et al. (2020), section 5.2 and figure 5: with exponent 0.3 low-resource languages gain and high-resource languages lose little."
        ),
        texts=Texts({"train": dict.fromkeys(LARGE, 20000) | dict.fromkeys(SMALL, 600)}),
        base=small(text_of("train"), 1_000),
        factors=(Factor("smoothing", tuple(values)),),
        groups={"small": SMALL, "large": LARGE},
        curves=(Curve("bits_per_byte", "smoothing"), Curve("bits_per_byte", "smoothing", "language")),
        conclude=conclude,
    )
