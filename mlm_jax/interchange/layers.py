# SPDX-License-Identifier: Apache-2.0
"""A shallower encoder of some of another's layers: how a student begins (Sanh et al. 2019, section 2)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from mlm_jax.config import Model
from mlm_jax.errors import UserError
from mlm_jax.pretrained import Pretrained


def read_layers(given: str, model: Model) -> tuple[int, ...]:
    """The layers that a list such as "1,3,5" names, counted from 1.

    Raises:
      UserError: it is no such list, or not one that makes an encoder of the same kind; a list that does is named.
    """
    option = f"--layers {given}"
    parts = [part.strip() for part in given.split(",")]
    wrong = [part for part in parts if not part.isdecimal()]
    if wrong:
        raise UserError(f'{option}: "{wrong[0]}" is not the number of a layer; write a list such as 1,3,5')
    kept = [int(part) for part in parts]
    outside = [layer for layer in kept if not 1 <= layer <= model.layers]
    if outside:
        raise UserError(f"{option}: no layer {outside[0]}; the encoder has layers 1 to {model.layers}")
    if any(a >= b for a, b in itertools.pairwise(kept)):
        in_order = ",".join(map(str, sorted(set(kept))))
        raise UserError(f"{option}: layers are kept once each and in their order; write {in_order}")
    every = model.global_every
    if any(_is_global(layer, every) != _is_global(i, every) for i, layer in enumerate(kept, 1)):
        raise UserError(
            f"{option}: layers 1, {1 + every}, {1 + 2 * every} and so on attend globally and the others within a window, of the student too; "
            f"keep {_nearest(kept, model)}, say"
        )
    if kept[0] != 1 and _begins_normed(model):
        raise UserError(
            f"{option}: layer 1 alone reads the embedding's norm; keep {_nearest([1, *kept[1:]], model)}, say"
        )
    return tuple(kept)


def keep_layers(pretrained: Pretrained, kept: Sequence[int]) -> Pretrained:
    """The encoder of some of the layers, all else being as it was. Sentence vectors of a layer that is gone are of the last.

    Args:
      pretrained: on the host.
      kept: of `read_layers`.
    """
    rows = np.asarray(kept) - 1
    params = dict(pretrained.params)
    layers = jax.tree.map(lambda leaf: leaf[rows], params["layers"])  # [layers, ...] → [kept, ...]
    if pretrained.model.norm == "pre":
        # What a layer's attention reads is normed by the layer before (`encoder.Layer`), and what comes last by the last of all.
        before = rows - 1  # -1: the embedding
        reading = np.append(before[1:], pretrained.model.layers - 1)
        norm = params["layers"]["mlp_norm"]
        layers["mlp_norm"] = jax.tree.map(lambda leaf: leaf[reading], norm)
        if before[0] >= 0:
            params["embedding"] = params["embedding"] | {"norm": jax.tree.map(lambda leaf: leaf[before[0]], norm)}
    params["layers"] = layers
    model, vectors = dataclasses.replace(pretrained.model, layers=len(rows)), pretrained.vectors
    if vectors is not None and vectors.layer:
        vectors = dataclasses.replace(
            vectors, layer=([*kept].index(vectors.layer) + 1) % len(rows) if vectors.layer in kept else 0
        )
    return dataclasses.replace(pretrained, model=model, params=params, vectors=vectors)


def _is_global(layer: int, every: int) -> bool:
    return (layer - 1) % every == 0


def _begins_normed(model: Model) -> bool:
    """Whether the residual stream begins with the embedding's norm, so that no layer's own can stand in its place."""
    return model.norm == "pre" and model.embedding_norm


def _nearest(kept: Sequence[int], model: Model) -> str:
    """As many layers that make an encoder of the same kind, as near to those given as can be."""
    every = model.global_every
    best: list[tuple[int, tuple[int, ...]]] = [
        (0, ())
    ]  # distance and layers, of the first i layers of all lists that work
    for i, wanted in enumerate(kept, 1):
        found = []
        for distance, before in best:
            after = range(before[-1] + 1 if before else 1, model.layers + 1)
            fitting = [x for x in after if _is_global(x, every) == _is_global(i, every)]
            if i == 1 and _begins_normed(model):
                fitting = [1]
            found += [(distance + abs(x - wanted), (*before, x)) for x in fitting]
        # Of those that end in a layer the nearest: what follows depends on the end alone.
        best = list({layers[-1]: (distance, layers) for distance, layers in sorted(found, reverse=True)}.values())
    return ",".join(map(str, min(best)[1]))
