# SPDX-License-Identifier: Apache-2.0
"""`regress`: a number per text or pair of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.packing import Batch, Shape
from mlm_jax.finetune.tasks.base import Losses, Prediction
from mlm_jax.finetune.tasks.texts import TextTask, fill
from mlm_jax.metrics import labels as measures
from mlm_jax.model.batch import PackedBatch


class Regress(TextTask):
    """Least squares."""

    name = "regress"
    has_labels = False
    counts_correct = False
    metrics = ("pearson", "spearman")
    problem_type = "regression"

    def parse_label(self, where: str, label: Any, data: Data) -> float:
        try:
            label = float(label)
        except (TypeError, ValueError) as e:
            raise UserError(f"{where}: {data.label} is {label!r}, not a number") from e
        if not math.isfinite(label):
            raise UserError(f"{where}: {data.label} is {label}, not a finite number")
        return label

    def to_target(self, label: Any, number: Mapping[str, int]) -> float:
        return label

    def targets(self, items: Items, batch: Batch, shape: Shape) -> dict[str, np.ndarray]:
        """targets: the number, float32 [rows, slots]."""
        return {"targets": fill(np.zeros((shape.rows, shape.slots), np.float32), items, batch)}

    def outputs(self, labels: Sequence[str]) -> int:
        return 1

    def loss(self, params: Mapping[str, Any], scores: jax.Array, batch: PackedBatch) -> Losses:
        valid = batch["valid"]
        error = (scores[..., 0] - batch["targets"]) ** 2  # [rows, slots]
        return {"loss": (jnp.sum(jnp.where(valid, error, 0)), jnp.sum(valid, dtype=jnp.float32))}

    def decode(
        self,
        examples: Sequence[Example],
        encoded: Encoded,
        scores: Sequence[np.ndarray],
        labels: Sequence[str],
        params: Mapping[str, Any],
        task: Task,
    ) -> list[Prediction]:
        return [Prediction(float(score[0])) for score in scores]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
    ) -> dict[str, float]:
        gold, found = [e.label for e in examples], [p.value for p in predictions]
        return {"pearson": measures.pearson(gold, found), "spearman": measures.spearman(gold, found)}

    def exported_labels(self, task: Task) -> tuple[str, ...]:
        return ("LABEL_0",)  # one label is how Hugging Face's classes know a regression
