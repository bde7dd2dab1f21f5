# SPDX-License-Identifier: Apache-2.0
"""One way to run an encoder, with or without a head, over texts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mlm_jax import mesh as meshes
from mlm_jax.encode.rows import Batch, Items, Shape, by_length, to_arrays
from mlm_jax.errors import UserError
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.model.batch import PackedBatch
from mlm_jax.pretrained import Params, Pretrained
from mlm_jax.vocabulary import Vocabulary

# parameters, arrays of a batch → a tree of arrays
Function = Callable[[Params, PackedBatch], Any]
# batches (their rows' items, and their shape) → the rows' items and what the function made of each batch, on the host
Run = Callable[[Items, Params], Iterator[tuple[Batch, Any]]]
Batches = Iterable[tuple[Batch, Shape]]

AHEAD = 1  # batches handed to the devices before the oldest is fetched


def make_run(
    function: Function,
    mesh: jax.sharding.Mesh,
    pad: int,
    token_types: int,
    batching: Callable[[Sequence[int]], Batches] | None = None,
    more: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
) -> Run:
    """Build what runs a function of (parameters, batch) over items, a batch at a time.

    Args:
      function: is traced; its results are copied to every process.
      mesh: of the devices; the parameters lie on it.
      pad: id of padding.
      token_types: rows of the encoder's token type embedding.
      batching: lengths of items → batches; None: by length.
      more: arrays that a batch has besides those of `rows.to_arrays`, from those.

    Returns:
      run(items, parameters) → (items of each row, result as NumPy arrays), batch by batch in an order of its own.
    """
    sharding = meshes.batch_sharding(mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    step = jax.jit(function, out_shardings=everywhere)
    over, tokens = mesh.shape["data"] * mesh.shape["fsdp"], tokens_per_batch(mesh)
    batching = batching or (lambda lengths: by_length(lengths, tokens, over))

    def run(items: Items, params: Params) -> Iterator[tuple[Batch, Any]]:
        waiting: deque[tuple[Batch, Any]] = deque()
        for batch, shape in batching(items.lengths):
            arrays = to_arrays(items, batch, shape, pad, token_types)
            arrays |= more(arrays) if more else {}
            rows = local_rows(sharding, shape.rows)
            arrays = {name: value[rows] for name, value in arrays.items()}
            with meshes.mesh_context(mesh):
                waiting.append((batch, step(params, to_global(arrays, shape.rows, sharding))))
            if len(waiting) > AHEAD:
                batch, result = waiting.popleft()
                yield batch, jax.tree.map(np.asarray, result)
        for batch, result in waiting:
            yield batch, jax.tree.map(np.asarray, result)

    return run


def tokens_per_batch(mesh: jax.sharding.Mesh) -> int:
    """Positions of a batch, about.

    On CPU what a layer makes of a batch stays in the cache, and little is lost where the last batch is not full.
    """
    if mesh.devices.flat[0].platform == "cpu":
        return 1_024
    return 32_768 * mesh.shape["data"] * mesh.shape["fsdp"]  # devices that rows are divided over


def items_of(ids: Sequence[np.ndarray], language: str, languages: Sequence[str], embedded: bool) -> Items:
    """Single texts of one language.

    Args:
      ids: with specials, int32 [length] each.
      languages: of the encoder.
      embedded: whether it has language embeddings.

    Raises:
      UserError: it has none for this language.
    """
    if embedded:
        refuse_unknown(language, languages)
    number = languages.index(language) if language in languages else 0
    return Items(list(ids), [np.zeros(len(x), np.int32) for x in ids], [number] * len(ids))


def refuse_unknown(language: str, languages: Sequence[str]) -> None:
    """Refuse a language that an encoder with language embeddings has none for.

    Raises:
      UserError: naming it and those there are.
    """
    if language not in languages:
        raise UserError(
            f"the encoder has no language embedding for {language or 'a text of no language'}; it has {', '.join(languages)}"
        )


def frame(pieces: Sequence[int], words: Vocabulary, max_length: int) -> np.ndarray:
    """Token ids between begin and end, cut to `max_length`: int32 [length]."""
    return np.asarray([words.bos, *pieces[: max_length - 2], words.eos], np.int32)


def refuse_longer(max_length: int, pretrained: Pretrained) -> None:
    """Refuse texts that an encoder has too few positions for.

    Raises:
      UserError: with the option to set.
    """
    positions = pretrained.model.positions
    if max_length > positions:
        raise UserError(
            f"max_length: {max_length} is beyond the encoder's {positions} positions; use --max_length {positions}"
        )
