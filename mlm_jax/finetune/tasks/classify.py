# SPDX-License-Identifier: Apache-2.0
"""`classify`: a label per text or pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.packing import Batch, Shape
from mlm_jax.finetune.tasks.base import Losses, Prediction
from mlm_jax.finetune.tasks.texts import TextTask, fill
from mlm_jax.metrics import labels as measures
from mlm_jax.model.batch import PackedBatch


class Classify(TextTask):
    """Softmax over labels."""

    name = "classify"
    options = ("positive",)
    metrics = ("accuracy", "macro_f1", "mcc", "binary_f1")
    problem_type = "single_label_classification"

    def allowed_metrics(self, task: Task) -> tuple[str, ...]:
        return self.metrics if task.positive else self.metrics[:3]

    def parse_label(self, where: str, label: Any, data: Data) -> str:
        if isinstance(label, list | dict):
            raise UserError(f"{where}: {data.label} is {label!r}, not one label; another task.kind takes several")
        return str(label)

    def labels_of(self, example: Example) -> Sequence[str]:
        return (example.label,)

    def to_target(self, label: Any, number: Mapping[str, int]) -> int:
        return number[label]

    def targets(self, items: Items, batch: Batch, shape: Shape) -> dict[str, np.ndarray]:
        """targets: the label's id, int32 [rows, slots], -1 where there is no text."""
        return {"targets": fill(np.full((shape.rows, shape.slots), -1, np.int32), items, batch)}

    def loss(self, params: Mapping[str, Any], scores: jax.Array, batch: PackedBatch) -> Losses:
        return cross_entropy(scores, batch["targets"])

    def decode(
        self,
        examples: Sequence[Example],
        encoded: Encoded,
        scores: Sequence[np.ndarray],
        labels: Sequence[str],
        params: Mapping[str, Any],
        task: Task,
    ) -> list[Prediction]:
        found = []
        for score in scores:
            chances = softmax(score.astype(np.float64))
            best = int(chances.argmax())
            every = {label: float(p) for label, p in zip(labels, chances, strict=True)}
            found.append(Prediction(labels[best], float(chances[best]), every))
        return found

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
    ) -> dict[str, float]:
        gold, found = [e.label for e in examples], [p.value for p in predictions]
        measured = {"accuracy": measures.accuracy(gold, found), "macro_f1": measures.macro_f1(gold, found)}
        if task.positive:
            measured["binary_f1"] = measures.binary_f1(gold, found, task.positive)
        return measured | {"mcc": measures.mcc(gold, found)}


def cross_entropy(scores: jax.Array, targets: jax.Array) -> Losses:
    """Softmax cross-entropy.

    Args:
      scores: float32 [rows, vectors, labels].
      targets: ids of labels, int32 [rows, vectors]; -1 is not scored.
    """
    scored = targets >= 0
    count = jnp.sum(scored, dtype=jnp.float32)
    correct = jnp.sum(scored & (jnp.argmax(scores, axis=-1) == targets), dtype=jnp.float32)
    picked = jnp.take_along_axis(jax.nn.log_softmax(scores), jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return {"loss": (-jnp.sum(jnp.where(scored, picked, 0)), count), "accuracy": (correct, count)}
