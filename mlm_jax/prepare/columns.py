# SPDX-License-Identifier: Apache-2.0
"""Which columns of a parallel TSV hold the sentences: beside them may stand scores, ids, addresses and language codes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.lines import read_lines

LOOKED_AT = 500  # lines
MOST = 0.95  # of a column's cells, by which it is of a kind

NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?%?")
ADDRESS = re.compile(r"\w+://\S+|www\.\S+")
NAME = re.compile(r"(?=.*\d)[\w.:/#-]+", re.ASCII)  # an id or a date: no white space, and a digit in it
CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,12})*")
KINDS = {"numbers": NUMBER, "addresses": ADDRESS, "ids": NAME}


def are_codes(cells: Sequence[str], languages: Sequence[str]) -> bool:
    """Whether two cells are the languages' codes: headings."""
    return [cell.strip().casefold() for cell in cells] == [language.casefold() for language in languages]


def find_columns(path: str, languages: Sequence[str]) -> tuple[int, int]:
    """The columns of the first and of the second language's sentences, counted from 1, by a look at the first lines.

    Raises:
      UserError: there are not two columns of text.
    """
    rows = [line.split("\t") for _, line in islice(read_lines(path), LOOKED_AT) if line.strip()]
    if not rows or len(rows[0]) < 2:
        raise UserError(f"{path}:1: no tab; a TSV needs two columns, a sentence each")
    names = [cell.strip().casefold() for cell in rows[0]]
    if all(language.casefold() in names for language in languages):
        first, second = (names.index(language.casefold()) for language in languages)
        # Codes on every line are no headings.
        if not (len(rows) > 1 and are_codes([*rows[1][first : first + 1], *rows[1][second : second + 1]], languages)):
            return first + 1, second + 1
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
    # A column of one code before each sentence says whose it is.
    codes = [columns[i - 1][0].casefold() if i and kinds[i - 1] == "codes" else "" for i in texts]
    if codes == [languages[1].casefold(), languages[0].casefold()]:
        first, second = second, first
    if width > 2:
        console.say(
            f"{path}: {languages[0]} in column {first + 1} and {languages[1]} in column {second + 1} of {width}"
        )
    return first + 1, second + 1


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
