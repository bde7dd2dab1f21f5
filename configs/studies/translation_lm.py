# SPDX-License-Identifier: Apache-2.0
"""Translation LM: what blocks of sentence pairs do to retrieval, and to bits per byte.

XLM (Lample and Conneau 2019, sections 3.3 and 5.1) adds translation LM to masked LM, and zero-shot XNLI rises by 3.6 points; here the share of blocks
that hold pairs goes from none to a half, at equal updates, and translations of held-out paragraphs are retrieved by the means of each layer. One pair
of languages, 4,000 pairs and 3,000 updates, so that half of the blocks show each pair six times: with five pairs of languages and half the updates, where each is seen once at
most, nothing is aligned.

    mlm-jax study configs/studies/translation_lm.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Four values × three seeds, about 25 minutes on two cores. Full size: full_translation_lm.py, of XLM's 15 languages.
"""

from collections.abc import Iterable
from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.evaluate.config import Evaluate, Pairs, Retrieval
from mlm_jax.study.config import Curve, Factor, Measure, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import LAYERS, pairs_with, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

PIVOT, OTHER = "en", "de"
UPDATES, PIECES, PAIRS = 3_000, 4_000, 4_000


def conclude(results: Results, layer: int = LAYERS) -> list[Finding]:
    none, half = {"pairs": "0"}, {"pairs": "0.5"}
    return [
        lower(
            results,
            f"Translation LM aligns languages (XLM, section 5.1), by layer {layer}",
            f"layer {layer} accuracy",
            half,
            none,
            higher=True,
        ),
        lower(
            results,
            "Its blocks are taken from masked LM's, which has less of each language",
            "bits_per_byte",
            half,
            none,
            higher=True,
        ),
    ]


def measured(pairs: tuple[Pairs, ...], layers: Iterable[int]) -> tuple[tuple[Measure, ...], tuple[Curve, ...]]:
    """Translations found by the means of each of some layers, and their curves."""
    tasks = {f"layer {n}": n for n in layers}
    retrieval = tuple(Retrieval(name, pairs, layer=layer) for name, layer in tasks.items())
    curves = [Curve(f"{name} accuracy", "pairs", title=f"Sentences' translations found, {name}") for name in tasks]
    measure = Measure("retrieval", Evaluate(max_length=64, retrieval=retrieval))
    return (measure,), (*curves, Curve("bits_per_byte", "pairs", "language"))


def get_config() -> Study:
    shares = tuple(Value(f"{x:g}", {"sampling.parallel_share": x}) for x in (0.0, 0.1, 0.25, 0.5))
    pairs, parallel = pairs_with(PIVOT, (OTHER,), PAIRS)
    base = small(text_of("train"), UPDATES, pieces=PIECES)
    held_out = (Pairs((OTHER, PIVOT), (f"{{text}}/held_out/{OTHER}.txt", f"{{text}}/held_out/{PIVOT}.txt")),)
    measures, curves = measured(held_out, range(1, LAYERS + 1))
    return Study(
        title="Translation LM: what blocks of pairs do",
        question="How many blocks of sentence pairs does it take for translations to be near each other?",
        paper="Lample and Conneau (2019), sections 3.3 and 5.1: MLM + TLM is 3.6 points above MLM on zero-shot XNLI.",
        texts=Texts({"train": dict.fromkeys((PIVOT, OTHER), 8_000)}, pairs),
        base=replace(base, data=replace(base.data, parallel=parallel), sampling=Sampling(exponent=0.3)),
        factors=(Factor("pairs", shares),),
        measures=measures,
        curves=curves,
        conclude=conclude,
    )
