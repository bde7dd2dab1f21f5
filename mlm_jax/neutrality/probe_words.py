# SPDX-License-Identifier: Apache-2.0
"""Probes of words' vectors: alignment with gold links, and aligned words before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.evaluate import retrieval
from mlm_jax.neutrality import word_alignment as alignments
from mlm_jax.neutrality.config import DECODERS, WordAlignment
from mlm_jax.neutrality.transformations import fit_maps
from mlm_jax.neutrality.vectors import Vectors
from mlm_jax.results import ProbeRow, probe_rows

FOLD = 2  # word vectors are centred by the other half of the sentences
WORKED = 3  # alignments drawn


def probe_words(part: WordAlignment, made: Vectors, kinds: Sequence[str] = ()) -> tuple[list[ProbeRow], dict[str, Any]]:
    """Word alignment by every layer, plain, centred and by further transformations (`kinds`) that need no aligned text; at the best layer
    by every decoder; and some alignments drawn."""
    gold = alignments.read_gold(part.pairs, part.gold, part.first)
    a, b = made.words(gold.source, part.languages[0]), made.words(gold.target, part.languages[1])
    cut = sum(
        x.shape[1] < len(s) or y.shape[1] < len(t) for x, y, s, t in zip(a, b, gold.source, gold.target, strict=True)
    )
    if cut:
        console.warn(f"{part.name}: {cut} of {len(a)} pairs cut to max_length; words beyond have no links")
    rows: list[ProbeRow] = []

    def found(layer: int, kind: str, decoder: str) -> list[alignments.Links]:
        x, y = ([v[layer] for v in side] for side in (a, b))
        if kind != "plain":
            x, y = transformed_by_the_other_half(kind, x, y)
        return [
            alignments.DECODE[decoder](alignments.similarities(u, v, part.distortion))
            for u, v in zip(x, y, strict=True)
        ]

    def add(layer: int, kind: str, decoder: str) -> dict[str, float]:
        scores = alignments.scores(found(layer, kind, decoder), gold.sure, gold.possible)
        rows.extend(
            probe_rows(f"alignment, {decoder}", part.name, layer, "words", kind, "-".join(part.languages), scores)
        )
        return scores

    with console.progress(f"{part.name}: alignment", made.layers + 1, unit="layers") as advance:
        aer = []
        for layer in range(made.layers + 1):
            aer.append(add(layer, "plain", part.decoder)["aer"])
            for kind in dict.fromkeys(("centred", *kinds)):
                if kind not in ("plain", "projected"):  # which is fitted on aligned lines
                    add(layer, kind, part.decoder)
            advance(1, f"layer {layer} AER {aer[-1]:.3f}")
    best = int(np.argmin(aer))
    for decoder in DECODERS:
        if decoder != part.decoder:
            add(best, "plain", decoder)
            add(best, "centred", decoder)
    links = found(best, "plain", part.decoder)
    # Short pairs, which can be read.
    short = sorted(range(len(a)), key=lambda i: abs(len(gold.source[i]) + len(gold.target[i]) - 18))[:WORKED]
    worked = [
        {
            "source": gold.source[i], "target": gold.target[i], "links": sorted(links[i]), "sure": sorted(gold.sure[i]),
            "possible": sorted(gold.possible[i]), "cosines": alignments.cosines(a[i][best], b[i][best]).round(3).tolist(),
        }
        for i in short
    ]  # fmt: skip
    return rows, {part.name: {"layer": best, "decoder": part.decoder, "worked": worked}}


def transformed_by_the_other_half(
    kind: str, source: list[np.ndarray], target: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Word vectors of sentence pairs, transformed as fitted on the words in pairs of the other parity (`transformations.fit_maps`).

    Args:
      source, target: float32 [words, width] of each sentence.
    """
    if len(source) < FOLD:
        return source, target
    maps = [
        fit_maps(kind, {"source": np.concatenate(source[half::FOLD]), "target": np.concatenate(target[half::FOLD])}, "")
        for half in range(FOLD)
    ]
    made = [
        [maps[(i + 1) % FOLD][side](v) for i, v in enumerate(words)]
        for side, words in (("source", source), ("target", target))
    ]
    return made[0], made[1]


def compare_words(part: WordAlignment, before: Vectors, load: Callable[[str], Vectors], other: str) -> list[ProbeRow]:
    """Mean cosine of words that are aligned, and of random words, and their difference, in two encoders (Moon et al. 2019).

    Args:
      load: the vectors of another encoder, by its folder.
      other: that folder.
    """
    gold = alignments.read_gold(part.pairs, part.gold, part.first)
    rng = np.random.default_rng(0)
    rows: list[ProbeRow] = []
    for encoder, made in (("before", before), (Path(other).name, load(other))):
        a, b = made.words(gold.source, part.languages[0]), made.words(gold.target, part.languages[1])
        kept = [
            [(i, j) for i, j in sorted(s) if i < x.shape[1] and j < y.shape[1]]
            for s, x, y in zip(gold.sure, a, b, strict=True)
        ]
        x = np.concatenate([v[:, [i for i, _ in links]] for v, links in zip(a, kept, strict=True)], axis=1)
        y = np.concatenate([v[:, [j for _, j in links]] for v, links in zip(b, kept, strict=True)], axis=1)
        if not x.shape[1]:
            raise UserError(f"{part.gold}: no sure link (i-j) there; {part.name} cannot be compared")
        order = rng.permutation(x.shape[1])
        for layer in range(made.layers + 1):
            u, v = retrieval.normalise(x[layer]), retrieval.normalise(y[layer])
            aligned, random = (float((u * w).sum(axis=1).mean()) for w in (v, v[order]))
            scores = {"aligned": aligned, "random": random, "margin": aligned - random}
            rows += probe_rows(
                f"aligned words, {encoder}", part.name, layer, "words", "plain", "-".join(part.languages), scores
            )
    return rows
