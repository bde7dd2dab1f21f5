# SPDX-License-Identifier: Apache-2.0
"""`analyze`, whole: on a toy encoder, through the command line; vectors beside the encoder's own; bad input."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import cli, tokenizers
from mlm_jax import config as cfg
from mlm_jax.encode.read import checkpoint_steps, read_pretrained
from mlm_jax.encode.sentences import make_embedder
from mlm_jax.errors import UserError
from mlm_jax.evaluate.retrieval import nearest
from mlm_jax.mesh import make_mesh
from mlm_jax.neutrality.config import Aligned, Analyze, Quality, WordAlignment, validate_analysis
from mlm_jax.neutrality.families import family
from mlm_jax.neutrality.headlines import SHOWN, best_of
from mlm_jax.neutrality.probe_sentences import probe_aligned
from mlm_jax.neutrality.vectors import Vectors, make_vectors
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.train.pretraining import train
from mlm_jax.typed import as_type
from mlm_jax.workdir import own_workdir
from tests.corpora import make_workdir
from tests.finetune.toys import WORDS, make_start

LANGUAGES = ("deu", "nld", "fra", "eng")


def sentences(language, count):
    rng = np.random.default_rng(0)
    word = WORDS["de" if language in ("deu", "nld") else "en"]["other"][0]
    return [f"{word} {language} {' '.join(map(str, rng.integers(0, 10, 6)))}" for _ in range(count)]


def analysis(tmp_path, **changes):
    for language in LANGUAGES:
        (tmp_path / f"{language}.txt").write_text("\n".join(sentences(language, 30)) + "\n")
    (tmp_path / "pairs").write_text("the film was so ||| der Film war so\nAnna was great ||| Anna war toll\n" * 3)
    (tmp_path / "gold").write_text("1-1 2-2 3-3 4p4\n1-1 2-2 3-3\n" * 3)
    lines = [
        f"der Film war {x}\tthe film was {y}\t{i}"
        for i, (x, y) in enumerate([("toll", "great"), ("so", "so"), ("mies", "poor")] * 3)
    ]
    (tmp_path / "quality.tsv").write_text("\n".join(["original\ttranslation\tmean", *lines]) + "\n")
    classes = tmp_path / "classes"
    classes.write_text("news\nsport\n" * 15)
    if not (tmp_path / "run").exists():
        make_start(tmp_path / "run")
    config = Analyze(
        workdir=str(tmp_path / "run"),
        aligned=(
            Aligned(
                "toy", tuple((x, str(tmp_path / f"{x}.txt")) for x in LANGUAGES), fit=15, test=15, classes=str(classes)
            ),
        ),
        word_alignment=(WordAlignment("words", ("en", "de"), str(tmp_path / "pairs"), str(tmp_path / "gold")),),
        quality=(Quality("judged", ("de", "en"), str(tmp_path / "quality.tsv"), str(tmp_path / "quality.tsv")),),
        max_length=32,
        overlap=1.0,
    )
    return dataclasses.replace(config, **changes)


def write(path, config):
    path.write_text(
        f"from mlm_jax.config import Mesh\nfrom mlm_jax.neutrality.config import *\n\n\ndef get_config():\n    return {config!r}\n"
    )
    return str(path)


def test_an_analysis_of_everything(tmp_path, capsys):
    other = make_start(tmp_path / "other")
    again = make_start(tmp_path / "again")
    path = write(tmp_path / "toy.py", analysis(tmp_path, compare=(str(other), str(again))))
    assert cli.main(["analyze", path]) == 0
    said = capsys.readouterr().out
    assert "sentence retrieval" in said and "language identification" in said and "centred" in said
    rows = json.loads((tmp_path / "run/results.json").read_text())
    probes = {r["probe"] for r in rows}
    of_all = {
        "identification",
        "retrieval",
        "transfer",
        "similarity",
        "cka",
        "fairness",
        "quality, cosine",
        "quality, both",
    }
    assert of_all <= probes and {probe.partition(",")[0] for probe in probes} == set(SHOWN)
    assert {f"alignment, {d}" for d in ("argmax", "itermax", "edge_cover", "matching")} <= probes
    assert {r["layer"] for r in rows} == {0, 1, 2}
    assert {r["pooling"] for r in rows} == {"first", "mean", "words", "tokens"}
    assert all(np.isfinite(r["value"]) for r in rows)
    # The same encoder before and after: nothing has moved.
    moved = {(r["probe"], r["layer"], r["metric"]): r["value"] for r in rows if r["probe"].startswith("aligned words")}
    for (probe, layer, metric), value in moved.items():
        if metric == "aligned":
            assert value == pytest.approx(moved["aligned words, before", layer, metric], abs=1e-6), probe
    lines = list(csv.DictReader((tmp_path / "run/results.csv").open()))
    assert len(lines) == len(rows) and float(lines[0]["value"]) == pytest.approx(rows[0]["value"], abs=1e-6)
    assert len({tuple(r[c] for c in r if c != "value") for r in rows}) == len(rows)  # each once
    confusion = [r for r in csv.DictReader((tmp_path / "run/matrices.csv").open()) if r["matrix"] == "confusion_plain"]
    drawn = json.loads((tmp_path / "run/figures.json").read_text())["toy"]
    assert sum(float(r["value"]) for r in confusion) == np.sum(drawn["confusion_plain"])
    page = (tmp_path / "run/neutrality.html").read_text()
    assert "Classes told in other languages" in page
    assert "Words aligned, words" in page and "Film" in page and page.count("<svg ") >= 8
    assert "http" not in page and "width=device-width" in page

    # Nothing is computed again, vectors included; another probe finds them there.
    vectors = sorted((tmp_path / "run/vectors").iterdir())
    times = [p.stat().st_mtime_ns for p in vectors]
    (tmp_path / "run/done/toy.json").unlink()
    assert cli.main(["analyze", path]) == 0
    assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "run/vectors").iterdir())] == times
    assert json.loads((tmp_path / "run/results.json").read_text()) == rows
    (tmp_path / "run/neutrality.html").unlink()
    assert cli.main(["report", path]) == 0
    assert (tmp_path / "run/neutrality.html").exists()


def test_tokens_per_sentence_and_their_gini_are_measured_of_every_line(tmp_path, capsys):
    path = write(tmp_path / "toy.py", analysis(tmp_path, word_alignment=(), quality=()))
    (tmp_path / "fra.txt").write_text("".join(f"{line} ! ! !\n" for line in sentences("fra", 30)))
    assert cli.main(["analyze", path]) == 0
    rows = json.loads((tmp_path / "run/results.json").read_text())
    found = {(r["metric"], r["languages"]): r["value"] for r in rows if r["probe"] == "fairness"}
    encode = tokenizers.load_tokenizer(tmp_path / "run/vocabulary").encode
    lines = {x: (tmp_path / f"{x}.txt").read_text().splitlines() for x in LANGUAGES}
    wanted = {x: np.mean([len(ids) for ids in encode(lines[x])]) for x in LANGUAGES}
    assert found == {("gini", ""): found["gini", ""], **{("tokens", x): pytest.approx(n) for x, n in wanted.items()}}
    apart = np.subtract.outer([*wanted.values()], [*wanted.values()])
    assert found["gini", ""] == pytest.approx(np.abs(apart).mean() / (2 * np.mean([*wanted.values()]))) and apart.any()
    said = f"Gini coefficient {found['gini', '']:.3f}"
    page = (tmp_path / "run/neutrality.html").read_text()
    assert said in capsys.readouterr().out and f">{found['gini', '']:.3f}<" in page and f">{wanted['fra']:.1f}<" in page
    # An analysis of an earlier version has a page without, and gets it from the same command.
    (tmp_path / "run/done/toy.tokens.json").unlink()
    (tmp_path / "run/results.json").write_text(json.dumps([r for r in rows if r["probe"] != "fairness"]))
    assert cli.main(["report", path]) == 0
    assert "Gini" not in (tmp_path / "run/neutrality.html").read_text() + capsys.readouterr().out
    assert cli.main(["analyze", path]) == 0
    assert json.loads((tmp_path / "run/results.json").read_text()) == rows


@pytest.mark.slow
def test_a_mesh_changes_nothing_and_may_come_later(tmp_path):
    path = write(tmp_path / "toy.py", analysis(tmp_path, quality=()))
    assert cli.main(["analyze", path]) == 0
    rows = json.loads((tmp_path / "run/results.json").read_text())
    stored = tmp_path / "run/config.json"
    config = json.loads(stored.read_text())
    del config["mesh"]  # of a workdir of before there was one
    stored.write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "run/vectors")
    for path_of_done in (tmp_path / "run/done").iterdir():
        path_of_done.unlink()
    assert cli.main(["analyze", path, "--mesh.data", "1", "--mesh.fsdp", "8"]) == 0
    again = json.loads((tmp_path / "run/results.json").read_text())
    assert len(rows) == len(again)
    for one, two in zip(rows, again, strict=True):
        # First tokens of the embedding are all the same, and rounding decides which is nearest.
        if one["pooling"] != "first":
            assert one == {**two, "value": pytest.approx(two["value"], abs=1e-4)}


@pytest.mark.slow
def test_vectors_are_computed_in_the_type_that_is_asked_for(tmp_path):
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = analysis(tmp_path, word_alignment=(), quality=())
        path = write(
            tmp_path / f"{dtype}.py", dataclasses.replace(config, init=config.workdir, workdir=str(tmp_path / dtype))
        )
        assert cli.main(["analyze", path, "--dtype", dtype]) == 0
        found[dtype] = [np.load(file) for file in sorted((tmp_path / dtype / "vectors").glob("*.npy"))]
    assert len(found["float32"]) == len(found["bfloat16"]) > 1
    for one, two in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, two, atol=0.06)
        assert (one != two).any()


def test_layers_are_the_encoder_s_and_words_the_mean_of_their_pieces(tmp_path):
    trained = read_pretrained(make_start(tmp_path / "run"))
    tokenizer = tokenizers.load_tokenizer(tmp_path / "run/vocabulary")
    made = make_vectors(trained, tokenizer, make_mesh(cfg.Mesh()), 32, tmp_path / "vectors")
    text = ["the film was great", "so sad", "Anna 1 2 3 4 5 6 7 8 9"]
    found = made.sentences(text, "en")
    for p, pooling in enumerate(("first", "mean")):
        for layer in (1, 2):
            theirs = make_embedder(
                trained, tokenizer, make_mesh(cfg.Mesh()), SentenceVectors(pooling, layer, False), 32
            )(text, "en")
            np.testing.assert_allclose(found[p, layer], theirs, atol=1e-5)
    words = [sentence.split() for sentence in text]
    by_word = made.words(words, "en")
    encoder = trained.encoder("float32")
    for sentence, vectors in zip(words, by_word, strict=True):
        pieces = tokenizer.encode(sentence)
        ids = np.asarray([[trained.vocabulary.bos, *[p for w in pieces for p in w], trained.vocabulary.eos]], np.int32)
        batch = {
            "tokens": ids,
            "segment_ids": np.ones_like(ids),
            "positions": np.arange(ids.size, dtype=np.int32)[None],
        }
        batch |= {"language_ids": np.zeros_like(ids), "token_types": np.zeros_like(ids)}
        hidden = np.asarray(encoder.apply({"params": trained.params}, batch))[0]
        at = 1
        for number, word in enumerate(pieces):
            np.testing.assert_allclose(vectors[2, number], hidden[at : at + len(word)].mean(axis=0), atol=1e-5)
            at += len(word)


def test_words_that_do_not_fit_are_left_out(tmp_path):
    trained = read_pretrained(make_start(tmp_path / "run"))
    tokenizer = tokenizers.load_tokenizer(tmp_path / "run/vocabulary")
    made = make_vectors(trained, tokenizer, make_mesh(cfg.Mesh()), 8, tmp_path / "vectors")
    short, long = made.words([["so"], ["so"] * 9], "en")
    assert short.shape == (3, 1, 32) and long.shape == (3, 6, 32)


def planted(tmp_path, fit, test):
    """An encoder of one layer whose vectors are {language: [sentences, width]}, first `fit` and then `test`; and its set."""
    vectors = {x: np.concatenate([fit[x], test[x]])[None, None].astype(np.float32).repeat(2, axis=0) for x in fit}
    for language, made in vectors.items():
        (tmp_path / f"{language}.txt").write_text("".join(f"{i}\n" for i in range(made.shape[2])))
    counts = {"fit": len(next(iter(fit.values()))), "test": len(next(iter(test.values())))}
    part = Aligned("planted", tuple((x, str(tmp_path / f"{x}.txt")) for x in fit), **counts)
    return part, Vectors(0, lambda _, language: vectors[language], lambda *_: [])


def test_a_frozen_classifier_and_a_network_are_tried_where_they_are_asked_for(tmp_path):
    """Two classes that lie alike in all languages are told in those that the classifier has not seen."""
    rng = np.random.default_rng(0)
    told = rng.integers(0, 2, 200)
    meaning = rng.normal(size=(200, 6))
    meaning[:, 0] = 3 * (2 * told - 1)
    aside = {"eng": 0.0, "deu": 4.0, "swa": -4.0}
    made = {x: meaning + rng.normal(scale=0.1, size=(200, 6)) + shift for x, shift in aside.items()}
    part, vectors = planted(tmp_path, {x: v[:100] for x, v in made.items()}, {x: v[100:] for x, v in made.items()})
    names = np.array(["news", "sport"])[told]
    (tmp_path / "classes").write_text("\n".join(names) + "\n")
    part = dataclasses.replace(part, classes=str(tmp_path / "classes"))
    rows, _ = probe_aligned(part, vectors, Analyze(pivot="eng", neighbours=3, network=True))
    assert min(values(rows, "transfer", "accuracy", "centred").values()) > 0.95
    assert set(values(rows, "transfer", "accuracy", "plain")) == set(aside)
    assert values(rows, "identification", "network_accuracy", "plain")[""] > 0.95
    for text, said in (
        ("news\n" * 10, "10 lines"),
        ("news\n" * 200, "news alone"),
        ("a\n\n" * 100, "classes:2: empty"),
    ):
        (tmp_path / "classes").write_text(text)
        with pytest.raises(UserError, match=said):
            probe_aligned(part, vectors, Analyze(pivot="eng"))


def values(rows, probe, metric, kind):
    return {r["languages"]: r["value"] for r in rows if (r["probe"], r["metric"], r["transformation"], r["pooling"]) == (probe, metric, kind, "mean")}  # fmt: skip


def test_what_is_tested_has_no_part_in_what_is_taken_away(tmp_path):
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(80, 12))
    offsets = {x: 6 * rng.normal(size=12) for x in ("deu", "eng", "fra")}
    moved = {x: 6 * rng.normal(size=12) for x in offsets}
    fit, same, other = (
        {x: meaning[half] + by[x] for x in offsets}
        for half, by in ((slice(40), offsets), (slice(40, None), offsets), (slice(40, None), moved))
    )
    config = Analyze(pivot="eng")
    rows, _ = probe_aligned(*planted(tmp_path, fit, same), config)
    assert set(values(rows, "retrieval", "accuracy", "centred").values()) == {1}
    assert (
        values(rows, "identification", "accuracy", "centred")[""]
        < 0.5
        < values(rows, "identification", "accuracy", "plain")[""]
    )
    # Where the tested sentences lie elsewhere, their own mean would still bring translations together; the others' does not.
    rows, _ = probe_aligned(*planted(tmp_path, fit, other), config)
    for kind in ("centred", "normalised", "projected"):
        assert max(values(rows, "retrieval", "accuracy", kind).values()) < 0.5, kind


def test_retrieval_is_measured_both_ways_by_either_score(tmp_path):
    rng = np.random.default_rng(0)
    fit, test = ({x: rng.normal(size=(30, 3)) for x in ("deu", "eng")} for _ in range(2))
    rows, drawn = probe_aligned(*planted(tmp_path, fit, test), Analyze(pivot="eng", neighbours=3))
    for metric, margin in (("accuracy", 0), ("margin_accuracy", 3)):
        found = values(rows, "retrieval", metric, "plain")
        assert found == {
            f"{x}-{y}": np.mean(nearest(test[x], test[y], margin)[0] == np.arange(30))
            for x, y in (("deu", "eng"), ("eng", "deu"))
        }
    heat = drawn["planted"]["retrieval_plain"]
    assert heat[0][1] == values(rows, "retrieval", "accuracy", "plain")["deu-eng"] and heat[0][0] == 1


def test_words_beyond_the_length_are_said(tmp_path, capsys):
    config = analysis(tmp_path, aligned=(), quality=(), max_length=5)
    assert cli.main(["analyze", write(tmp_path / "toy.py", config)]) == 0
    assert "words: 3 of 6 pairs cut to max_length; words beyond have no links" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("fra.txt", "one\n", "fra.txt: 1 lines; toy needs 15 to fit and 15 to test"),
        ("fra.txt", "a\n\n" + "b\n" * 30, "fra.txt:2: empty"),
        ("fra.txt", "".join(f"{i}\n" for i in range(40)), "they are not aligned"),
    ],
)
def test_bad_sentences_are_one_line(tmp_path, file, text, message, capsys):
    config = analysis(tmp_path)
    (tmp_path / file).write_text(text)
    assert cli.main(["analyze", write(tmp_path / "toy.py", config)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert message in line


def test_identical_sentences_and_long_ones_are_said(tmp_path, capsys):
    config = analysis(tmp_path, word_alignment=(), quality=(), max_length=8)
    (tmp_path / "fra.txt").write_text("".join(f"{i}\n" for i in range(28)) + "so\nso\n")
    assert cli.main(["analyze", write(tmp_path / "toy.py", config)]) == 0
    said = "".join(capsys.readouterr())
    assert "fra.txt: 1 of 15 tested lines occur twice" in said
    assert "eng: 30 of 30 sentences cut to max_length, 8 tokens" in said


def test_tested_sentences_that_were_fitted_on_are_refused(tmp_path, capsys):
    config = analysis(tmp_path, overlap=0.05, word_alignment=())
    whole = (tmp_path / "fra.txt").read_text()
    lines = (tmp_path / "eng.txt").read_text().split("\n")
    (tmp_path / "fra.txt").write_text("\n".join([*sentences("fra", 29), lines[3]]) + "\n")  # not translated
    assert cli.main(["analyze", write(tmp_path / "toy.py", config)]) == 2
    said = capsys.readouterr().err
    assert "toy, tested sentences: 1 of 15 of fra stand in those fitted on too, e.g. " in said
    assert "fra.txt:30 is " in said and "eng.txt:4; more than overlap 0.05 allows" in said
    (tmp_path / "fra.txt").write_text(whole)
    assert cli.main(["analyze", str(tmp_path / "toy.py")]) == 2
    path = tmp_path / "quality.tsv"
    assert f"judged: 9 of 9 stand in {path} too, e.g. {path}:2 is {path}:2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aligned": (), "word_alignment": (), "quality": ()}, "name at least one set"),
        ({"aligned": (Aligned("x", (("en", "a"),)),)}, "x: en; name at least two languages"),
        ({"aligned": (Aligned("x", (("en", "a"), ("de", "b")), fit=1),)}, "x: fit 1, test 500; both need at least 2"),
        ({"aligned": (Aligned("words", (("en", "a"), ("de", "b"))),)}, "words: twice"),
        ({"word_alignment": (), "compare": ("x",)}, "compare: needs word_alignment"),
        ({"neighbours": 0}, "neighbours: 0"),
    ],
)
def test_configs_that_cannot_work(tmp_path, changes, message, capsys):
    assert cli.main(["analyze", write(tmp_path / "toy.py", analysis(tmp_path, **changes))]) == 2
    assert message in capsys.readouterr().err


def test_the_config_stored_is_the_config(tmp_path):
    config = analysis(tmp_path)
    assert as_type(Analyze, json.loads(cfg.config_to_json(config))) == config


def test_the_best_layer_is_of_the_highest_mean():
    rows = [
        {
            "set": "s",
            "probe": "retrieval",
            "metric": "accuracy",
            "transformation": "plain",
            "layer": layer,
            "pooling": "mean",
            "value": value,
        }
        for layer, values in enumerate([(0.1, 0.9), (0.6, 0.6), (0.5, 0.5)])
        for value in values
    ]
    assert best_of(rows, "s", "retrieval", "accuracy", "plain") == {
        "layer": 1,
        "pooling": "mean",
        "value": pytest.approx(0.6),
    }


@pytest.mark.slow
def test_neutrality_through_pretraining(tmp_path, capsys):
    config = make_workdir(tmp_path / "pretrained", {"deu": 40, "eng": 90, "fra": 20}, train={"steps": 12})
    own_workdir(config)
    train(config)
    kept = checkpoint_steps(config.workdir)
    part = analysis(tmp_path, workdir=str(tmp_path / "analysis"), init=config.workdir, checkpoints=True, max_length=16)
    part = dataclasses.replace(part, word_alignment=(), quality=())
    assert cli.main(["analyze", write(tmp_path / "toy.py", part)]) == 0
    rows = json.loads((tmp_path / "analysis/results.json").read_text())
    assert len(kept) > 1 and {r["step"] for r in rows if "step" in r} == set(kept)
    at = {
        r.get("step"): r["value"]
        for r in rows
        if (r["probe"], r["layer"], r["transformation"], r["pooling"]) == ("identification", 2, "plain", "mean")
    }
    assert set(at) == {None, *kept}
    assert "at each kept checkpoint" in (tmp_path / "analysis/neutrality.html").read_text()
    capsys.readouterr()
    other = dataclasses.replace(part, workdir=str(tmp_path / "other"), init=str(make_start(tmp_path / "other")))
    assert cli.main(["analyze", write(tmp_path / "other.py", other)]) == 2
    assert "no checkpoints there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("configs/analyze/*.py")), ids=lambda path: path.stem
)
def test_every_config_is_valid_and_the_families_of_its_languages_known(path):
    config = cfg.load_config(str(path), (Analyze,))
    validate_analysis(config)
    assert not [x for part in config.aligned for x, _ in part.files if family(x) is None]
    assert max(len(part.files) for part in config.aligned) == 56
