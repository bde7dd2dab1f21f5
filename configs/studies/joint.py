# SPDX-License-Identifier: Apache-2.0
"""Joint pretraining: what other languages give a language with little text.

XLM's table 4 (Lample and Conneau 2019): the perplexity of Nepali falls from 157 to 140 with English, to 116 with Hindi, which is close to
it, and to 110 with both; XLM-R calls it positive transfer. Here the small language is Brazilian Portuguese with 600 paragraphs, alone, with Turkish,
with Spanish, which is close, and with seven; as masked and as causal language models. Languages are drawn evenly, and each run has as many updates on
Portuguese as every other. Vocabulary and blocks are the same in all: only what is drawn differs.

    mlm-jax study configs/studies/joint.py --text FOLDER     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Four values × two objectives × three seeds, about 40 minutes on two cores. Full size: full_joint.py, of Nepali.
"""

from collections.abc import Callable
from dataclasses import replace

from mlm_jax.config import Config, Sampling
from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import of_updates, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

SMALL, NEAR, FAR, MORE = "pt_BR", "es", "tr", ("fr", "it", "de", "nl", "fi")
EACH = 400  # updates on the small language


def others_of(
    small: str, near: str, far: str, more: tuple[str, ...], updates: Callable[[Config, int], Config], each: int
) -> Factor:
    """What is drawn beside the small language, with so many updates on each."""

    def drawn(label: str, *others: str) -> Value:
        languages = (small, *others)
        return Value(label, {"sampling.languages": languages}, lambda config: updates(config, each * len(languages)))

    with_one = (drawn("with a far one", far), drawn("with a near one", near))
    return Factor("others", (drawn("alone"), *with_one, drawn("with seven", near, far, *more)))


def conclude(results: Results) -> list[Finding]:
    found = []
    for kind in ("masked", "causal"):
        for label, claim in (
            ("with a near one", "A related language helps a small one (XLM, table 4)"),
            ("with seven", "Many languages help a small one (XLM, table 4; XLM-R's positive transfer)"),
        ):
            of, than = ({"others": x, "LM": kind} for x in (label, "alone"))
            found.append(lower(results, f"{claim}, {kind} LM", "bits_per_byte", of, than, "small"))
        near, far = ({"others": f"with a {x} one", "LM": kind} for x in ("near", "far"))
        found.append(
            lower(
                results,
                f"A related language helps more than another (XLM, table 4), {kind} LM",
                "bits_per_byte",
                near,
                far,
                "small",
            )
        )
    return found


LM = Factor("LM", (Value("masked"), Value("causal", {"model.causal": True})))


def get_config() -> Study:
    return Study(
        title="Joint pretraining: what other languages give a small one",
        question="Does a language with little text gain from others, and does it matter which?",
        paper="Lample and Conneau (2019), table 4: Nepali's perplexity falls with English, more with Hindi, and most with both.",
        texts=Texts({"train": {SMALL: 600} | dict.fromkeys((NEAR, FAR, *MORE), 8_000)}),
        base=replace(small(text_of("train"), EACH), sampling=Sampling(exponent=0.0)),
        factors=(others_of(SMALL, NEAR, FAR, MORE, of_updates, EACH), LM),
        groups={"small": (SMALL,)},
        curves=(Curve("bits_per_byte", "others", "LM", "Bits per byte of the small language", groups=("small",)),),
        conclude=conclude,
    )
