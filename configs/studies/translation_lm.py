# SPDX-License-Identifier: Apache-2.0
"""Translation LM: what blocks of sentence pairs do to retrieval, to aligned words, to the other probes, and to bits per byte.

XLM (Lample and Conneau 2019, sections 3.3 and 5.1) adds translation LM to masked LM, and zero-shot XNLI rises by 3.6 points; Dou and Neubig (2021) align words better after
it. Here the share of blocks that hold pairs goes from none to a half, at equal updates: translations of held-out paragraphs are retrieved, and words aligned, by the vectors
of each layer. One pair of languages, 4,000 pairs and 3,000 updates, so that half of the blocks show each pair six times: with five pairs of languages and half the updates,
where each is seen once at most, nothing is aligned.

    MLM_JAX_DATA=DATA mlm-jax study configs/studies/translation_lm.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

DATA has word_alignment/: enfr.src-tgt and enfr.gold, as configs/analyze/neutrality.py has it; without MLM_JAX_DATA words are not aligned. Four values × three seeds, about
30 minutes on two cores. Full size: full_translation_lm.py, of XLM's 15 languages.
"""

import os
from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.neutrality.config import Aligned, Analyze
from mlm_jax.study.config import Curve, Measure, Study, vary
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import LAYERS, held_out, pairs_with, small, text_of, words_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

DATA = os.environ.get("MLM_JAX_DATA", "")
PIVOT, OTHER = "en", "fr"
UPDATES, PIECES, PAIRS, FIT, TEST = 3_000, 4_000, 4_000, 200, 400
RETRIEVAL, CKA = "held-out retrieval accuracy", "held-out cka cka"
LINEAR, NETWORK = (f"held-out identification {x}" for x in ("accuracy", "network_accuracy"))
WORDS = "words alignment, edge_cover f1"


def conclude(results: Results, layer: int = LAYERS) -> list[Finding]:
    none, half = {"pairs": "0"}, {"pairs": "0.5"}

    def more(claim: str, metric: str, pooling: str = "mean", transformation: str = "plain") -> Finding:
        at = {"layer": str(layer), "pooling": pooling, "transformation": transformation}
        return lower(results, claim, metric, half | at, none | at, higher=True)

    found = [
        more("Translation LM brings translations nearer (XLM, section 5.1)", RETRIEVAL),
        more("Also less the languages' means", RETRIEVAL, transformation="centred"),
    ]
    if DATA:
        found.append(more("Words are aligned better after it (Dou and Neubig 2021)", WORDS, "words"))
    cost = "Its blocks are taken from masked LM's, which has less of each language"
    return [*found, lower(results, cost, "bits_per_byte", half, none, higher=True)]


def measured(aligned: Aligned, layer: int) -> tuple[tuple[Measure, ...], tuple[Curve, ...]]:
    """The probes, plain and centred, and their curves over the share of pairs at a layer."""
    probes = Analyze(
        transformations=("plain", "centred"),
        pivot=PIVOT,
        aligned=(aligned,),
        word_alignment=words_of(DATA),
        network=True,
        max_length=64,
    )

    def curve(metric: str, title: str, lines: str = "transformation", **where: str) -> Curve:
        return Curve(metric, "pairs", lines, title, {"pooling": "mean", **where}, ("all",))

    at = {"layer": str(layer)}
    curves = [
        curve(RETRIEVAL, f"Translations found, layer {layer}", **at),
        curve(RETRIEVAL, "Translations found by each layer", "layer", transformation="plain"),
        curve(LINEAR, f"Languages told by a linear classifier, layer {layer}", **at),
        curve(NETWORK, f"Languages told by a network, layer {layer}", **at),
        curve(CKA, "How alike translations' vectors are (CKA), by layer", "layer", transformation="plain"),
    ]
    if DATA:
        title = f"Words aligned, English and French, layer {layer}"
        curves.append(curve(WORDS, title, **(at | {"pooling": "words"})))
    return (Measure("probes", probes),), (*curves, Curve("bits_per_byte", "pairs", "language"))


def get_config() -> Study:
    languages = (PIVOT, OTHER)
    pairs, parallel = pairs_with(PIVOT, (OTHER,), PAIRS)
    base = small(text_of("train"), UPDATES, pieces=PIECES)
    measures, curves = measured(held_out(languages, FIT, TEST), LAYERS)
    return Study(
        title="Translation LM: what blocks of pairs do",
        question="How many blocks of sentence pairs does it take for translations, and their words, to be near each other?",
        paper="Lample and Conneau (2019), sections 3.3 and 5.1: MLM + TLM is 3.6 points above MLM on zero-shot XNLI; Dou and Neubig (2021): words are aligned better.",
        texts=Texts({"train": dict.fromkeys(languages, 8_000)}, pairs, held_out=FIT + TEST),
        base=replace(base, data=replace(base.data, parallel=parallel), sampling=Sampling(exponent=0.3)),
        factors=(vary("sampling.parallel_share", 0.0, 0.1, 0.25, 0.5, name="pairs"),),
        measures=measures,
        curves=curves,
        conclude=conclude,
    )
