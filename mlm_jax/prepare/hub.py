# SPDX-License-Identifier: Apache-2.0
"""Text that Hugging Face's `datasets` loads by name (`hf:NAME/CONFIG:SPLIT`): from its hub, or files of a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

from mlm_jax import config as cfg
from mlm_jax.arrow import table_rows
from mlm_jax.errors import UserError
from mlm_jax.prepare.columns import row_pairs
from mlm_jax.prepare.slices import Pair, Slice, SourceKind
from mlm_jax.prepare.text import LONGEST, tidy
from mlm_jax.rows import Reading, Rows

BATCH = 256  # rows


def parts_of(path: str) -> tuple[str, str | None, str]:
    """Name, configuration (None: the only one) and split (empty: none is named) of `hf:NAME/CONFIG:SPLIT`.

    A name has an organisation (`ORG/NAME`), if it is no folder; a folder begins with a dot or a slash.
    """
    name, _, split = path.removeprefix("hf:").partition(":")
    parts = name.split("/")
    if name[:1] in "./":
        return (name, None, split) if os.path.isdir(name) else ("/".join(parts[:-1]), parts[-1], split)
    return "/".join(parts[:2]), "/".join(parts[2:]) or None, split


@cache
def loaded(path: str, split: str) -> Any:
    """A split of a data set, downloaded first if need be; its rows stay on disk.

    Raises:
      UserError: `datasets` is not installed; or there is no such data set, configuration or split, or it cannot be downloaded.
    """
    try:
        import datasets
    except ImportError as e:
        raise UserError(f"{path}: needs Hugging Face's datasets; run: pip install 'mlm_jax[hf]'") from e
    name, configuration, _ = parts_of(path)
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, configuration, split=split)
    except Exception as e:  # of the hub's client, its file systems, and the readers of a dozen formats
        reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise UserError(
            f"{path}: cannot be had ({reason[:300]}); write hf:ORG/NAME/CONFIG:SPLIT, or hf:FOLDER:SPLIT"
        ) from e


def _rows(path: str, split: str, index: int, count: int, reading: Reading) -> Iterator[Rows]:
    """Rows of one of `count` parts of a split, as even as can be."""
    whole = loaded(path, split)
    begin, end = (len(whole) * i // count for i in (index, index + 1))
    schema = whole.features.arrow_schema  # which knows the names of classes
    view = whole.with_format("arrow")
    for first in range(begin, end, BATCH):
        table = view[first : min(first + BATCH, end)]
        yield from table_rows(path, table.replace_schema_metadata(schema.metadata), first + 1, reading)


def all_rows(path: str, reading: Reading) -> Iterator[Rows]:
    """Rows of the split that a path names, else of the train split; errors as of `loaded`."""
    return _rows(path, _train(path), 0, 1, reading)


def size(path: str) -> int:
    """Bytes of that split in memory; errors as of `loaded`."""
    return int(loaded(path, _train(path)).data.nbytes)


def _split_slices(
    source: cfg.Source, split: str, part: Literal["train", "validation", "both"], data: cfg.Data
) -> list[Slice[cfg.Source]]:
    count = _shards(source.path, split, data)
    return [
        Slice(source, part, (source.path,), index=i, count=count, longest=data.longest_document) for i in range(count)
    ]


def _shards(path: str, split: str, data: cfg.Data) -> int:
    found = loaded(path, split)
    return min(max(1, math.ceil(found.data.nbytes / data.shard_bytes)), max(1, len(found)))


def _train(path: str) -> str:
    return parts_of(path)[2] or "train"


def _slices(source: cfg.Source, data: cfg.Data) -> list[Slice[cfg.Source]]:
    found = _split_slices(source, _train(source.path), "train" if source.validation else "both", data)
    return found + (_split_slices(source, source.validation, "validation", data) if source.validation else [])


def _documents(part: Slice[cfg.Source]) -> Iterator[list[str]]:
    source = part.source
    split = source.validation if part.part == "validation" else _train(source.path)
    fields = cfg.fields_of(source.field)
    reading = Reading(fields=fields, longest=part.longest, option=LONGEST)
    for rows in _rows(source.path, split, part.index, part.count, reading):
        found = ([rows.text(i, name) for name in fields] for i in range(len(rows.rows)))
        yield [text for texts in found if (text := tidy("\n".join(texts)))]


def _pair_slices(parallel: cfg.Parallel, data: cfg.Data) -> list[Slice[cfg.Parallel]]:
    count = _shards(parallel.paths[0], _train(parallel.paths[0]), data)
    return [Slice(parallel, "both", parallel.paths, index=i, count=count) for i in range(count)]


def _pairs(part: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    (path,) = part.paths
    yield from row_pairs(_rows(path, _train(path), part.index, part.count, Reading()), part)


def _examples(path: str, language: str) -> tuple[set[str], Iterator[dict[str, Any]]]:
    """Fields and rows of a split; of fields that hold translations, the language's."""
    name, configuration, split = parts_of(path)
    if not split:
        raise UserError(
            f"{path}: no split; write hf:NAME/CONFIG:SPLIT, e.g. hf:{name}/{configuration or 'default'}:train"
        )
    found = loaded(path, split)

    def rows() -> Iterator[dict[str, Any]]:
        for part in _rows(path, split, 0, 1, Reading(longest=None)):
            for row in part.rows:
                yield {field: _of_language(value, language) for field, value in row.items()}

    return set(found.column_names), rows()


def _of_language(value: Any, language: str) -> Any:
    """The language's text of a translation; anything else as it is."""
    if isinstance(value, dict) and isinstance(value.get(language), str):
        return value[language]
    return value


HUB = SourceKind(slices=_slices, documents=_documents, pair_slices=_pair_slices, pairs=_pairs, examples=_examples)
