# SPDX-License-Identifier: Apache-2.0
"""Centring and beyond: what a map takes out of an encoder's vectors, and what that is good for.

Libovický et al. (2019) subtract each language's mean, and leave more language-neutral representations as future work. Here six transformations, fitted on other
sentences than those tested (means, means and deviations, whitening, the projection into English, LSAR, LEACE), beside each other: retrieval, identification by a linear
classifier and by a small network, MEXA (Kargaran et al. 2025), a classifier of topics fitted in English on frozen vectors, and word
alignment; of masked LM alone and with a quarter of the blocks of pairs.

    MLM_JAX_DATA=DATA mlm-jax study configs/studies/centring.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

DATA has word_alignment/: enfr.src-tgt and enfr.gold, as configs/analyze/neutrality.py has it; without MLM_JAX_DATA words are not aligned. Two values × three seeds
of 2,000 updates, about 20 minutes on two cores. Full size: full_centring.py, of XLM's 15 languages.
"""

import os
from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.neutrality.config import MORE, TRANSFORMATIONS, Aligned, Analyze
from mlm_jax.study.config import Curve, Measure, Study, vary
from mlm_jax.study.findings import Finding, highest, lower
from mlm_jax.study.small import LAYERS, held_out, pairs_with, small, text_of, words_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

DATA = os.environ.get("MLM_JAX_DATA", "")
PIVOT, OTHERS = "en", ("de", "fr", "fi", "ru", "tr")
UPDATES, FIT, TEST = 2_000, 400, 200
LAYER = LAYERS - 1
ALL = (*TRANSFORMATIONS, *MORE)
RETRIEVAL, TRANSFER, MEXA = (f"held-out {x}" for x in ("retrieval accuracy", "transfer accuracy", "retrieval mexa"))
LINEAR, NETWORK = (f"held-out identification {x}" for x in ("accuracy", "network_accuracy"))


def conclude(results: Results, layer: int = LAYER) -> list[Finding]:
    found = []
    for share, of in (("0", "masked LM"), ("0.25", "with pairs")):
        there = {"pairs": share, "layer": str(layer), "pooling": "mean"}

        def against(metric: str, kind: str, claim: str, higher: bool, than: str = "plain") -> Finding:
            at = [there | {"transformation": x} for x in (kind, than)]  # noqa: B023
            return lower(results, f"{claim}, {of}", metric, at[0], at[1], higher=higher)  # noqa: B023

        found += [
            against(RETRIEVAL, "centred", "Centring brings translations nearer (Libovický et al. 2019)", True),
            against(LINEAR, "leace", "LEACE takes out what a linear classifier tells languages by (Belrose et al. 2023)", False),
            against(NETWORK, "leace", "and less of what a network tells them by", False),
            against(RETRIEVAL, "lsar", "LSAR brings translations nearer (Xie et al. 2022)", True),
            against(TRANSFER, "centred", "A classifier of frozen vectors transfers better from centred ones", True),
        ]  # fmt: skip
        for metric, what in ((RETRIEVAL, "retrieval"), (TRANSFER, "zero-shot transfer of a frozen classifier")):
            found.append(highest(results, f"One does best for {what}, {of}", metric, "transformation", ALL, there))
    return found


def probes_of(aligned: Aligned) -> Analyze:
    """All transformations, fitted on the first sentences of aligned text and tried on others."""
    return Analyze(
        transformations=ALL,
        pivot=PIVOT,
        aligned=(aligned,),
        word_alignment=words_of(DATA),
        network=True,
        max_length=64,
    )


def curves(layer: int) -> tuple[Curve, ...]:
    at = {"layer": str(layer), "pooling": "mean"}

    def curve(metric: str, title: str) -> Curve:
        return Curve(metric, "transformation", "pairs", f"{title}, layer {layer}", at, ("all",))

    shown = (
        curve(RETRIEVAL, "Retrieval"),
        curve(MEXA, "MEXA"),
        curve(LINEAR, "Languages told by a linear classifier"),
        curve(NETWORK, "Languages told by a network"),
        curve(TRANSFER, "Topics told by a classifier fitted in English"),
    )
    of_words = Curve(
        "words alignment, edge_cover f1",
        "transformation",
        "pairs",
        f"Word alignment, English and French, layer {layer}",
        at | {"pooling": "words"},
    )
    return (*shown, of_words) if DATA else shown


def get_config() -> Study:
    base = small(text_of("train"), UPDATES)
    languages = (PIVOT, *OTHERS)
    aligned = held_out(languages, FIT, TEST, "{text}/held_out/topics.txt")
    probes = probes_of(aligned)
    pairs, parallel = pairs_with(PIVOT, OTHERS, 6_000)

    return Study(
        title="Centring and beyond",
        question="Which transformation of an encoder's vectors makes them most neutral, and what is that good for?",
        paper="Libovický et al. (2019): centring; future work is “more language-neutral representations”. Xie et al. (2022), LSAR; Belrose et al. (2023), LEACE; Kargaran et al. (2025), MEXA.",
        texts=Texts({"train": dict.fromkeys(languages, 8_000)}, pairs, held_out=FIT + TEST, topics=r"^(\w+)/"),
        base=replace(base, data=replace(base.data, parallel=parallel), sampling=Sampling(exponent=0.3)),
        factors=(vary("sampling.parallel_share", 0.0, 0.25, name="pairs"),),
        measures=(Measure("probes", probes),),
        curves=curves(LAYER),
        conclude=conclude,
    )  # fmt: skip
