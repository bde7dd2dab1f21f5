# SPDX-License-Identifier: Apache-2.0
"""Neutrality through pretraining: when languages can be told, and when translations are found, by layer and by update.

Libovický et al. (2019, 2020): the mean of mBERT's vectors tells the language, and less each language's mean they retrieve translations better. Here both are measured at
ten checkpoints of one long run of six languages, by masked LM alone and with a quarter of the blocks of pairs: probe 8 of `analyze`, over seeds.

    mlm-jax study configs/studies/neutrality.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Two values × three seeds of 3,000 updates, about 20 minutes on two cores. Full size: full_neutrality.py, of XLM's 15 languages.
"""

from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.neutrality.config import Aligned, Analyze
from mlm_jax.study.config import Curve, Measure, Study, vary
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import LAYERS, held_out, pairs_with, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

PIVOT, OTHERS = "en", ("de", "es", "fi", "ru", "tr")
UPDATES, CHECKPOINTS, HELD_OUT = 3_000, 10, 400
LAYER = LAYERS - 1  # whose vectors retrieve best in most encoders: not the last, which is the output's
RETRIEVAL, IDENTIFICATION = "held-out retrieval accuracy", "held-out identification accuracy"


def conclude(results: Results, layer: int = LAYER, updates: int = UPDATES) -> list[Finding]:
    found = []
    at = {"layer": str(layer), "pooling": "mean"}
    for share, of in (("0", "masked LM"), ("0.25", "with pairs")):
        there = {"pairs": share, **at}
        found.append(
            lower(
                results,
                f"Less the languages' means, translations are nearer (Libovický et al. 2019), {of}",
                RETRIEVAL,
                there | {"transformation": "centred"},
                there | {"transformation": "plain"},
                higher=True,
            )
        )
    first, last = (
        {"pairs": "0", **at, "transformation": "plain", "checkpoint": str(n)} for n in (updates // CHECKPOINTS, updates)
    )
    found += [
        lower(results, "Translations come nearer throughout pretraining, by masked LM alone", RETRIEVAL, last, first, higher=True),
        lower(results, "Languages are told apart from the first checkpoint on, and less in the end", IDENTIFICATION, last, first),
    ]  # fmt: skip
    return found


def probes_of(aligned: Aligned, pivot: str) -> Analyze:
    """The probes at every checkpoint."""
    return Analyze(
        transformations=("plain", "centred"),
        pivot=pivot,
        aligned=(aligned,),
        checkpoints=True,
        max_length=64,
    )


def curves(layer: int) -> tuple[Curve, ...]:
    def curve(metric: str, title: str, lines: str, **where: str) -> Curve:
        return Curve(metric, "checkpoint", lines, title, {"pooling": "mean", **where}, groups=("all",))

    return (
        curve(RETRIEVAL, "Retrieval by updates, masked LM alone", "layer", transformation="plain", pairs="0"),
        curve(RETRIEVAL, "Retrieval by updates, with pairs", "layer", transformation="plain", pairs="0.25"),
        curve(RETRIEVAL, f"What centring gives, masked LM alone, layer {layer}", "transformation", layer=str(layer), pairs="0"),
        curve(RETRIEVAL, f"What centring gives, with pairs, layer {layer}", "transformation", layer=str(layer), pairs="0.25"),
        curve(IDENTIFICATION, "Languages told apart, masked LM alone", "layer", transformation="plain", pairs="0"),
        curve(IDENTIFICATION, f"Languages told apart, masked LM alone, layer {layer}", "transformation", layer=str(layer), pairs="0"),
    )  # fmt: skip


def get_config() -> Study:
    base = small(text_of("train"), UPDATES)
    pairs, parallel = pairs_with(PIVOT, OTHERS, 6_000)
    every = UPDATES // CHECKPOINTS
    languages = (PIVOT, *OTHERS)
    return Study(
        title="Neutrality through pretraining",
        question="When can languages be told apart, and when are translations found?",
        paper="Libovický et al. (2019, 2020): vectors tell the language, and less each language's mean they retrieve better.",
        texts=Texts({"train": dict.fromkeys(languages, 8_000)}, pairs, held_out=HELD_OUT),
        base=replace(
            base,
            data=replace(base.data, parallel=parallel),
            sampling=Sampling(exponent=0.3),
            train=replace(base.train, save_every=every, validate_every=every, keep_last=CHECKPOINTS),
        ),
        factors=(vary("sampling.parallel_share", 0.0, 0.25, name="pairs"),),
        measures=(Measure("probes", probes_of(held_out(languages, HELD_OUT // 2, HELD_OUT // 2), PIVOT)),),
        curves=curves(LAYER),
        conclude=conclude,
    )
