# SPDX-License-Identifier: Apache-2.0
"""Labelled examples, and the rows of the files of columns and of JSON lines that hold them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data
from mlm_jax.lines import read_lines


@dataclass(frozen=True)
class Example:
    """A text, or two, and what a model should say of it.

    Attributes:
      where: file and line (SQuAD: file and question id), for messages.
      first: text, or question; of tagged words, the words.
      second: the other text, or the paragraph.
      label: label; number; a tag per word; or the answers' (text, offset in characters). None where there is none.
      key: SQuAD's question id, or the example's line in its file.
    """

    where: str
    first: Any
    second: str | None
    label: Any
    key: str


def read_table(path: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a file of columns with tabs between, in which quotes are text: (file:line, column → text).

    Args:
      columns: their names; empty: the first line has them.
    """
    names = list(columns)
    for number, line in read_lines(path):
        cells = line.split("\t")
        if not names:
            names = cells
            continue
        if not line:
            continue
        if len(cells) != len(names):
            raise UserError(
                f"{path}:{number}: {len(cells)} columns, not {len(names)} ({', '.join(names)}); mend the line or data.columns"
            )
        yield f"{path}:{number}", dict(zip(names, cells, strict=True))


def read_json_lines(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file of JSON lines: (file:line, object)."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as e:
            raise UserError(f"{path}:{number}: not JSON ({e})") from e
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not a JSON object")
        yield f"{path}:{number}", row


def named_fields(where: str, row: dict[str, Any], data: Data, labels: bool) -> tuple[Any, Any, Any]:
    """The text, the second one, and the label of a row; None where there is none.

    Args:
      labels: whether there must be a label.

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
    if label is None and labels:
        raise UserError(f"{where}: {data.label} is empty; label the example, or remove it")
    return first, second, label


def line_number(where: str) -> str:
    """The line of FILE:LINE."""
    return where.rpartition(":")[2]
