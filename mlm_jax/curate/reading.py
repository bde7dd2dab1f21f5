# SPDX-License-Identifier: Apache-2.0
"""An input file → documents: its records decoded, their main text taken, cleaned, and told apart by language."""

from __future__ import annotations

from collections.abc import Iterator

from mlm_jax.config import fields_of
from mlm_jax.curate.archives import Raw, read_archive
from mlm_jax.curate.clean import clean
from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.encodings import decode
from mlm_jax.curate.identify import Languages, identifier_of, identify
from mlm_jax.curate.main_text import main_text
from mlm_jax.curate.tables import is_table, read_table

NO_TEXT = "no_main_text"
TOGETHER, MOST_TOGETHER = 200, 4_000_000  # documents, and characters, whose languages are identified at once


def read_documents(path: str, config: Curate, counts: Counts) -> Iterator[Document | Dropped]:
    """The documents of a file, and why others went."""
    chosen = config.identify
    languages = Languages(chosen.languages, chosen.mixed)
    identifier = identifier_of("" if chosen.model == "py3langid" else chosen.model)
    waiting: list[Document] = []
    size = 0  # characters that wait

    def told() -> Iterator[Document | Dropped]:
        for made in identify(waiting, identifier, languages):
            yield from made
        waiting.clear()

    fields = fields_of(config.field)
    for record in read_table(path, fields) if is_table(path) else read_archive(path, fields=fields):
        counts.note("records")
        if isinstance(record, Dropped):
            yield record
            continue
        counts.note("bytes", len(record.data))
        made = document_of(record, config, counts)
        if isinstance(made, Dropped):
            yield made
            continue
        waiting.append(made)
        size += len(made.text)
        if len(waiting) == TOGETHER or size > MOST_TOGETHER:
            yield from told()
            size = 0
    yield from told()


def document_of(record: Raw, config: Curate, counts: Counts) -> Document | Dropped:
    """The text of a record, cleaned; its language is not known yet."""
    text = decode(record.data, record.charset, record.kind == "html")
    if record.kind == "html":
        text = main_text(text)
    text, mended = clean(text, config.clean.lines, config.clean.mojibake, config.clean.private)
    for what, number in mended.items():
        counts.note(what, number)
    if not text:
        return Dropped(NO_TEXT, record.url)
    return Document(text, record.url, record.date)
