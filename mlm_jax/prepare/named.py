# SPDX-License-Identifier: Apache-2.0
"""Text that TensorFlow Datasets or SeqIO provide by name (`tfds:NAME`, `seqio:NAME`)."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, Literal

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.lines import LONGEST_LINE, check_text
from mlm_jax.prepare.slices import Pair, Slice, SourceKind
from mlm_jax.prepare.text import tidy

BATCH = 1_000  # documents


def shard_count(source: cfg.Source, split: str) -> int:
    """Shards that a split can be read in on their own: those of its files.

    Raises:
      UserError: no such data set, task or split, or it cannot be downloaded.
    """
    if source.path.startswith("tfds:"):
        info = builder_of(source.path).info
        if split.split("[")[0] not in info.splits:
            raise UserError(f"{source.path}: no split {split}; it has {', '.join(info.splits)}")
        return max(1, info.splits[split].num_shards) if split in info.splits else 1
    task = _task(source)
    if split not in task.splits:
        raise UserError(f"{source.path}: no split {split}; it has {', '.join(task.splits)}")
    import seqio

    # A mixture's examples come from several tasks: it is read as one.
    return len(task.source.list_shards(split)) if isinstance(task, seqio.Task) else 1


def named_documents(
    source: cfg.Source, split: str, index: int, count: int, longest: int = LONGEST_LINE
) -> Iterator[list[str]]:
    """The documents of one shard, in batches, in a fixed order.

    Args:
      longest: bytes of a document.

    Raises:
      UserError: the data set has no text in `Source.field`, or a longer one.
    """
    import seqio
    import tensorflow_datasets as tfds

    fields = cfg.fields_of(source.field)
    if source.path.startswith("tfds:"):
        builder = builder_of(source.path)
        _check_fields(source, builder.info.features)
        part = tfds.even_splits(split, n=count)[index] if count > 1 else split
        batches = builder.as_dataset(split=part, shuffle_files=False).batch(BATCH).as_numpy_iterator()
    else:
        task = _task(source)
        shard = seqio.ShardInfo(index, count) if count > 1 else None
        dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, shard_info=shard, num_epochs=1)
        _check_fields(source, dataset.element_spec)
        # Only the text: the other features may not batch.
        texts = dataset.map(lambda example: {field: example[field] for field in fields})
        batches = texts.batch(BATCH).as_numpy_iterator()
    for batch in batches:
        documents = [b"\n".join(values) for values in zip(*(batch[field] for field in fields), strict=True)]
        if (size := max(map(len, documents))) > longest:
            raise UserError(
                f"{source.path}: a document of {size:,} bytes, {longest:,} are the most; cut it up, or raise data.longest_document"
            )
        yield [text for value in documents if (text := tidy(_text(value, source.path)))]


def _text(value: bytes, path: str) -> str:
    """A data set's text.

    Raises:
      UserError: it is no text.
    """
    try:
        return check_text(value.decode(), path)
    except UnicodeDecodeError as e:
        raise UserError(
            f"{path}: not UTF-8, in {value[max(0, e.start - 20) : e.start + 20]!r}; mend the data set"
        ) from e


def pair_shard_count(source: cfg.Parallel) -> int:
    """Shards of a TFDS translation data set's training split.

    Raises:
      UserError: no such data set, or it does not have both languages.
    """
    info = builder_of(source.paths[0]).info
    _pair_field(source, info.features)
    return max(1, info.splits["train"].num_shards) if "train" in info.splits else 1


def named_pairs(text: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    """The sentence pairs of one shard of a TFDS translation data set, in batches, in a fixed order.

    Its examples hold one sentence per language (`tfds.features.Translation`: wmt, opus, para_crawl), or a list of
    languages and one of sentences (`TranslationVariableLanguages`: ted_multi_translate).
    """
    import tensorflow_datasets as tfds

    source, index, count = text.source, text.index, text.count
    builder = builder_of(source.paths[0])
    field = _pair_field(source, builder.info.features)
    part = tfds.even_splits("train", n=count)[index] if count > 1 else "train"
    batch: list[Pair] = []
    for example in builder.as_dataset(split=part, shuffle_files=False).as_numpy_iterator():
        found = example[field] if field else example
        if "translation" in found:
            listed = zip(found["language"], found["translation"], strict=True)
            found = {language.decode(): sentence for language, sentence in listed}
        first, second = (
            " ".join(_text(found.get(language, b""), source.paths[0]).split()) for language in source.languages
        )
        if text.is_whole((first, second), partial(str, text)):
            batch.append((first, second))
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _pair_field(source: cfg.Parallel, features: Any) -> str | None:
    """The feature that holds the translations, or None where the example itself does."""
    first, second = source.languages
    for field, feature in [(None, features), *features.items()]:
        names = getattr(feature, "languages", None) or (tuple(feature) if field is None else ())
        if first in names and second in names:
            return field
    raise UserError(
        f"{source.paths[0]}: no sentences in {first} and {second}; it has {', '.join(features)}; "
        "name languages as the data set does"
    )


def _check_fields(source: cfg.Source, features: Any) -> None:
    for field in cfg.fields_of(source.field):
        if field not in features:
            raise UserError(f"{source.path}: no field {field!r}; it has {', '.join(features)}; set Source.field")
        dtype = getattr(features[field], "dtype", None)
        if getattr(dtype, "name", str(dtype)) not in ("string", "object", "str", "bytes") and "str" not in str(dtype):
            raise UserError(
                f"{source.path}: field {field!r} holds {dtype}, not text; name a text field (SeqIO keeps the text "
                "of a tokenised feature as NAME_pretokenized)"
            )


@cache
def builder_of(path: str) -> Any:
    """The TFDS data set of `tfds:NAME`; download and prepare it first if need be.

    Raises:
      UserError: there is no such data set, or it cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    name = path.removeprefix("tfds:")
    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except Exception as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(
            f"{path}: cannot be had ({reason[:300]}); check the name, or prepare it with: tfds build {name}"
        ) from e
    return builder


def _task(source: cfg.Source) -> Any:
    import seqio

    _import_module(source)
    name = source.path.removeprefix("seqio:")
    try:
        return seqio.get_mixture_or_task(name)
    except ValueError as e:
        raise UserError(
            f"{source.path}: no SeqIO task or mixture of this name is registered; set Source.module to the module that does"
        ) from e


def _import_module(source: cfg.Source) -> None:
    """Import the module that registers a source's SeqIO task.

    Raises:
      UserError: it cannot be imported.
    """
    if not source.module:
        return
    try:
        importlib.import_module(source.module)
    except Exception as e:
        raise UserError(
            f"data.sources: language {source.language}: module {source.module} cannot be imported "
            f"({type(e).__name__}: {e}); check Source.module and PYTHONPATH"
        ) from e


def _slices(source: cfg.Source, data: cfg.Data) -> list[Slice[cfg.Source]]:
    count = shard_count(source, "train")
    first: Literal["train", "both"] = "train" if source.validation else "both"
    found = [
        Slice(source, first, (source.path,), index=i, count=count, longest=data.longest_document) for i in range(count)
    ]
    if source.validation:
        count = shard_count(source, source.validation)
        held = Slice(source, "validation", (source.path,), count=count, longest=data.longest_document)
        found += [dataclasses.replace(held, index=i) for i in range(count)]
    return found


def _pair_slices(parallel: cfg.Parallel, data: cfg.Data) -> list[Slice[cfg.Parallel]]:
    count = pair_shard_count(parallel)
    return [Slice(parallel, "both", parallel.paths, index=i, count=count) for i in range(count)]


def _documents(part: Slice[cfg.Source]) -> Iterator[list[str]]:
    split = part.source.validation if part.part == "validation" else "train"
    return named_documents(part.source, split, part.index, part.count, part.longest)


TFDS = SourceKind(
    slices=_slices,
    documents=_documents,
    pair_slices=_pair_slices,
    pairs=named_pairs,
)
SEQIO = SourceKind(slices=_slices, documents=_documents)
