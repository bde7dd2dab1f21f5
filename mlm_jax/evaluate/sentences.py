# SPDX-License-Identifier: Apache-2.0
"""Sentences → vectors: of any layer, by the first token or the mean, in packed blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.finetune import packing
from mlm_jax.finetune.arrays import Items, to_arrays
from mlm_jax.finetune.predict import prediction_shape
from mlm_jax.finetune.step import bare
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.model.encoder import Encoder
from mlm_jax.model.task_head import pool
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.train.trained import Trained
from mlm_jax.vocabulary import Vocabulary

# sentences, language → float32 [sentences, width]
Embed = Callable[[Sequence[str], str], np.ndarray]
# token ids of each sentence, language → the rows' sentences and the step's output, batch by batch
Run = Callable[[Sequence[np.ndarray], str], Iterator[tuple[packing.Batch, np.ndarray]]]


def make_runner(trained: Trained, max_length: int) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Run]]:
    """Build what puts parameters on the devices, and what runs a function of (parameters, batch) on packed sentences.

    Args:
      max_length: tokens of a sentence, specials included.

    Raises:
      UserError: the encoder has too few positions.
    """
    model = trained.model
    if max_length > model.positions:
        raise UserError(f"max_length: {max_length} is beyond the encoder's {model.positions} positions; lower it")
    devices = jax.devices()
    shape = prediction_shape(max_length, len(devices))
    mesh = meshes.make_mesh(cfg.Mesh(), shape.rows, devices)
    sharding = meshes.batch_sharding(mesh)
    rows = local_rows(sharding, shape.rows)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    number = {language: i for i, language in enumerate(trained.languages)}

    def runner(function: Any, params: Any) -> Run:
        step = jax.jit(function, in_shardings=(everywhere, sharding), out_shardings=everywhere)

        def run(ids: Sequence[np.ndarray], language: str) -> Iterator[tuple[packing.Batch, np.ndarray]]:
            if model.language_embedding and language not in number:
                raise UserError(f"the encoder has no language embedding for {language}; it has {', '.join(number)}")
            zeros = [np.zeros(len(x), np.int32) for x in ids]
            items = Items(list(ids), zeros, [None] * len(ids), [number.get(language, 0)] * len(ids))
            with meshes.mesh_context(mesh):
                for batch in packing.in_order(items.lengths, shape):
                    arrays = to_arrays(items, batch, shape, trained.vocabulary.pad, "classify", model.token_types)
                    arrays = {name: arrays[name][rows] for name in arrays if name not in ("targets", "there")}
                    yield batch, np.asarray(step(params, to_global(arrays, shape.rows, sharding)))

        return run

    return lambda params: jax.device_put(params, everywhere), runner


def frame(pieces: Sequence[int], words: Vocabulary, max_length: int) -> np.ndarray:
    """Token ids between begin and end, int32, cut to `max_length`."""
    return np.asarray([words.bos, *pieces[: max_length - 2], words.eos], np.int32)


def encoder_dtype() -> Any:
    """The type an encoder that is not trained computes in."""
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)


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
    unroll = layer if jax.default_backend() == "cpu" else 1
    encoder = Encoder(bare(model, layer), words.size, encoder_dtype(), unroll, len(trained.languages) or 1)

    def pooled(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        hidden = encoder.apply({"params": params}, batch)
        return pool(hidden.astype(jnp.float32), batch["starts"], batch["segment_ids"], pooling)  # type: ignore[union-attr]

    place, runner = make_runner(trained, max_length)
    params = {
        "embedding": trained.params["embedding"],
        "layers": jax.tree.map(lambda leaf: leaf[:layer], trained.params["layers"]),
    }
    run = runner(pooled, place(params))

    def embed(sentences: Sequence[str], language: str) -> np.ndarray:
        ids = [frame(pieces, words, max_length) for pieces in tokenizer.encode(list(sentences))]
        out = np.zeros((len(ids), model.width), np.float32)
        for batch, vectors in run(ids, language):
            for row, members in enumerate(batch):
                out[members] = vectors[row, : len(members)]
        return out

    return embed
