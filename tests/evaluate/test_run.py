# SPDX-License-Identifier: Apache-2.0
"""`evaluate`, whole: every kind of benchmark in one table, one page, and files; bad input; nothing done twice."""

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
from etils import epath

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.evaluate import run as runs
from mlm_jax.evaluate.config import (
    Corpora,
    Evaluate,
    LanguageModel,
    Mining,
    Pairs,
    Retrieval,
    Text,
    Tuned,
    experiment,
    validate_evaluation,
)
from mlm_jax.finetune.config import Train
from mlm_jax.results import benchmark_row
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.typed import as_type
from tests.finetune.toys import MODEL, WORDS, make_config, make_start

PLAIN = dataclasses.replace(MODEL, head=cfg.Model().head)


def sentences(language, count, seed=0):
    """Each a list of numbered words, so that two languages' nth sentences share digits."""
    rng = np.random.default_rng(seed)
    return [f"{WORDS[language]['other'][0]} {' '.join(map(str, rng.integers(0, 10, 6)))}" for _ in range(count)]


def suite(tmp_path, **changes):
    """A suite with a benchmark of every kind, its files, and the encoder."""
    for language in ("de", "en"):
        (tmp_path / f"same.{language}").write_text("\n".join(sentences(language, 20)) + "\n")
        for split in ("dev", "test"):
            lines = [f"{language}-{i}\t{text}" for i, text in enumerate(sentences(language, 12, seed=len(split)))]
            (tmp_path / f"{split}.{language}").write_text("\n".join(lines) + "\n")
            (tmp_path / f"{split}.gold").write_text("".join(f"de-{i}\ten-{i}\n" for i in range(12)))
    tuned = dataclasses.replace(
        make_config(tmp_path, "classify", workdir="unused"), train=Train(epochs=1, batch_size=16)
    )
    make_start(tmp_path / "suite", PLAIN)
    files = [tuple(str(tmp_path / f"{split}.{x}") for x in ("de", "en", "gold")) for split in ("dev", "test")]
    same = Pairs(("de", "en"), (str(tmp_path / "same.de"), str(tmp_path / "same.en")))
    config = Evaluate(
        workdir=str(tmp_path / "suite"),
        max_length=32,
        tuned=(Tuned("sentiment", dataclasses.replace(tuned, workdir="", init="")),),
        retrieval=(
            Retrieval("same", (same,)),
            Retrieval("same_margin", (same,), score="margin", layer=1, both_ways=True),
        ),
        mining=(Mining("mined", (Corpora(("de", "en"), *files),)),),
        language_model=(
            LanguageModel("plain", (Text("de", str(tmp_path / "same.de")), Text("en", str(tmp_path / "same.en")))),
        ),
    )
    return dataclasses.replace(config, **changes)


def write(path, config):
    imports = "from mlm_jax.config import Hosts, Mesh, Optimizer\nfrom mlm_jax.evaluate.config import *\nfrom mlm_jax.finetune.config import *\n"
    path.write_text(f"{imports}\n\ndef get_config():\n    return {config!r}\n")
    return str(path)


def test_a_suite_of_everything(tmp_path, capsys):
    path = write(tmp_path / "suite.py", suite(tmp_path))
    assert cli.main(["evaluate", path]) == 0
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "suite/results.json").read_text())
    assert {r["task"] for r in rows} == {"same", "same_margin", "mined", "plain", "sentiment"}
    value = {(r["task"], r["language"]): r["value"] for r in rows}
    assert 0 <= value["same", "de"] <= 1 and 0 <= value["mined", "de"] <= 1
    (plain,) = [r for r in rows if r["task"] == "plain" and r["language"] == "en"]
    # A random encoder is about as good as a guess among all pieces.
    assert plain["every"]["loss"] == pytest.approx(math.log(98), abs=1.5)
    assert plain["every"]["perplexity"] == pytest.approx(math.exp(plain["every"]["loss"]))
    summary = json.loads((tmp_path / "suite/summary.json").read_text())
    gap = value["sentiment", "en"] - value["sentiment", "de"]
    assert summary["sentiment"]["gap"] == pytest.approx(gap) and "gap" not in summary["same"]
    header = next(line for line in said.splitlines() if line.startswith("task "))
    assert "en - others" in header and "ρ size" not in header and "mean" in header
    lines = list(csv.DictReader((tmp_path / "suite/results.csv").open()))
    assert {x["task"] for x in lines} == set(summary) and all(math.isfinite(float(x["value"])) for x in lines)
    page = (tmp_path / "suite/results.html").read_text()
    assert "same-margin" in page and "http" not in page.replace("http-equiv", "") and "width=device-width" in page
    assert {"task", "language", "metric", "value", "every", "examples", "protocol"} == set(rows[0])

    # A second call does nothing again, and says the same.
    stored = (tmp_path / "suite/results.json").read_bytes()
    before = (tmp_path / "suite/done/same.json").stat().st_mtime_ns
    assert cli.main(["evaluate", path]) == 0
    assert (tmp_path / "suite/results.json").read_bytes() == stored
    assert (tmp_path / "suite/done/same.json").stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines()[-8:] == said.splitlines()[-8:]
    (tmp_path / "suite/results.html").unlink()
    assert cli.main(["report", path]) == 0
    assert (tmp_path / "suite/results.html").read_text() == page
    assert header in capsys.readouterr().out


def test_parallel_sentences_say_how_evenly_the_vocabulary_cuts_them(tmp_path, capsys):
    config = suite(tmp_path, tuned=(), language_model=())
    (tmp_path / "long.de").write_text("".join(f"{line} ! ! !\n" for line in sentences("de", 20)))
    (tmp_path / "other.en").write_text("".join(f"{line} !\n" for line in sentences("en", 20)))
    same = config.retrieval[0].pairs[0]
    long = Pairs(("nl", "en"), (str(tmp_path / "long.de"), same.paths[1]))
    apart = dataclasses.replace(long, paths=(long.paths[0], str(tmp_path / "other.en")))
    found = (Retrieval("same", (same, long)), Retrieval("apart", (same, apart)))
    path = write(tmp_path / "suite.py", dataclasses.replace(config, retrieval=found))
    assert cli.main(["evaluate", path]) == 0
    rows = {(r["task"], r["language"]): r["every"] for r in json.loads((tmp_path / "suite/results.json").read_text())}
    encode = load_tokenizer(tmp_path / "suite/vocabulary").encode
    de, nl, en = (
        np.mean([len(ids) for ids in encode((tmp_path / name).read_text().splitlines())])
        for name in ("same.de", "long.de", "same.en")
    )
    assert nl > de
    assert [rows["same", x]["tokens"] for x in ("de", "nl")] == pytest.approx([de, nl])
    assert [rows["same", x]["tokens_other"] for x in ("de", "nl")] == pytest.approx([en, en])
    apart_by = np.abs(np.subtract.outer([de, nl, en], [de, nl, en])).mean()
    assert (
        rows["same", "de"]["gini"]
        == rows["same", "nl"]["gini"]
        == pytest.approx(apart_by / (2 * np.mean([de, nl, en])))
    )
    fewest, most = sorted([(de, "de"), (en, "the other side"), (nl, "nl")])[::2]
    said = " to ".join(f"{tokens:.1f} ({side})" for tokens, side in (fewest, most))
    out = capsys.readouterr().out
    assert f"\nsame: {said} tokens per sentence, Gini coefficient {rows['same', 'de']['gini']:.3f}\n" in out
    assert re.findall(r"^(\w+): .* Gini", out, re.MULTILINE) == ["same", "mined"]
    # English is not the same beside both languages, so that the three have no text in common.
    assert "gini" not in rows["apart", "de"] and rows["apart", "nl"]["tokens"] == pytest.approx(nl)
    mined = [len(ids) for ids in encode(sentences("de", 12, seed=len("test")))]
    assert rows["mined", "de"]["tokens"] == pytest.approx(np.mean(mined))
    lines = list(csv.DictReader((tmp_path / "suite/results.csv").open()))
    assert {x["task"] for x in lines if x["metric"] == "tokens"} == {"same", "apart", "mined"}
    page = (tmp_path / "suite/results.html").read_text()
    assert f">{nl:.1f} <small>{en:.1f}</small>" in page and f">{rows['same', 'de']['gini']:.3f}<" in page
    # Of an earlier version there is nothing to show.
    stored = json.loads((tmp_path / "suite/results.json").read_text())
    for row in stored:
        row["every"] = {row["metric"]: row["value"]}
    (tmp_path / "suite/results.json").write_text(json.dumps(stored))
    assert cli.main(["report", path]) == 0
    assert "Gini" not in (tmp_path / "suite/results.html").read_text()


def test_a_task_without_languages_has_no_tokens():
    assert runs.with_tokens([], [], None) == []


@pytest.mark.slow
def test_language_models_compute_in_the_type_that_is_asked_for(tmp_path):
    path = write(tmp_path / "suite.py", suite(tmp_path, tuned=(), retrieval=(), mining=()))
    losses = []
    for dtype in ("float32", "bfloat16"):
        workdir = str(tmp_path / dtype)
        assert (
            cli.main(["evaluate", path, "--dtype", dtype, "--init", str(tmp_path / "suite"), "--workdir", workdir]) == 0
        )
        losses.append([r["every"]["loss"] for r in json.loads((tmp_path / dtype / "results.json").read_text())])
    np.testing.assert_allclose(losses[0], losses[1], rtol=5e-3)
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_mesh_changes_nothing_and_may_come_later(tmp_path):
    path = write(tmp_path / "suite.py", suite(tmp_path, tuned=()))
    assert cli.main(["evaluate", path]) == 0
    rows = json.loads((tmp_path / "suite/results.json").read_text())
    # A workdir of before there was a mesh, which has results already.
    stored = tmp_path / "suite/config.json"
    config = json.loads(stored.read_text())
    del config["mesh"]
    stored.write_text(json.dumps(config))
    for name in ("same", "mined", "plain"):
        (tmp_path / f"suite/done/{name}.json").unlink()
    assert cli.main(["evaluate", path, "--mesh.data", "1", "--mesh.fsdp", "4", "--mesh.tensor", "2"]) == 0
    assert json.loads(stored.read_text())["mesh"]["fsdp"] == 4
    again = json.loads((tmp_path / "suite/results.json").read_text())
    assert len(rows) == len(again) == 5
    for one, two in zip(rows, again, strict=True):
        assert one["every"] == pytest.approx(two["every"], abs=1e-5)


def test_an_experiment_of_before_there_was_a_mesh_goes_on(tmp_path):
    config = suite(tmp_path)
    finetuning = experiment(dataclasses.replace(config, mesh=cfg.Mesh(fsdp=8)), config.tuned[0])
    assert finetuning.mesh.fsdp == 8
    target = tmp_path / "suite" / "sentiment"
    target.mkdir()
    stored = json.loads(cfg.config_to_json(dataclasses.replace(finetuning, mesh=cfg.Mesh())))
    del stored["mesh"]
    (target / "config.json").write_text(json.dumps(stored))
    runs.share_encoder(epath.Path(tmp_path / "suite"), epath.Path(target), finetuning)
    assert json.loads((target / "config.json").read_text())["mesh"]["fsdp"] == 8
    with pytest.raises(UserError, match="holds another experiment"):
        runs.share_encoder(
            epath.Path(tmp_path / "suite"), epath.Path(target), dataclasses.replace(finetuning, source="de")
        )


def test_correlation_with_pretraining_size_needs_three_languages():
    rows = [
        benchmark_row("t", x, "accuracy", {"accuracy": v}, 9, {}) for x, v in zip("abc", (0.2, 0.5, 0.9), strict=True)
    ]
    assert runs.summary(rows, "a", {"a": 1, "b": 20, "c": 300})["t"]["size_correlation"] == pytest.approx(1)
    assert runs.summary(rows, "a", {"a": 300, "b": 20, "c": 1})["t"]["size_correlation"] == pytest.approx(-1)
    assert "size_correlation" not in runs.summary(rows, "a", {"a": 1, "b": 20})["t"]
    assert "1.00" in runs.table(rows, "a", {"a": 1, "b": 20, "c": 300})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("same.en", "one\n", "20 lines, .*same.en has 1; they are not aligned"),
        ("same.en", "\n" * 20, "same.en:1: empty"),
        ("dev.de", "no tab\n", "dev.de:1: not two columns"),
        ("test.gold", "de-0\ten-77\n", "test.gold:1: en-77 is not an id of"),
        ("dev.de", "de-0\tder\nde-0\tdie\n", "dev.de:2: the id de-0 is there before"),
    ],
)
def test_bad_files_are_one_line(tmp_path, file, text, message, capsys):
    config = suite(tmp_path, tuned=(), language_model=())
    (tmp_path / file).write_text(text)
    assert cli.main(["evaluate", write(tmp_path / "suite.py", config)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert re.search(message, line), line


def test_a_source_by_another_code_is_named_and_the_advice_works(tmp_path, capsys):
    config = suite(tmp_path, tuned=(), mining=(), language_model=())
    pairs = config.retrieval[0].pairs[0]
    both = tuple(dataclasses.replace(pairs, languages=codes) for codes in (("eng", "deu"), ("deu", "eng")))
    config = dataclasses.replace(config, retrieval=(Retrieval("same", both),))
    path = write(tmp_path / "suite.py", config)
    assert cli.main(["evaluate", path]) == 0
    said = capsys.readouterr().out
    assert "source: en is none of eng, deu, so there is no transfer gap; set --source eng" in said
    assert "- others" not in said and "ρ size" not in said
    assert "− others" not in (tmp_path / "suite/results.html").read_text()
    assert cli.main(["evaluate", path, "--source", "eng"]) == 0
    assert "eng - others" in capsys.readouterr().out


def test_sentences_that_occur_twice_are_mined_as_lasers_scripts_do(tmp_path):
    """mine_bitexts.py embeds each sentence once; bucc.py takes no pair with a sentence that has several ids; gold keeps all."""
    meanings = {"eins": 0, "one": 0, "zwei": 1, "two": 1, "drei": 2, "three": 2, "vier": 3, "four": 3}
    asked = []

    def embed(sentences, language):
        asked.append(sentences)
        return np.eye(4, dtype=np.float32)[[meanings[sentence.strip()] for sentence in sentences]]

    (tmp_path / "de").write_text("a\teins\nb\tzwei\nc\tzwei\nd\tdrei\ne\tvier\n")
    (tmp_path / "en").write_text("A\tone\nB\ttwo\nC\tthree\nD\tfour\nE\tfour \n")
    (tmp_path / "gold").write_text("a\tA\nb\tB\nd\tC\n")
    found, gold = runs.mine_one(embed, tuple(str(tmp_path / name) for name in ("de", "en", "gold")), ("de", "en"), 2)
    assert asked == [["eins", "zwei", "drei", "vier"], ["one", "two", "three", "four", "four "]]
    assert {(i, j) for _, i, j in found} == {(0, 0), (3, 2)}  # "zwei" has two ids, "four" too, but for a space
    assert gold == {(0, 0), (1, 1), (3, 2)}


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.de: no such file"):
        runs.read_aligned(Pairs(("de", "en"), (str(tmp_path / "nowhere.de"), "x")), str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuned": (), "retrieval": (), "mining": (), "language_model": ()}, "name at least one benchmark"),
        ({"mining": (Mining("same", ()),)}, "same twice"),
        ({"mining": (Mining("x", (), neighbours=0),)}, "x: neighbours 0"),
        ({"language_model": (LanguageModel("x", (), lines=0),)}, "x: lines 0"),
    ],
)
def test_configs_that_cannot_work(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        validate_evaluation(suite(tmp_path, **changes))


def test_the_config_stored_is_the_config(tmp_path):
    config = suite(tmp_path)
    assert as_type(Evaluate, json.loads(cfg.config_to_json(config))) == config


def test_aligned_sentences_and_text_are_fields_of_files_too(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"de": "Wasser", "en": "water, or\nrain"}, {"de": "Haus", "en": "house"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("de", "en"), *(row.values() for row in rows)])
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        pairs = Pairs(("de", "en"), (f"{tmp_path}/{name}#de", f"{tmp_path}/{name}#en"))
        assert runs.read_aligned(pairs, str(tmp_path)) == (["Wasser", "Haus"], ["water, or\nrain", "house"])
    with pytest.raises(
        UserError, match=r"no text in field 'fr' \(there are de, en\).*; set it in the path: PATH#FIELD"
    ):
        runs.read_aligned(Pairs(("fr", "en"), (f"{tmp_path}/a.csv#fr", f"{tmp_path}/a.csv#en")), str(tmp_path))
    (tmp_path / "b#c.txt").write_text("one\n")
    assert runs.read_aligned(Pairs(("de", "en"), (f"{tmp_path}/b#c.txt",) * 2), str(tmp_path)) == (["one"], ["one"])
