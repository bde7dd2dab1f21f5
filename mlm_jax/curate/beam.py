# SPDX-License-Identifier: Apache-2.0
"""Curate as one Apache Beam pipeline: the steps of `parts.py`, with Beam's shuffle between them.

What goes to a group travels in frames of many records. Nothing but the corpus is written, each file whole and of the same bytes however often a worker
tries again, and, once all of it is there, what was counted.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsDict, AsList, AsSingleton, PCollection, TaggedOutput
from etils import epath

from mlm_jax import console
from mlm_jax.curate import parts, perplexity, spill
from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts, sum_of
from mlm_jax.curate.groups import RECORD
from mlm_jax.curate.near_duplicates import LINK, SIZE, find_clusters, find_links
from mlm_jax.curate.paragraphs import WHERE, choose_paragraphs
from mlm_jax.curate.perplexity import Model
from mlm_jax.curate.rules import Rules, added, chosen_bounds, described, make_rules
from mlm_jax.curate.run import length_of, partitions_of
from mlm_jax.curate.shuffle import frame, frames, unframed
from mlm_jax.curate.summary import check_left, finish, shards_of, summarize
from mlm_jax.curate.thresholds import Sketch
from mlm_jax.errors import UserError
from mlm_jax.files import copy_whole, in_bucket, is_aside, listed, make_folder, write_json
from mlm_jax.stored import read_json

FRAME = 8 << 20  # bytes of records that are held until they are packed
MOST_PARTITIONS = 1 << 16
ASKED = 32  # files whose sizes are asked for at a time
# In the workdir until the corpus is finished: what the pipeline counted, and models of clean text.
RESULT, MODELS = "beam.json", "perplexity"


def run(config: Curate, paths: Sequence[str]) -> dict[str, Any]:
    """Curate a corpus of an input's files into a workdir; returns what curate.json holds.

    Raises:
      UserError: nothing left, or the pipeline failed.
    """
    workdir = epath.Path(config.workdir)
    for folder in (workdir / "corpus", workdir / MODELS):  # of a run that was not finished
        if folder.exists():
            folder.rmtree()
    make_folder(workdir)
    with ThreadPoolExecutor(ASKED) as threads:
        size = sum(threads.map(length_of, paths))
    partitions = partitions_of(size, int(config.memory * 2**30), MOST_PARTITIONS)
    options = read_options(config.beam_options)
    console.say(f"{len(paths):,} files, in Beam: {config.beam_options or 'here, in this process'}")
    try:
        with beam.Pipeline(options=options) as pipeline:
            build(pipeline, config, paths, partitions)
    except Exception as e:  # each runner has errors of its own
        said = [line for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
        raise UserError(
            f"beam_options: the Beam pipeline failed ({said[-1].strip()[:300]}); mend that, and run again"
        ) from e
    result = read_json(workdir / RESULT, dict[str, Any], "delete it, and run again")
    summary = result["summary"]
    check_left(config, summary)
    for folder in listed(workdir / "corpus"):
        for path in listed(folder):
            if is_aside(path):  # of a worker that died
                path.unlink(missing_ok=True)
    finish(config, summary, result["first"])
    if (workdir / MODELS).exists():
        (workdir / MODELS).rmtree()
    (workdir / RESULT).unlink()
    return dict(summary)


def read_options(given: str) -> PipelineOptions:
    """Beam's pipeline options, of a string as on a command line.

    Raises:
      UserError: Beam cannot read them.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions(shlex.split(given))
            options.get_all_options()
    except (SystemExit, ValueError) as e:
        lines = said.getvalue().strip().splitlines() or [str(e)]
        raise UserError(f"beam_options: {lines[-1].split('error: ')[-1]}; mend them") from e
    return options


def build(pipeline: beam.Pipeline, config: Curate, paths: Sequence[str], partitions: int) -> None:
    """Add all steps to a pipeline."""
    memory = int(config.memory * 2**30) // 2

    read = (
        pipeline
        | "paths" >> beam.Create(list(paths))
        | "spread" >> beam.Reshuffle()
        | "read" >> _outputs(read_file, config, partitions)
    )
    copies = read.documents | "parts of keys" >> beam.GroupByKey() | "copies" >> _outputs(copies_of, config, partitions)
    lines = (
        copies.records
        | "paragraphs of a range" >> beam.GroupByKey()
        | "paragraphs" >> beam.FlatMap(lines_of, partitions, memory)
    )
    measured = (
        {"documents": copies.documents, "lines": lines}
        | "documents and lines" >> beam.CoGroupByKey()
        | "measured"
        >> _outputs(measure, config, _trained(pipeline, config, copies) if config.filters.perplexity else ())
    )
    sketches = AsDict(measured.sketches | "sketches" >> beam.CombinePerKey(added_sketches))
    rules = _once(pipeline, "rules", rules_of, config, sketches)
    kept = measured.documents | "filtered" >> _outputs(keep, config, partitions, rules)
    sizes = (
        kept.records
        | "bands of a range" >> beam.GroupByKey()
        | "links" >> beam.FlatMap(links_of, memory)
        | "all links" >> beam.GroupByKey()
        | "clusters" >> beam.FlatMap(clusters_of, partitions, memory)
    )
    near = (
        {"documents": kept.documents, "sizes": sizes}
        | "documents and sizes" >> beam.CoGroupByKey()
        | "near copies" >> _outputs(near_of, config)
    )
    steps = {"read": read, "copies": copies, "paragraphs": measured, "filters": kept, "near copies": near}
    counted = [step.counts | f"{name}: counts" >> beam.Map(_named, name) for name, step in steps.items()]
    counts = AsDict(counted | "all counts" >> beam.Flatten() | "counts" >> beam.CombinePerKey(sum_of))
    written = (
        near.documents
        | "shards" >> beam.FlatMap(to_shards, config, counts)
        | "documents of a shard" >> beam.GroupByKey()
        | "written" >> beam.Map(write_shard, config.workdir)
    )
    said = [AsList(written), AsList(read.damaged), sketches, rules, counts]
    _once(pipeline, "result", write_result, config, len(paths), list(steps), *said)


def _outputs(function: Any, *arguments: Any) -> Any:
    """A step whose function yields documents, and other things with their tags."""
    tags = ("records", "counts", "sketches", "damaged")
    return beam.FlatMap(function, *arguments).with_outputs(*tags, main="documents")


def _once(pipeline: beam.Pipeline, name: str, function: Any, *arguments: Any) -> AsSingleton:
    """What a function gives of side inputs."""
    made: PCollection = (
        pipeline
        | f"{name} once" >> beam.Create([None])
        | name >> beam.Map(lambda _, *given: function(*given), *arguments)
    )
    return AsSingleton(made)


def _trained(pipeline: beam.Pipeline, config: Curate, copies: Any) -> AsList:
    """The languages of which there are models of clean text, once they are there."""
    counts = AsSingleton(copies.counts | "documents of languages" >> beam.CombineGlobally(sum_of))
    made = (
        pipeline
        | "clean text once" >> beam.Create([config])
        | "clean text" >> beam.FlatMap(clean_text, counts)
        | "spread languages" >> beam.Reshuffle()
        | "models of clean text" >> beam.Map(train_model, config.workdir)
    )
    return AsList(made)


def _named(counts: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    return name, counts


# --- the steps, as Beam calls them


def read_file(path: str, config: Curate, partitions: int) -> Iterator[Any]:
    """A file → (part, frame of documents)."""
    counts = parts.new_counts(config)
    damaged: list[str] = []
    records = parts.read(path, config, counts, damaged)
    yield from frames(((parts.part_of(record, partitions), record) for record in records), FRAME)
    yield TaggedOutput("counts", counts.to_json())
    yield from (TaggedOutput("damaged", one) for one in damaged)


def copies_of(found: tuple[int, Iterable[bytes]], config: Curate, partitions: int) -> Iterator[Any]:
    """A part's documents → (part, frame of documents); (range, records of paragraphs)."""
    part, packed = found
    counts = parts.new_counts(config)
    yield from _with_records(part, parts.copies(_records(packed), part, config, counts), partitions)
    yield TaggedOutput("counts", counts.to_json())


def lines_of(found: tuple[int, Iterable[bytes]], partitions: int, memory: int) -> Iterator[tuple[int, bytes]]:
    """A range's records of paragraphs → (part, lines that stay)."""
    with tempfile.TemporaryDirectory() as name:
        runs = spill.write_runs(parts.gathered(found[1], RECORD), Path(name) / "records", RECORD, memory)
        chosen = spill.open_sorted(choose_paragraphs(runs, Path(name), memory), WHERE)
        yield from parts.apart(spill.chunks(chosen), parts.parts_of, partitions)


def clean_text(config: Curate, copies: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The files of clean text of each language of the corpus."""
    yield from perplexity.files_of(config.filters.perplexity, copies["passed"]).items()


def train_model(found: tuple[str, list[str]], workdir: str) -> str:
    """A language's model of clean text, in the workdir, where all workers find it; returns the language."""
    language, files = found
    folder = epath.Path(workdir) / MODELS / language
    make_folder(folder)
    with tempfile.TemporaryDirectory() as name:
        perplexity.train_of(files).save(Path(name))
        for path in Path(name).iterdir():
            copy_whole(path, folder / path.name)
    return language


class Models(Mapping[str, Model]):
    """Models of clean text, each read when a document of its language comes; those of a bucket are fetched, as their arrays stay on disk."""

    def __init__(self, workdir: str, languages: Sequence[str]) -> None:
        self._folder, self._languages = f"{workdir}/{MODELS}", frozenset(languages)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._languages))

    def __len__(self) -> int:
        return len(self._languages)

    def __contains__(self, language: object) -> bool:
        return language in self._languages

    def __getitem__(self, language: str) -> Model:
        if language not in self._languages:
            raise KeyError(language)
        return _fetched(f"{self._folder}/{language}")[0]


@functools.cache
def _fetched(folder: str) -> tuple[Model, Any]:
    """A model, and what its files are kept by until the process ends."""
    if not in_bucket(folder):
        return Model.load(Path(folder)), None
    kept = tempfile.TemporaryDirectory()
    for path in listed(folder):
        copy_whole(path, Path(kept.name) / path.name)
    return Model.load(Path(kept.name)), kept


def measure(
    found: tuple[int, Mapping[str, Iterable[bytes]]], config: Curate, languages: Sequence[str]
) -> Iterator[Any]:
    """A part's documents, and its lines that stay → (part, frame of documents); (language, sketch)."""
    part, given = found
    counts, bounds = parts.new_counts(config), chosen_bounds(config.filters)
    sketches: dict[str, Sketch] = {}
    lines = parts.merged(parts.gathered(given["lines"], WHERE), WHERE) if config.duplicates.paragraphs else None
    models = Models(config.workdir, languages)
    made = parts.measure(_records(given["documents"]), lines, bounds, models, counts, sketches)
    yield from frames(((part, record) for record in made), FRAME)
    yield TaggedOutput("counts", counts.to_json())
    yield from (TaggedOutput("sketches", (language, sketch.to_json())) for language, sketch in sketches.items())


def added_sketches(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of one language's sketches, each as JSON."""
    made = Sketch()
    for one in found:
        made.merge(Sketch.from_json(one))
    return made.to_json()


def rules_of(config: Curate, sketches: Mapping[str, Mapping[str, Any]]) -> Rules:
    return make_rules(config, added([sketches]))


def keep(found: tuple[int, bytes], config: Curate, partitions: int, rules: Rules) -> Iterator[Any]:
    """A frame of documents → (part, frame of those that stay); (range, records of bands)."""
    part, packed = found
    counts = parts.new_counts(config)
    yield from _with_records(part, parts.keep(unframed(packed), rules, config, counts), partitions)
    yield TaggedOutput("counts", counts.to_json())


def links_of(found: tuple[int, Iterable[bytes]], memory: int) -> Iterator[tuple[None, bytes]]:
    """A range's records of bands → links, all to one worker."""
    with tempfile.TemporaryDirectory() as name:
        runs = spill.write_runs(parts.gathered(found[1], RECORD), Path(name) / "records", RECORD, memory)
        links = find_links(runs, Path(name) / "links", memory)
        for chunk in spill.merge_distinct(links, LINK, memory):
            yield None, chunk.tobytes()


def clusters_of(found: tuple[None, Iterable[bytes]], partitions: int, memory: int) -> Iterator[tuple[int, bytes]]:
    """All links → (part, cluster sizes of its documents)."""
    with tempfile.TemporaryDirectory() as name:
        links = spill.write_runs(parts.gathered(found[1], LINK), Path(name) / "links", LINK, memory, once=True)
        sizes = spill.open_sorted(find_clusters(links, Path(name) / "clusters", memory), SIZE)
        yield from parts.apart(spill.chunks(sizes), parts.parts_of, partitions)


def near_of(found: tuple[int, Mapping[str, Iterable[bytes]]], config: Curate) -> Iterator[Any]:
    """A part's documents, and the sizes of their clusters → (language, frame of documents)."""
    _, given = found
    counts = parts.new_counts(config)
    sizes = parts.merged(parts.gathered(given["sizes"], SIZE), SIZE)
    yield from frames(parts.near(_records(given["documents"]), sizes, counts), FRAME)
    yield TaggedOutput("counts", counts.to_json())


def to_shards(
    found: tuple[str, bytes], config: Curate, counts: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[tuple[str, int], bytes]]:
    """A language's frame → ((language, shard), frame)."""
    language, packed = found
    shards = shards_of(counts["near copies"]["passed"], config.shard_bytes)[language]
    yield from frames((((language, parts.shard_of(record, shards)), record) for record in unframed(packed)), FRAME)


def write_shard(found: tuple[tuple[str, int], Iterable[bytes]], workdir: str) -> tuple[str, int, list[str]]:
    """Write a shard; returns the beginnings of its first documents."""
    (language, shard), packed = found
    return language, shard, parts.write_shard(sorted(_records(packed)), workdir, language, shard)["first"]


def write_result(
    config: Curate,
    inputs: int,
    steps: Sequence[str],
    written: Sequence[tuple[str, int, list[str]]],
    damaged: Sequence[str],
    sketches: Mapping[str, Mapping[str, Any]],
    rules: Rules,
    counts: Mapping[str, Mapping[str, Any]],
) -> None:
    """What curate.json is made of, in the workdir."""
    counted = {name: Counts(**counts.get(name, {})) for name in steps}
    summary = summarize(inputs, sorted(damaged), described(rules, added([sketches])), counted)
    first = {language: texts for language, _, texts in sorted(written)}
    write_json(epath.Path(config.workdir) / RESULT, {"summary": summary, "first": first})


def _records(packed: Iterable[bytes]) -> Iterator[bytes]:
    return (record for one in packed for record in unframed(one))


def _with_records(part: int, made: Iterable[tuple[bytes, spill.Records]], partitions: int) -> Iterator[Any]:
    """Documents and records of each → (part, frame of documents); (range, records)."""
    held: list[bytes] = []
    ready: list[bytes] = []
    size = 0

    def records() -> Iterator[spill.Records]:
        nonlocal size
        for record, found in made:
            held.append(record)
            size += len(record)
            if size >= FRAME:
                ready.append(frame(held))
                held.clear()
                size = 0
            yield found

    def ranges(found: spill.Records) -> np.ndarray:
        return parts.ranges_of(found, partitions)

    for number, packed in parts.apart(records(), ranges, partitions):
        yield TaggedOutput("records", (number, packed))
        while ready:
            yield part, ready.pop()
    yield from ((part, one) for one in ready)
    if held:
        yield part, frame(held)
