# SPDX-License-Identifier: Apache-2.0
"""The kinds of task, by the name that `task.kind` has for them: nothing outside this folder asks which kind a task is."""

from __future__ import annotations

from mlm_jax.finetune.config import Task
from mlm_jax.finetune.tasks.base import TaskKind
from mlm_jax.finetune.tasks.classify import Classify
from mlm_jax.finetune.tasks.multilabel import Multilabel
from mlm_jax.finetune.tasks.regress import Regress
from mlm_jax.finetune.tasks.span import Span
from mlm_jax.finetune.tasks.tag import Tag

KINDS = (
    Classify(),
    Regress(),
    Tag(),
    Span(),
    Multilabel(),
)
TASKS: dict[str, TaskKind] = {kind.name: kind for kind in KINDS}


def task_kind(task: Task) -> TaskKind:
    """The kind of a task."""
    return TASKS[task.kind]
