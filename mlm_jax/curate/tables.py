# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet, Arrow, CSV and TSV files, and of data sets that Hugging Face's `datasets` loads → raw records, by the readers that
pretraining has. What is damaged ends a file, which gives what it has; an option that does not fit it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlm_jax import arrow, storage
from mlm_jax.curate.archives import ADDRESSES, DAMAGED, DATES, EMPTY, LARGEST, TABLES, Raw, record_of
from mlm_jax.curate.document import Dropped
from mlm_jax.errors import UserError
from mlm_jax.formats import ending, format_of
from mlm_jax.prepare import hub
from mlm_jax.rows import Reading, Rows, WrongField

HUB = "hf:"
FIELD = "field"  # the option


def is_table(path: str) -> bool:
    """Whether a path is a file of columns, by the end of its name, or a data set's."""
    return path.startswith(HUB) or ending(path) in TABLES


def read_table(path: str, fields: Sequence[str], most: int = LARGEST) -> Iterator[Raw | Dropped]:
    """The rows of a file or of a data set in their order, and one `Dropped` where it is damaged.

    Memory is that of 64 rows and, of Parquet, a few times that of the pages that they are in, which who wrote the file chose.

    Args:
      fields: that have the text; several are joined by line ends.
      most: bytes of a row.

    Raises:
      UserError: a field is not there, or has no text; or there is nothing that reads such a file here.
    """
    if path.startswith(HUB):
        yield from _records(hub.all_rows(path, _reading(fields, most)), fields, most)
        return
    rows_of = format_of(path).rows
    assert rows_of is not None  # of `TABLES`
    if ending(path) in (".parquet", ".arrow"):
        arrow.library()
    if not storage.size(path):
        yield Dropped(EMPTY, path)
        return
    try:
        yield from _records(rows_of(path, _reading(fields, most)), fields, most)
    except WrongField:
        raise
    except UserError as e:
        yield Dropped(DAMAGED, path, str(e))


def _reading(fields: Sequence[str], longest: int) -> Reading:
    return Reading(fields=tuple(fields), also=(*ADDRESSES, *DATES), longest=longest, naming=FIELD, mend=True)


def _records(parts: Iterator[Rows], fields: Sequence[str], most: int) -> Iterator[Raw | Dropped]:
    for part in parts:
        for i, row in enumerate(part.rows):
            yield record_of([part.text(i, name, FIELD) for name in fields], row, most)
