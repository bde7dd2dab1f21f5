# SPDX-License-Identifier: Apache-2.0
"""Paragraphs that stand elsewhere in the corpus too go, one copy stays (CCNet: Wenzek et al. 2020, section 3.1).

A paragraph is a line. Two are the same when they have the same words, whatever the case, the digits, the punctuation and the white space; that is
told by 64 bits, so among 10**9 different paragraphs about 0.03 are taken for another.

    records of each document  →  sorted by key (spill)  →  first of each key, sorted by where  →  per document: which lines stay
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mlm_jax.curate import spill
from mlm_jax.curate.groups import RECORD, make_records, with_heads
from mlm_jax.curate.spill import MEMORY, Records
from mlm_jax.curate.words import LONGEST, U64, plain_words, sequence_hashes, word_hashes

WHERE = np.dtype([("where", np.uint64)])
_NEWLINE = 10


def paragraph_hashes(text: str) -> tuple[U64, np.ndarray]:
    """Of each line of a text (as split at line feeds): its hash, and whether it has words; uint64 and bool [lines].

    Lines of over a million characters are the same if they begin with the same million.
    """
    if len(text) <= LONGEST:
        return _hash_lines(text)
    parts: list[str] = []
    found, size = [], 0
    for line in text.split("\n"):
        if size + len(line) > LONGEST and parts:
            found.append(_hash_lines("\n".join(parts)))
            parts, size = [], 0
        parts.append(line[:LONGEST])
        size += len(line) + 1
    found.append(_hash_lines("\n".join(parts)))
    return np.concatenate([hashes for hashes, _ in found]), np.concatenate([filled for _, filled in found])


def _hash_lines(text: str) -> tuple[U64, np.ndarray]:
    found = plain_words(text)
    breaks = np.flatnonzero(found.codes == _NEWLINE)
    cuts = np.searchsorted(found.starts, np.concatenate([[-1], breaks, [len(found.codes)]]))
    return sequence_hashes(word_hashes(found), cuts[:-1], cuts[1:]), cuts[:-1] < cuts[1:]


def paragraph_records(text: str, order: int, where: int) -> Records:
    """A record for each line that has words.

    Args:
      order: the document's (`groups.order_of`).
      where: the number of the document's first line among all lines of the corpus, as the caller counts them.
    """
    keys, filled = paragraph_hashes(text)
    lines = np.flatnonzero(filled)
    return make_records(keys[lines], order, lines.astype(np.uint64) + np.uint64(where))


def choose_paragraphs(runs: Sequence[Path], folder: Path, memory: int = MEMORY) -> Path:
    """Of each group of equal paragraphs, the one that stays.

    Args:
      runs: of records, as `spill.write_runs` wrote them.

    Returns:
      A file of the numbers of the lines that stay, sorted (dtype `WHERE`).
    """

    def first() -> Iterator[Records]:
        for chunk, _, is_head in with_heads(spill.merge(runs, RECORD, memory)):
            kept = np.empty(int(is_head.sum()), WHERE)
            kept["where"] = chunk["where"][is_head]
            yield kept

    chosen = spill.write_runs(first(), folder / "chosen", WHERE, memory)
    path = folder / "lines"
    spill.write_sorted(spill.merge(chosen, WHERE, memory), path)
    for run in chosen:
        run.unlink()
    return path


def keep_paragraphs(text: str, where: int, chosen: Records) -> tuple[str, int]:
    """A document without the paragraphs that stay elsewhere, and how many went.

    Args:
      where: as in `paragraph_records`.
      chosen: `spill.open_sorted` of what `choose_paragraphs` wrote.
    """
    lines = text.split("\n")
    _, filled = paragraph_hashes(text)
    first, last = np.searchsorted(chosen["where"], np.array([where, where + len(lines)], np.uint64))
    stay = np.zeros(len(lines), bool)
    stay[(chosen["where"][first:last] - np.uint64(where)).astype(np.int64)] = True
    gone = filled & ~stay
    if not gone.any():
        return text, 0
    kept = "\n".join(line for line, went in zip(lines, gone.tolist(), strict=True) if not went)
    return re.sub(r"\n{3,}", "\n\n", kept).strip("\n"), int(gone.sum())


def count_lines(texts: Iterable[str]) -> Iterator[int]:
    """The number of each text's first line, for texts in a fixed order."""
    at = 0
    for text in texts:
        yield at
        at += text.count("\n") + 1
