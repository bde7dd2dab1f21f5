# SPDX-License-Identifier: Apache-2.0
"""What a kind of task is: everything in which classifying, tagging and finding answers differ."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from mlm_jax.encode.given import as_text
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import LARGEST, Data, Labelled, Task
from mlm_jax.finetune.examples import Example, named_fields
from mlm_jax.finetune.packing import Batch, Shape
from mlm_jax.formats import WITH_FIELDS, data_files, has_fields, read_rows
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.task_head import pool
from mlm_jax.rows import Reading
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary

Losses = dict[str, tuple[jax.Array, jax.Array]]  # name → (sum, weight), float32 [] each


@dataclass(frozen=True)
class Prediction:
    """What a model says of an example.

    Attributes:
      value: label; number; a tag per word; labels; or the answer's text.
      probability: of the value; a probability per word or label; None of numbers. Of an answer: among those considered.
      every: probability of each label, where a text has labels.
      place: the answer's (begin, end) in characters of the paragraph.
      words: of tagged words, (begin, end) of each in characters of the text, or of the words with spaces between.
      entities: that tags mark, in order: entity (its kind), text, begin, end, probability; None where they mark none.
    """

    value: Any
    probability: Any = None
    every: dict[str, float] | None = None
    place: tuple[int, int] | None = None
    words: list[tuple[int, int]] | None = None
    entities: list[dict[str, Any]] | None = None


class TaskKind(abc.ABC):
    """A kind of task. A file of this folder holds a subclass, and `TASKS` an instance of it, which has no state.

    Attributes:
      name: what `task.kind` calls it.
      of_tokens: whether the head reads a vector per token, and not one per text.
      of_words: whether an example is a sentence of words.
      has_labels: whether the head's outputs are labels, those of `task.labels` or of the training data.
      counts_correct: whether `loss` also gives "accuracy".
      options: fields of `Task` that other kinds do not read.
      metrics: that `measure` gives and `task.metric` may name; the first is that of `auto`.
      reads: files that are read, for messages.
      architecture: what the names of Hugging Face's classes for it end in.
      problem_type: what Hugging Face calls it where classes with one name serve several kinds.
      output_layer: what Hugging Face calls the output layer of a head that reads tokens.
    """

    name: ClassVar[str]
    of_tokens: ClassVar[bool]
    of_words: ClassVar[bool] = False
    has_labels: ClassVar[bool] = True
    counts_correct: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]]
    reads: ClassVar[str] = ", ".join(WITH_FIELDS)
    architecture: ClassVar[str]
    problem_type: ClassVar[str | None] = None
    output_layer: ClassVar[str] = "classifier"

    # --- Options ---

    def allowed_metrics(self, task: Task) -> tuple[str, ...]:
        """What `task.metric` may be, besides `auto`."""
        return self.metrics

    def check(self, data: Data, task: Task) -> None:
        """Refuse options that do not fit together.

        Raises:
          UserError: naming the option.
        """
        allowed = self.allowed_metrics(task)
        if task.metric not in ("auto", *allowed):
            raise UserError(f"task.metric: {task.metric} is not of {self.name}; use {' or '.join(allowed)}")

    # --- Labelled data ---

    def read_examples(self, part: Labelled, data: Data, labels: bool = True) -> list[Example]:
        """The examples of one language.

        Args:
          labels: whether each must have one.

        Raises:
          UserError: no such file, no such column, a line of another shape; names file and line.
        """
        paths = data_files(part.path)
        if not paths:
            raise UserError(f"{part.path}: no such file ({part.language}); mend the path or glob")
        found: list[Example] = []
        groups = 0  # what `first` and `last` count: examples, or paragraphs
        for path in paths:
            for group in self.read_file(path, data, labels):
                groups += 1
                if groups >= part.first and (not part.last or groups <= part.last):
                    found += group
        if not found:
            raise UserError(
                f"{part.path}: no example there ({part.language}, first {part.first}, last {part.last or 'all'})"
            )
        return found

    @abc.abstractmethod
    def read_file(self, path: str, data: Data, labels: bool = True) -> Iterator[list[Example]]:
        """Examples of a file, in the groups that `Labelled.first` and `last` count.

        Args:
          labels: whether each must have one.
        """

    def read_rows(self, path: str, data: Data, labels: bool) -> Iterator[tuple[str, Any, Any, Any]]:
        """(file:line, text, pair or None, label or None) of a file of rows."""
        if not has_fields(path):
            raise UserError(f"{path}: task.kind {self.name} reads {self.reads} files")
        for where, row in read_rows(path, Reading(names=data.columns, most=data.largest_file, option=LARGEST)):
            yield where, *named_fields(where, row, data, labels, may_be_null=self.has_labels)

    def from_line(self, line: str) -> Any:
        """`Example.first` of a line of plain text, which `predict` labels; None: a line is not enough."""
        return None

    def check_given(self, example: Example, data: Data) -> Example:
        """An example that Python code hands over, as `encode` takes it.

        Raises:
          UserError: it is not what the model was trained to read.
        """
        # What an imported model was trained on is not known.
        if not data.pair and example.second is not None and data.train:
            raise UserError(f"{example.where}: a pair; the model reads single texts")
        if data.pair and example.second is None:
            raise UserError(f"{example.where}: one text; the model reads pairs ({data.text}, {data.pair})")
        first = as_text(example.first, example.where)
        second = None if example.second is None else as_text(example.second, example.where, "a second text")
        return replace(example, first=first, second=second)

    def labels_of(self, example: Example) -> Sequence[str]:
        """Labels that an example has."""
        return ()

    def without_label(self, example: Example, none: Collection[str], left_out: Counter[str]) -> Example | None:
        """An example without labels that say there is no gold label; None: it has no other.

        Args:
          none: such labels, in lower case.
          left_out: where they are counted.
        """
        if example.label is None:
            left_out["null"] += 1
            return None
        for label in self.labels_of(example):
            if label.strip().lower() in none:
                left_out[label] += 1
                return None
        return example

    def label_names(self, task: Task, labels: Sequence[str]) -> dict[str, str]:
        """Each label's name, which is compared with the others'."""
        return {label: label for label in labels}

    def label_set(self, task: Task, train: Sequence[Example]) -> tuple[str, ...]:
        """The labels there may be: `task.labels`, or those of the training data, sorted; O first."""
        if not self.has_labels:
            return ()
        every = {label for e in train for label in self.labels_of(e)}
        return task.labels or tuple(sorted(every, key=lambda label: (label != "O", label)))

    def check_labels(self, examples: Sequence[Example], labels: tuple[str, ...]) -> None:
        """Refuse examples with labels that are not of the set.

        Raises:
          UserError: naming the first, its line, and the set.
        """
        known = set(labels)
        for e in examples:
            for label in self.labels_of(e):
                if label not in known:
                    shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
                    raise UserError(
                        f"{e.where}: label {label!r} is not one of the training data's ({shown}); mend it, or name all in task.labels"
                    )

    def check_examples(self, examples: Sequence[Example], labels: tuple[str, ...], task: Task) -> None:
        """Refuse labelled examples that the labels, or the options, do not fit.

        Raises:
          UserError: naming the first, and the option to set.
        """
        self.check_labels(examples, labels)

    def trainable(self, examples: list[Example], data: Data) -> tuple[list[Example], str]:
        """The examples that can be trained on, and which are left out, in words.

        Raises:
          UserError: too many are left out.
        """
        return examples, ""

    # --- Arrays ---

    @abc.abstractmethod
    def encode(
        self,
        examples: Sequence[Example],
        language: str,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        labels: Sequence[str],
        data: Data,
    ) -> Encoded:
        """Tokenize examples of one language.

        Args:
          labels: in the order of their ids.
        """

    @abc.abstractmethod
    def targets(self, items: Items, batch: Batch, shape: Shape) -> dict[str, np.ndarray]:
        """What is to be learned of a batch, beside the arrays of `to_arrays`: name → int32 or float32 [rows, ...]."""

    # --- The head ---

    def outputs(self, labels: Sequence[str]) -> int:
        """Scores that the head gives a vector."""
        return len(labels)

    def extra_params(self, task: Task, outputs: int) -> dict[str, np.ndarray]:
        """First values of parameters that are trained with the head and are not of its layers: name → float32 [...]."""
        return {}

    def vectors(self, hidden: jax.Array, batch: PackedBatch, task: Task) -> jax.Array:
        """What the head reads.

        Args:
          hidden: the encoder's output, [rows, length, width].

        Returns:
          [rows, length, width] of tokens, [rows, slots, width] of texts, of the dtype of `hidden`.
        """
        return hidden if self.of_tokens else pool(hidden, batch["starts"], batch["segment_ids"], task.pooling)

    @abc.abstractmethod
    def loss(self, params: Mapping[str, Any], scores: jax.Array, batch: PackedBatch) -> Losses:
        """Losses of a batch.

        Args:
          params: of the head.
          scores: its output, float32 [rows, length, outputs] of tokens, [rows, slots, outputs] of texts.
          batch: arrays of `to_arrays` and `targets`.

        Returns:
          name → (sum, weight); "loss" is trained, and "accuracy" (how many of what is scored are, and of how many) is for the
          log.
        """

    # --- Predictions ---

    @abc.abstractmethod
    def decode(
        self,
        examples: Sequence[Example],
        encoded: Encoded,
        scores: Sequence[np.ndarray],
        labels: Sequence[str],
        params: Mapping[str, Any],
        task: Task,
    ) -> list[Prediction]:
        """A prediction for each example.

        Args:
          scores: of each item: float32 [outputs] of texts, [length, outputs] of tokens.
          params: of the head.
        """

    @abc.abstractmethod
    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
    ) -> dict[str, float]:
        """Every metric of the task, by name."""

    def main_metric(self, task: Task, labels: Sequence[str]) -> str:
        """The metric that chooses checkpoints and is averaged over languages."""
        return self.metrics[0] if task.metric == "auto" else task.metric

    # --- Hugging Face's format ---

    def class_ending(self, family: str) -> str:
        """What the name of a family's class ends in."""
        return self.architecture

    def to_settings(self, task: Task) -> dict[str, Any]:
        """What config.json says of the head, whatever the encoder.

        Raises:
          UserError: no class has such a head.
        """
        made: dict[str, Any] = {}
        if labels := self.exported_labels(task):
            made["id2label"] = {str(i): label for i, label in enumerate(labels)}
            made["label2id"] = {label: i for i, label in enumerate(labels)}
        return made | ({"problem_type": self.problem_type} if self.problem_type else {})

    def exported_labels(self, task: Task) -> tuple[str, ...]:
        """Names of the outputs."""
        return task.labels if self.has_labels else ()
