# SPDX-License-Identifier: Apache-2.0
"""Curate on one machine, or on several that share a file system: each step's jobs in a pool of processes, what goes to a key on disk between them.

Everything between lies in WORKDIR/work, in a folder of these options and input files: of each step a folder, of each job its files and, last,
its result. So a run that was killed goes on with the jobs that it lacks. The folder goes when the corpus is there.

Several runs at once (`config.shared`) take jobs by files that claim them, and wait for what others do. What a job writes depends on nothing but the job,
and takes its place whole, so that one that is done twice, because its process seemed gone, does no harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import random
import resource
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from mlm_jax import console, storage
from mlm_jax.config import is_named
from mlm_jax.curate import parts, perplexity, spill
from mlm_jax.curate.archives import Raw
from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts, sum_of
from mlm_jax.curate.document import Document
from mlm_jax.curate.groups import RECORD
from mlm_jax.curate.identify import identifier_of, identify
from mlm_jax.curate.near_duplicates import SIZE, find_clusters, find_links
from mlm_jax.curate.paragraphs import WHERE, choose_paragraphs
from mlm_jax.curate.perplexity import Model
from mlm_jax.curate.reading import document_of
from mlm_jax.curate.rules import Rules, added, chosen_bounds, described, make_rules
from mlm_jax.curate.shuffle import partitioned, records_of
from mlm_jax.curate.summary import check_left, finish, shards_of, summarize
from mlm_jax.curate.tables import HUB
from mlm_jax.curate.thresholds import Sketch
from mlm_jax.errors import UserError
from mlm_jax.files import aside_folder, create_whole, listed, make_folder, write_json
from mlm_jax.formats import data_files
from mlm_jax.lines import read_lines
from mlm_jax.lock import Claims, claimed
from mlm_jax.prepare import hub
from mlm_jax.prepare.pool import run_all
from mlm_jax.stored import read_json

PACKAGES = ("fastwarc", "resiliparse", "py3langid", "ftfy")  # and a fastText model's reader, where one is named
GROWTH = 4  # bytes of text, at most, for a byte of packed input
MOST_PARTITIONS = 4_096
# Options by which the corpus does not change.
NO_MATTER = ("workdir", "runner", "beam_options", "workers", "memory", "price", "shared")
SUMS = 16  # jobs that languages are spread over, for what is summed of each
POLL = 1.0  # seconds between looks at what others do
JOB_BYTES = 4_000_000  # of input files, of which a job reads several if they are small


@dataclasses.dataclass(frozen=True)
class Work:
    """What every job of a run is told.

    Attributes:
      folder: of what lies between the steps.
      partitions: into how many parts keys are cut, a power of two.
      workers: processes.
      memory: bytes for the records of each.
    """

    config: Curate
    folder: str
    partitions: int
    workers: int
    memory: int

    def path(self, step: str, job: int, what: str) -> epath.Path:
        return epath.Path(self.folder) / step / f"{job:05}.{what}"

    def paths(self, step: str, what: str) -> list[epath.Path]:
        """What a step's jobs wrote of a kind, in the order of the jobs."""
        return sorted(path for path in listed(epath.Path(self.folder) / step) if path.name.endswith(f".{what}"))

    def range_of(self, records: spill.Records) -> np.ndarray:
        """The range of hashes of each record; uint64 [records]."""
        return parts.ranges_of(records, self.partitions)

    def documents(self, step: str, part: int) -> Iterator[bytes]:
        return records_of([self.path(step, part, "documents")], 0)

    def said(self, step: str, what: str, number: int) -> Iterator[bytes]:
        """What all jobs of a step wrote for a part or a range."""
        return records_of(self.paths(step, what), number)

    def writing(self, step: str, job: int, what: str, groups: int = 1) -> Any:
        return partitioned(self.path(step, job, what), groups, self.memory // 8)

    @contextlib.contextmanager
    def sorting(self, step: str, job: int, packed: Iterable[bytes]) -> Iterator[tuple[Path, list[Path]]]:
        """A folder for what a job sorts, which goes at the end of the block, and records of `RECORD` in it, as sorted runs."""
        with aside_folder(self.path(step, job, "sorted")) as folder:
            batches = parts.gathered(packed, RECORD)
            yield folder, spill.write_runs(batches, folder / "records", RECORD, self.memory // 2)


# --- the jobs, of functions that a process of the pool calls; what they return is JSON


def read_job(work: Work, job: int, paths: Sequence[str]) -> dict[str, Any]:
    """Some input files → their documents, each to the part of its key."""
    counts = parts.new_counts(work.config)
    damaged: list[str] = []
    with work.writing("read", job, "documents", work.partitions) as add:
        for path in paths:
            for record in parts.read(path, work.config, counts, damaged):
                add(parts.part_of(record, work.partitions), record)
    return {"counts": counts.to_json(), "damaged": damaged}


def copies_job(work: Work, job: int) -> dict[str, Any]:
    """A part of the keys: one document of each; and a record for each of their paragraphs, to the range of its hash."""
    counts = parts.new_counts(work.config)
    with (
        work.writing("copies", job, "documents") as keep,
        work.writing("copies", job, "paragraphs", work.partitions) as add,
    ):

        def paragraphs() -> Iterator[spill.Records]:
            for record, found in parts.copies(work.said("read", "documents", job), job, work.config, counts):
                keep(0, record)
                yield found

        for number, packed in parts.apart(paragraphs(), work.range_of, work.partitions):
            add(number, packed)
    return {"counts": counts.to_json()}


def paragraphs_job(work: Work, job: int) -> dict[str, Any]:
    """A range of hashes: of each paragraph that stands in several places, the one where it stays, to the part of its document."""
    said = work.said("copies", "paragraphs", job)
    with (
        work.sorting("paragraphs", job, said) as (folder, runs),
        work.writing("paragraphs", job, "lines", work.partitions) as add,
    ):
        chosen = spill.open_sorted(choose_paragraphs(runs, folder, work.memory // 2), WHERE)
        for number, packed in parts.apart(spill.chunks(chosen), parts.parts_of, work.partitions):
            add(number, packed)
    return {}


def perplexity_job(work: Work, job: int, files: Sequence[str]) -> dict[str, Any]:
    """A language's model of clean text."""
    path = Path(work.path("perplexity", job, "model"))
    with aside_folder(path) as folder:
        perplexity.train_of(files).save(folder / "model")
        put_in_place(folder / "model", path)
    return {}


def measured_job(work: Work, job: int, languages: Sequence[str]) -> dict[str, Any]:
    """A part of the keys: documents without copied paragraphs, and what thresholds are derived from.

    Args:
      languages: those that have a model of perplexity, in the order of the jobs that made them.
    """
    models = {
        language: Model.load(Path(work.path("perplexity", number, "model")))
        for number, language in enumerate(languages)
    }
    counts, chosen = parts.new_counts(work.config), None
    sketches: dict[str, Sketch] = {}
    if work.config.duplicates.paragraphs:
        chosen = parts.merged(parts.gathered(work.said("paragraphs", "lines", job), WHERE), WHERE)
    with (
        work.writing("measured", job, "documents") as keep,
        work.writing("measured", job, "sketches", SUMS) as add,
    ):
        documents = work.documents("copies", job)
        bounds = chosen_bounds(work.config.filters)
        for record in parts.measure(documents, chosen, bounds, models, counts, sketches):
            keep(0, record)
        for language, made in sketches.items():
            add(zlib.crc32(language.encode()) % SUMS, json.dumps({language: made.to_json()}).encode())
    return {"counts": counts.to_json()}


def sums_job(work: Work, job: int) -> dict[str, Any]:
    """Some languages: what thresholds are derived from, of all parts."""
    sketches = added(json.loads(record) for record in work.said("measured", "sketches", job))
    return {"sketches": {language: made.to_json() for language, made in sketches.items()}}


def filtered_job(work: Work, job: int, rules: Rules) -> dict[str, Any]:
    """A part of the keys: documents that pass every rule; and a record for each of their bands of MinHash, to the range of its hash."""
    counts = parts.new_counts(work.config)
    with (
        work.writing("filtered", job, "documents") as keep,
        work.writing("filtered", job, "bands", work.partitions) as add,
    ):

        def bands() -> Iterator[spill.Records]:
            for record, found in parts.keep(work.documents("measured", job), rules, work.config, counts):
                keep(0, record)
                yield found

        for number, packed in parts.apart(bands(), work.range_of, work.partitions):
            add(number, packed)
    return {"counts": counts.to_json()}


def links_job(work: Work, job: int) -> dict[str, Any]:
    """A range of hashes: links between documents that share a band."""
    with work.sorting("links", job, work.said("filtered", "bands", job)) as (folder, runs):
        find_links(runs, folder / "links", work.memory // 2)
        put_in_place(folder / "links", Path(work.path("links", job, "links")))
    return {}


def clusters_job(work: Work, job: int) -> dict[str, Any]:
    """The clusters of near copies, and which of each stays."""
    links = [run for folder in work.paths("links", "links") for run in sorted(Path(folder).glob("*.run"))]
    with aside_folder(work.path("clusters", job, "sorted")) as folder:
        os.replace(find_clusters(links, folder, work.memory * work.workers), work.path("clusters", job, "sizes"))
    return {}


def near_job(work: Work, job: int, languages: Sequence[str]) -> dict[str, Any]:
    """A part of the keys: documents without near copies, each to its language."""
    counts = parts.new_counts(work.config)
    number = {language: i for i, language in enumerate(languages)}
    clusters = np.empty(0, SIZE)
    if work.config.duplicates.near:
        clusters = spill.open_sorted(Path(work.path("clusters", 0, "sizes")), SIZE)
    with work.writing("near", job, "languages", len(languages)) as add:
        for language, record in parts.near(work.documents("filtered", job), clusters, counts):
            add(number[language], record)
    return {"counts": counts.to_json()}


def write_job(work: Work, job: int, language: str, number: int, shard: int, shards: int) -> dict[str, Any]:
    """A shard of a language: its documents, in the order of their keys, in corpus/LANGUAGE."""
    first, last = shard * work.partitions // shards, -(-(shard + 1) * work.partitions // shards)
    paths = [work.path("near", part, "languages") for part in range(first, last)]
    records = (record for record in records_of(paths, number) if parts.shard_of(record, shards) == shard)
    return parts.write_shard(records, work.config.workdir, language, shard)


# --- the run


def run(config: Curate) -> dict[str, Any]:
    """Curate a corpus into a workdir, as far as that is not done; returns what curate.json holds.

    Raises:
      UserError: nothing to read, nothing left, or a process that died.
    """
    take_part(config)
    return read_json(epath.Path(config.workdir) / "curate.json", dict[str, Any], "delete it, and run again")


def take_part(config: Curate) -> bool:
    """As `run`, alone or with others; returns whether it is this process that finished the corpus, or would have if it was not there."""
    done = epath.Path(config.workdir) / "curate.json"
    if done.exists():
        return not config.shared
    require_packages(config)
    if config.runner == "beam":
        from mlm_jax.curate import beam

        beam.run(config, input_files(config))
        return True
    sizes = input_sizes(config)
    work = begin(config, sizes)
    try:
        (ended,) = stage(work, "finish", finish_job, [do_steps(work, sizes)], "finishing")
    except (OSError, UserError):
        if not (config.shared and done.exists()):
            raise
        ended = {}  # by another, who has removed what is between the steps
    shutil.rmtree(epath.Path(config.workdir) / "work", ignore_errors=config.shared)
    return ended.get("by") == by()


def by() -> list[Any]:
    """Who this process is, among all that share the work."""
    return [socket.gethostname(), os.getpid()]


def finish_job(work: Work, job: int, summary: dict[str, Any], first: dict[str, list[str]]) -> dict[str, Any]:
    """Leave nothing in corpus/ that an earlier run with other options wrote, and write curate.json, which says that the corpus is there."""
    corpus = epath.Path(work.config.workdir) / "corpus"
    wanted = shards_of(summary["steps"][-1]["passed"], work.config.shard_bytes)
    for folder in listed(corpus):
        if folder.name not in wanted:
            folder.rmtree()
            continue
        names = {parts.shard_name(shard) for shard in range(wanted[folder.name])}
        for path in listed(folder):
            if path.name not in names:
                path.unlink()
    finish(work.config, summary, first)
    return {"by": by()}


def do_steps(work: Work, sizes: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Every step, as far as it is not done, until the corpus is there.

    Args:
      sizes: bytes of each file of the input.

    Returns:
      What `summarize` gives, and language → the beginnings of its first documents.

    Raises:
      UserError: as `run`.
    """
    config = work.config
    each = [()] * work.partitions  # part of the keys, or range of hashes
    read = stage(work, "read", read_job, [(some,) for some in together(sizes)], "reading")
    copies = stage(work, "copies", copies_job, each, "copies")
    if config.duplicates.paragraphs:
        stage(work, "paragraphs", paragraphs_job, each, "paragraphs")
    clean = perplexity.files_of(config.filters.perplexity, total(copies).passed) if config.filters.perplexity else {}
    stage(work, "perplexity", perplexity_job, [(files,) for files in clean.values()], "models of clean text")
    scored = stage(work, "measured", measured_job, [(list(clean),)] * work.partitions, "measuring")
    sums = stage(work, "sums", sums_job, [()] * SUMS, "thresholds")
    sketches = added(result["sketches"] for result in sums)
    rules = make_rules(config, sketches)
    filtered = stage(work, "filtered", filtered_job, [(rules,)] * work.partitions, "filtering")
    if config.duplicates.near:
        stage(work, "links", links_job, each, "near copies")
        stage(work, "clusters", clusters_job, [()], "clusters")
    kept = total(filtered)
    languages = sorted(kept.passed)
    near = stage(work, "near", near_job, [(languages,)] * work.partitions, "copies left out")

    counts = {
        "read": total(read),
        "copies": total(copies),
        "paragraphs": total(scored),
        "filters": kept,
        "near copies": total(near),
    }
    summary = summarize(
        len(sizes),
        [path for result in read for path in result["damaged"]],
        described(rules, sketches),
        counts,
    )
    check_left(config, summary)
    jobs = [
        (language, languages.index(language), shard, shards)
        for language, shards in shards_of(summary["steps"][-1]["passed"], config.shard_bytes).items()
        for shard in range(shards)
    ]
    written = stage(work, "write", write_job, jobs, "writing")
    return summary, {job[0]: result["first"] for job, result in zip(jobs, written, strict=True)}


def require_packages(config: Curate) -> None:
    """Raises UserError: what the extra [curate] brings is not installed, or Beam where it is asked for."""
    if config.runner == "beam" and importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "runner: Apache Beam is not installed here; it has an environment of its own: bash launch/beam.sh curate CONFIG"
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"curate: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            "pip install -c constraints.txt -e '.[curate]'"
        )


def input_files(config: Curate) -> list[str]:
    """The input's files, sorted, each once; those that lists name after their prefix.

    Raises:
      UserError: a pattern that no file matches, or a list that cannot be read.
    """
    found: set[str] = set()
    for pattern in config.inputs:
        if is_named(pattern):
            refuse_unread(pattern)
            found.add(pattern)
            continue
        paths = data_files(pattern)
        if not paths:
            raise UserError(f"inputs: no file matches {pattern}; check the path")
        for path in paths:
            if path.endswith((".paths", ".paths.gz")):
                found.update(config.prefix + line for _, line in read_lines(path) if line)
            else:
                found.add(path)
    return sorted(found)


def refuse_unread(path: str) -> None:
    """Raises UserError: a data set's path that is of no kind that curate reads, or one that cannot be had."""
    if not path.startswith(HUB):
        raise UserError(
            f"inputs: {path}: no file, and of data sets only hf:NAME/CONFIG:SPLIT is read here; write its text into files"
        )
    hub.size(path)  # which downloads it


def input_sizes(config: Curate) -> dict[str, int]:
    """The input's files, sorted, each with its bytes.

    Raises:
      UserError: as `input_files`.
    """
    return {path: length_of(path) for path in input_files(config)}


def together(sizes: Mapping[str, int]) -> list[list[str]]:
    """Files, of which the bytes are given, as jobs have them: small ones together."""
    groups: list[list[str]] = []
    size = JOB_BYTES
    for path, length in sizes.items():
        if size >= JOB_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(path)
        size += length
    return groups


def length_of(path: str) -> int:
    """Bytes of a file or a data set; 0 where there is none, which reading it says."""
    if path.startswith(HUB):
        return hub.size(path)
    return storage.size(path) if storage.exists(path) else 0


def partitions_of(size: int, memory: int, most: int) -> int:
    """Parts of the keys of an input of so many bytes: as many, a power of two, that the longest text of one fits into half of a process's memory."""
    wanted = size * GROWTH * 2 // memory + 1
    return min(most, 1 << (wanted - 1).bit_length())


def work_of(config: Curate, sizes: Mapping[str, int]) -> Work:
    """What the jobs of a run over these files are told."""
    workers = config.workers or os.cpu_count() or 1
    memory = int(config.memory * 2**30) // workers
    partitions = partitions_of(sum(sizes.values()), memory, MOST_PARTITIONS)
    folder = epath.Path(config.workdir) / "work" / identity(config, sizes)
    return Work(config, str(folder), partitions, workers, memory)


def identity(config: Curate, sizes: Mapping[str, int]) -> str:
    """What tells a run from one with other options or input files."""
    options = {name: value for name, value in dataclasses.asdict(config).items() if name not in NO_MATTER}
    return blake2b(json.dumps([options, sizes]).encode(), digest_size=8).hexdigest()


def begin(config: Curate, sizes: Mapping[str, int]) -> Work:
    """The work of a run: what is there if it is of the same options and files, else anew."""
    work = work_of(config, sizes)
    folder = epath.Path(work.folder)
    others = [path for path in listed(folder.parent) if path.name != folder.name]
    if others:
        console.say(f"{folder.parent}: of other options or files; beginning anew")
    for path in others:  # nobody works there: who would holds the lock of the workdir
        shutil.rmtree(path, ignore_errors=True)
    make_folder(folder)
    path = folder / "run.json"
    if not path.exists():
        create_whole(path, json.dumps({"partitions": work.partitions}))
    there = read_json(path, dict[str, Any], f"delete {folder}")
    return dataclasses.replace(work, partitions=there["partitions"])


@dataclasses.dataclass(frozen=True)
class Results:
    """What each job of a step returned, in the order of the jobs: read one at a time, since of thousands of jobs they are large together."""

    work: Work
    step: str
    jobs: int

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for job in range(self.jobs):
            yield read_json(self.work.path(self.step, job, "json"), dict[str, Any], f"delete {self.work.folder}")


def stage(
    work: Work, name: str, function: Callable[..., dict[str, Any]], jobs: Sequence[tuple[Any, ...]], title: str
) -> Results:
    """Do a step's jobs, as far as they are not done; returns what each returned, in the order of the jobs."""
    make_folder(epath.Path(work.folder) / name)
    while free := await_free(work, name, len(jobs), title):
        asked = [(function, work, name, n, *jobs[n]) for n in free]
        for _ in run_all(done_once, asked, work.workers, title, lambda job: f"{name} {job[3]}", "workers or memory"):
            pass
    return Results(work, name, len(jobs))


def await_free(work: Work, name: str, jobs: int, title: str) -> list[int]:
    """The jobs of a step that may be done here; none when all are done. Waits while others do what is missing."""

    def missing() -> list[int]:
        there = {path.name for path in listed(epath.Path(work.folder) / name)}
        return [n for n in range(jobs) if work.path(name, n, "json").name not in there]

    left = missing()
    if not work.config.shared:
        return left
    claims = Claims()
    free = [n for n in left if claims.is_free(work.path(name, n, "claim"))]
    if left and not free:
        with console.progress(f"{title}, by others", jobs, jobs - len(left), "jobs") as advance:
            while left and not free:
                time.sleep(POLL)
                before, left = len(left), missing()
                advance(before - len(left))
                free = [n for n in left if claims.is_free(work.path(name, n, "claim"))]
    random.shuffle(free)  # not all in one order, to claim what others have
    return free


def done_once(
    function: Callable[..., dict[str, Any]], work: Work, name: str, job: int, *arguments: Any
) -> dict[str, Any]:
    """Do a job, unless another has claimed it, and note that it is done and what it took."""
    path = work.path(name, job, "json")
    with claimed(work.path(name, job, "claim")) if work.config.shared else contextlib.nullcontext(True) as is_free:
        if not is_free or path.exists():
            return {}
        started = time.process_time()
        if name == "read":
            load(work.config)
        began, before = time.process_time(), peak_memory()
        result = function(work, job, *arguments)
        took = Took(time.process_time() - began, os.getpid(), started, began - started, before, peak_memory())
        write_json(path, result | {"took": dataclasses.asdict(took)})
    return {}


def put_in_place(made: Path, path: Path) -> None:
    """Give a folder its place, unless there is one: the same, of a process that was killed or that does the same."""
    try:
        os.rename(made, path)
    except OSError:
        if not path.is_dir():
            raise


@dataclasses.dataclass(frozen=True)
class Took:
    """What a job took.

    Attributes:
      seconds: of processor time.
      process: pid of the process that did it.
      started: seconds of processor time of that process before.
      loading: seconds for what it loaded, once.
      before, memory: bytes that it held at most, before the job and until its end.
    """

    seconds: float
    process: int
    started: float
    loading: float
    before: int
    memory: int


def load(config: Curate) -> None:
    """Load what reading needs, once per process."""
    made = document_of(Raw(b"<p>Some text.</p>", "html"), config, Counts())
    chosen = config.identify.model
    if isinstance(made, Document):
        identify([made], identifier_of("" if chosen == "py3langid" else chosen))


def peak_memory() -> int:
    """Bytes that this process has held at most."""
    if sys.platform == "linux":  # whose ru_maxrss a process takes over from the one that started it
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def total(results: Iterable[dict[str, Any]]) -> Counts:
    """What all jobs of a step counted."""
    return Counts(**sum_of(result["counts"] for result in results))
