# SPDX-License-Identifier: Apache-2.0
"""`multilabel`: any number of labels per text or pair of texts, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit

from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.packing import Batch, Shape
from mlm_jax.finetune.tasks.base import Losses, Prediction
from mlm_jax.finetune.tasks.texts import TextTask, fill
from mlm_jax.model.batch import PackedBatch


class Multilabel(TextTask):
    """A sigmoid per label."""

    name = "multilabel"
    options = ("threshold",)
    metrics = ("micro_f1", "macro_f1")
    problem_type = "multi_label_classification"

    def parse_label(self, where: str, label: Any, data: Data) -> tuple[str, ...]:
        """Labels of a JSON list, or of text with "|" between them, or with commas where it has no "|"."""
        if isinstance(label, str):
            label = [part.strip() for part in label.split("|" if "|" in label else ",")] if label.strip() else []
        if not isinstance(label, list) or not all(type(part) in (str, int) and str(part).strip() for part in label):
            raise UserError(
                f'{where}: {data.label} is {label!r}, not a list of labels, nor text with "|" or commas between them'
            )
        labels = tuple(str(part) for part in label)
        for part in labels:
            if labels.count(part) > 1:  # a list of zeros and ones, perhaps
                raise UserError(f"{where}: {part!r} twice in {data.label}; name each label that the text has once")
        return labels

    def labels_of(self, example: Example) -> Sequence[str]:
        labels: Sequence[str] = example.label
        return labels

    def label_set(self, task: Task, train: Sequence[Example]) -> tuple[str, ...]:
        labels = super().label_set(task, train)
        if not labels:
            raise UserError("data.train: no example has a label; label some, or name the labels in task.labels")
        return labels

    def to_target(self, label: Any, number: Mapping[str, int]) -> np.ndarray:
        target = np.zeros(len(number), np.float32)
        target[[number[name] for name in label]] = 1
        return target

    def targets(self, items: Items, batch: Batch, shape: Shape) -> dict[str, np.ndarray]:
        """targets: 1 where a text has a label, else 0, float32 [rows, slots, labels]."""
        empty = np.zeros((shape.rows, shape.slots, len(items.targets[0])), np.float32)
        return {"targets": fill(empty, items, batch)}

    def loss(self, params: Mapping[str, Any], scores: jax.Array, batch: PackedBatch) -> Losses:
        targets, valid = batch["targets"], batch["valid"][..., None]  # [rows, slots, labels], [rows, slots, 1]
        each = optax.sigmoid_binary_cross_entropy(scores, targets)
        correct = valid & ((scores >= 0) == (targets > 0))  # by a probability of 0.5, whatever the threshold
        count = jnp.sum(valid, dtype=jnp.float32) * targets.shape[-1]
        return {
            "loss": (jnp.sum(jnp.where(valid, each, 0)), count),
            "accuracy": (jnp.sum(correct, dtype=jnp.float32), count),
        }

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
            every = dict(zip(labels, expit(score.astype(np.float64)).tolist(), strict=True))
            chosen = {label: p for label, p in every.items() if p >= task.threshold}
            found.append(Prediction(list(chosen), list(chosen.values()), every))
        return found

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
    ) -> dict[str, float]:
        """F1 over all decisions, and the mean of each label's F1, which is 0 for one that is neither there nor found."""
        number = {label: i for i, label in enumerate(predictions[0].every or {})}
        gold = np.stack([self.to_target(e.label, number) for e in examples])  # [examples, labels]
        found = np.stack([self.to_target(p.value, number) for p in predictions])
        both, either = (gold * found).sum(axis=0), (gold + found).sum(axis=0)  # [labels]
        return {
            "micro_f1": float(2 * both.sum() / max(either.sum(), 1)),
            "macro_f1": float(np.mean(2 * both / np.maximum(either, 1))),
        }
