# SPDX-License-Identifier: Apache-2.0
"""Text → vectors of every layer, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from mlm_jax import console
from mlm_jax.coverage import warn_unknown
from mlm_jax.encode.given import as_texts
from mlm_jax.encode.run import Function, frame, items_of, make_run, refuse_longer
from mlm_jax.encode.sentences import pooled
from mlm_jax.encode.words import encode_words
from mlm_jax.files import aside, make_folder
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.task_head import Pooling
from mlm_jax.pretrained import Params, Pretrained, place
from mlm_jax.stored import reading_arrays
from mlm_jax.tokenizers import Tokenizer

# a layer's output [rows, length, width], batch → what is kept of it
Read = Callable[[jax.Array, PackedBatch], jax.Array]

POOLINGS: tuple[Pooling, ...] = ("first", "mean")


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


def make_vectors(
    pretrained: Pretrained, tokenizer: Tokenizer, mesh: jax.sharding.Mesh, max_length: int, folder: epath.PathLike
) -> Vectors:
    """The vectors of an encoder.

    Args:
      max_length: tokens read of a sentence, specials included.
      folder: where vectors of sentences are kept; what is there is not computed again.

    Raises:
      UserError: the encoder has too few positions.
    """
    model, words = pretrained.model, pretrained.vocabulary
    refuse_longer(max_length, pretrained)
    placed = place(pretrained, mesh).params
    params = {name: placed[name] for name in ("embedding", "layers")}

    def of_poolings(hidden: jax.Array, batch: PackedBatch) -> jax.Array:
        return jnp.stack([pooled(hidden, batch, how) for how in POOLINGS])

    def runner(read: Read) -> Callable[[Sequence[np.ndarray], str], Iterator[tuple[list[int], np.ndarray]]]:
        run = make_run(_of_layers(pretrained, read), mesh, words.pad, model.token_types)

        def run_texts(ids: Sequence[np.ndarray], language: str) -> Iterator[tuple[list[int], np.ndarray]]:
            items = items_of(ids, language, pretrained.languages, model.language_embedding)
            for batch, found in run(items, params):
                yield [item for [item] in batch], found

        return run_texts

    of_sentences = runner(of_poolings)  # [layers + 1, poolings, rows, width]
    of_tokens = runner(lambda hidden, batch: hidden.astype(jnp.float32))  # [layers + 1, rows, length, width]

    def embed(sentences: Sequence[str], language: str) -> np.ndarray:
        sentences = as_texts(sentences, "sentences")
        asked = json.dumps([sentences, language, max_length, pretrained.step], ensure_ascii=False)
        path = epath.Path(folder) / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}.npy"
        size = (len(POOLINGS), model.layers + 1, len(sentences), model.width)
        if not path.exists():
            make_folder(path.parent)
            pieces = tokenizer.encode(sentences)
            warn_unknown(language, pieces, words.unk)
            cut = sum(len(x) > max_length - 2 for x in pieces)
            if cut:
                console.warn(f"{language}: {cut:,} of {len(pieces):,} sentences cut to max_length, {max_length} tokens")
            with aside(path) as beside:
                # A map of the file: no more than a batch is in memory.
                out = np.lib.format.open_memmap(beside, "w+", np.float32, size)
                for members, found in of_sentences([frame(x, words, max_length) for x in pieces], language):
                    out[:, :, members] = found[:, :, : len(members)].swapaxes(0, 1)
                out.flush()
        with reading_arrays(path, "delete it, and it is computed anew"):
            found = np.load(path, mmap_mode="r")
            if found.shape != size or found.dtype != np.float32:
                raise ValueError(f"{found.dtype} {found.shape}, not float32 {size}")
        return found

    def embed_words(sentences: Sequence[Sequence[str]], language: str) -> list[np.ndarray]:
        ids, starts = [], []
        for pieces in encode_words(tokenizer, sentences, words.unk):
            ends = 1 + np.cumsum([len(of_word) for of_word in pieces])
            kept = int(np.searchsorted(ends, max_length - 1, side="right"))  # words that are there whole
            starts.append(np.concatenate([[1], ends[:kept]]).astype(int))
            ids.append(frame([piece for of_word in pieces[:kept] for piece in of_word], words, max_length))
        found: list[np.ndarray] = [np.zeros(0)] * len(ids)
        for members, hidden in of_tokens(ids, language):
            for row, item in enumerate(members):
                edges = starts[item]
                sums = (
                    np.add.reduceat(hidden[:, row, : edges[-1]], edges[:-1], axis=1)
                    if len(edges) > 1
                    else np.zeros((model.layers + 1, 0, model.width))
                )
                found[item] = (sums / np.diff(edges)[None, :, None]).astype(np.float32)
        return found

    return Vectors(model.layers, embed, embed_words)


def _of_layers(pretrained: Pretrained, read: Read) -> Function:
    """The function from parameters and a batch to what `read` makes of every layer's output, the embedding's first.

    A loop over the layers: a quarter of the time to compile of them all in a row, and as fast.
    """
    one = pretrained.encoder(layers=1)

    def function(params: Params, batch: PackedBatch) -> jax.Array:
        def with_layer(layer: Any) -> dict[str, Any]:
            layer = jax.tree.map(lambda leaf: leaf[None], layer)
            return {"params": {"embedding": params["embedding"], "layers": layer}}

        def run_layer(residual: Any, at: tuple[jax.Array, Any]) -> tuple[Any, jax.Array]:
            number, layer = at
            residual = one.apply(with_layer(layer), residual, batch, None, number, method="run_layers")
            return residual, read(residual.normed, batch)

        lowest = jax.tree.map(lambda leaf: leaf[0], params["layers"])
        residual, _ = one.apply(with_layer(lowest), batch, method="embed")
        above = jax.lax.scan(
            run_layer, residual, (jnp.arange(pretrained.model.layers, dtype=jnp.uint32), params["layers"])
        )[1]
        return jnp.concatenate([read(residual.normed, batch)[None], above])

    return function
