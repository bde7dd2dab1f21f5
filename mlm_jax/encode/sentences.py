# SPDX-License-Identifier: Apache-2.0
"""Sentences → vectors: of any layer, by the first token or the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax.coverage import warn_unknown
from mlm_jax.encode.given import as_texts
from mlm_jax.encode.run import frame, items_of, make_run, refuse_longer
from mlm_jax.errors import UserError
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.encoder import apply_encoder
from mlm_jax.model.task_head import pool
from mlm_jax.pretrained import Params, Pretrained, place
from mlm_jax.tokenizers import Tokenizer

Pooling = Literal["first", "mean"]
# sentences, language → float32 [sentences, width]
Embed = Callable[[Sequence[str], str], np.ndarray]


def pooled(hidden: jax.Array, batch: PackedBatch, how: Pooling) -> jax.Array:
    """The vector of each row's sentence, [rows, length, width] → float32 [rows, width]."""
    return pool(hidden.astype(jnp.float32), batch["starts"], batch["segment_ids"], how)[:, 0]


def make_embedder(
    pretrained: Pretrained,
    tokenizer: Tokenizer,
    mesh: jax.sharding.Mesh,
    layer: int,
    pooling: Pooling,
    max_length: int,
) -> Embed:
    """Build the function that embeds sentences.

    Args:
      layer: counted from 1; 0: the last.
      pooling: of all tokens, specials included.
      max_length: tokens read of a sentence, specials included.

    Returns:
      embed(sentences, language) → float32 [sentences, width].

    Raises:
      UserError: the encoder has no such layer, or too few positions; on a call, a sentence is no text or empty, or the encoder
        has no embedding for the language.
    """
    model, words = pretrained.model, pretrained.vocabulary
    layer = layer or model.layers
    if not 1 <= layer <= model.layers:
        raise UserError(f"layer: {layer}, the encoder has {model.layers}")
    refuse_longer(max_length, pretrained)
    encoder = pretrained.encoder(layers=layer)
    placed = place(pretrained, mesh).params
    params = {name: placed[name] for name in ("embedding", "layers")}
    if layer < model.layers:
        params["layers"] = jax.tree.map(lambda leaf: leaf[:layer], params["layers"])

    def vectors(params: Params, batch: PackedBatch) -> jax.Array:
        return pooled(apply_encoder(encoder, params, batch), batch, pooling)

    run = make_run(vectors, mesh, words.pad, model.token_types)

    def embed(sentences: Sequence[str], language: str) -> np.ndarray:
        tokens = tokenizer.encode(as_texts(sentences, "sentences"))
        warn_unknown(language, tokens, words.unk)
        ids = [frame(pieces, words, max_length) for pieces in tokens]
        out = np.zeros((len(ids), model.width), np.float32)
        items = items_of(ids, language, pretrained.languages, model.language_embedding)
        for batch, found in run(items, params):
            out[[item for [item] in batch]] = found[: len(batch)]
        return out

    return embed
