# SPDX-License-Identifier: Apache-2.0
"""Text → vocabulary → blocks → manifest, from top to bottom in the order things happen."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import coverage, manifest
from mlm_jax.errors import UserError
from mlm_jax.files import make_folder, said, sync, write_whole
from mlm_jax.manifest import Manifest, Shard, Split, Stream
from mlm_jax.names import check_names
from mlm_jax.phases import corpus_name, lengths, with_length
from mlm_jax.prepare import check
from mlm_jax.prepare.held_out import HeldOut, gather, streams_of
from mlm_jax.prepare.pool import run_all
from mlm_jax.prepare.shard import Job, Settings, file_name, make_shard, settings_of
from mlm_jax.prepare.slices import Slice
from mlm_jax.prepare.vocabulary import make_vocabulary
from mlm_jax.records import FEATURES
from mlm_jax.stored import fitting, read_arrays
from mlm_jax.vocabulary import Vocabulary

SPLITS = ("train", "validation")
TOTALS = (
    "documents",
    "bytes",
    "tokens",
    "blocks",
    "left_out",
    "sentences_left_out",
    "in_no_block",
    "unpaired",
    "cut",
)  # of a split's shards
TOOLS = ("mlm_jax", "seqio", "tensorflow", "tensorflow-datasets", "sentencepiece", "numpy")


def prepare_corpus(config: cfg.Config) -> Manifest:
    """Make a workdir's `vocabulary/` and `corpus/`, as far as they are missing, and beside it a corpus of each other length.

    Args:
      config: validated; its sources are read, its workdir written.

    Returns:
      The manifest of `corpus/`.

    Raises:
      UserError: bad input, a disk that cannot be written, or a process that died.
    """
    workdir = epath.Path(config.workdir)
    corpus = workdir / "corpus"
    missing = [n for n in lengths(config) if not (workdir / corpus_name(config, n) / "manifest.json").exists()]
    if not missing:
        return manifest.read_manifest(corpus)
    workers = config.data.workers or os.cpu_count() or 1
    try:
        make_folder(corpus)
        languages, pairs = streams_of(config.data, workers)
        check_names("data", [*languages, *(name for pair in pairs for name in pair)])
        check.refuse_swapped(languages, pairs)
        held_out = gather(languages, pairs, corpus, workers)
        words = make_vocabulary(config, languages, held_out, workdir / "vocabulary", workers)
        # Before hours of encoding what cannot be written.
        check.refuse_unknown(check.first_look(languages, words, workdir / "vocabulary"), config.vocabulary.most_unknown)
        ids = {name: i for i, name in enumerate(sorted({*languages, *(name for pair in pairs for name in pair)}))}
        paired = config.data.packing == "pairs"  # languages' own text then makes the vocabulary, and no blocks
        named: dict[tuple[str, ...], Sequence[Slice[Any]]] = {} if paired else {(x,): y for x, y in languages.items()}
        for pair, found in pairs.items():
            named[pair] = found
        for length in missing:
            folder, of_length = workdir / corpus_name(config, length), with_length(config, length)
            prepare_length(of_length, folder, words, held_out, named, ids, workers)
    except OSError as e:
        raise UserError(said(e, workdir, "then run the same command again: it goes on from what is done")) from e
    return manifest.read_manifest(corpus)


def prepare_length(
    config: cfg.Config,
    corpus: epath.Path,
    words: Vocabulary,
    held_out: HeldOut,
    named: dict[tuple[str, ...], Sequence[Slice[Any]]],
    ids: dict[str, int],
    workers: int,
) -> None:
    """Make the corpus of one length of blocks.

    Args:
      config: with this length.
      corpus: its folder.
      named: languages of each stream → its text.
      ids: of the languages.

    Raises:
      UserError: text that cannot be read, or is too little.
    """
    make_folder(corpus)
    jobs = {names: stream_jobs(config, corpus, words, held_out, names, found, ids) for names, found in named.items()}
    results = make_shards(config, [job for mine in jobs.values() for job in mine], workers)
    streams = [
        finish_stream(corpus, names, mine, [results[id(job)] for job in mine], words) for names, mine in jobs.items()
    ]
    if corpus.name == "corpus":  # of longer blocks a language may have less than one, which is filled up with padding
        check.refuse_too_small(config, streams)
    check.refuse_unknown({s.name: (s.train.unknown, s.train.lost) for s in streams}, config.vocabulary.most_unknown)
    counts = sum(token_counts(corpus, s.train.shards, words.size) for s in streams)
    manifest.write_token_counts(np.asarray(counts), corpus)
    made = Manifest(
        schema=manifest.SCHEMA,
        sequence_length=config.data.sequence_length,
        packing=config.data.packing,
        vocabulary_size=words.size,
        vocabulary_sha256=words.sha256,
        languages=tuple(ids),
        streams=tuple(streams),
        settings=json.loads(
            json.dumps(
                {
                    "data": dataclasses.asdict(config.data),
                    "vocabulary": dataclasses.asdict(config.vocabulary),
                    "sampling": dataclasses.asdict(config.sampling),
                }
            )
        ),
        tools=dict(tool_versions()),
    )
    manifest.write_manifest(made, corpus)


def task_name(names: Sequence[str]) -> str:
    """A stream's SeqIO task and its folder, in the characters that SeqIO takes."""
    return "mlm_jax_" + ".".join(re.sub(r"[^\w]", "_", name) for name in names)


def stream_settings(config: cfg.Config, words: Vocabulary, held_out: HeldOut) -> Settings:
    """What the blocks of every stream depend on besides their text."""
    return settings_of(config.data, words, held_out, str(epath.Path(config.workdir) / "vocabulary"))


def stream_jobs(
    config: cfg.Config,
    corpus: epath.Path,
    words: Vocabulary,
    held_out: HeldOut,
    names: tuple[str, ...],
    slices: Sequence[Slice[Any]],
    ids: dict[str, int],
) -> list[Job]:
    """The shards of a stream: each slice gives one of training, one of validation, or one of both."""
    folder = corpus / task_name(names)
    make_folder(folder)
    settings = stream_settings(config, words, held_out)
    of = {split: [x for x in slices if x.part in (split, "both")] for split in SPLITS}
    return [
        Job(
            str(folder),
            text,
            tuple(ids[name] for name in names),
            {split: (of[split].index(text), len(of[split])) for split in SPLITS if text in of[split]},
            settings,
        )
        for text in slices
    ]


def make_shards(config: cfg.Config, jobs: list[Job], workers: int) -> dict[int, dict[str, Any]]:
    """Make every shard; returns id(job) → what `make_shard` returned."""
    if config.data.runner == "beam":
        from mlm_jax.prepare.beam import run_all_in_beam

        done: Iterator[tuple[int, Any]] = run_all_in_beam(make_shard, jobs, config.data.beam_options)
    else:
        done = run_all(make_shard, [(job,) for job in jobs], workers, "preparing blocks", lambda job: str(job[0]))
    return {id(jobs[number]): result for number, result in done}


def finish_stream(
    corpus: epath.Path,
    names: tuple[str, ...],
    jobs: list[Job],
    results: list[dict[str, Any]],
    words: Vocabulary,
) -> Stream:
    """Add up a stream's shards and write what SeqIO wants to know of its cache."""
    task = task_name(names)
    splits, histograms = {}, {}
    for split in SPLITS:
        made = [
            (job.shards[split], result["splits"][split])
            for job, result in zip(jobs, results, strict=True)
            if split in job.shards
        ]
        total = {name: sum(counts.get(name, 0) for _, counts in made) for name in TOTALS}
        lost = sum((Counter(counts["lost"]) for _, counts in made), Counter[str]())
        shards = tuple(
            Shard(f"{task}/{file_name(split, *place)}", counts["blocks"], counts["file_bytes"])
            for place, counts in made
        )
        histogram = histograms[split] = token_counts(corpus, shards, words.size)
        unk, ordinary = int(histogram[words.unk]), int(histogram[words.ordinary_ids].sum())
        unknown = coverage.unknown_share(
            unk,
            unk + ordinary,
            lost.total(),
            sum(counts["characters"] for _, counts in made),
        )
        if total["documents"] and not ordinary and not unk:
            unknown = 1.0  # nothing but what normalisation drops
        share = unk / max(unk + ordinary, 1)
        splits[split] = Split(**total, shards=shards, unknown=unknown, unk=share, lost=coverage.in_words(lost))
        write_seqio_info(corpus / task, split, splits[split])
    write_whole(corpus / task / "COMPLETED", "", listed=False)  # without it SeqIO takes the task for not cached
    sync(corpus / task)
    loss = unigram_loss(histograms, words) if len(names) == 1 else None
    return Stream("-".join(names), names, task, splits["train"], splits["validation"], loss)


def write_seqio_info(folder: epath.Path, split: str, made: Split) -> None:
    """info.json and stats.json of a cached SeqIO split."""
    features = {name: {"shape": [None], "dtype": "int32"} for name in FEATURES}
    info = {"num_shards": len(made.shards), "features": features, "seqio_version": importlib.metadata.version("seqio")}
    write_whole(folder / f"info.{split}.json", json.dumps(info), listed=False)
    stats = {"examples": made.blocks, "tokens_tokens": made.tokens}
    write_whole(folder / f"stats.{split}.json", json.dumps(stats), listed=False)


def token_counts(corpus: epath.Path, shards: Sequence[Shard], size: int) -> np.ndarray:
    """How often each token id occurs in shards' blocks, int64 [size]."""
    counts = np.zeros(size, np.int64)
    for shard in shards:
        path = corpus / f"{shard.file}.histogram.npz"
        advice = f"delete {path.parent} and run: mlm-jax prepare CONFIG"
        stored = read_arrays(path, advice, ids=("int64", 1), counts=("int64", 1))
        with fitting(str(path), advice):
            if stored["ids"].min(initial=0) < 0:
                raise ValueError("an id below 0")
            counts[stored["ids"]] += stored["counts"]
    return counts


def unigram_loss(histograms: dict[str, np.ndarray], words: Vocabulary) -> float | None:
    """The loss in nats per validation token of a model that knows only how often each piece occurs in the training text.

    Add-one smoothed over the pieces that can be masked; specials, which never are, are left out.

    Args:
      histograms: split → how often each id occurs, int64 [vocabulary size].
    """
    counts = {split: histogram[words.ordinary_ids] for split, histogram in histograms.items()}
    held_out = counts["validation"].sum()
    if not held_out:
        return None
    probabilities = (counts["train"] + 1) / (counts["train"] + 1).sum()
    return float(-(counts["validation"] * np.log(probabilities)).sum() / held_out)


def tool_versions() -> Iterator[tuple[str, str]]:
    """Versions of the packages that shape a corpus, where they are installed."""
    for name in TOOLS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)
