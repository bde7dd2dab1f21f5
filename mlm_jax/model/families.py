# SPDX-License-Identifier: Apache-2.0
"""The published multilingual encoders as `config.Model`, with their sources.

Sizes are those of the released checkpoints. Dropout and initialisation are of pretraining.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from mlm_jax.config import Model

Family = Literal["bert", "xlm", "xlm-roberta", "xlm-roberta-xl", "modernbert"]  # as Hugging Face calls them


def family_of(model: Model) -> Family:
    """The published family that a model is one of, or nearest to.

    Heads follow it: what is before the output layer, and where fine-tuning begins. `settings.exportable_family` is as
    strict as Hugging Face's classes are.
    """
    if model.position_embedding == "rotary":
        return "modernbert"
    if model.norm == "pre":
        return "xlm-roberta-xl"
    if not model.token_types:
        return "xlm"
    return "xlm-roberta" if model.position_offset and not model.next_sentence else "bert"


# BERT base (Devlin et al. 2019, section 3). multilingual cased: 119,547 pieces, uncased: 105,879 (google-research/bert,
# multilingual.md, which says 110M parameters; XLM-R's table 7 counts 172M, the cased vocabulary included).
MBERT = Model(
    layers=12,
    width=768,
    heads=12,
    mlp_width=3072,
    norm_epsilon=1e-12,
    positions=512,
    position_offset=0,
    token_types=2,
    pooler=True,
    next_sentence=True,
)
MBERT_CASED_VOCABULARY, MBERT_UNCASED_VOCABULARY = 119_547, 105_879

# XLM with 15 languages (Conneau and Lample 2019, section 5.1): language embeddings, 95,000 pieces; positions are
# learned, 512 of them in the released models, which were trained on 256 tokens.
XLM_15 = Model(
    layers=12,
    width=1024,
    heads=8,
    mlp_width=4096,
    norm_epsilon=1e-12,
    positions=512,
    position_offset=0,
    token_types=0,
    language_embedding=True,
    head="plain",
)
XLM_15_VOCABULARY = 95_000
XLM_15_CAUSAL = replace(XLM_15, causal=True)

# XLM with 100 languages (XLM repository, README): no language embeddings, 200,000 pieces.
XLM_100 = replace(XLM_15, layers=16, width=1280, heads=16, mlp_width=5120, language_embedding=False)
XLM_100_VOCABULARY = 200_000

# XLM-R (Conneau et al. 2020, table 7) and its XL and XXL (Goyal et al. 2021, table 1): 250,002 pieces in the base and large
# checkpoints, 250,880 rows in the larger; positions begin at row 2.
XLMR_BASE = Model(positions=512)
XLMR_LARGE = replace(XLMR_BASE, layers=24, width=1024, heads=16, mlp_width=4096)
XLMR_XL = replace(XLMR_BASE, layers=36, width=2560, heads=32, mlp_width=10_240, norm="pre", embedding_norm=False)
XLMR_XXL = replace(XLMR_XL, layers=48, width=4096, heads=32, mlp_width=16_384)
XLMR_VOCABULARY, XLMR_XL_VOCABULARY = 250_002, 250_880

# ModernBERT (Warner et al. 2024, table 3 and appendix A): dropout 0.1 after attention only, which mmBERT keeps.
MODERNBERT_BASE = Model(
    layers=22,
    width=768,
    heads=12,
    mlp_width=1152,
    norm="pre",
    bias=False,
    gated=True,
    position_embedding="rotary",
    positions=8192,
    position_offset=0,
    global_every=3,
    window=128,
    token_types=0,
    dropout=0.0,
    attention_dropout=0.0,
    attention_out_dropout=0.1,
)
MODERNBERT_LARGE = replace(MODERNBERT_BASE, layers=28, width=1024, heads=16, mlp_width=2624)
MODERNBERT_VOCABULARY = 50_368

# mmBERT (Marone et al. 2025): ModernBERT with Gemma 2's 256,000 pieces; both thetas 160,000 in the released models
# (the configs of the first phase: 10,000).
MMBERT_BASE = replace(MODERNBERT_BASE, rope_local_theta=160_000.0)
MMBERT_SMALL = replace(MMBERT_BASE, width=384, heads=6)
MMBERT_VOCABULARY = 256_000
