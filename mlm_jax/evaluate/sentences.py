# SPDX-License-Identifier: Apache-2.0
"""Sentences → vectors: of any layer, by the first token or the mean, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Items, to_arrays
from mlm_jax.finetune.packing import Shape
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.model.encoder import make_encoder
from mlm_jax.model.task_head import pool
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.train.trained import Trained
from mlm_jax.vocabulary import Vocabulary

# sentences, language → float32 [sentences, width]
Embed = Callable[[Sequence[str], str], np.ndarray]
# token ids of each sentence, language → the sentences of a batch, a row each, and the step's output, batch by batch
Run = Callable[[Sequence[np.ndarray], str], Iterator[tuple[list[int], np.ndarray]]]

MULTIPLE = 8  # of rows' lengths: each length is a program of its own
SORTED = 4_096  # sentences that are sorted at a time, so that what streams to disk stays together


def by_length(lengths: Sequence[int], tokens: int, devices: int) -> Iterator[tuple[list[int], Shape]]:
    """Batches of sentences of like lengths, the longest first, a sentence a row.

    Rows that hold several sentences would have less padding, but scores of all their tokens with all others, most of which are masked.

    Args:
      tokens: positions of a batch, about.
      devices: that the rows are divided over.
    """
    for begin in range(0, len(lengths), SORTED):
        waiting = sorted(range(begin, min(begin + SORTED, len(lengths))), key=lambda i: -lengths[i])
        while waiting:
            length = -(-lengths[waiting[0]] // MULTIPLE) * MULTIPLE
            rows = max(1, tokens // length // devices) * devices
            yield waiting[:rows], Shape(rows, length, 1)
            waiting = waiting[rows:]


def make_runner(trained: Trained, max_length: int) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Run]]:
    """Build what puts parameters on the devices, and what runs a function of (parameters, batch) on sentences.

    Args:
      max_length: tokens of a sentence, specials included.

    Raises:
      UserError: the encoder has too few positions.
    """
    model = trained.model
    if max_length > model.positions:
        raise UserError(
            f"max_length: {max_length} is beyond the encoder's {model.positions} positions; use --max_length {model.positions}"
        )
    devices = jax.devices()
    # On CPU what a layer makes of a batch stays in the cache, and little is lost where the last batch is not full.
    tokens = 1_024 if jax.default_backend() == "cpu" else 32_768 * len(devices)
    mesh = meshes.make_mesh(cfg.Mesh(), len(devices), devices)
    sharding = meshes.batch_sharding(mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    number = {language: i for i, language in enumerate(trained.languages)}

    def runner(function: Any, params: Any) -> Run:
        step = jax.jit(function, in_shardings=(everywhere, sharding), out_shardings=everywhere)

        def run(ids: Sequence[np.ndarray], language: str) -> Iterator[tuple[list[int], np.ndarray]]:
            if model.language_embedding and language not in number:
                raise UserError(f"the encoder has no language embedding for {language}; it has {', '.join(number)}")
            zeros = [np.zeros(len(x), np.int32) for x in ids]
            items = Items(list(ids), zeros, [None] * len(ids), [number.get(language, 0)] * len(ids))
            with meshes.mesh_context(mesh):
                for members, shape in by_length(items.lengths, tokens, len(devices)):
                    batch = [[item] for item in members]
                    arrays = to_arrays(items, batch, shape, trained.vocabulary.pad, model.token_types)
                    rows = local_rows(sharding, shape.rows)
                    arrays = {name: arrays[name][rows] for name in arrays if name != "valid"}
                    yield members, np.asarray(step(params, to_global(arrays, shape.rows, sharding)))

        return run

    return lambda params: jax.device_put(params, everywhere), runner


def pooled(hidden: jax.Array, batch: dict[str, jax.Array], how: Any) -> jax.Array:
    """The vector of each row's sentence, [rows, length, width] → float32 [rows, width]."""
    return pool(hidden.astype(jnp.float32), batch["starts"], batch["segment_ids"], how)[:, 0]


def frame(pieces: Sequence[int], words: Vocabulary, max_length: int) -> np.ndarray:
    """Token ids between begin and end, int32, cut to `max_length`."""
    return np.asarray([words.bos, *pieces[: max_length - 2], words.eos], np.int32)


def make_embedder(trained: Trained, tokenizer: Tokenizer, layer: int, pooling: Any, max_length: int) -> Embed:
    """Build the function that embeds sentences.

    Args:
      layer: counted from 1; 0: the last.
      pooling: "first" or "mean", of all tokens, specials included.
      max_length: tokens read of a sentence, specials included.

    Raises:
      UserError: the encoder has no such layer, or too few positions.
    """
    model, words = trained.model, trained.vocabulary
    layer = layer or model.layers
    if not 1 <= layer <= model.layers:
        raise UserError(f"layer: {layer}, the encoder has {model.layers}")
    encoder = make_encoder(model, words.size, len(trained.languages), layers=layer)

    def vectors(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return pooled(encoder.apply({"params": params}, batch), batch, pooling)  # type: ignore[arg-type]

    place, runner = make_runner(trained, max_length)
    params = {
        "embedding": trained.params["embedding"],
        "layers": jax.tree.map(lambda leaf: leaf[:layer], trained.params["layers"]),
    }
    run = runner(vectors, place(params))

    def embed(sentences: Sequence[str], language: str) -> np.ndarray:
        ids = [frame(pieces, words, max_length) for pieces in tokenizer.encode(list(sentences))]
        out = np.zeros((len(ids), model.width), np.float32)
        for members, found in run(ids, language):
            out[members] = found[: len(members)]
        return out

    return embed
