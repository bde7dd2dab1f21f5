# SPDX-License-Identifier: Apache-2.0
"""Files of a word per line, blank lines between sentences: which column is the word, which the tag, and what is neither."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import LARGEST, Data
from mlm_jax.finetune.examples import Example
from mlm_jax.lines import read_lines, split_words
from mlm_jax.metrics.entities import NO_KIND, recognise

INDEX = re.compile(
    r"\d+(-\d+|\.\d+)?"
)  # of CoNLL-U too: 3-4 is a token of two words, 8.1 a word that is not in the text
LANGUAGE = re.compile(r"[a-z]{2}[a-z-]{0,10}:")  # PAN-X: en:Bergen
DOCUMENT = "-DOCSTART-"
WRITTEN = "# text = "  # CoNLL-U, UNER: the sentence with its own spaces
UNBROKEN = 1_000  # words of a sentence that is a whole file
NOTHING = {"_", "-", "*", ""}
CONLL_U = 10  # its columns; of which the second is the word and the fourth the part of speech
# Kinds of phrases in CoNLL-2000 and CoNLL-2003, whose tags stand before those of entities.
PHRASES = {"NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP", "NC", "VC", "PC", "AC"}

Row = tuple[int, list[str], bool]  # line, cells, whether it begins a sentence


@dataclass(frozen=True)
class Layout:
    """Where a file has what; columns are counted from 0.

    Attributes:
      columns: their number.
      tabs: whether tabs alone stand between them, not spaces.
      word, tag: None: no tags there.
      index: of the word's number in its sentence; None: there is none.
      prefix: before every word, and no part of it.
    """

    columns: int
    tabs: bool
    word: int
    tag: int | None
    index: int | None
    prefix: str

    def cells(self, line: str) -> list[str]:
        """The columns of a line."""
        return _cells(line, self.tabs)

    def __str__(self) -> str:
        tag = "no tags" if self.tag is None else f"tag in column {self.tag + 1}"
        index = "" if self.index is None else f", index in column {self.index + 1}"
        prefix = f", {self.prefix!r} before each word left out" if self.prefix else ""
        return f"word in column {self.word + 1}, {tag} of {self.columns}{index}{prefix}"


def read_conll(path: str, data: Data, labels: bool) -> Iterator[Example]:
    """Sentences of a file.

    Args:
      labels: whether each word must have a tag.

    Raises:
      UserError: a word without a tag, an empty word, or columns that cannot be told apart; names file and line.
    """
    lines = list(read_lines(path, data.largest_file, option=LARGEST))
    layout = find_layout(path, lines, data, labels)
    tags_seen = {
        cells[layout.tag]
        for _, line in lines
        if not line.startswith("#") and len(cells := layout.cells(line)) == layout.columns and layout.tag is not None
    }
    sentences: list[list[tuple[int, str, str | None]]] = [[]]
    texts: dict[int, str] = {}  # of sentences, by their number in `sentences`
    comments = ranges = 0
    for number, line in lines:
        if not line.strip(" \t") or line.startswith(DOCUMENT):
            sentences.append([])
            continue
        cells = layout.cells(line)
        if line.startswith("#") and _is_comment(line, cells, layout, tags_seen, begins=not sentences[-1]):
            comments += 1
            if line.startswith(WRITTEN):
                texts[len(sentences) - 1] = line.removeprefix(WRITTEN)
            continue
        if len(cells) != layout.columns:
            _refuse_columns(f"{path}:{number}", line, cells, layout, labels)
        if layout.index is not None and not cells[layout.index].isdigit():
            ranges += 1
            continue
        word = cells[layout.word]
        if not word.startswith(layout.prefix) or not word.removeprefix(layout.prefix):
            raise UserError(
                f"{path}:{number}: an empty word in column {layout.word + 1}; remove the line, or give its word"
            )
        tag = None if layout.tag is None else cells[layout.tag]
        if tag == "":
            raise UserError(
                f"{path}:{number}: {word!r} has an empty tag in column {(layout.tag or 0) + 1}; tag the word"
            )
        sentences[-1].append((number, word.removeprefix(layout.prefix), tag))
    left_out = [
        f"{count:,} {what}{'s' * (count > 1)}"
        for count, what in ((comments, "comment"), (ranges, "multiword or empty token"))
        if count
    ]
    said = f"; {' and '.join(left_out)} left out" if left_out else ""
    console.say(f"{path}: {layout}{said} (data.word_column, data.tag_column set others)")
    if len(rows := [sentence for sentence in sentences if sentence]) == 1 and len(rows[0]) > UNBROKEN:
        console.warn(f"{path}: one sentence of {len(rows[0]):,} words; put blank lines between sentences")
    for i, sentence in enumerate(sentences):
        if not sentence:
            continue
        numbers, words, tags = zip(*sentence, strict=True)
        label = None if layout.tag is None else list(tags)
        yield Example(f"{path}:{numbers[0]}", list(words), None, label, str(numbers[0]), texts.get(i))


def looks_like_conll(path: str, column: str, most: int) -> bool:
    """Whether a file without this column in its first line has blank lines between others, or begins with a comment."""
    lines = [line for _, line in read_lines(path, most, option=LARGEST)]
    if column in lines[0].split("\t"):
        return False
    return lines[0].startswith("#") or any(not line.strip(" \t") for line in lines[: len(lines) - 1])


def find_layout(path: str, lines: Sequence[tuple[int, str]], data: Data, labels: bool) -> Layout:
    """The layout that `data` names, the rest of it recognised from all lines.

    Raises:
      UserError: it cannot be told.
    """
    plain = _plain(lines, (DOCUMENT, "#")) or _plain(lines, (DOCUMENT,))
    if not plain:
        raise UserError(f"{path}: no word there; give lines of a word, a tab and its tag")
    tabs = 2 * sum("\t" in line for _, line, _ in plain) >= len(plain)
    rows = [(n, _cells(line, tabs), begins) for n, line, begins in plain]
    counts = Counter(len(cells) for _, cells, _ in rows)
    columns = max(counts, key=lambda n: (counts[n], n))
    rows = [row for row in rows if len(row[1]) == columns]
    values = [Counter(cells[i] for _, cells, _ in rows) for i in range(columns)]
    index = next((i for i in range(columns) if columns > 1 and _is_index(rows, i)), None)

    def asked(option: str, column: int) -> int | None:
        if not column:
            return None
        if not -columns <= column <= columns:
            raise UserError(f"data.{option}: {column}, but {path}:{rows[0][0]} has {columns} columns; 1 is the first")
        return column - 1 if column > 0 else columns + column

    def refuse(what: str) -> NoReturn:
        shown = ", ".join(f"{i}: {cell}" for i, cell in enumerate(rows[0][1], 1))
        raise UserError(
            f"{path}:{rows[0][0]}: {what} ({shown}); set data.word_column and data.tag_column, by number from 1"
        )

    word, tag = asked("word_column", data.word_column), asked("tag_column", data.tag_column)
    free = [i for i in range(columns) if i not in (index, word, tag) and not set(values[i]) <= NOTHING]
    if tag is None:
        marked = [i for i in free if _marks_entities(values[i])]
        of_phrases = [i for i in marked if _kinds(values[i]) and _kinds(values[i]) <= PHRASES]
        marked = [i for i in marked if i not in of_phrases] or marked
        nested = index is not None and marked[:1] == [index + 2]  # GermEval, UNER: index, word, tag, another tag
        if len(marked) > 1 and not nested and not all(_shares(values[i], values[marked[0]]) for i in marked):
            refuse(f"columns {_numbers(marked)} all look like tags")
        others = [i for i in free if i not in (word, *marked)]
        bare = [i for i in others if values[i].most_common(1)[0][0] in ("O", "o")]
        rest = others if word is not None else others[1:]
        if marked:
            tag = marked[0]  # the others repeat it: nested entities, another annotator's
        elif len(bare) == 1:
            tag = bare[0]
        elif columns == CONLL_U and index == 0:
            tag = 3 if 3 in rest else None
        elif len(rest) == 1:
            tag = rest[0]
        elif labels and rest:
            refuse(f"columns {_numbers(rest)}: which is the tag cannot be told")
    if word is None:
        others = [i for i in free if i != tag]
        others = [i for i in others if not all(value.isdigit() for value in values[i])] or others
        if not others:
            refuse("no column looks like the word")
        word = others[0]
        if tag is not None and not _marks_entities(values[tag]) and len(values[tag]) > 2 * len(values[word]):
            refuse(f"column {word + 1} has fewer values than column {tag + 1}, so that it may be the tag")
        if any(len(values[i]) > len(values[word]) for i in others) and not (columns == CONLL_U and index == 0):
            refuse(f"columns {_numbers(others)}: which is the word cannot be told")
    if labels and tag is None:
        number, line, _ = plain[0]
        raise UserError(f"{path}:{number}: {_shown(line)} has no tag; {_ADVICE}")
    if word == tag:
        raise UserError(f"data.word_column, data.tag_column: both {word + 1}; name two columns")
    found = LANGUAGE.match(rows[0][1][word]) if len(rows) > 1 else None
    prefix = found[0] if found and all(cells[word].startswith(found[0]) for _, cells, _ in rows) else ""
    return Layout(columns, tabs, word, tag, index, prefix)


_ADVICE = "a line is a word, a tab or spaces, and its tag"


def _cells(line: str, tabs: bool) -> list[str]:
    """Columns of a line; white space that is no ASCII space is part of a word."""
    return [cell.strip(" ") for cell in line.split("\t")] if tabs else split_words(line)


def _shown(line: str) -> str:
    return repr(line.strip(" \t")[:60])


def _numbers(columns: Sequence[int]) -> str:
    return " and ".join(str(i + 1) for i in columns)


def _plain(lines: Sequence[tuple[int, str]], unless: tuple[str, ...]) -> list[tuple[int, str, bool]]:
    """Lines of words, and whether each begins a sentence; without those that begin otherwise."""
    found, begins = [], True
    for number, line in lines:
        if not line.strip(" \t") or line.startswith(DOCUMENT):
            begins = True
        elif not line.startswith(unless):
            found.append((number, line, begins))
            begins = False
    return found


def _is_index(rows: Sequence[Row], column: int) -> bool:
    """Whether a column counts the words: one more from word to word, and from 0 or 1 in each sentence, or on."""
    before, first, counted = -1, False, False
    for _, cells, begins in rows:
        first = first or begins
        cell = cells[column]
        if not INDEX.fullmatch(cell):
            return False
        if not cell.isdigit():
            continue
        here = int(cell)
        if here != before + 1 and not (first and here in (0, 1)):
            return False
        before, first, counted = here, False, counted or not first
    return counted


def _marks_entities(values: Counter[str]) -> bool:
    """Whether all of a column's values are O, or a letter of a scheme and a kind."""
    try:
        scheme = recognise(tuple(values))
    except UserError:
        return False
    return scheme is not None and all(role == "O" or kind != tag for tag, (role, kind) in scheme.parts.items())


def _kinds(values: Counter[str]) -> set[str]:
    scheme = recognise(tuple(values))
    return {kind for role, kind in scheme.parts.values() if role != "O"} - {NO_KIND} if scheme else set()


def _shares(one: Counter[str], other: Counter[str]) -> bool:
    """Whether two columns of tags have a kind in common, or one of them has none."""
    return bool(_kinds(one) & _kinds(other)) or not _kinds(one) or not _kinds(other)


def _is_comment(line: str, cells: Sequence[str], layout: Layout, tags: set[str], begins: bool) -> bool:
    """Whether a line that begins with # is a comment, and not a word.

    Args:
      tags: of the lines that begin otherwise.
      begins: whether it stands before a sentence.
    """
    if layout.index == 0 or layout.prefix:
        return True
    if not begins:
        return False
    if len(cells) != layout.columns or layout.columns == 1:
        return len(cells) != layout.columns or " " in line
    return not layout.tabs and layout.tag is not None and cells[layout.tag] not in tags


def _refuse_columns(where: str, line: str, cells: Sequence[str], layout: Layout, labels: bool) -> NoReturn:
    if line[0] in " \t" and len(cells) < layout.columns:
        raise UserError(f"{where}: an empty word; remove the line, or give its word")
    if len(cells) == 1 and labels:
        raise UserError(f"{where}: {_shown(line)} has no tag; {_ADVICE}")
    between = "tabs" if layout.tabs else "spaces"
    raise UserError(
        f"{where}: {len(cells)} columns with {between} between, {layout.columns} in other lines ({_shown(line)}); mend the line"
    )
