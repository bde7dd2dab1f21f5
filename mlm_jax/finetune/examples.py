# SPDX-License-Identifier: Apache-2.0
"""Labelled examples, and their fields in the rows of files."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data


@dataclass(frozen=True)
class Example:
    """A text, or two, and what a model should say of it.

    Attributes:
      where: file and line (SQuAD: file and question id), for messages.
      first: text, or question; of tagged words, the words.
      second: the other text, or the paragraph.
      label: label; number; a tag per word; or the answers' (text, offset in characters). None where there is none.
      key: SQuAD's question id, or the example's line in its file.
      text: of tagged words, the sentence as it was written, where the file has it.
    """

    where: str
    first: Any
    second: str | None
    label: Any
    key: str
    text: str | None = None


def named_fields(
    where: str, row: dict[str, Any], data: Data, labels: bool, may_be_null: bool = False
) -> tuple[Any, Any, Any]:
    """The text, the second one, and the label of a row; None where there is none.

    Args:
      labels: whether there must be a label.
      may_be_null: whether JSON's null is a label, which says that there is none.

    Raises:
      UserError: a field is missing, or the label is empty.
    """

    def get(name: str) -> Any:
        if name not in row:
            near = difflib.get_close_matches(name, row, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(row)}"
            raise UserError(f"{where}: no column {name}; {hint} (data.text, data.pair and data.label name them)")
        return row[name]

    first = get(data.text)
    second = get(data.pair) if data.pair else None
    label = get(data.label) if labels or data.label in row else None
    if label is None and labels and not may_be_null:
        raise UserError(f"{where}: {data.label} is empty; label the example, or remove it")
    return first, second, label


def line_number(where: str) -> str:
    """The line of FILE:LINE."""
    return where.rpartition(":")[2]
