# SPDX-License-Identifier: Apache-2.0
"""An input file → documents: its records decoded, their main text taken, cleaned, and told apart by language."""

from __future__ import annotations

from collections.abc import Iterator

from mlm_jax.curate.archives import EMPTY, Raw, read_archive
from mlm_jax.curate.clean import clean
from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.encodings import decode
from mlm_jax.curate.identify import identify
from mlm_jax.curate.main_text import main_text

NO_TEXT = "no_main_text"


def read_documents(path: str, config: Curate, counts: Counts) -> Iterator[Document | Dropped]:
    """The documents of a file, in their order, and why others went."""
    for record in read_archive(path, fields=(config.field,)):
        counts.note("records")
        if isinstance(record, Dropped):
            yield record
            continue
        counts.note("bytes", len(record.data))
        yield from documents_of(record, config, counts)


def documents_of(record: Raw, config: Curate, counts: Counts) -> Iterator[Document | Dropped]:
    """The documents of a record: one, none, or of a page of several languages one of each."""
    text = decode(record.data, record.charset, record.kind == "html")
    if record.kind == "html":
        text = main_text(text)
    raise NotImplementedError
