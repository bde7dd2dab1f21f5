# SPDX-License-Identifier: Apache-2.0
"""The whole of `curate`: the same bytes for any split, any number of processes and after any kill; the page; the messages."""

import gzip
import importlib.util
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

pytest.importorskip("py3langid")
pytest.importorskip("fastwarc")

from mlm_jax import cli
from mlm_jax.curate import run
from mlm_jax.curate.counts import in_bucket
from mlm_jax.curate.perplexity import BUCKETS
from mlm_jax.options import parse
from tests.curate.tables import WRITERS

WORDS = {
    "en": "the of and to in that is was for with his they from this have which one you were all her she there would their we been has "
    "when who will more if out so what up about into than them can only other new some time could these two may then do first any my now "
    "such like our over man me even most made after also did many before must through years where much your way well down should because",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach "
    "wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch man sein wurde sei prozent "
    "hatte kann gegen vom können schon wenn habe seine mark ihre dann unter wir soll ich eines jahr zwei jahren diese dieser wieder keine",
    "es": "de la que el en y a los del se las por un para con no una su al lo como más pero sus le ya o este sí porque esta entre cuando "
    "muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros ese eso ante ellos e esto mí antes "
    "algunos qué unos yo otro otras otra él tanto esa estos mucho quienes nada muchos cual poco ella estar estas algunas algo nosotros",
}


def sentence(draw, language):
    words = WORDS[language].split()
    return " ".join(draw.choice(words) for _ in range(draw.randint(8, 20))).capitalize() + "."


def documents(count, seed=0):
    """Made-up pages, of which some are copies, nearly copies, or share a paragraph."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        language = draw.choice(sorted(WORDS))
        kind = draw.random()
        same = [d for d in made if d["url"].startswith(f"http://{language}.")]
        lines = [" ".join(sentence(draw, language) for _ in range(3)) for _ in range(draw.randint(3, 8))]
        if same and kind < 0.1:
            lines = draw.choice(same)["text"].split("\n")
        elif same and kind < 0.2:
            lines = draw.choice(same)["text"].split("\n")
            lines[-1] = sentence(draw, language)
        elif same and kind < 0.3:
            lines[0] = draw.choice(same)["text"].split("\n")[0]
        elif kind < 0.35:
            lines = ["spam"]
        made.append({"text": "\n".join(lines), "url": f"http://{language}.test/{number}", "date": "2026-11-01"})
    return made


def write_lines(path, found, packed=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(document) + "\n" for document in found).encode()
    path.write_bytes(gzip.compress(content) if packed else content)


def write_apart(folder, found, files):
    """Documents in several packed files."""
    for number in range(files):
        write_lines(folder / f"{number}.jsonl.gz", found[number::files])


def write_config(folder, **options):
    said = ", ".join(f"{name}={value!r}" for name, value in options.items())
    path = folder / "curate.py"
    path.write_text(f"from mlm_jax.curate.config import *\n\ndef get_config():\n    return Curate({said})\n")
    return str(path)


def content(workdir):
    """What a corpus is: every file below its folder, what went as it is shown, and the counts."""
    folder = Path(workdir)
    paths = [*(folder / "corpus").rglob("*"), *(folder / "dropped").rglob("*")]
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(paths) if p.is_file()}
    counts = json.loads((folder / "curate.json").read_text())
    return files, [(step["name"], step["passed"], step["gone"]) for step in counts["steps"]], counts["rules"]


def texts(workdir):
    found = []
    for path in sorted(Path(workdir).glob("corpus/*/*.jsonl.zst")):
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).decode()
        found += [json.loads(line) | {"folder": path.parent.name} for line in lines.splitlines()]
    return found


def curate(config, *arguments):
    assert cli.main(["curate", config, *map(str, arguments)]) == 0


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = documents(300)
    write_lines(tmp_path / "one" / "all.jsonl.gz", found)
    return write_config(tmp_path, workdir="run", inputs=("one/*.jsonl.gz",), shard_bytes=40_000, dropped=2)


def test_what_goes_and_what_stays(config, tmp_path, capsys):
    curate(config, "--workers", 1)
    kept = texts("run")
    assert {d["folder"] for d in kept} == {d["language"] for d in kept} == set(WORDS)
    assert all(d["url"].startswith(f"http://{d['language']}.") for d in kept)
    # No text twice, no paragraph twice.
    lines = [line for d in kept for line in d["text"].split("\n")]
    assert len(lines) == len(set(lines))
    given = documents(300)
    assert 0.5 * len(given) < len(kept) < 0.9 * len(given)
    counts = json.loads(Path("run/curate.json").read_text())
    for before, after in zip(counts["steps"], counts["steps"][1:], strict=False):
        for language, (number, _) in before["passed"].items():
            went = sum(pair[0] for pair in after["gone"].get(language, {}).values())
            assert after["passed"].get(language, [0])[0] == number - went
    assert sum(number for number, _ in counts["steps"][-1]["passed"].values()) == len(kept)
    assert not Path("run/work").exists()
    said = capsys.readouterr().out
    assert "report: run/report/index.html" in said and "documents are left" in said
    # Again: it is there.
    curate(config)
    page = Path("run/report/index.html").read_text()
    assert "German" in page and page.startswith("<!doctype html>")


def test_any_split_and_any_number_of_processes_give_the_same_bytes(config, tmp_path, monkeypatch):
    curate(config, "--workers", 1)
    expected = content("run")
    monkeypatch.setattr(run, "partitions_of", lambda *_: 8)
    found = documents(300)
    random.Random(3).shuffle(found)
    for number in range(5):
        write_lines(tmp_path / "five" / f"{number}.jsonl", found[number::5], packed=False)
    for number, ending in enumerate((".csv", ".parquet")):
        if ending == ".csv" or importlib.util.find_spec("pyarrow"):
            (tmp_path / "five" / f"{number}.jsonl").unlink()
            (tmp_path / "five" / f"{number}{ending}").write_bytes(WRITERS[ending](found[number::5]))
    other = write_config(tmp_path, workdir="five_run", inputs=("five/*",), shard_bytes=40_000, dropped=2)
    curate(other, "--workers", 2, "--memory", 0.05)
    assert content("five_run") == expected


def test_documents_are_told_by_perplexity_under_clean_text(config, tmp_path):
    (tmp_path / "clean").mkdir()
    draw = random.Random(7)
    for language in ("de", "en"):  # Spanish has none
        clean = "\n".join(sentence(draw, language) for _ in range(300))
        (tmp_path / "clean" / f"{language}.txt").write_text(clean)
    filters = "Filters(perplexity='clean/{language}.txt')"
    path = tmp_path / "perplexity.py"
    path.write_text(Path(config).read_text().replace("workdir=", f"filters={filters}, workdir="))
    curate(str(path), "--workdir", "all", "--workers", 2)
    counts = json.loads(Path("all/curate.json").read_text())
    found = texts("all")
    for language in ("de", "en"):
        scores = {bucket: [d["log_perplexity"] for d in found if (d["language"], d.get("bucket")) == (language, bucket)]
                  for bucket in BUCKETS}  # fmt: skip
        assert max(scores["head"]) <= min(scores["middle"]) and max(scores["middle"]) <= min(scores["tail"])
        cuts = counts["rules"]["languages"][language]["perplexity"]
        assert math.exp(max(scores["head"])) <= cuts[0] * 1.01 and math.exp(min(scores["tail"])) >= cuts[1] / 1.01
        for bucket, listed in scores.items():
            assert counts["steps"][-1]["noted"][in_bucket(language, bucket)] == len(listed) > 5
    assert not any("bucket" in d or "log_perplexity" in d for d in found if d["language"] == "es")
    page = Path("all/report/index.html").read_text()
    assert "Without clean text, so in no bucket: Spanish" in page and "log_perplexity" in page
    # Without the tail, and with another number of processes, the others are as they were.
    curate(str(path), "--workdir", "some", "--workers", 1, "--filters.buckets", "head", "middle")
    went = json.loads(Path("some/curate.json").read_text())["steps"][3]["gone"]
    assert all(went[language]["tail by perplexity"][0] > 5 for language in ("de", "en"))
    kept = texts("some")
    assert {d.get("bucket") for d in kept} == {"head", "middle", None}
    scores = {d["text"]: (d.get("bucket"), d.get("log_perplexity")) for d in kept}
    assert scores.items() >= {(d["text"], (d.get("bucket"), d.get("log_perplexity"))) for d in found if d.get("bucket") != "tail"}  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("clean.txt", "filters.perplexity: clean.txt does not say which language"),
        ("none/{language}.txt", "filters.perplexity: no file matches none/{language}.txt for any of de, en, es"),
    ],
)
def test_clean_text_that_is_not_there_is_a_line(config, capsys, pattern, said):
    assert cli.main(["curate", config, "--workers", "1", "--filters.perplexity", pattern]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(config, tmp_path):
    curate(config, "--workers", 1)
    expected = content("run")
    command = [sys.executable, "-m", "mlm_jax", "curate", config, "--workdir", "killed", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    draw = random.Random(1)
    for _ in range(20):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(draw.uniform(0.5, 6.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert content("killed") == expected


def test_nothing_left_and_nothing_found_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "a.jsonl", [{"text": "spam", "url": "http://x"}], packed=False)
    assert cli.main(["curate", write_config(tmp_path, workdir="run", inputs=("a.jsonl",)), "--workers", "1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: run: no document is left; 1 went as ")
    assert cli.main(["curate", write_config(tmp_path, workdir="run", inputs=("b.jsonl",))]) == 2
    assert capsys.readouterr().err == "error: inputs: no file matches b.jsonl; check the path\n"


def test_missing_packages_are_one_line(config, monkeypatch, capsys):
    monkeypatch.setattr(run, "PACKAGES", ("fastwarc", "no_such_package"))
    assert cli.main(["curate", config]) == 2
    said = "error: curate: no_such_package is not installed; pip install -c constraints.txt -e '.[curate]'\n"
    assert capsys.readouterr().err == said


def test_without_beam_asking_for_it_is_one_line(config, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "apache_beam" else name)
    assert cli.main(["curate", config, "--runner", "beam", "--beam_options", "--runner=FnApiRunner --project=p"]) == 2
    said = "it has an environment of its own: bash launch/beam.sh curate CONFIG\n"
    assert capsys.readouterr().err == f"error: runner: Apache Beam is not installed here; {said}"


def test_options_of_beam_are_one_argument_whatever_they_are_called(config):
    for options in ("--runner=DataflowRunner", "--project=p --workers=3", "-x", "--"):
        read = parse("curate", [config, "--runner", "beam", "--beam_options", options, "--workers", "2"])
        assert (read.runner, read.beam_options, read.workers) == ("beam", options, 2)
        assert parse("curate", [config, f"--beam_options={options}"]).beam_options == options


def test_the_sample_config_is_valid():
    paths = sorted((Path(__file__).parents[2] / "configs" / "curate").glob("*.py"))
    assert paths
    for path in paths:
        assert parse("curate", [str(path)]).workdir == f"runs/{path.stem}"
        assert f"configs/curate/{path.name}" in path.read_text()


@pytest.mark.slow
def test_pretraining_reads_what_it_wrote(config, tmp_path):
    curate(config, "--workers", 1)
    path = tmp_path / "tiny.py"
    path.write_text(
        "from mlm_jax.config import Config, Data, Model, Source, Train, Vocabulary\n\n"
        "def get_config():\n"
        "    return Config(\n"
        "        data=Data(sources=(Source('*', 'run/corpus/{language}/*.jsonl.zst', field='text'),), sequence_length=32),\n"
        "        vocabulary=Vocabulary(size=500, character_coverage=1.0),\n"
        "        model=Model(layers=1, width=16, heads=2, mlp_width=32),\n"
        "        train=Train(steps=3, batch_size=8),\n"
        "    )\n"
    )
    command = [sys.executable, "-m", "mlm_jax", "pretrain", str(path), "--workdir", "encoder"]
    options = ["--optimizer.warmup_steps", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 steps" in done.stdout
    languages = json.loads(Path("encoder/corpus/manifest.json").read_text())["languages"]
    assert languages == sorted(WORDS)
