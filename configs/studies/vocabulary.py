# SPDX-License-Identifier: Apache-2.0
"""The vocabulary: its size, its kind, and how evenly it cuts languages.

XLM-R (Conneau et al. 2020, figure 6): a larger vocabulary is better, also at equal parameters. Parity-aware BPE (Foroutan et al. 2026) cuts the same
sentences of all languages into as many pieces, at next to no cost. Here: 4,000, 8,000 and 16,000 pieces with unigram, BPE and parity-aware BPE, layers
being narrower where the vocabulary is larger, so that all have about as many parameters; bits per byte, which no vocabulary's own tokens move.

    mlm-jax study configs/studies/vocabulary.py --text FOLDER     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Three sizes × three kinds × three seeds, about 40 minutes on two cores. Full size: full_vocabulary.py.
"""

from collections.abc import Mapping
from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LARGE, SMALL = ("de", "es", "ru"), ("fi", "hi", "km", "tr")
# Pieces → width, for about 2.3 million parameters in two layers.
SIZES = {4_000: 192, 8_000: 160, 16_000: 112}


def conclude(results: Results, few: int = min(SIZES), many: int = max(SIZES)) -> list[Finding]:
    # By kind: XLM-R's is unigram, and what one gains another may lose.
    larger = [
        lower(
            results,
            f"A larger vocabulary is better at equal parameters (XLM-R, figure 6), {kind}",
            "bits_per_byte",
            {"pieces": str(many), "kind": kind},
            {"pieces": str(few), "kind": kind},
        )
        for kind in ("unigram", "bpe", "parity_bpe")
    ]
    return [
        *larger,
        lower(
            results,
            "Parity-aware BPE cuts languages more evenly (Foroutan et al. 2026)",
            "gini",
            {"kind": "parity_bpe"},
            {"kind": "bpe"},
        ),
        lower(
            results,
            "It costs next to nothing, and small languages gain",
            "bits_per_byte",
            {"kind": "parity_bpe"},
            {"kind": "bpe"},
            "small",
        ),
    ]


def factors(sizes: Mapping[int, int], of_head: int, parallel: str) -> tuple[Factor, Factor]:
    """Pieces, with the width and heads of a width that go with them, and kinds, of which parity-aware BPE has parallel text."""
    made = tuple(
        Value(str(n), {"vocabulary.size": n, "model.width": w, "model.heads": w // of_head, "model.mlp_width": 4 * w})
        for n, w in sizes.items()
    )
    kinds = (
        Value("unigram"),
        Value("bpe", {"vocabulary.model": "bpe"}),
        Value("parity_bpe", {"vocabulary.model": "parity_bpe", "vocabulary.parallel": parallel}),
    )
    return Factor("pieces", made), Factor("kind", kinds)


def get_config() -> Study:
    return Study(
        title="The vocabulary: size, kind and fairness",
        question="How large should a vocabulary be, and does it have to favour large languages?",
        paper="Conneau et al. (2020), figure 6; Foroutan et al. (2026): Gini coefficient of tokens per sentence down by up to 89 %.",
        texts=Texts({"train": dict.fromkeys(LARGE, 10_000) | dict.fromkeys(SMALL, 1_500)}),
        base=replace(small(text_of("train"), 800), sampling=Sampling(exponent=0.3)),
        factors=factors(SIZES, 16, "{text}/held_out/{language}.txt"),
        groups={"small": SMALL, "large": LARGE},
        curves=(
            Curve("bits_per_byte", "pieces", "kind"),
            Curve("bits_per_byte", "kind"),
            Curve("tokens_per_document", "kind", "language"),
            Curve("gini", "pieces", "kind"),
        ),
        conclude=conclude,
    )
