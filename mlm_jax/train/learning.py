# SPDX-License-Identifier: Apache-2.0
"""What a run learns, as the trainer needs to know it: each `objective.learn` is a function from `Given` to `Learning`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from mlm_jax.config import Config
from mlm_jax.manifest import Stream
from mlm_jax.model.batch import Batch
from mlm_jax.model.encoder import Encoder
from mlm_jax.train.metrics import Record
from mlm_jax.train.state import Params
from mlm_jax.train.step import Objective
from mlm_jax.vocabulary import Vocabulary


@dataclass(frozen=True)
class Given:
    """What there is to learn with.

    Attributes:
      model: the encoder that is trained.
      languages: rows of its language embedding.
      word_classes, counts: uint8 [2, vocabulary] and int [vocabulary], where the objective asks for them; see
        `objectives.make_tables`.
    """

    config: Config
    model: Encoder
    words: Vocabulary
    languages: int
    mesh: jax.sharding.Mesh
    word_classes: np.ndarray | None = None
    counts: np.ndarray | None = None


@dataclass(frozen=True)
class Learning:
    """One kind of learning.

    Attributes:
      objective: what a step minimises.
      measured: names of the (sum, weight) pairs that its loss returns.
      validation: (parameters, frozen parameters, batch of `mixture.batch_shapes`) → name → [rows, ...], what is known of each block
        of a validation batch; without dropout, the same whenever it is asked.
      score: (stream, name → [blocks of the stream, ...], as NumPy arrays) → what validation says of the stream, `loss` among it;
        None where that is nothing.
      predictions: positions per block that reach the output layer.
      log: (window on the host) → fields of the line of metrics.
      frozen: parameters that are read and not trained, on the mesh.
      besides: key → parameters, boxed, that are trained beside the encoder's and are no part of it; None: there are none.
      must_match: what else has to be the same when a run continues, as name → sha256.
    """

    objective: Objective
    measured: tuple[str, ...]
    validation: Callable[[Params, Params, Batch], dict[str, jax.Array]]
    score: Callable[[Stream, dict[str, np.ndarray]], dict[str, Any] | None]
    predictions: int = 0
    log: Callable[[dict[str, np.ndarray]], Record] = lambda sums: {}
    frozen: Params = field(default_factory=dict)
    besides: Callable[[jax.Array], Params] | None = None
    must_match: dict[str, str] = field(default_factory=dict)
