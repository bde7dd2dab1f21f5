# SPDX-License-Identifier: Apache-2.0
"""Labelled files → examples: .tsv, .jsonl, CoNLL and SQuAD .json."""

from __future__ import annotations

import difflib
import glob
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Labelled, Task
from mlm_jax.lines import read_lines, uncompressed

CONLL = (".conll", ".txt", ".iob2", ".bio")


@dataclass(frozen=True)
class Example:
    """Attributes:
    where: file and line (SQuAD: file and question id), for messages.
    first: text, or question; of tagged words, the words.
    second: the other sentence, or the paragraph.
    label: label; number; a tag a word; or the answers' (text, offset in characters). None where there is none.
    key: SQuAD's question id, or the example's number in its file.
    """

    where: str
    first: Any
    second: str | None
    label: Any
    key: str


def read(part: Labelled, data: Data, task: Task, labels: bool = True) -> list[Example]:
    """The examples of one language.

    Args:
      labels: whether each must have one.

    Raises:
      UserError: no such file, no such column, a line of another shape; names file and line.
    """
    paths = sorted(glob.glob(part.path)) or ([part.path] if Path(part.path).is_file() else [])
    if not paths:
        raise UserError(f"{part.path}: no such file ({part.language}); mend the path or glob")
    found: list[Example] = []
    groups = 0  # what `first` and `last` count: examples, or paragraphs
    for path in paths:
        for group in read_file(path, data, task, labels):
            groups += 1
            if groups >= part.first and (not part.last or groups <= part.last):
                found += group
    if not found:
        raise UserError(
            f"{part.path}: no example there ({part.language}, first {part.first}, last {part.last or 'all'})"
        )
    return found


def read_file(path: str, data: Data, task: Task, labels: bool = True) -> Iterator[list[Example]]:
    """Examples of a file, one by one; of SQuAD files, paragraph by paragraph."""
    suffix = Path(uncompressed(path)).suffix
    if task.kind == "span":
        if suffix != ".json":
            raise UserError(f"{path}: task.kind span reads SQuAD files (.json)")
        yield from squad(path, labels)
    elif suffix == ".tsv":
        for where, row in table(path, data.columns):
            yield [from_fields(where, row, data, task, labels)]
    elif suffix == ".jsonl":
        for where, row in json_lines(path):
            yield [from_fields(where, row, data, task, labels)]
    elif suffix in CONLL and task.kind == "tag":
        for example in conll(path, labels):
            yield [example]
    else:
        reads = ".tsv, .jsonl" + (" or .conll" if task.kind == "tag" else "")
        raise UserError(f"{path}: task.kind {task.kind} reads {reads} files")


def table(path: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
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


def json_lines(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
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


def from_fields(where: str, row: dict[str, Any], data: Data, task: Task, labels: bool) -> Example:
    """An example from named fields.

    Raises:
      UserError: a field is missing, empty, or not of its kind.
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
    if task.kind == "tag":
        first = first.split(" ") if isinstance(first, str) else first
        label = label.split(" ") if isinstance(label, str) else label
        if not isinstance(first, list) or not first or not all(isinstance(word, str) and word for word in first):
            raise UserError(f"{where}: {data.text} is not a list of words, nor words with spaces between")
        if isinstance(label, list) and not all(isinstance(tag, str) for tag in label):
            raise UserError(f"{where}: {data.label} is not a list of tags")
        if label is not None and (not isinstance(label, list) or len(label) != len(first)):
            raise UserError(f"{where}: {len(label or [])} tags in {data.label} for {len(first)} words in {data.text}")
        return Example(where, first, None, label, where.rpartition(":")[2])
    for name, text in ((data.text, first), (data.pair, second)):
        if name and (not isinstance(text, str) or not text.strip()):
            raise UserError(f"{where}: {name} is empty; remove the example")
    if task.kind == "regress" and label is not None:
        try:
            label = float(label)
        except (TypeError, ValueError) as e:
            raise UserError(f"{where}: {data.label} is {label!r}, not a number") from e
        if not math.isfinite(label):
            raise UserError(f"{where}: {data.label} is {label}, not a finite number")
    elif label is not None:
        label = str(label)
    return Example(where, first, second, label, where.rpartition(":")[2])


def conll(path: str, labels: bool) -> Iterator[Example]:
    """Sentences of a CoNLL file: a word a line, its tag in the last column, blank lines between sentences."""
    words: list[str] = []
    tags: list[str] = []
    begin = 0

    def done() -> Iterator[Example]:
        if words:
            yield Example(f"{path}:{begin}", list(words), None, list(tags) if tags else None, str(begin))
        words.clear()
        tags.clear()

    for number, line in read_lines(path):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == "-DOCSTART-":
            yield from done()
            continue
        if (len(cells) < 2 and labels) or not cells[0].strip():
            raise UserError(
                f"{path}:{number}: {line.strip()!r} has no tag; a line is a word, a tab or spaces, and its tag"
            )
        if not words:
            begin = number
        words.append(cells[0].strip())
        if len(cells) > 1:
            tags.append(cells[-1].strip())
    yield from done()


def squad(path: str, labels: bool) -> Iterator[list[Example]]:
    """Questions of a SQuAD file (1.1 or 2.0), paragraph by paragraph."""
    text = "\n".join(line for _, line in read_lines(path))
    try:
        articles = json.loads(text)["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        for paragraph in paragraphs:
            found = []
            for question in paragraph["qas"]:
                where = f"{path}:{question['id']}"
                given = question.get("answers")
                if given is None and labels:
                    raise UserError(f"{where}: no answers; a question without one has an empty list")
                answers = None if given is None else tuple((a["text"], int(a["answer_start"])) for a in given)
                texts = [paragraph["context"], question["question"], *(text for text, _ in answers or ())]
                if not all(isinstance(text, str) for text in texts):
                    raise TypeError(f"a text of {question['id']} is not text")
                if not paragraph["context"].strip() or not question["question"].strip():
                    raise UserError(f"{where}: the question or its context is empty; remove it")
                found.append(Example(where, question["question"], paragraph["context"], answers, str(question["id"])))
            yield found
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not a SQuAD file ({type(e).__name__}: {e})") from e


def label_set(task: Task, train: Sequence[Example]) -> tuple[str, ...]:
    """The labels there may be: `task.labels`, or those of the training data, sorted; of tags, O first."""
    if task.kind in ("regress", "span"):
        return ()
    if task.labels:
        return task.labels
    every = {label for e in train for label in (e.label if task.kind == "tag" else [e.label])}
    return tuple(sorted(every, key=lambda label: (label != "O", label)))


def check_labels(examples: Sequence[Example], labels: tuple[str, ...], task: Task) -> None:
    """Refuse examples with labels that are not of the set.

    Raises:
      UserError: naming the first, its line, and the set.
    """
    known = set(labels)
    for e in examples:
        for label in e.label if task.kind == "tag" else [e.label]:
            if label not in known:
                shown = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
                raise UserError(
                    f"{e.where}: label {label!r} is not one of the training data's ({shown}); mend it, or name all in task.labels"
                )


def without_misplaced(examples: list[Example], share: float) -> tuple[list[Example], int]:
    """SQuAD examples whose answers stand at their offsets, and how many do not.

    Raises:
      UserError: more than the share do not.
    """
    kept = [e for e in examples if all(e.second[start : start + len(text)] == text for text, start in e.label)]  # type: ignore[index]
    bad = len(examples) - len(kept)
    if bad > share * len(examples):
        wrong = next(e for e in examples if e not in kept)
        raise UserError(
            f"{wrong.where}: answer {wrong.label[0][0]!r} is not at its offset {wrong.label[0][1]}, nor are those of "
            f"{bad} of {len(examples)} questions; more than data.misplaced {share:g} allows. Offsets count characters"
        )
    return kept, bad
