# SPDX-License-Identifier: Apache-2.0
"""How evenly a vocabulary cuts languages: tokens of the same text in each, and their Gini coefficient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.manifest import read_manifest
from mlm_jax.tokenizers import Tokenizer


def gini(values: Sequence[float]) -> float:
    """The Gini coefficient of non-negative values, their mean absolute difference over twice their mean: 0 where all are alike, near 1 where
    one has all. Of tokens per sentence: Foroutan et al. 2026."""
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    return float((2 * np.arange(n) - n + 1) @ ordered / (n * ordered.sum())) if n and ordered.sum() else 0.0


def tokens_per_text(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """The mean number of tokens of whole texts, specials aside; 0 of no texts."""
    return sum(map(len, tokenizer.encode(list(texts)))) / max(len(texts), 1)


def evenness(name: str, tokens: Mapping[str, float], coefficient: float) -> str:
    """A line of a table of results: the fewest and the most tokens per sentence of a set, of which language, and their Gini coefficient."""
    fewest, most = min(tokens, key=lambda x: tokens[x]), max(tokens, key=lambda x: tokens[x])
    return f"{name}: {tokens[fewest]:.1f} ({fewest}) to {tokens[most]:.1f} ({most}) tokens per sentence, Gini coefficient {coefficient:.3f}"


def held_out(corpus: epath.PathLike) -> dict[str, tuple[int, int]]:
    """Language → documents and tokens (specials included) that a corpus holds out, of languages that hold out some.

    Empty where the corpus is gone, or of a version that cannot be read: a report does without.
    """
    try:
        streams = read_manifest(corpus).monolingual
    except UserError:
        return {}
    return {s.name: (s.validation.documents, s.validation.tokens) for s in streams if s.validation.documents}
