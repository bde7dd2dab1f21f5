# SPDX-License-Identifier: Apache-2.0
"""Heads of fine-tuned encoders as Hugging Face's classes have them: names, shapes and settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlm_jax.config import Model
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Task
from mlm_jax.finetune.tasks import TASKS, task_kind
from mlm_jax.interchange.tensors import Tensors

PREFIXES = {
    "bert": "Bert",
    "xlm": "XLM",
    "xlm-roberta": "XLMRoberta",
    "xlm-roberta-xl": "XLMRobertaXL",
    "modernbert": "ModernBert",
}


def architecture(family: str, task: Task) -> str:
    """The class that has such a head."""
    return PREFIXES[family] + task_kind(task).class_ending(family)


def kind_of(architecture: str, settings: dict[str, Any]) -> str | None:
    """The task of a class; None: it is no fine-tuned one."""
    problem = settings.get("problem_type")
    if problem is None or problem == "single_label_classification":
        labels = settings.get("id2label")
        is_number = isinstance(labels, dict) and len(labels) == 1
        problem = "regression" if is_number else "single_label_classification"
    for name, kind in TASKS.items():
        if architecture.removesuffix("Simple").endswith(kind.architecture) and kind.problem_type in (None, problem):
            return name
    return None


def names(family: str, task: Task) -> dict[str, str]:
    """Our parameter groups → their names: `dense`, `norm` where there are such, and `output`."""
    if family == "modernbert":
        return {"dense": "head.dense", "norm": "head.norm", "output": "classifier"}
    if task_kind(task).of_tokens:
        return {"output": task_kind(task).output_layer}
    return {
        "bert": {"dense": "bert.pooler.dense", "output": "classifier"},
        "xlm": {"output": "sequence_summary.summary"},
        "xlm-roberta": {"dense": "classifier.dense", "output": "classifier.out_proj"},
        "xlm-roberta-xl": {"dense": "classifier.dense", "output": "classifier.out_proj"},
    }[family]


def head_tensors(params: dict[str, Any], family: str, task: Task) -> Tensors:
    """Every tensor of the head, as a view of our parameters."""
    found: Tensors = {}
    for part, name in names(family, task).items():
        if part == "norm":
            found[f"{name}.weight"] = params["norm"]["scale"]
            if "bias" in params["norm"]:
                found[f"{name}.bias"] = params["norm"]["bias"]
            continue
        found[f"{name}.weight"] = params[f"{part}_kernel"].T
        if f"{part}_bias" in params:
            found[f"{name}.bias"] = params[f"{part}_bias"]
    return found


def empty_head(model: Model, family: str, task: Task) -> dict[str, Any]:
    """Zeros in the shapes of a head, for `head_tensors` to give views of; float32."""
    width, outputs = model.width, task_kind(task).outputs(task.labels)
    made: dict[str, Any] = {
        "output_kernel": np.zeros((width, outputs), np.float32),
        "output_bias": np.zeros(outputs, np.float32),
    }
    parts = names(family, task)
    if "dense" in parts:
        made["dense_kernel"] = np.zeros((width, width), np.float32)
        if model.bias or "norm" not in parts:
            made["dense_bias"] = np.zeros(width, np.float32)
    if "norm" in parts:
        made["norm"] = {"scale": np.zeros(width, np.float32)}
        if model.bias:
            made["norm"]["bias"] = np.zeros(width, np.float32)
    return made


def to_settings(family: str, task: Task) -> dict[str, Any]:
    """What config.json says of a head.

    Raises:
      UserError: no class has such a head.
    """
    kind = task_kind(task)
    of_head = kind.to_settings(task)
    if task.pooling == "mean" and not kind.of_tokens and family != "modernbert":
        raise UserError(f"export: {architecture(family, task)} reads the first token, not the mean (task.pooling mean)")
    made: dict[str, Any] = {"architectures": [architecture(family, task)], **of_head}
    if family == "modernbert":
        made["classifier_pooling"] = "mean" if task.pooling == "mean" else "cls"
        made["classifier_dropout"] = task.dropout
    if family == "xlm":
        made |= {"summary_type": "first", "summary_use_proj": True, "summary_activation": None}
        made |= {"summary_proj_to_labels": True, "summary_first_dropout": task.dropout}
    return made


def from_settings(settings: dict[str, Any], family: str, where: str) -> Task | None:
    """The task of a config.json; None: it is of no fine-tuned encoder.

    Raises:
      UserError: a head that ours cannot express.
    """
    classes = settings.get("architectures") or [""]
    if not isinstance(classes, list) or not isinstance(classes[0], str):
        raise UserError(f"{where}: config.json has architectures {str(classes)[:60]}; it has to be a list of names")
    kind = kind_of(classes[0], settings)
    if kind is None:
        return None
    if family == "xlm" and not TASKS[kind].of_tokens:
        for field, wanted in (("summary_type", "first"), ("summary_activation", None)):
            if settings.get(field, wanted) != wanted:
                raise UserError(
                    f"{where}: config.json has {field} {settings[field]!r}; only {wanted!r} can be imported"
                )
    labels = _labels(settings, where) if TASKS[kind].has_labels else ()
    mean = family == "modernbert" and settings.get("classifier_pooling", "cls") == "mean"
    return Task(kind=kind, labels=labels, pooling="mean" if mean else "first")


def _labels(settings: dict[str, Any], where: str) -> tuple[str, ...]:
    """The labels of `id2label`, in the order of their ids.

    Raises:
      UserError: they are not numbered from 0, not text, or two are the same.
    """
    found = settings.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    wanted = {str(i): i for i in range(len(found))} if isinstance(found, dict) else {}
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise UserError(f"{where}: config.json has id2label {str(found)[:60]}; it has to name labels from 0 on")
    labels = list(found.values())
    if not all(isinstance(label, str) and label for label in labels) or len(set(labels)) < len(labels):
        raise UserError(f"{where}: config.json has id2label {str(found)[:60]}; each label has to be a name of its own")
    return tuple(found[key] for key in sorted(found, key=wanted.__getitem__))
