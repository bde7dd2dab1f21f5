# SPDX-License-Identifier: Apache-2.0
"""Curate on one machine: each step's jobs in a pool of processes, what goes to a key on disk between them.

Everything between lies in WORKDIR/work: of each step a folder, of each job its files and, last, its counts. So a run that was
killed goes on with the jobs that it lacks. The folder goes when the corpus is there.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from etils import epath

from mlm_jax import console, storage
from mlm_jax.config import is_named
from mlm_jax.curate import spill
from mlm_jax.curate.archives import DAMAGED, TRUNCATED
from mlm_jax.curate.config import Curate
from mlm_jax.curate.counts import Counts, reasons_of
from mlm_jax.curate.document import Document, Dropped
from mlm_jax.curate.groups import RECORD, order_of
from mlm_jax.curate.keyed import document_key, first_of_copies, pack, unpack
from mlm_jax.curate.near_duplicates import SIZE, document_records, find_clusters, sizes_of
from mlm_jax.curate.paragraphs import WHERE, choose_paragraphs, keep_paragraphs, paragraph_records
from mlm_jax.curate.reading import read_documents
from mlm_jax.curate.rules import Rules, added, chosen_bounds, described, make_rules, measured
from mlm_jax.curate.shuffle import partitioned, records_of
from mlm_jax.curate.tables import HUB
from mlm_jax.curate.thresholds import Sketch
from mlm_jax.errors import UserError
from mlm_jax.files import listed, make_folder, write_json, write_whole, writing
from mlm_jax.formats import data_files
from mlm_jax.lines import read_lines
from mlm_jax.prepare import hub
from mlm_jax.prepare.pool import run_all
from mlm_jax.stored import read_json

PACKAGES = ("fastwarc", "resiliparse", "py3langid", "ftfy")  # and a fastText model's reader, where one is named
GROWTH = 4  # bytes of text, at most, for a byte of packed input
MOST_PARTITIONS = 4_096
JOB_BYTES = 4_000_000  # of input files, of which a job reads several if they are small
SAMPLES, EXCERPT = 3, 400  # documents per language, and characters of each, that the page shows
PLACES = 44  # bits of the number of a document, or of a line, among those of its part of the keys


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
        """A step's files of a kind, in the order of its jobs."""
        return sorted(path for path in listed(epath.Path(self.folder) / step) if path.name.endswith(f".{what}"))

    def part(self, key: bytes) -> int:
        """The part that a key is in; parts are in the order of their keys."""
        return int.from_bytes(key[:4], "big") * self.partitions >> 32

    def documents(self, step: str, part: int) -> Iterator[bytes]:
        return records_of([self.path(step, part, "documents")], 0)

    def write_documents(self, step: str, job: int) -> Any:
        return partitioned(self.path(step, job, "documents"), 1, self.memory // 4)

    def runs(self, step: str) -> list[Path]:
        """The sorted runs that the jobs of a step wrote, in the order of the jobs."""
        return [run for folder in self.paths(step, "runs") for run in sorted(Path(folder).glob("*.run"))]

    def write_runs(self, step: str, job: int, batches: Iterable[spill.Records]) -> None:
        folder = self.path(step, job, "runs")
        if folder.exists():  # of a job that was killed
            folder.rmtree()
        spill.write_runs(batches, Path(folder), RECORD, self.memory // 2)


# --- the jobs, of functions that a process of the pool calls; what they return is JSON


def read_job(work: Work, job: int, paths: Sequence[str]) -> dict[str, Any]:
    """Some input files → their documents, each to its key."""
    counts, damaged = new_counts(work), []
    with partitioned(work.path("read", job, "messages"), work.partitions, work.memory // 4) as add:
        for path in paths:
            for made in read_documents(path, work.config, counts):
                if isinstance(made, Dropped):
                    counts.drop(made)
                    if made.reason in (TRUNCATED, DAMAGED) and path not in damaged:
                        damaged.append(path)
                    continue
                counts.keep(made)
                key = document_key(made.text)
                add(work.part(key), pack(key, made))
    return {"counts": counts.to_json(), "damaged": damaged}


def copies_job(work: Work, job: int) -> dict[str, Any]:
    """A part of the keys: one document of each; and a record for each of their paragraphs."""
    counts = new_counts(work)

    def write() -> Iterator[spill.Records]:
        line = job << PLACES
        with work.write_documents("copies", job) as keep:
            records = records_of(work.paths("read", "messages"), job)
            for key, document in first_of_copies(records, counts):
                counts.keep(document)
                keep(0, pack(key, document))
                if work.config.duplicates.paragraphs:
                    yield paragraph_records(document.text, order_of(document), line)
                line += document.text.count("\n") + 1

    work.write_runs("copies", job, write())
    return {"counts": counts.to_json()}


def paragraphs_job(work: Work, job: int) -> dict[str, Any]:
    """Of each paragraph that stands in several places, the one where it stays."""
    choose_paragraphs(work.runs("copies"), Path(work.folder) / "paragraphs", work.memory * work.workers)
    return {}


def measured_job(work: Work, job: int) -> dict[str, Any]:
    """A part of the keys: documents without copied paragraphs, and what thresholds are derived from."""
    counts, bounds = new_counts(work), chosen_bounds(work.config.filters)
    sketches: dict[str, Sketch] = {}
    line = job << PLACES
    chosen = (
        spill.open_sorted(Path(work.folder) / "paragraphs" / "lines", WHERE)
        if work.config.duplicates.paragraphs
        else None
    )
    with work.write_documents("measured", job) as keep:
        for record in work.documents("copies", job):
            key, document = unpack(record)
            text, gone = keep_paragraphs(document.text, line, chosen) if chosen is not None else (document.text, 0)
            line += document.text.count("\n") + 1
            if gone and not text:
                counts.drop(Dropped("copied paragraphs", document.url, document.text, document.language))
                continue
            counts.note("paragraphs that were copies", gone)
            left = measured(dataclasses.replace(document, text=text), bounds)
            counts.keep(left)
            keep(0, pack(key, left))
            scores = {name: left.scores[name] for name in bounds.rules}
            sketches.setdefault(left.language, Sketch()).add(text, scores, left.confidence)
    return {"counts": counts.to_json(), "sketches": {language: made.to_json() for language, made in sketches.items()}}


def filtered_job(work: Work, job: int, rules: Rules) -> dict[str, Any]:
    """A part of the keys: documents that pass every rule; and a record for each of their bands of MinHash."""
    counts = new_counts(work)

    def write() -> Iterator[spill.Records]:
        place = job << PLACES
        with work.write_documents("filtered", job) as keep:
            for record in work.documents("measured", job):
                key, document = unpack(record)
                made = rules(document)
                if isinstance(made, Dropped):
                    counts.drop(made)
                    continue
                counts.keep(made)
                keep(0, pack(key, made))
                if work.config.duplicates.near:
                    yield document_records(made.text, made.language, order_of(made), place)
                place += 1

    work.write_runs("filtered", job, write())
    return {"counts": counts.to_json()}


def clusters_job(work: Work, job: int) -> dict[str, Any]:
    """The clusters of near copies, and which of each stays."""
    find_clusters(work.runs("filtered"), Path(work.folder) / "clusters", work.memory * work.workers)
    return {}


def near_job(work: Work, job: int, languages: Sequence[str]) -> dict[str, Any]:
    """A part of the keys: documents without near copies, each to its language."""
    counts = new_counts(work)
    number = {language: i for i, language in enumerate(languages)}
    found = (
        spill.open_sorted(Path(work.folder) / "clusters" / "clusters", SIZE)
        if work.config.duplicates.near
        else np.zeros(0, SIZE)
    )
    with partitioned(work.path("near", job, "languages"), len(languages), work.memory // 4) as add:
        for place, record in enumerate(work.documents("filtered", job), job << PLACES):
            key, document = unpack(record)
            size = int(sizes_of(np.array([place]), found)[0])
            if not size:
                counts.drop(Dropped("near copy", document.url, document.text, document.language))
                continue
            made = dataclasses.replace(document, scores=document.scores | {"cluster": size})
            counts.keep(made)
            add(number[made.language], pack(key, made))
    return {"counts": counts.to_json()}


def write_job(work: Work, job: int, language: str, number: int, shard: int, shards: int) -> dict[str, Any]:
    """A shard of a language: its documents, in the order of their keys, in corpus/LANGUAGE."""
    first, last = shard * work.partitions // shards, -(-(shard + 1) * work.partitions // shards)
    records = []
    for part in range(first, last):
        for record in records_of([work.path("near", part, "languages")], number):
            if int.from_bytes(record[:8], "big") * shards >> 64 == shard:
                records.append(record)
    folder = epath.Path(work.config.workdir) / "corpus" / language
    make_folder(folder)
    records.sort()
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    with (
        writing(folder / f"{shard:05}.jsonl.zst", "wb") as file,
        compressor.stream_writer(file, closefd=False) as packed,
    ):
        for record in records:
            _, document = unpack(record)
            packed.write(json.dumps(shown(document), ensure_ascii=False).encode() + b"\n")
    return {"documents": len(records), "first": [unpack(record)[1].text[:EXCERPT] for record in records[:SAMPLES]]}


def shown(document: Document) -> dict[str, Any]:
    """A document as a line of the corpus."""
    d = document
    scores = {name: round(score, 4) for name, score in d.scores.items()}
    made: dict[str, Any] = {"text": d.text, "url": d.url, "date": d.date, "language": d.language}
    return made | {"confidence": round(d.confidence, 4), **scores}


def new_counts(work: Work) -> Counts:
    return Counts(size=max(work.config.dropped, 1))


# --- the run


def run(config: Curate) -> dict[str, Any]:
    """Curate a corpus into a workdir, as far as that is not done; returns what curate.json holds.

    Raises:
      UserError: nothing to read, nothing left, or a process that died.
    """
    workdir = epath.Path(config.workdir)
    done = workdir / "curate.json"
    if done.exists():
        return read_json(done, dict[str, Any], "delete it, and run again")
    require_packages()
    paths = input_files(config)
    work = begin(config, paths)
    parts = [()] * work.partitions

    read = stage(work, "read", read_job, [(some,) for some in together(paths)], "reading")
    copies = stage(work, "copies", copies_job, parts, "copies")
    if config.duplicates.paragraphs:
        stage(work, "paragraphs", paragraphs_job, [()], "paragraphs")
    scored = stage(work, "measured", measured_job, parts, "measuring")
    sketches = added([result["sketches"] for result in scored])
    rules = make_rules(config, sketches)
    filtered = stage(work, "filtered", filtered_job, [(rules,)] * work.partitions, "filtering")
    if config.duplicates.near:
        stage(work, "clusters", clusters_job, [()], "near copies")
    languages = sorted(total(filtered).passed)
    near = stage(work, "near", near_job, [(languages,)] * work.partitions, "copies left out")

    summary = summarize(
        work,
        paths,
        described(rules, sketches),
        {"read": read, "copies": copies, "paragraphs": scored, "filters": filtered, "near copies": near},
    )
    sizes = {language: size for language, (_, size) in summary["steps"][-1]["passed"].items()}
    if not sizes:
        raise UserError(f"{config.workdir}: no document is left; {most_went(summary)}; loosen what took them")
    jobs = [
        (language, languages.index(language), shard, -(-size // config.shard_bytes))
        for language, size in sizes.items()
        for shard in range(-(-size // config.shard_bytes))
    ]
    if not listed(epath.Path(work.folder) / "write") and (workdir / "corpus").exists():
        (workdir / "corpus").rmtree()  # of an earlier run, with other options, that was not finished
    written = stage(work, "write", write_job, jobs, "writing")
    went = summary.pop("samples")
    if config.dropped:
        write_dropped(workdir, went)
    summary["samples"] = shown_samples(
        went, {job[0]: result["first"] for job, result in zip(jobs, written, strict=True)}
    )
    write_json(done, summary, 1)
    shutil.rmtree(work.folder)
    return summary


def require_packages() -> None:
    """Raises UserError: what the extra [curate] brings is not installed."""
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


def together(paths: Sequence[str]) -> list[list[str]]:
    """Files as jobs have them: small ones together."""
    groups: list[list[str]] = []
    size = JOB_BYTES
    for path in paths:
        if size >= JOB_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(path)
        size += length_of(path)
    return groups


def length_of(path: str) -> int:
    """Bytes of a file or a data set; 0 where there is none, which reading it says."""
    if path.startswith(HUB):
        return hub.size(path)
    return storage.size(path) if storage.exists(path) else 0


def begin(config: Curate, paths: Sequence[str]) -> Work:
    """The work of a run: what is there if it is of the same options and files, else anew."""
    folder = epath.Path(config.workdir) / "work"
    workers = config.workers or os.cpu_count() or 1
    memory = int(config.memory * 2**30) // workers
    sizes = {path: length_of(path) for path in paths}
    # A part of the keys, of the longest text that it may have, fits into half of a process's memory.
    wanted = sum(sizes.values()) * GROWTH * 2 // memory + 1
    partitions = min(MOST_PARTITIONS, 1 << (wanted - 1).bit_length())
    options = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("workers", "memory", "workdir")}
    told = json.loads(json.dumps({"options": options, "inputs": sizes}))
    path = folder / "run.json"
    there = read_json(path, dict[str, Any], f"delete {folder}") if path.exists() else {}
    if there.get("told") != told:
        if folder.exists():
            console.say(f"{folder}: of other options or files; beginning anew")
            folder.rmtree()
        make_folder(folder)
        there = {"told": told, "partitions": partitions}
        write_json(path, there)
    return Work(config, str(folder), there["partitions"], workers, memory)


def stage(
    work: Work, name: str, function: Callable[..., dict[str, Any]], jobs: Sequence[tuple[Any, ...]], title: str
) -> list[dict[str, Any]]:
    """Do a step's jobs, as far as they are not done; returns what each returned, in the order of the jobs."""
    make_folder(epath.Path(work.folder) / name)
    results = {n: work.path(name, n, "json") for n in range(len(jobs))}
    missing = [n for n, path in results.items() if not path.exists()]
    asked = [(function, work, name, n, *jobs[n]) for n in missing]
    if asked:
        for _ in run_all(done_once, asked, work.workers, title, lambda job: f"{name} {job[3]}", "workers or memory"):
            pass
    return [read_json(path, dict[str, Any], f"delete {work.folder}") for path in results.values()]


def done_once(
    function: Callable[..., dict[str, Any]], work: Work, name: str, job: int, *arguments: Any
) -> dict[str, Any]:
    """Do a job, and note that it is done."""
    result = function(work, job, *arguments)
    write_json(work.path(name, job, "json"), result)
    return {}


def total(results: Iterable[dict[str, Any]]) -> Counts:
    """What all jobs of a step counted."""
    counts = Counts()
    for result in results:
        counts.add(Counts(**result["counts"]))
    return counts


def summarize(
    work: Work, paths: Sequence[str], rules: dict[str, Any], results: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """What curate.json holds: after each step what passed it, and why others went."""
    counted = {name: total(found).to_json() for name, found in results.items()}
    samples: dict[str, dict[str, Any]] = {}
    for counts in counted.values():
        for language, found in counts["samples"].items():
            samples.setdefault(language, {}).update(found)
    return {
        "steps": [{"name": name, **{k: c[k] for k in ("passed", "gone", "noted")}} for name, c in counted.items()],
        "rules": rules,
        "inputs": len(paths),
        "damaged": [path for result in results["read"] for path in result["damaged"]],
        "samples": samples,
    }


def shown_samples(
    went: dict[str, dict[str, list[list[str]]]], kept: dict[str, list[str]]
) -> dict[str, list[tuple[str, str]]]:
    """Language → (kept, or why it went; the beginning of the text), for the page."""
    found = {language: [("kept", text) for text in texts] for language, texts in sorted(kept.items())}
    for language in sorted(went):
        for reason, samples in went[language].items():
            texts = [text for _, _, text in samples if text]
            found.setdefault(language, []).extend((reason, text[:EXCERPT]) for text in texts[:1])
    return {language: samples for language, samples in found.items() if samples}


def most_went(summary: dict[str, Any]) -> str:
    """The reasons for which most documents went, in words."""
    reasons = reasons_of(summary["steps"])
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:4]
    return ", ".join(f"{number:,} went as {reason}" for reason, number in most) or "the input has none"


def write_dropped(workdir: epath.Path, samples: dict[str, dict[str, list[list[str]]]]) -> None:
    """Write dropped/LANGUAGE.REASON.jsonl, documents that went, for a person to look at."""
    for language, reasons in samples.items():
        for reason, found in reasons.items():
            lines = [json.dumps({"url": url, "text": text}, ensure_ascii=False) for _, url, text in found]
            make_folder(workdir / "dropped")
            name = f"{language or 'unidentified'}.{reason.replace(' ', '_').replace('/', '_')}.jsonl"
            write_whole(workdir / "dropped" / name, "\n".join(lines) + "\n")
