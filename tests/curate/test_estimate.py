# SPDX-License-Identifier: Apache-2.0
"""`curate --dry-run`: what a sample says of the whole, beside the whole run; and how many different things there are, by arithmetic."""

from __future__ import annotations

import random
import resource
import tempfile
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("py3langid")
pytest.importorskip("fastwarc")

from mlm_jax import cli
from mlm_jax.curate import estimate, run, sample
from mlm_jax.options import parse
from tests.curate.test_run import documents, write_config, write_lines


def seen_of(things):
    return estimate.Seen.of((times, 1) for times in Counter(things).values())


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda d: d.randrange(10**9), id="all different"),
        pytest.param(lambda d: d.randrange(40_000), id="equally frequent"),
        pytest.param(lambda d: int(d.gammavariate(0.5, 1) * 30_000), id="some frequent"),
        pytest.param(
            lambda d: d.randrange(60_000) if d.random() < 0.7 else -d.randrange(20), id="phrases on every page"
        ),
    ],
)
def test_different_things_of_the_whole_from_a_tenth(draw):
    dice = random.Random(3)
    things = [draw(dice) for _ in range(100_000)]
    found = estimate.distinct_in(seen_of(things[::10]), 10)
    assert found == pytest.approx(len(set(things)), rel=0.12)
    assert found <= 10 * len(set(things[::10]))


def test_what_is_seen_once_only_grows_in_proportion():
    assert estimate.distinct_in(seen_of(range(500)), 7) == 3500
    assert estimate.distinct_in(seen_of([1] * 500), 7) == 1
    assert estimate.share_left(seen_of([]), 3) == 1


def test_the_sample_is_spread_and_in_proportion_to_the_bytes():
    small = {f"{n:04}.jsonl": 10_000 for n in range(10_000)}
    taken = sample.choose(small)
    assert sum(taken.values()) == pytest.approx(10_000_000, rel=0.05)
    assert all(taken[path] == small[path] for path in taken)  # shorter than the shortest beginning
    where = sorted(int(path[:4]) // 500 for path in taken)
    assert set(where) == set(range(20))
    large = {f"{n}.warc.gz": 10**9 for n in range(30)} | {"x.html": 10**6}
    taken = sample.choose(large)
    assert sum(taken.values()) == sample.MOST
    assert max(taken.values()) == sample.MOST // sample.WINDOWS and len(taken) == 20
    # What has no beginning of its own is taken whole, and the whole where it is small.
    assert sample.choose({"a.html": 5_000_000, "b.html": 5_000_000}) == {"a.html": 5_000_000, "b.html": 5_000_000}
    assert sample.choose({"a.jsonl": 1000, "b.txt": 0}) == {"a.jsonl": 1000}


def processor_time():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.mark.slow
def test_the_whole_takes_what_the_sample_said(tmp_path, monkeypatch):
    found = documents(12_000)
    random.Random(1).shuffle(found)  # copies are of what was made before
    for number in range(40):
        write_lines(tmp_path / "in" / f"{number:02}.jsonl.gz", found[number::40])
    monkeypatch.setattr(sample, "LEAST", 400_000)
    monkeypatch.setattr(sample, "SHORTEST", 20_000)
    monkeypatch.setattr(run, "JOB_BYTES", 100_000)
    path = write_config(tmp_path, workdir=str(tmp_path / "run"), inputs=(str(tmp_path / "in" / "*.gz"),), workers=2)
    config = parse("curate", [path])
    sizes = run.input_sizes(config)
    said = [estimate.estimate(config)]

    work = run.begin(config, sizes)
    before = processor_time()
    summary, _ = run.do_steps(work, sizes)
    used = processor_time() - before
    said.append(estimate.estimate(config))
    assert said[0].sampled_bytes < 0.3 * said[0].bytes

    def expect(found, value, within=0.2):
        assert sum(value(one) for one in said) / 2 == pytest.approx(found, rel=within)

    steps = [estimate.total_of(step["passed"]) for step in summary["steps"]]
    print(
        [
            (
                n,
                round(s.seconds, 2),
                round(s.start, 2),
                round(s.disk),
                round(sum(j.seconds for j in estimate.jobs_of(work, n)), 2),
                estimate.disk_of(work, n),
            )
            for n, s in said[0].steps.items()
        ],
        [
            (
                len(x.steps),
                x.documents,
                x.text,
                estimate.total_of(x.languages),
                x.corpus,
                x.disk,
                x.processor_seconds(2),
            )
            for x in said
        ],
        used,
        [estimate.total_of(s["passed"]) for s in summary["steps"]],
        estimate.tree_size(tmp_path / "run" / "corpus"),
    )
    expect(steps[0][0], lambda one: one.documents)
    expect(steps[0][1], lambda one: one.text)
    expect(steps[-1][0], lambda one: estimate.total_of(one.languages)[0])
    expect(steps[-1][1], lambda one: estimate.total_of(one.languages)[1])
    expect(estimate.tree_size(tmp_path / "run" / "corpus"), lambda one: one.corpus)
    expect(estimate.tree_size(Path(work.folder)), lambda one: one.disk)
    # On a machine whose cores others share, the same work takes up to a third more one time than another.
    expect(used, lambda one: one.processor_seconds(2), within=0.35)
    # And what is said to be the most is not less.
    assert steps[-1][1] < said[0].at_most * estimate.total_of(said[0].languages)[1]
    jobs = [job for name in said[0].steps for job in estimate.jobs_of(work, name) if job.process != run.os.getpid()]
    assert max(job.memory for job in jobs) < said[0].process + said[0].held


def test_it_writes_nothing_and_says_what_the_whole_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "a.jsonl", documents(200), packed=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    config = write_config(tmp_path, workdir="run", inputs=("a.jsonl",))
    assert cli.main(["curate", config, "--dry-run", "--workers", "1", "--price", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "cost, at 0.5 per core and hour" in said and "1 (here)" in said and "memory: at most" in said
    assert not Path("run").exists() and not list(Path("elsewhere").iterdir())


def test_a_sample_of_nothing_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "a.jsonl", [{"text": "spam", "url": "http://x"}], packed=False)
    config = write_config(tmp_path, workdir="run", inputs=("a.jsonl",))
    assert cli.main(["curate", config, "--dry-run", "--workers", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the sample: no document is left; 1 went as ")
    Path("a.jsonl").write_text("")
    assert cli.main(["curate", config, "--dry-run", "--workers", "1"]) == 2
    assert capsys.readouterr().err == "error: inputs: 1 files, of no bytes together; check the paths\n"


def test_the_beginning_of_a_table_has_that_part_of_its_rows(tmp_path):
    arrow, pyarrow = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"text": [f"row {n}" for n in range(5000)]})
    pyarrow.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    size = (tmp_path / "a.parquet").stat().st_size
    made = sample.beginning(str(tmp_path / "a.parquet"), size // 4, size, tmp_path, 3)
    assert pyarrow.read_table(made).equals(table.slice(0, pyarrow.read_table(made).num_rows))
    assert pyarrow.read_table(made).num_rows == pytest.approx(1250, abs=1)
    (tmp_path / "b.parquet").write_bytes(b"PAR1" * 9)  # damaged: reading the whole says so
    assert sample.beginning(str(tmp_path / "b.parquet"), 9, 36, tmp_path, 4) == str(tmp_path / "b.parquet")
