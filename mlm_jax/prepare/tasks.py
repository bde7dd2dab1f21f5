# SPDX-License-Identifier: Apache-2.0
"""A prepared corpus as SeqIO tasks, one per language, and SeqIO mixtures at the run's rates.

    from mlm_jax.prepare import tasks
    tasks.register("runs/quickstart")
    seqio.get_mixture_or_task("mlm_jax").get_dataset(sequence_length=None, split="train", use_cached=True)

The cache that SeqIO reads is the one that training reads: there is one copy of the tokens. Without the cache
the same tasks make the same blocks from the text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import manifest, records, sampling
from mlm_jax.manifest import Manifest, Stream
from mlm_jax.prepare import held_out, shard
from mlm_jax.prepare.run import SPLITS
from mlm_jax.prepare.slices import Slice
from mlm_jax.stored import fitting, read_json
from mlm_jax.typed import as_type
from mlm_jax.vocabulary import read_vocabulary

OUTPUTS = (*records.TOKEN_FEATURES, "next_sentence")


class TextSource(seqio.DataSource):
    """A stream's text as packed blocks of spans, made from the text as preparation makes them.

    Args:
      slices: the stream's text; each slice makes one shard.
      settings: what the blocks depend on besides the text.
      language_ids: of the stream's languages.
    """

    def __init__(self, slices: Sequence[Slice[Any]], settings: shard.Settings, language_ids: tuple[int, ...]):
        self._slices, self._settings, self._language_ids = slices, settings, language_ids
        super().__init__(splits=SPLITS)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        return [str(text) for text in self._of(split)]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
    ) -> tf.data.Dataset:
        """Blocks' `records.FEATURES`, int32 of rank 1; `shuffle` shuffles the slices."""
        slices = list(self._of(split))
        if shard_info is not None:
            slices = slices[shard_info.index :: shard_info.num_shards]
        if shuffle:
            slices = [slices[i] for i in np.random.default_rng(seed).permutation(len(slices))]

        def blocks() -> Iterator[dict[str, np.ndarray]]:
            for text in slices:
                yield from shard.make_blocks(text, split, self._settings, self._language_ids)

        spec = {name: tf.TensorSpec([None], tf.int32) for name in records.FEATURES}
        return tf.data.Dataset.from_generator(blocks, output_signature=spec)

    def _of(self, split: str) -> list[Slice[Any]]:
        return [text for text in self._slices if text.part in (split, "both")]


def expand_spans(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The features of `records.expand_block`, without padding, in TensorFlow; next_sentence has rank 1."""

    def expand(block: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        lengths = block["span_lengths"]
        starts = tf.repeat(tf.cumsum(lengths, exclusive=True), lengths)
        return {
            "tokens": block["tokens"],
            "segment_ids": tf.repeat(block["span_segments"], lengths),
            "positions": tf.range(tf.size(block["tokens"])) - starts + tf.repeat(block["span_positions"], lengths),
            "language_ids": tf.repeat(block["span_languages"], lengths),
            "token_types": tf.repeat(block["span_types"], lengths),
            "next_sentence": block["next_sentence"],
        }

    return dataset.map(expand, num_parallel_calls=tf.data.AUTOTUNE)


def register(workdir: epath.PathLike, prefix: str = "mlm_jax") -> list[str]:
    """Register a workdir's streams as SeqIO tasks, and a mixture of its languages for each stage of its rates.

    Args:
      workdir: prepared, with or without a run; a second call replaces what the first registered.
      prefix: of the mixtures' names (PREFIX, PREFIX_stage2, …). Tasks keep the names of their caches.

    Returns:
      The mixtures' names.

    Raises:
      UserError: the workdir is not prepared.
    """
    workdir = epath.Path(workdir)
    corpus = workdir / "corpus"
    prepared = manifest.read_manifest(corpus)
    words = read_vocabulary(workdir / "vocabulary")
    # An earlier version held out no more of small languages.
    with fitting(str(corpus / "manifest.json")):
        data: cfg.Data = as_type(cfg.Data, {"validation_documents": 0} | prepared.settings["data"])
    settings = shard.settings_of(
        data, words, held_out.read(corpus), str(workdir / "vocabulary"), prepared.sequence_length
    )
    # First, because SeqIO takes the first that has a task of the name.
    others = [folder for folder in seqio.get_global_cache_dirs() if folder != str(corpus)]
    seqio.set_global_cache_dirs([str(corpus), *others])
    slices = _slices(data)
    for stream in prepared.streams:
        if stream.task in seqio.TaskRegistry.names():
            seqio.TaskRegistry.remove(stream.task)
        ids = tuple(prepared.languages.index(name) for name in stream.languages)
        _register_task(stream, TextSource(slices[stream.name], settings, ids), settings)
    return _register_mixtures(workdir, prepared, prefix)


def _slices(data: cfg.Data) -> dict[str, Sequence[Slice[Any]]]:
    """Stream → its slices."""
    languages, pairs = held_out.streams_of(data, 1)
    return {**languages, **{"-".join(pair): mine for pair, mine in pairs.items()}}


def _register_task(stream: Stream, source: TextSource, settings: shard.Settings) -> None:
    numbers = seqio.PassThroughVocabulary(settings.vocabulary.size)
    vocabulary = numbers
    if settings.vocabulary.file == "sentencepiece.model":
        vocabulary = seqio.SentencePieceVocabulary(f"{settings.folder}/{settings.vocabulary.file}")
    seqio.TaskRegistry.add(
        stream.task,
        source=source,
        preprocessors=[seqio.CacheDatasetPlaceholder(), expand_spans],
        output_features={
            name: seqio.Feature(vocabulary if name == "tokens" else numbers, add_eos=False, dtype=tf.int32)
            for name in OUTPUTS
        },
    )


def _register_mixtures(workdir: epath.Path, prepared: Manifest, prefix: str) -> list[str]:
    config = _run_config(workdir, prepared)
    streams = sampling.trained_streams(config, prepared.streams)
    names = []
    for number, stage in enumerate(sampling.stage_rates(config, streams), 1):
        name = prefix if number == 1 else f"{prefix}_stage{number}"
        if name in seqio.MixtureRegistry.names():
            seqio.MixtureRegistry.remove(name)
        rates = [(s.task, float(rate)) for s, rate in zip(streams, stage.rates, strict=True) if rate > 0]
        seqio.MixtureRegistry.add(name, rates)
        names.append(name)
    return names


def _run_config(workdir: epath.Path, prepared: Manifest) -> cfg.Config:
    """As much of the run's config as its rates depend on: the run's own, or what it was prepared with."""
    path = workdir / "config.json"
    stored = read_json(path, dict[str, Any]) if path.exists() else prepared.settings
    with fitting(str(path)):
        parts = {
            name: as_type(kind, stored[name])
            for name, kind in (("data", cfg.Data), ("sampling", cfg.Sampling), ("train", cfg.Train))
            if name in stored
        }
    return dataclasses.replace(cfg.Config(), **parts)
