# SPDX-License-Identifier: Apache-2.0
"""Text → vectors of every layer, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from mlm_jax import console
from mlm_jax.evaluate.sentences import encoder_dtype, frame, make_runner
from mlm_jax.finetune.step import bare
from mlm_jax.model.encoder import Encoder
from mlm_jax.model.task_head import pool
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.train.trained import Trained

POOLINGS: tuple[Literal["first"], Literal["mean"]] = ("first", "mean")


@dataclass(frozen=True)
class Vectors:
    """The vectors of an encoder's layers, layer 0 being the embedding.

    Attributes:
      layers: of the encoder.
      sentences: (sentences, language) → float32 [poolings, layers + 1, sentences, width], on disk.
      words: (sentences of words, language) → float32 [layers + 1, words, width] of each, a word's pieces averaged; fewer words
        where the sentence was cut.
    """

    layers: int
    sentences: Callable[[Sequence[str], str], np.ndarray]
    words: Callable[[Sequence[Sequence[str]], str], list[np.ndarray]]


def make_vectors(trained: Trained, tokenizer: Tokenizer, max_length: int, folder: epath.PathLike) -> Vectors:
    """The vectors of an encoder.

    Args:
      max_length: tokens read of a sentence, specials included.
      folder: where vectors of sentences are kept; what is there is not computed again.

    Raises:
      UserError: the encoder has too few positions.
    """
    model, words = trained.model, trained.vocabulary
    place, runner = make_runner(trained, max_length)
    params = place({name: trained.params[name] for name in ("embedding", "layers")})
    layers = _make_layers(trained)

    def pooled(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        hidden = layers(params, batch)
        return jnp.stack(
            [jnp.stack([pool(h, batch["starts"], batch["segment_ids"], p) for h in hidden]) for p in POOLINGS]
        )

    of_sentences = runner(pooled, params)
    of_tokens = runner(lambda params, batch: jnp.stack(layers(params, batch)), params)

    def embed(sentences: Sequence[str], language: str) -> np.ndarray:
        asked = json.dumps([list(sentences), language, max_length, trained.step], ensure_ascii=False)
        path = epath.Path(folder) / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".partial")
            pieces = tokenizer.encode(list(sentences))
            cut = sum(len(x) > max_length - 2 for x in pieces)
            if cut:
                console.warn(f"{language}: {cut:,} of {len(pieces):,} sentences cut to max_length, {max_length} tokens")
            size = (len(POOLINGS), model.layers + 1, len(sentences), model.width)
            # A map of the file: no more than a batch is in memory.
            out = np.lib.format.open_memmap(aside, "w+", np.float32, size)
            for batch, found in of_sentences([frame(x, words, max_length) for x in pieces], language):
                for row, members in enumerate(batch):
                    out[:, :, members] = found[:, :, row, : len(members)]
            out.flush()
            aside.rename(path)
        return np.load(path, mmap_mode="r")

    def embed_words(sentences: Sequence[Sequence[str]], language: str) -> list[np.ndarray]:
        listed = sorted({word for sentence in sentences for word in sentence})
        # A word that the tokenizer makes nothing of still needs a place.
        pieces = {word: ids or [words.unk] for word, ids in zip(listed, tokenizer.encode(listed), strict=True)}
        ids, starts = [], []
        for sentence in sentences:
            counts = [len(pieces[word]) for word in sentence]
            ends = 1 + np.cumsum(counts)
            kept = int(np.searchsorted(ends, max_length - 1, side="right"))  # words that are there whole
            starts.append(np.concatenate([[1], ends[:kept]]).astype(int))
            ids.append(frame([piece for word in sentence[:kept] for piece in pieces[word]], words, max_length))
        found: list[np.ndarray] = [np.zeros(0)] * len(ids)
        for batch, hidden in of_tokens(ids, language):
            for row, members in enumerate(batch):
                at = 0
                for item in members:
                    edges = starts[item] + at
                    sums = (
                        np.add.reduceat(hidden[:, row, : edges[-1]], edges[:-1], axis=1)
                        if len(edges) > 1
                        else np.zeros((model.layers + 1, 0, model.width))
                    )
                    found[item] = (sums / np.diff(edges)[None, :, None]).astype(np.float32)
                    at += len(ids[item])
        return found

    return Vectors(model.layers, embed, embed_words)


def _make_layers(trained: Trained) -> Callable[[Any, dict[str, jax.Array]], list[jax.Array]]:
    """The function from a batch to every layer's output, float32 [rows, length, width] each, the embedding's first."""
    model = trained.model
    one = Encoder(bare(model, 1), trained.vocabulary.size, encoder_dtype(), 1, len(trained.languages) or 1)

    def layers(params: Any, batch: dict[str, jax.Array]) -> list[jax.Array]:
        def of(number: int) -> dict[str, Any]:
            layer = jax.tree.map(lambda leaf: leaf[number : number + 1], params["layers"])
            return {"params": {"embedding": params["embedding"], "layers": layer}}

        carry, _ = one.apply(of(0), batch, method="begin")
        outputs = [carry[1]]
        for number in range(model.layers):
            carry = one.apply(of(number), carry, batch, None, number, method="go_on")
            outputs.append(carry[1])
        return [x.astype(jnp.float32) for x in outputs]

    return layers
