# SPDX-License-Identifier: Apache-2.0
"""Which parameters are trained: all, those above the frozen layers, and of the token embedding the rows in use.

A piece that no training example holds has no gradient, so its row is kept out of the step: at 250,002 pieces the
token embedding is most of the model, and the optimizer's pass over it most of a step.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from mlm_jax.model.encoder import padded_rows

Params = dict[str, Any]


def split(params: Params, freeze: int, used: np.ndarray) -> tuple[Params, Params]:
    """An encoder's parameters as those that are trained and those that are not.

    Args:
      params: `embedding` and `layers` of an encoder, NumPy arrays, unboxed.
      freeze: lower layers left as they are, with the embeddings; -1: nothing is.
      used: ids of the training data, ascending.

    Returns:
      trained and frozen, of the same names. Not frozen, the token embedding is trained in the rows `used` only.
    """
    if freeze < 0:
        embedding = dict(params["embedding"])
        table = embedding["token_embedding"]
        small = np.zeros((padded_rows(len(used)), table.shape[1]), table.dtype)
        small[: len(used)] = table[used]
        return {"embedding": embedding | {"token_embedding": small}, "layers": params["layers"]}, {}
    frozen = {"embedding": params["embedding"]}
    if freeze:
        frozen["layers"] = jax.tree.map(lambda leaf: leaf[:freeze], params["layers"])
    count = len(jax.tree.leaves(params["layers"])[0])
    trained = {"layers": jax.tree.map(lambda leaf: leaf[freeze:], params["layers"])} if freeze < count else {}
    return trained, frozen


def merge(trained: Params, initial: Params, freeze: int, used: np.ndarray) -> Params:
    """The whole encoder's parameters, from those trained and those it started from; NumPy arrays."""
    if freeze < 0:
        embedding = jax.tree.map(np.asarray, trained["embedding"])
        table = initial["embedding"]["token_embedding"].copy()
        table[used] = embedding["token_embedding"][: len(used)]
        return {
            "embedding": embedding | {"token_embedding": table},
            "layers": jax.tree.map(np.asarray, trained["layers"]),
        }
    if "layers" not in trained:
        return {"embedding": initial["embedding"], "layers": initial["layers"]}

    def join(below: np.ndarray, above: jax.Array) -> np.ndarray:
        return np.concatenate([below[:freeze], np.asarray(above)])

    return {
        "embedding": initial["embedding"],
        "layers": jax.tree.map(join, initial["layers"], trained["layers"]),
    }
