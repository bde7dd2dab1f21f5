# SPDX-License-Identifier: Apache-2.0
"""Sentences → vectors: of any layer, by the first token, the mean or the greatest values, as `SentenceVectors` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax.coverage import warn_unknown
from mlm_jax.encode.given import as_texts
from mlm_jax.encode.run import Run, frame, items_of, make_run, refuse_longer
from mlm_jax.errors import UserError, did_you_mean
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.encoder import apply_encoder
from mlm_jax.model.task_head import Pooling, pool
from mlm_jax.pretrained import Params, Pretrained, SentenceVectors, place
from mlm_jax.tokenizers import Tokenizer

SMALLEST = 1e-12  # length that a vector is divided by, as torch.nn.functional.normalize has it


class Embed(Protocol):
    """(sentences, language, text that is put before each) → float32 [sentences, dimensions]."""

    def __call__(self, sentences: Sequence[str], language: str, prompt: str = "") -> np.ndarray: ...


def pooled(hidden: jax.Array, batch: PackedBatch, how: Pooling) -> jax.Array:
    """The vector of each row's sentence, [rows, length, width] → float32 [rows, width]."""
    return pool(hidden.astype(jnp.float32), batch["starts"], batch["segment_ids"], how)[:, 0]


def prompt_of(vectors: SentenceVectors, given: str) -> str:
    """The text that is put before sentences: that of a prompt's name or, where it is none and has a space or ends in a colon, itself.

    Raises:
      UserError: it looks like a name, and is none of those there are.
    """
    if not given or given in vectors.prompts:
        return vectors.prompts.get(given, "")
    if any(map(str.isspace, given)) or given.endswith(":"):
        return given
    there = f"there are {', '.join(vectors.prompts)}" if vectors.prompts else "the encoder names none"
    raise UserError(
        f"prompt: {given}: no such prompt{did_you_mean(given, vectors.prompts)}; {there}; a text itself has a space or ends in a colon"
    )


@dataclass(frozen=True)
class SentenceEncoder:
    """An encoder on a mesh that makes vectors of token ids: what `make_embedder` and the command `embed` stand on.

    Attributes:
      run: of items and `params` → float32 [rows, dimensions].
      params: the layers that are run, on the mesh.
      dimensions: of a vector.
    """

    run: Run
    params: Params
    dimensions: int

    def vectors(
        self,
        ids: Sequence[np.ndarray],
        language: str,
        pretrained: Pretrained,
        done: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """Vectors of texts of one language.

        Args:
          ids: with specials, int32 [length] each.
          done: called with the number of texts after each batch.

        Returns:
          float32 [texts, dimensions].

        Raises:
          UserError: the encoder has no embedding for the language.
        """
        out = np.zeros((len(ids), self.dimensions), np.float32)
        items = items_of(ids, language, pretrained.languages, pretrained.model.language_embedding)
        for batch, found in self.run(items, self.params):
            out[[item for [item] in batch]] = found[: len(batch)]
            done(len(batch))
        return out


def make_sentence_encoder(pretrained: Pretrained, mesh: jax.sharding.Mesh, vectors: SentenceVectors) -> SentenceEncoder:
    """Build what makes vectors of token ids.

    Raises:
      UserError: the encoder has no such layer, or fewer dimensions.
    """
    model = pretrained.model
    layer = vectors.layer or model.layers
    if not 1 <= layer <= model.layers:
        raise UserError(f"layer: {layer}, the encoder has {model.layers}")
    if not 0 <= vectors.dimensions <= model.width:
        raise UserError(f"dimensions: {vectors.dimensions}, the encoder's vectors have {model.width}; 0 keeps all")
    encoder = pretrained.encoder(layers=layer)
    placed = place(pretrained, mesh).params
    params = {name: placed[name] for name in ("embedding", "layers")}
    if layer < model.layers:
        params["layers"] = jax.tree.map(lambda leaf: leaf[:layer], params["layers"])
    dimensions = vectors.dimensions or model.width

    def of_batch(params: Params, batch: PackedBatch) -> jax.Array:
        found = pooled(apply_encoder(encoder, params, batch), batch, vectors.pooling)[:, :dimensions]
        if vectors.normalise:
            found /= jnp.maximum(jnp.linalg.norm(found, axis=1, keepdims=True), SMALLEST)
        return found  # [rows, dimensions]

    return SentenceEncoder(make_run(of_batch, mesh, pretrained.vocabulary.pad, model.token_types), params, dimensions)


def make_embedder(
    pretrained: Pretrained,
    tokenizer: Tokenizer,
    mesh: jax.sharding.Mesh,
    vectors: SentenceVectors,
    max_length: int,
) -> Embed:
    """Build the function that embeds sentences.

    Args:
      vectors: how; its prompts are not put before sentences by themselves.
      max_length: tokens read of a sentence, specials included.

    Returns:
      embed(sentences, language, prompt) → float32 [sentences, dimensions].

    Raises:
      UserError: the encoder has no such layer or dimensions, or too few positions; on a call, a sentence is no text or empty, the encoder
        has no embedding for the language, or a vector is not finite.
    """
    words = pretrained.vocabulary
    refuse_longer(max_length, pretrained)
    encoder = make_sentence_encoder(pretrained, mesh, vectors)

    def embed(sentences: Sequence[str], language: str, prompt: str = "") -> np.ndarray:
        tokens = tokenizer.encode([prompt + sentence for sentence in as_texts(sentences, "sentences")])
        warn_unknown(language, tokens, words.unk)
        found = encoder.vectors([frame(pieces, words, max_length) for pieces in tokens], language, pretrained)
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(wrong):
            where = f"{pretrained.source}: sentences[{wrong[0]}]"
            raise UserError(f"{where}: its vector has NaN or infinity; take another dtype or checkpoint")
        return found

    return embed
