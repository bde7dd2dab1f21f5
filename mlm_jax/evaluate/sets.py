# SPDX-License-Identifier: Apache-2.0
"""The files of benchmarks: aligned sentences, sentences with ids, scored pairs, texts with classes, what answers which query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Classed, Pairs, Scored
from mlm_jax.finetune.named import local_file
from mlm_jax.formats import data_files, has_fields, read_rows, read_texts
from mlm_jax.lines import read_lines
from mlm_jax.rows import Reading

Relevant = dict[str, dict[str, float]]  # query → document → how relevant, above 0


def read_aligned(pairs: Pairs, workdir: str) -> tuple[list[str], list[str]]:
    """The sentences of two aligned files, or fields of files or of data sets (`PATH#FIELD`).

    Raises:
      UserError: a file or a field is missing, they have different numbers of lines, or a line is empty.
    """
    sides = []
    for language, path in zip(pairs.languages, pairs.paths, strict=True):
        name, _, field = (path, "", "") if Path(path).is_file() else path.partition("#")
        files = data_files(local_file(name, language, workdir))
        if not files:
            raise UserError(f"{name}: no such file ({'-'.join(pairs.languages)})")
        side = [text for file in files for _, text in read_texts(file, field, naming="it in the path: PATH#FIELD")]
        empty = [number for number, line in enumerate(side, 1) if not line.strip()]
        if empty:
            raise UserError(f"{path}:{empty[0]}: empty; line n of one file is the translation of line n of the other")
        sides.append(side)
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{pairs.paths[0]}: {len(sides[0]):,} lines, {pairs.paths[1]} has {len(sides[1]):,}; they are not aligned"
        )
    if not sides[0]:
        raise UserError(f"{pairs.paths[0]}: no lines")
    return sides[0], sides[1]


def two_columns(path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(file:line, (first, rest)) of a file of two columns with a tab between."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    for number, line in read_lines(path):
        first, tab, rest = line.partition("\t")
        if not tab or not rest.strip():
            raise UserError(f"{path}:{number}: not two columns with a tab between")
        yield f"{path}:{number}", (first, rest)


def texts_with_ids(path: str) -> dict[str, str]:
    """Id → text of a file of ids and texts with a tab between, or of .jsonl as BEIR has it.

    Raises:
      UserError: no such file, a line of another form, an id that is there twice, or no lines.
    """
    found: dict[str, str] = {}
    for place, (key, text) in _of_beir(path) if has_fields(path) and not path.endswith(".tsv") else two_columns(path):
        if key in found:
            raise UserError(f"{place}: the id {key} is there before; each text has its own")
        found[key] = text
    return found


def _of_beir(path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    refuse_absent(path)
    for place, row in read_rows(
        path, Reading(fields=("_id", "text"), also=("title",), naming="`_id` and `text` in it")
    ):
        parts = [row.get("title"), row.get("text")]
        text = " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
        if "_id" not in row or not text:
            raise UserError(f"{place}: no _id, or no text; a line has both (BEIR's)")
        yield place, (str(row["_id"]), text)


def read_relevant(path: str, queries: dict[str, str], documents: dict[str, str]) -> Relevant:
    """What answers which query, of queries that have an answer.

    Raises:
      UserError: a line of another form, an id that is not there, or no answers.
    """
    refuse_absent(path)
    found: Relevant = {}
    for number, line in read_lines(path):
        cells = line.split()
        try:
            query, document, grade = (cells[0], cells[-2], float(cells[-1])) if len(cells) in (3, 4) else ("", "", 0.0)
        except ValueError as e:
            if number == 1:  # names of the columns
                continue
            raise UserError(
                f"{path}:{number}: {cells[-1]} is not a number; a line is a query, a document and how relevant it is"
            ) from e
        if not query:
            raise UserError(
                f"{path}:{number}: not a query, a document and how relevant it is, with white space between"
            )
        for key, known, what in ((query, queries, "query"), (document, documents, "document")):
            if key not in known:
                raise UserError(f"{path}:{number}: {key} is not the id of a {what}")
        if grade > 0:
            found.setdefault(query, {})[document] = grade
    if not found:
        raise UserError(f"{path}: no query has an answer")
    return found


def read_scored(pairs: Scored) -> tuple[list[str], list[str], list[float]]:
    """The texts of both sides, and their scores.

    Raises:
      UserError: no such file or field, an empty text, a score that is no number, or fewer than two pairs.
    """
    firsts: list[str] = []
    seconds: list[str] = []
    scores: list[float] = []
    for place, (first, second, said) in rows_of(pairs.path, pairs.fields):
        try:
            score = float(said)
        except ValueError as e:
            raise UserError(
                f"{place}: {said!r} in field {pairs.fields[2]!r} is not a number; mend or remove the line"
            ) from e
        firsts.append(first)
        seconds.append(second)
        scores.append(score)
    if len(scores) < 2:
        raise UserError(f"{pairs.path}: {len(scores)} pairs; a correlation needs two at least")
    return firsts, seconds, scores


def read_classed(texts: Classed) -> tuple[list[str], list[str]]:
    """Texts, and the class of each.

    Raises:
      UserError: no such file or field, an empty text or class, or texts of one class alone.
    """
    rows = [row for _, row in rows_of(texts.path, texts.fields)]
    classes = {label for _, label in rows}
    if len(classes) < 2:
        raise UserError(
            f"{texts.path}: {len(classes)} classes in field {texts.fields[1]!r}; there have to be two at least"
        )
    return [text for text, _ in rows], [label for _, label in rows]


def rows_of(path: str, fields: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(FILE:LINE, what the fields hold, as text) of each row.

    Raises:
      UserError: no such file or field, or nothing in one.
    """
    refuse_absent(path)
    for place, row in read_rows(path, Reading(fields=fields, naming="fields")):
        cells = tuple("" if row.get(field) is None else str(row[field]) for field in fields)
        empty = [field for field, cell in zip(fields, cells, strict=True) if not cell.strip()]
        if empty:
            raise UserError(f"{place}: nothing in field {empty[0]!r}; set `fields`, or mend or remove the line")
        yield place, cells


def refuse_absent(path: str) -> None:
    """Refuse a file that is not there.

    Raises:
      UserError: it is not.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
