# SPDX-License-Identifier: Apache-2.0
"""What kinds of task share that say something of a whole text, or of a pair of texts."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlm_jax.encode.rows import placed
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import Data
from mlm_jax.finetune.examples import Example, line_number
from mlm_jax.finetune.packing import Batch
from mlm_jax.finetune.tasks.base import TaskKind
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary


class TextTask(TaskKind):
    """A task whose head reads one vector per text."""

    of_tokens = False
    architecture = "ForSequenceClassification"

    @abc.abstractmethod
    def parse_label(self, where: str, label: Any, data: Data) -> Any:
        """`Example.label` from its field.

        Raises:
          UserError: it is not of its kind.
        """

    @abc.abstractmethod
    def to_target(self, label: Any, number: Mapping[str, int]) -> Any:
        """What `targets` writes of an example's label, given the labels' ids."""

    def read_file(self, path: str, data: Data, labels: bool = True) -> Iterator[list[Example]]:
        for where, first, second, label in self.read_rows(path, data, labels):
            for name, text in ((data.text, first), (data.pair, second)):
                if name and (not isinstance(text, str) or not text.strip()):
                    raise UserError(f"{where}: {name} is empty; remove the example")
            parsed = None if label is None else self.parse_label(where, label, data)
            yield [Example(where, first, second, parsed, line_number(where))]

    def from_line(self, line: str) -> Any:
        return line

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

        Two texts stand as begin A end B end, with the end twice between them where it is `</s>` (XLM-R), and are
        cut, the longer first, to `data.max_length`.

        Args:
          labels: in the order of their ids.
        """
        made = Encoded(language)
        number = {label: i for i, label in enumerate(labels)}
        between = separators(tokenizer, vocabulary)
        first = tokenizer.encode([e.first for e in examples])
        paired = examples[0].second is not None
        second = tokenizer.encode([e.second or "" for e in examples]) if paired else None
        for i, example in enumerate(examples):
            a = first[i]
            b = second[i] if second is not None else None
            room = data.max_length - 2 - (len(between) if b is not None else 0)
            excess = len(a) + len(b or []) - room
            if excess > 0:
                made.truncated += 1
                a, b = cut_pair(a, b, room)
            ids = [vocabulary.bos, *a] + ([] if b is None else [*between, *b]) + [vocabulary.eos]
            target = None if example.label is None else self.to_target(example.label, number)
            typed = b is not None and vocabulary.second_type
            made.add(i, ids, len(a) + 1 + len(between) if typed else len(ids), target)
        return made


def separators(tokenizer: Tokenizer, vocabulary: Vocabulary) -> list[int]:
    """Token ids between two texts: see `Vocabulary.separators`."""
    return [vocabulary.eos] * (vocabulary.separators or (2 if tokenizer.pieces[vocabulary.eos] == "</s>" else 1))


def cut_pair(a: list[int], b: list[int] | None, room: int) -> tuple[list[int], list[int] | None]:
    """Cut the end of the longer text, then of both alike, until the two fit into `room` tokens."""
    if b is None:
        return a[:room], None
    half = room // 2
    if len(a) <= half:
        return a, b[: room - len(a)]
    if len(b) <= room - half:
        return a[: room - len(b)], b
    return a[:half], b[: room - half]


def fill(targets: np.ndarray, items: Items, batch: Batch) -> np.ndarray:
    """Write each item's target into its slot of `targets`, int32 or float32 [rows, slots, ...]; the others stay as they are."""
    for row, slot, _, item in placed(items, batch):
        targets[row, slot] = items.targets[item]
    return targets
