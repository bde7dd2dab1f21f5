# SPDX-License-Identifier: Apache-2.0
"""What a curation will take, from a sample that goes through its steps: processor time, memory, disk, text.

What the jobs of a step take is proportional to the text that comes to it. Of the sample that is measured; of the whole it is less by the
copies that only the whole shows: how many those are is what the numbers of things that the sample has once, and twice, tell
(`distinct_in`). Processor time is counted, not the clock, so that another program on the machine changes little.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlm_jax import console
from mlm_jax.console import format_table
from mlm_jax.curate import run, thresholds
from mlm_jax.curate.config import Curate
from mlm_jax.curate.keyed import COPIES, unpack
from mlm_jax.curate.paragraphs import paragraph_hashes
from mlm_jax.curate.run import Took, Work
from mlm_jax.curate.sample import beginning, choose
from mlm_jax.curate.shuffle import records_of
from mlm_jax.errors import UserError
from mlm_jax.stored import read_json

CORES = (16, 64, 256, 1024)  # of which the time is said, beside this machine's
SHOWN = 10  # languages in the table
VOCABULARY = 0.7  # exponent of a text's length by which different words become more (Heaps' law)
COUNTED = 20  # bytes, of a word and how often it was counted
HELD = 6  # bytes that a process holds, at most, per byte of the text that it works on
FEW = 10  # things that are seen thrice, below which they tell too little


@dataclasses.dataclass(frozen=True)
class Seen:
    """Things, such as paragraphs, of which some are the same as others; each counts as much as it weighs.

    Attributes:
      all, distinct: what was seen, and what of that was different.
      once, twice, thrice: what was seen so often, each thing counted once.
      few: whether too few things were seen thrice for that to tell anything.
    """

    all: float
    distinct: float
    once: float
    twice: float
    thrice: float
    few: bool

    @classmethod
    def of(cls, things: Iterable[tuple[int, float]]) -> Seen:
        """From how often each thing was seen, and what it weighs."""
        weights: dict[int, float] = {}
        thrice = 0
        for times, weight in things:
            weights[times] = weights.get(times, 0) + weight
            thrice += times == 3
        once, twice, three = (weights.get(n, 0.0) for n in (1, 2, 3))
        whole = sum(n * weight for n, weight in weights.items())
        return cls(whole, sum(weights.values()), once, twice, three, thrice < FEW)


def distinct_in(seen: Seen, times: float) -> float:
    """How many different things are expected in `times` as many as were seen.

    Frequencies are taken to follow a gamma distribution, so that counts are negative binomial (Fisher, Corbet and Williams 1943; with k under 0,
    a power law, Engen 1974); its parameters are those by which as many are seen once, twice and thrice. Where too few are, Chao's bound
    (1984; Colwell et al. 2012, equation 9), by which different things are not fewer than this.
    """
    if not seen.once or times <= 1:
        return seen.distinct * min(times, 1.0)
    if not seen.few:
        first, second = 2 * seen.twice / seen.once, 3 * seen.thrice / seen.twice
        p = min(second - first, 0.999)
        if p > 0:
            k = first / p - 1 or 1e-9
            most = seen.once / (k * p * (1 - p) ** k)
            scale = p / (1 - p)
            return seen.distinct + most * ((1 + scale) ** -k - (1 + scale * times) ** -k)
    if not seen.twice:
        return seen.distinct * times
    unseen = seen.once**2 / (2 * seen.twice)
    return seen.distinct + unseen * -math.expm1(-(times - 1) * seen.once / unseen)


def share_left(seen: Seen, times: float) -> float:
    """By how much less than in proportion different things grow with all things."""
    return distinct_in(seen, times) / (times * seen.distinct) if seen.distinct else 1.0


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the whole run, as the sample tells.

    Attributes:
      seconds: of processor time, of all its jobs.
      start: seconds of processor time by which each process begins.
      jobs: how many can run at once.
      disk: bytes that it leaves between the steps.
    """

    seconds: float
    start: float
    jobs: int
    disk: float

    def processes(self, cores: int) -> int:
        return min(cores, self.jobs)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run over the whole input is expected to take.

    Attributes:
      files, bytes: of the input.
      sampled_files, sampled_bytes: of it that were read.
      documents, text: that are read, and their bytes.
      languages: language → documents and bytes of text of the corpus.
      at_most: what the corpus would have if the whole had no more copies than the sample: times the above.
      corpus: bytes of its files.
      process: bytes that a process takes before it holds any text.
      held: bytes that each holds besides, at most.
      workers: processes on this machine.
    """

    files: int
    bytes: int
    sampled_files: int
    sampled_bytes: int
    documents: float
    text: float
    languages: Mapping[str, tuple[float, float]]
    at_most: float
    corpus: float
    process: float
    held: float
    workers: int
    steps: Mapping[str, Step]

    @property
    def disk(self) -> float:
        """Bytes between the steps, when the corpus is there and they are still."""
        return sum(step.disk for step in self.steps.values())

    def processor_seconds(self, cores: int) -> float:
        """Of all processes, their start included."""
        return sum(step.seconds + step.start * step.processes(cores) for step in self.steps.values())

    def seconds(self, cores: int) -> float:
        """By the clock, on so many cores that do nothing else."""
        return sum(step.seconds / step.processes(cores) + step.start for step in self.steps.values())


def estimate(config: Curate) -> Estimate:
    """Let a sample of the input go through the steps in a temporary folder, and say what the whole will take.

    Raises:
      UserError: as `run.run`; nothing of the sample is left.
    """
    run.require_packages(dataclasses.replace(config, runner="pool"))
    sizes = run.input_sizes(config)
    if not sum(sizes.values()):
        raise UserError(f"inputs: {len(sizes)} files, of no bytes together; check the paths")
    taken = choose(sizes)
    console.say(
        f"a sample: {size_text(sum(taken.values()))} of {size_text(sum(sizes.values()))}, from {len(taken):,} of {len(sizes):,} files"
    )
    with tempfile.TemporaryDirectory(prefix="mlm_jax_sample_") as name:
        folder = Path(name)
        inputs = {}
        with console.progress("fetching", len(taken), unit="files") as advance:
            for number, (path, length) in enumerate(taken.items()):
                whole = length == sizes[path]
                inputs[path if whole else beginning(path, length, sizes[path], folder, number)] = length
                advance()
        sampled = dataclasses.replace(config, workdir=str(folder / "run"), dropped=0, shared=False)
        work = sample_work(run.work_of(config, sizes), sampled, sizes, inputs)
        try:
            summary, _ = run.do_steps(work, inputs)
        except UserError as e:
            raise UserError(str(e).replace(sampled.workdir, "the sample")) from e
        return scaled(work, config, sizes, inputs, summary)


def sample_work(whole: Work, sampled: Curate, sizes: Mapping[str, int], inputs: Mapping[str, int]) -> Work:
    """The work of the sample. Its keys are in so many parts that what a job writes to each is as long as in the whole, as it is packed together."""

    def held(lengths: Mapping[str, int]) -> float:
        return min(sum(lengths.values()) / len(run.together(lengths)) * run.GROWTH, whole.memory / 4)

    partitions = max(1, round(whole.partitions * held(inputs) / held(sizes)))
    return dataclasses.replace(run.work_of(sampled, inputs), partitions=partitions)


def scaled(
    work: Work, config: Curate, sizes: Mapping[str, int], inputs: Mapping[str, int], summary: Mapping[str, Any]
) -> Estimate:
    """What the whole takes, of what the sample took."""
    whole = run.work_of(config, sizes)
    times = sum(sizes.values()) / sum(inputs.values())
    passed = [total_of(step["passed"]) for step in summary["steps"]]
    copies, text_of_copies = copies_seen(work)
    after_copies = times * share_left(text_of_copies, times)
    after_paragraphs, gone = after_copies, 1.0
    if config.duplicates.paragraphs and passed[2][1] < passed[1][1]:
        after_paragraphs *= share_left(paragraphs_seen(work), after_copies)
        # Of the documents as many more go whole as more of the text goes.
        shares = [passed[2][i] / passed[1][i] for i in (0, 1)]
        lost = (1 - shares[0]) * (1 - shares[1] * after_paragraphs / after_copies) / (1 - shares[1])
        gone = max(1 - lost, 0.0) / shares[0]
    clusters, text_of_clusters = clusters_seen(work, len(summary["steps"][3]["passed"]))
    at_end = after_paragraphs * share_left(text_of_clusters, after_paragraphs)
    documents_at_end = times * share_left(copies, times) * gone * share_left(clusters, after_paragraphs)
    languages = {
        language: (documents * documents_at_end, size * at_end)
        for language, (documents, size) in summary["steps"][-1]["passed"].items()
    }
    shards = sum(math.ceil(size / config.shard_bytes) for _, size in languages.values())
    # Of each step: by how much more comes to it, how much more leaves it, and its jobs.
    grown = {
        "read": (times, times, len(run.together(sizes))),
        "copies": (times, after_copies, whole.partitions),
        "paragraphs": (after_copies, after_paragraphs, whole.partitions),
        "measured": (after_copies, after_paragraphs, whole.partitions),
        "sums": (1.0, 1.0, run.SUMS),
        "filtered": (after_paragraphs, after_paragraphs, whole.partitions),
        "links": (after_paragraphs, after_paragraphs, whole.partitions),
        "clusters": (after_paragraphs, after_paragraphs, 1),
        "near": (after_paragraphs, at_end, whole.partitions),
        "write": (at_end, at_end, shards),
    }
    took = {name: jobs_of(work, name) for name in (*grown, "perplexity")}
    grown["perplexity"] = (1.0, 1.0, len(took["perplexity"]))  # of text that the user names
    start = mean(job.started for jobs in took.values() for job in first_jobs(jobs) if job.process != os.getpid())
    steps = {}
    for name, (comes, leaves, jobs) in grown.items():
        if not took[name]:
            continue
        loading = mean(job.loading for job in first_jobs(took[name]))
        data, results = disk_of(work, name)
        steps[name] = Step(
            sum(job.seconds for job in took[name]) * comes,
            loading + start * (jobs > 1 and whole.workers > 1),
            jobs,
            data * leaves
            + results_of(results / len(took[name]), comes * len(took[name]) / jobs, len(languages)) * jobs,
        )
    return Estimate(
        files=len(sizes),
        bytes=sum(sizes.values()),
        sampled_files=len(inputs),
        sampled_bytes=sum(inputs.values()),
        documents=passed[0][0] * times,
        text=passed[0][1] * times,
        languages=languages,
        at_most=times / at_end,
        corpus=tree_size(Path(work.config.workdir) / "corpus") * at_end,
        process=max(job.before for job in took["read"]),
        held=min(whole.memory, HELD * passed[0][1] * times / whole.partitions),
        workers=whole.workers,
        steps=steps,
    )


def described(found: Estimate, price: float) -> str:
    """An estimate for people.

    Args:
      price: of a core for an hour.
    """
    largest = sorted(found.languages.items(), key=lambda item: (-item[1][1], item[0]))
    shown, others = largest[:SHOWN], largest[SHOWN:]
    rows = [("read", found.documents, found.text), ("corpus", *total_of(found.languages))]
    rows += [(f"  {language}", *sizes) for language, sizes in shown]
    rows += [(f"  {len(others)} others", *total_of(dict(others)))] if others else []
    texts = format_table(
        ["", "documents", "text"], [(name, f"{documents:,.0f}", size_text(text)) for name, documents, text in rows]
    )
    machines = [found.workers, *(cores for cores in CORES if cores > found.workers)]
    times = format_table(
        ["cores", "hours", f"cost, at {price:g} per core and hour"],
        [
            (
                f"{cores:,}{' (here)' if cores == found.workers else ''}",
                f"{hours:,.2f}",
                f"{cores * hours * price:,.2f}",
            )
            for cores in machines
            for hours in [found.seconds(cores) / 3600]
        ],
    )
    most = found.at_most * total_of(found.languages)[1]
    longest = sorted(found.steps.items(), key=lambda item: -item[1].seconds)[:3]
    hours = found.processor_seconds(found.workers) / 3600
    return "\n".join(
        [
            texts,
            f"The corpus has less text the more copies there are in all of the input; with no more than in the sample it is {size_text(most)}, the most that it may be.",
            "",
            times,
            f"{hours:,.2f} hours of processor time, as measured here; most of it: "
            + ", ".join(f"{name} {step.seconds / 3600:,.2f}" for name, step in longest),
            f"memory: at most {size_text(found.workers * (found.process + found.held))}, "
            f"{size_text(found.process + found.held)} per process",
            f"disk: {size_text(found.disk)} between the steps, until the corpus is there; {size_text(found.corpus)} for the corpus",
        ]
    )


def copies_seen(work: Work) -> tuple[Seen, Seen]:
    """Documents, of which some have the same text: as they are counted, and by their bytes."""
    return both(document for part in range(work.partitions) for document in documents_in(work, part))


def documents_in(work: Work, part: int) -> Iterator[tuple[int, int]]:
    for record in work.documents("copies", part):
        document = unpack(record)[1]
        yield int(document.scores[COPIES]), len(document.text.encode())


def paragraphs_seen(work: Work) -> Seen:
    """Paragraphs, of which some have the same words, by their bytes."""
    found: dict[int, list[int]] = {}
    for part in range(work.partitions):
        for record in work.documents("copies", part):
            text = unpack(record)[1].text
            hashes, filled = paragraph_hashes(text)
            for key, line in zip(hashes[filled].tolist(), itertools.compress(text.split("\n"), filled), strict=True):
                found.setdefault(key, [0, len(line.encode())])[0] += 1
    return Seen.of((times, size) for times, size in found.values())


def clusters_seen(work: Work, languages: int) -> tuple[Seen, Seen]:
    """Documents, of so many languages, of which some are near copies: as they are counted, and by their bytes."""
    documents = (
        unpack(record)[1]
        for path in work.paths("near", "languages")
        for number in range(languages)
        for record in records_of([path], number)
    )
    return both((int(document.scores["cluster"]), len(document.text.encode())) for document in documents)


def both(documents: Iterable[tuple[int, int]]) -> tuple[Seen, Seen]:
    """From how often each document was seen, and its bytes."""
    found = list(documents)
    return Seen.of((times, 1) for times, _ in found), Seen.of(found)


def jobs_of(work: Work, name: str) -> list[Took]:
    """What the jobs of a step took."""
    return [Took(**read_json(path, dict[str, Any], "")["took"]) for path in work.paths(name, "json")]


def first_jobs(jobs: Iterable[Took]) -> list[Took]:
    """Of each process the first job."""
    first: dict[int, Took] = {}
    for job in jobs:
        if job.process not in first or job.started < first[job.process].started:
            first[job.process] = job
    return list(first.values())


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def total_of(passed: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Documents and bytes of all languages."""
    return sum(pair[0] for pair in passed.values()), sum(pair[1] for pair in passed.values())


def results_of(size: float, times: float, languages: int) -> float:
    """Bytes of a job's results, of which most are words that it counted: of so many times the text less than so many times as many."""
    return min(size * max(times, 1.0) ** VOCABULARY, max(size, languages * thresholds.TABLE * COUNTED))


def disk_of(work: Work, name: str) -> tuple[int, int]:
    """Bytes of a step's data, and of its results and of the words that it counted."""
    results = sum(path.stat().length for what in ("json", "sketches") for path in work.paths(name, what))
    return tree_size(Path(work.folder) / name) - results, results


def tree_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(folder) for name in names)


def size_text(size: float) -> str:
    """Bytes in words: 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 1000 else f"{size:,.0f} TB"
