# SPDX-License-Identifier: Apache-2.0
"""Which columns of a parallel TSV hold the sentences: beside them may stand scores, ids, addresses and language codes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.formats import ending
from mlm_jax.language_names import folded, same_language
from mlm_jax.lines import at_line
from mlm_jax.prepare.slices import Pair, Slice
from mlm_jax.rows import Reading, Rows, chunks, comma_cells

LOOKED_AT = 500  # lines
MOST = 0.95  # of a column's cells, by which it is of a kind

NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?%?")
ADDRESS = re.compile(r"\w+://\S+|www\.\S+")
NAME = re.compile(r"(?=.*\d)[\w.:/#-]+", re.ASCII)  # an id or a date: no white space, and a digit in it
CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,12})*")
# What the columns of the first and second language are called, where not by their languages.
HEADS = (
    *(("source", name) for name in ("target", "translation")),
    *(("src", name) for name in ("tgt", "trg", "ref", "mt")),
    *((f"{name}1", f"{name}2") for name in ("sentence", "text", "lang", "sent", "s")),
    *((f"{name}_1", f"{name}_2") for name in ("sentence", "text", "lang", "sent")),
    ("source_text", "target_text"),
    ("source_sentence", "target_sentence"),
    ("src_text", "tgt_text"),
    ("original", "translation"),
    # Texts of one language that belong together.
    ("anchor", "positive"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "answer"),
    ("title", "body"),
    ("premise", "hypothesis"),
)
KINDS = {"numbers": NUMBER, "addresses": ADDRESS, "ids": NAME}


def heading(cells: Sequence[str], languages: Sequence[str]) -> tuple[int, int] | None:
    """The columns of two languages' sentences, counted from 0, where a file's first line names them; otherwise None.

    Columns go by the languages' codes or names (`de`, `deu_Latn`, `German`, `sentence_de`), or by `HEADS`.
    """
    names = [cell.strip().strip('"').casefold() for cell in cells]
    found = [[i for i, name in enumerate(names) if _names(name, language, languages)] for language in languages]
    if all(len(mine) == 1 for mine in found) and found[0] != found[1]:
        return found[0][0], found[1][0]
    for first, second in HEADS:
        if names.count(first) == names.count(second) == 1:
            return names.index(first), names.index(second)
    return None


def _names(name: str, language: str, pair: Sequence[str]) -> bool:
    """Whether a column's name says a language: alone, or as one word of it (`text_de`)."""
    words = re.split(r"[\W_]+", name) if len(name.split()) == 1 else []
    return _says(name, language, pair) or any(_says(word, language, pair) for word in words if len(word) > 1)


def _says(code: str, language: str, pair: Sequence[str]) -> bool:
    """Whether a code says one of a pair's languages; where they are one language in two scripts, it has to be the same code."""
    if same_language(*pair):
        return folded(code) == folded(language)
    return same_language(code, language)


def is_comma(path: str) -> bool:
    """Whether a table is a CSV file; other tables have tabs between their columns, and in them quotation marks are text."""
    return ending(path) == ".csv"


def read_cells(path: str) -> Iterator[tuple[Callable[[], str], list[str]]]:
    """Rows of a table that are not blank: (place of the row, FILE:LINE, on demand; cells).

    Raises:
      UserError: what the reader of its lines refuses.
    """
    if is_comma(path):
        for number, cells in comma_cells(path, Reading()):
            yield partial(at_line, path, number), cells
        return
    for chunk in chunks(path, Reading()):
        for i, line in enumerate(chunk.lines):
            if line.strip():
                yield partial(chunk.place, i), line.split("\t")


def find_columns(path: str, languages: Sequence[str]) -> tuple[int, int]:
    """The columns of the first and of the second language's sentences, counted from 1, by a look at the first lines.

    Raises:
      UserError: there are not two columns of text, or codes beside them are of other languages.
    """
    rows = [cells for _, cells in islice(read_cells(path), LOOKED_AT)]
    if not rows or len(rows[0]) < 2:
        raise UserError(
            f"{path}:1: no {'comma' if is_comma(path) else 'tab'}; a table needs two columns, a sentence each"
        )
    named = heading(rows[0], languages)
    # Codes on every line are no headings.
    if named is not None and not (len(rows) > 1 and heading(rows[1], languages) == named):
        return named[0] + 1, named[1] + 1
    width = Counter(map(len, rows)).most_common(1)[0][0]
    columns = [[cells[i].strip() for cells in rows if len(cells) == width] for i in range(width)]
    kinds = [_kind(cells) for cells in columns]
    texts = [i for i, kind in enumerate(kinds) if kind == "text"]
    if len(texts) != 2:
        seen = ", ".join(f"{i + 1}: {kind}" for i, kind in enumerate(kinds))
        raise UserError(
            f"{path}: {len(texts)} of its {width} columns look like sentences ({seen}); say which two they are: "
            f"Parallel(..., columns=(1, 2))"
        )
    first, second = texts
    # Two columns of one code each say whose sentences are whose: the first of them is of the first sentences.
    codes = [columns[i][0] for i, kind in enumerate(kinds) if kind == "codes" and len(set(columns[i])) == 1]
    if len(codes) == 2 and any(same_language(code, language) for code in codes for language in languages):
        if all(_says(code, x, languages) for code, x in zip(codes, reversed(languages), strict=True)):
            first, second = second, first
        elif not all(_says(code, x, languages) for code, x in zip(codes, languages, strict=True)):
            raise UserError(
                f"{path}: its columns say {codes[0]} and {codes[1]}, not {languages[0]} and {languages[1]}; name their languages, or "
                f"say which columns they are: Parallel(..., columns=({first + 1}, {second + 1}))"
            )
    if width > 2:
        console.say(
            f"{path}: {languages[0]} in column {first + 1} and {languages[1]} in column {second + 1} of {width}"
        )
    return first + 1, second + 1


def one_line(text: str) -> str:
    """A text on one line, without double spaces."""
    return " ".join(text.split())


def row_pairs(parts: Iterable[Rows], text: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    """Sentence pairs of rows with fields, without those that have an empty side.

    Args:
      text: that the rows are of.

    Raises:
      UserError: no fields are named by the languages, or they have something else than text; what `Slice.is_whole` refuses.
    """
    parallel = text.source
    within, fields = "", parallel.fields
    for part in parts:
        if not fields and part.rows:
            within, fields = _find_fields(part, parallel)
        if within:
            part = Rows([row.get(within) or {} for row in part.rows], part.place)
        sides = (
            tuple(one_line(part.text(i, field, "Parallel.fields")) for field in fields) for i in range(len(part.rows))
        )
        yield [pair for i, pair in enumerate(sides) if text.is_whole(pair, partial(part.place, i))]


def _find_fields(part: Rows, parallel: cfg.Parallel) -> tuple[str, tuple[str, ...]]:
    """The field that holds the sentences' ("": the row itself) and theirs, by the first row."""
    row = part.rows[0]
    for within, found in [("", row), *((name, value) for name, value in row.items() if isinstance(value, dict))]:
        names = list(found)
        if (at := heading(names, parallel.languages)) is not None:
            return within, (names[at[0]], names[at[1]])
    first, second = parallel.languages
    raise UserError(
        f"{part.place(0)}: no fields of {first} and {second} (there are {', '.join(row)}); set Parallel.fields"
    )


def are_quoted(cells: Sequence[str]) -> bool:
    """Whether all cells that are not empty stand in quotation marks."""
    filled = [cell for cell in cells if cell]
    return len(filled) > 1 and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in filled)


def unquote(cell: str, quoted: bool) -> str:
    """A cell's text without the quotation marks that CSV writers put around cells, and doubled within.

    Args:
      quoted: whether all cells have them; otherwise those lose them that hold doubled ones, which nobody types.
    """
    inner = cell[1:-1]
    if len(cell) < 2 or not cell[0] == cell[-1] == '"' or '"' in inner.replace('""', ""):
        return cell
    return inner.replace('""', '"').strip() if quoted or '""' in inner else cell


def _kind(cells: Sequence[str]) -> str:
    """What a column holds: text, numbers, addresses, ids, codes, labels, or nothing."""
    filled = [cell for cell in cells if cell]
    if not filled:
        return "nothing"
    for kind, pattern in KINDS.items():
        if sum(bool(pattern.fullmatch(cell)) for cell in filled) >= MOST * len(filled):
            return kind
    different = set(filled)
    if len(filled) > 1 and len(different) <= max(1, len(filled) // 20):
        return "codes" if all(CODE.fullmatch(cell) for cell in different) else "labels"
    return "text"
