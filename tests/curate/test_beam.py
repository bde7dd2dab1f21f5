# SPDX-License-Identifier: Apache-2.0
"""Curating in Apache Beam: the bytes of the run on one machine, from workers in other processes and in a bucket."""

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("py3langid")
pytest.importorskip("fastwarc")
pytest.importorskip("apache_beam", reason="has an environment of its own: bash launch/beam.sh")

from mlm_jax import cli
from mlm_jax.curate import beam, parts
from mlm_jax.curate.document import Document
from mlm_jax.curate.keyed import document_key, pack
from mlm_jax.curate.shuffle import frame
from mlm_jax.errors import UserError
from tests.curate.test_run import content, curate, documents, sentence, texts, write_apart, write_config, write_lines
from tests.train.test_bucket import bucket, run

__all__ = ["bucket"]  # a fixture
WORKERS = "--runner=FnApiRunner --direct_running_mode=multi_processing --direct_num_workers=2"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_apart(tmp_path / "crawl", documents(200), 4)
    whole = (tmp_path / "crawl" / "0.jsonl.gz").read_bytes()
    (tmp_path / "crawl" / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    return write_config(tmp_path, workdir="run", inputs=("crawl/*.jsonl.gz",), shard_bytes=20_000, dropped=2)


def in_beam(config, workdir, options=WORKERS):
    curate(config, "--workdir", workdir, "--runner", "beam", "--beam_options", options)


@pytest.mark.slow
def test_workers_in_other_processes_give_the_same_bytes(config, monkeypatch):
    curate(config, "--workers", 1)
    monkeypatch.setattr(beam, "partitions_of", lambda *_: 8)
    in_beam(config, "beam")
    assert content("beam") == content("run")
    assert Path("beam/curate.json").read_bytes() == Path("run/curate.json").read_bytes()
    assert json.loads(Path("beam/curate.json").read_text())["damaged"] == ["crawl/cut.jsonl.gz"]
    names = {"config.json", "corpus", "curate.json", "dropped", "report", "started.jsonl"}
    assert {path.name for path in Path("beam").iterdir()} == names


@pytest.mark.parametrize(
    "chosen", [{"paragraphs": "False"}, {"near": "False"}, {"paragraphs": "False", "near": "False"}]
)
def test_without_some_steps_too(config, chosen):
    options = [word for name, value in chosen.items() for word in (f"--duplicates.{name}", value)]
    curate(config, "--workers", 1, *options)
    curate(config, "--workdir", "beam", "--runner", "beam", "--beam_options", "--runner=FnApiRunner", *options)
    assert content("beam") == content("run")


@pytest.mark.slow
def test_from_a_bucket_into_a_bucket(config, bucket, tmp_path):
    draw = random.Random(7)
    write_lines(tmp_path / "crawl" / "clean" / "de.jsonl.gz", [{"text": sentence(draw, "de")} for _ in range(300)])
    clean = "crawl/clean/{language}.jsonl.gz"
    # What is damaged is shown with its path, which is another in a bucket.
    curate(config, "--workers", 1, "--inputs", "crawl/[0-9].jsonl.gz", "--filters.perplexity", clean)
    assert any("bucket" in document for document in texts("run"))
    bucket.put(str(tmp_path / "crawl"), "runs/crawl", recursive=True)
    options = ["--inputs", "gs://runs/crawl/[0-9].jsonl.gz", "--filters.perplexity", f"gs://runs/{clean}"]
    options += ["--runner", "beam", "--beam_options", WORKERS]
    with run(tmp_path, "curate", config, "--workdir", "gs://runs/web", *options) as process:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    bucket.get("runs/web", str(tmp_path / "web"), recursive=True)
    assert content("web") == content("run")
    assert {path.name for path in Path("web").iterdir()} >= {"corpus", "curate.json", "report"}
    assert not Path("web/beam.json").exists() and not Path("web/perplexity").exists()


def test_what_is_left_of_a_run_and_of_dead_workers_goes(config):
    curate(config, "--workers", 1)
    for left in ("beam/corpus/xx/00000.jsonl.zst", "beam/beam.json"):
        Path(left).parent.mkdir(parents=True, exist_ok=True)
        Path(left).write_text("{}")
    in_beam(config, "beam", "--runner=FnApiRunner")
    assert content("beam") == content("run")


def test_a_shard_written_again_is_the_same_and_one_that_failed_is_not_there(tmp_path, monkeypatch):
    packed = [frame([pack(document_key(text), Document(text))]) for text in map(str, range(100))]
    made = tmp_path / "corpus" / "en" / "00003.jsonl.zst"
    with monkeypatch.context() as broken:
        broken.setattr("os.replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            beam.write_shard((("en", 3), packed), str(tmp_path))
    assert list((tmp_path / "corpus" / "en").iterdir()) == []
    first = beam.write_shard((("en", 3), packed), str(tmp_path))
    content = made.read_bytes()
    assert beam.write_shard((("en", 3), packed[::-1]), str(tmp_path)) == first == ("en", 3, first[2])
    assert made.read_bytes() == content and len(first[2]) == parts.SAMPLES


def test_a_pipeline_that_fails_is_one_line(config, capsys):
    asked = [
        "curate",
        config,
        "--runner",
        "beam",
        "--beam_options",
        "--runner=FnApiRunner",
        "--contamination",
        "no/*.txt",
    ]
    assert cli.main(asked) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: beam_options: the Beam pipeline failed (contamination: no file matches no/*.txt")
    assert not Path("run/curate.json").exists()


@pytest.mark.parametrize(
    ("options", "said"), [("--direct_num_workers=x", "invalid int value: 'x'"), ("'", "No closing quotation")]
)
def test_options_that_beam_cannot_read_are_one_line(options, said):
    with pytest.raises(UserError, match=f"beam_options: .*{said}; mend them"):
        beam.read_options(options)
