# SPDX-License-Identifier: Apache-2.0
"""Studies: which runs there are, what is refused, what is made of their numbers, and that a killed one ends the same."""

import dataclasses
import itertools
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.actions import report_study
from mlm_jax.errors import Ended, UserError
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality.config import Aligned, Analyze
from mlm_jax.study import run as running
from mlm_jax.study.changes import Line, changes
from mlm_jax.study.config import Curve, Factor, Measure, Study, Value, runs_of, vary
from mlm_jax.study.findings import difference, highest, lower
from mlm_jax.study.page import (
    apart,
    caption,
    cautions,
    drawn,
    findings_of,
    study_table,
    title_of,
    unfinished,
    write_study_page,
)
from mlm_jax.study.refuse import validate_study
from mlm_jax.study.table import FAILED, Results, mean_of, measured, progress_of, read_study, row
from mlm_jax.study.texts import Texts, take
from tests.corpora import tiny_config

EXPONENT = vary("sampling.exponent", 1.0, 0.3)


def study_of(workdir="study", **options):
    """Two exponents and two seeds of a tiny config."""
    base = tiny_config("", train={"steps": 4, "batch_size": 8, "validate_every": 4})
    options = {"factors": (EXPONENT,), "seeds": (0, 1), "base": base, "workdir": str(workdir)} | options
    return Study(**options)


def test_runs_are_the_product_of_factors_and_seeds_and_share_what_they_can():
    study = study_of(factors=(EXPONENT, vary("model.width", 32, 64)))
    runs = runs_of(study)
    assert len(runs) == 2 * 2 * 2 and len({run.name for run in runs}) == 8
    assert {(run.config.sampling.exponent, run.config.model.width, run.config.seed) for run in runs} == {
        (e, w, s) for e in (1.0, 0.3) for w in (32, 64) for s in (0, 1)
    }
    assert len({run.corpus for run in runs}) == 1
    own = dataclasses.replace(EXPONENT, of_vocabulary=True)
    assert len({run.corpus for run in runs_of(study_of(factors=(own,)))}) == 2
    assert len({run.corpus for run in runs_of(study_of(factors=(vary("vocabulary.size", 100, 200),)))}) == 2
    some = study_of(factors=study.factors, choose=lambda labels: labels["width"] == "32" or labels["exponent"] == "1")
    assert len(runs_of(some)) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factors": ()}, "factors: none"),
        ({"factors": (vary("sampling.exponent", 0.3, 0.3),)}, "each with a label of its own"),
        ({"factors": (vary("sampling.exponent", 0.3),)}, "two values or more"),
        ({"factors": (Factor("x", (Value("a", {"seed": 0}), Value("b"))),)}, "a and b give the same config"),
        ({"factors": (EXPONENT, vary("sampling.exponent", 0.5, 0.7, name="other"))}, "exponent and other both set sampling.exponent"),
        ({"factors": (vary("sampling.exponents", 0.3, 0.5),)}, "there is no option sampling.exponents"),
        ({"factors": (vary("sampling.exponent", 0.3, 7.0),)}, "exponent-7--seed-0: sampling.exponent: 7"),
        ({"factors": (EXPONENT, EXPONENT)}, "two of one name"),
        ({"factors": (vary("seed", 4, 5, name="draw"),)}, "factor draw: sets seed to 4, and it is 0 in draw-4--seed-0"),
        ({"factors": (vary("train.steps", 4, 8), Factor("size", (Value("16", {"model.width": 16, "train.steps": 4}), Value("32", {"model.width": 32, "train.steps": 4}))))}, "factor steps: sets train.steps to 8, and it is 4"),
        ({"factors": (vary("train.steps", "8", "9"),)}, "steps-8--seed-0: train.steps: '8' is not a whole number"),
        ({"factors": (vary("optimizer.name", "adamw", "sgd"),)}, "name-sgd--seed-0: optimizer.name: 'sgd' is not 'adamw'"),
        ({"factors": (vary("optimizer", 1, 2),)}, "optimizer: 1 is not an object"),
        ({"factors": (Factor("x", (Value("a"), Value("b", change=lambda c: None))),)}, "factor x: b: its function returns NoneType; have it return the config"),
        ({"factors": (Factor("x", (Value("a"), Value("b", change=lambda c: c.foo))),)}, "factor x: b fails .AttributeError: .*; mend the study's file"),
        ({"factors": (Factor("x", (Value(1, {"train.steps": 2}), Value(2))),)}, "factor x: label 1 is no text"),
        ({"factors": (Factor("x", (Value("", {"train.steps": 2}), Value("b"))),)}, "factor x: label '' is no text"),
        ({"choose": lambda labels: labels["none"]}, "choose fails .KeyError: 'none'.; mend the study's file"),
        ({"curves": (Curve("loss", "exponent", where={"exponent": "1"}),)}, "curves: exponent 1, but the figure is drawn over exponent"),
        ({"factors": (vary("sampling.exponent", 1.0, 0.3, name="language"),)}, "factors: language, which is a column of every table"),
        ({"seeds": 2}, "seeds: 2: give a tuple"),
        ({"seeds": ("a", "b")}, "seeds: a b: give whole numbers"),
        ({"factors": (EXPONENT, vary("model.width", 16, 32)), "curves": (Curve("loss", "width", where={"exponent": "9"}),)}, "curves: exponent 9 is none of 1, 0.3"),
        ({"factors": (vary("corpus", "runs/a", "runs/b"),)}, "factor corpus: runs/a and runs/b give the same config beside the other factors"),
        ({"seeds": ()}, "seeds: "),
        ({"seeds": (1, 1)}, "seeds: 1 1"),
        ({"curves": (Curve("loss", "width"),)}, "width is no factor; the study has exponent"),
        ({"curves": (Curve("loss", "exponent", "width"),)}, "lines width: choose group, language"),
        ({"curves": (Curve("loss", "exponent", "language", groups=("a", "b")),), "groups": {"a": ("de",), "b": ("sw",)}}, "one group is drawn of; name one"),
        ({"choose": lambda labels: False}, "choose: leaves no run"),
        ({"run": "exponent-9"}, "no such run"),
        ({"workdir": "gs://b/x"}, "works on a local disk"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_prepared(options, said):
    with pytest.raises(UserError, match=said) as refused:
        validate_study(study_of(**options))
    assert "\n" not in str(refused.value)


def test_factors_that_change_by_a_function_are_told_apart_too():
    def widen(config):
        return cfg.with_sections(config, model={"width": 64})

    both = (Factor("a", (Value("narrow"), Value("wide", change=widen))), vary("model.width", 16, 48, name="b"))
    with pytest.raises(UserError, match=r"a and b both set model\.width"):
        validate_study(study_of(factors=both))

    def of_four_steps(config):
        return cfg.with_sections(config, train={"steps": 4})

    longer = Factor("a", (Value("4"), Value("8", change=lambda c: cfg.with_sections(c, train={"steps": 8}))))
    undoing = Factor(
        "b", (Value("x", {"model.width": 32}, of_four_steps), Value("y", {"model.width": 64}, of_four_steps))
    )
    with pytest.raises(UserError, match=r"factor a: 4 and 8 give the same config beside the other factors"):
        validate_study(study_of(factors=(longer, undoing)))
    validate_study(
        study_of(factors=(undoing, longer), limit=2)
    )  # to try it out: as long as it is another when it is run


def rows_of(values):
    """Rows of exponent, seed, language and value."""
    runs = {(run.labels["exponent"], run.seed): run for run in runs_of(study_of(seeds=(0, 1, 2)))}
    return [row(runs[e, s], 4, language, "loss", value) for (e, s, language), value in values.items()]


def test_means_and_errors_are_over_seeds_and_differences_in_pairs():
    draw = np.random.default_rng(0)
    values = {(e, s, x): float(draw.normal()) for e in ("1", "0.3") for s in (0, 1, 2) for x in ("de", "sw")}
    results = Results(rows_of(values), {"small": ("sw",), "all": ("de", "sw")})
    of_seed = [np.mean([values["1", s, "de"], values["1", s, "sw"]]) for s in (0, 1, 2)]
    found = results.mean("loss", exponent="1")
    assert found.value == pytest.approx(np.mean(of_seed)) and found.seeds == 3
    assert found.error == pytest.approx(np.std(of_seed, ddof=1) / math.sqrt(3))
    apart = [values["0.3", s, "sw"] - values["1", s, "sw"] for s in (0, 1, 2)]
    found = difference(results, "loss", {"exponent": "0.3"}, {"exponent": "1"}, "small")
    assert found.value == pytest.approx(np.mean(apart))
    assert found.error == pytest.approx(np.std(apart, ddof=1) / math.sqrt(3))
    assert results.mean("loss", "sw", exponent="1").value == pytest.approx(
        np.mean([values["1", s, "sw"] for s in (0, 1, 2)])
    )
    assert mean_of([]) is None and math.isnan(mean_of([1.0]).error)


def test_a_mean_over_a_factor_leaves_out_seeds_of_which_a_run_is_still_to_come():
    runs = {(run.labels["exponent"], run.seed): run for run in runs_of(study_of(seeds=(0, 1, 2)))}
    values = {(e, s, "sw"): 10.0 * (e == "1") + s for e, s in runs if (e, s) != ("0.3", 1)}
    results = Results(rows_of(values), {"all": ("sw",)}, [runs["0.3", 1]])
    assert results.by_seed("loss") == {0: 5.0, 2: 7.0}  # of seed 1 there is one exponent of two
    assert results.by_seed("loss", exponent="1") == {0: 10.0, 1: 11.0, 2: 12.0}
    assert results.by_seed("loss", exponent="0.3") == {0: 0.0, 2: 2.0}
    # A run that is measured but for something else counts.
    assert Results(results.rows, results.groups, [runs["1", 0]]).by_seed("loss") == {0: 5.0, 1: 11.0, 2: 7.0}


def test_of_a_run_that_was_taken_further_the_studys_updates_count(tmp_path):
    (run, other, *_) = runs_of(study_of(tmp_path, seeds=(0,)))
    for of, steps in ((run, (2, 4, 8)), (other, (2, 8))):
        Path(of.config.workdir).mkdir(parents=True)
        lines = [f'{{"kind": "validation", "step": {step}, "seconds": 1.0}}\n' for step in steps]
        Path(of.config.workdir, "metrics.jsonl").write_text("".join(lines))
    found = [progress_of(run), progress_of(other)]
    assert [p.step for p in found] == [4, 8] and all(p.is_finished for p in found)
    assert unfinished(found) == [
        f"1 of 2 runs have more updates than the study says, and were not validated after those: {other.name}"
    ]


@pytest.mark.parametrize("width", [1, 3, 6])
def test_labels_of_an_axis_leave_each_other_room(width):
    draw = np.random.default_rng(width)
    places = {f"{i:0{width}d}": float(x) for i, x in enumerate(draw.uniform(0, 1, 30))}
    shown = sorted((places[x], len(x)) for x in apart(places))
    spread = max(places.values()) - min(places.values())
    assert len(shown) > 2 and shown[-1][0] == max(places.values())
    for (left, one), (right, other) in itertools.pairwise(shown):
        assert right - left > 0.01 * spread * (one + other)
    few = {"1": 0.0, "0.5": 0.5, "10": 1.0}
    assert apart(few) == set(few)


def test_changes_are_differences_in_pairs_of_a_seed_from_the_label_that_is_named():
    values = {(e, s, "sw"): 5.0 + s + gain * (1 + s) for e, gain in (("1", 0.0), ("0.3", 0.1)) for s in (0, 1, 2)}
    results = Results(rows_of(values), {"all": ("sw",)})
    panels = {"loss": {"here": Line("loss"), "nowhere": Line("accuracy")}}
    figure, table = changes(results, "Title", panels, "exponent", "1", scale=10)
    assert table.heads == ["change", "exponent 0.3"] and len(figure.axes) == 1
    cell = table.rows[0][1]
    assert cell.value == pytest.approx(2.0) and cell.note == f"± {np.std([1, 2, 3], ddof=1) / math.sqrt(3):.2f}"
    assert table.rows[1][1].shown == ""
    # Where what is compared with was not measured, nothing is said of the others.
    rows = [r for r in results.rows if r["labels"]["exponent"] != "1"]
    assert changes(Results(rows, results.groups), "Title", panels, "exponent", "1") is None


@pytest.mark.parametrize(
    ("shift", "noise", "holds", "as_good"),
    [(-1.0, 0.01, True, True), (1.0, 0.01, False, False), (-0.01, 1.0, False, True), (0.01, 1.0, False, True)],
)
def test_a_finding_holds_where_its_sign_is_the_papers_beyond_two_errors(shift, noise, holds, as_good):
    draw = np.random.default_rng(0)
    values = {("1", s, "sw"): 5.0 for s in (0, 1, 2)}
    values |= {("0.3", s, "sw"): 5.0 + shift + noise * draw.normal() for s in (0, 1, 2)}
    results = Results(rows_of(values), {"all": ("sw",)})
    found = lower(results, "It helps", "loss", {"exponent": "0.3"}, {"exponent": "1"})
    assert found.holds is holds and ("it holds here" in found.sentence) is holds
    assert lower(results, "No worse", "loss", {"exponent": "0.3"}, {"exponent": "1"}, alike=True).holds is as_good
    alone = Results([r for r in results.rows if r["seed"] == 0], results.groups)
    assert lower(alone, "It helps", "loss", {"exponent": "0.3"}, {"exponent": "1"}).holds is None
    same = Results(rows_of({(e, s, "sw"): float(e) for e in ("1", "0.3") for s in (0, 1, 2)}), {"all": ("sw",)})
    found = lower(same, "It helps", "loss", {"exponent": "0.3"}, {"exponent": "1"})
    assert found.holds and found.said.endswith("-0.700, the same with all 3 seeds")
    assert "not measured yet" in lower(Results([], {}), "It", "loss", {"exponent": "0.3"}, {"exponent": "1"}).sentence


def write_parallel(folder: Path):
    """Two languages of 60 and 40 paragraphs, 40 of them translations."""
    folder.mkdir()
    draw = random.Random(0)
    for language, count in (("aa", 60), ("bb", 40)):
        lines = [
            f"k{i}\t{' '.join(draw.choices(['ab', 'cd', 'ef', 'gh', 'ij', 'kl', 'mn'], k=12))} {language}{i}"
            for i in range(count)
        ]
        (folder / f"{language}.tsv").write_text("\n".join(lines) + "\n")


def test_text_is_taken_alike_of_every_language_and_what_is_held_out_of_none(tmp_path, capsys):
    write_parallel(tmp_path / "text")
    texts = Texts({"small": {"aa": 10, "bb": 5}, "large": {"aa": 20, "bb": 0}}, {"p": (("aa", "bb"), 8)}, held_out=10)
    folder = tmp_path / "taken"
    take(texts, str(tmp_path / "text"), folder)

    def lines(name):
        return (folder / name).read_text().splitlines()

    assert len(lines("small/aa.txt")) == 10 and lines("large/aa.txt")[:10] == lines("small/aa.txt")
    assert len(lines("large/bb.txt")) == 30
    numbers = {x: [line.split()[-1][2:] for line in lines(f"held_out/{x}.txt")] for x in ("aa", "bb")}
    assert numbers["aa"] == numbers["bb"] and len(numbers["aa"]) == 10
    assert not set(lines("held_out/aa.txt")) & set(lines("large/aa.txt"))
    assert all(a.split()[-1][2:] == b.split()[-1][2:] for a, b in (line.split("\t") for line in lines("p/aa-bb.tsv")))
    with pytest.raises(UserError, match="fewer than 31"):
        take(dataclasses.replace(texts, sets={"x": {"bb": 31}}), str(tmp_path / "text"), tmp_path / "other")
    with pytest.raises(UserError, match=r"has no cc\.tsv"):
        take(dataclasses.replace(texts, sets={"x": {"cc": 0}}), str(tmp_path / "text"), tmp_path / "other")
    assert not (tmp_path / "other").exists()

    capsys.readouterr()
    take(texts, str(tmp_path / "text"), folder)  # again, and then without its source
    take(texts, str(tmp_path / "none"), folder)
    assert capsys.readouterr() == ("", "")
    (tmp_path / "another").mkdir()
    take(texts, str(tmp_path / "another"), folder)
    assert f"was taken of {tmp_path}/text, and stays; to take the text of {tmp_path}/another" in capsys.readouterr().err


PROBED = Analyze(aligned=(Aligned("held", (("en", "a"), ("sw", "b")), 2, 2),))


def test_probes_and_fine_tuned_models_are_told_apart_by_labels_and_drawn_over_them():
    """Rows of `analyze` have their layer and transformation as labels, of checkpoints their updates, those of `finetune` the measure's."""
    frozen = [Measure(f"ner-{n}", Finetune(), {"frozen": str(n)}) for n in (0, 2)]
    study = study_of(measures=(Measure("probes", PROBED), *frozen))
    validate_study(study)
    run = runs_of(study)[0]
    of_probe = {"set": "held", "probe": "retrieval", "metric": "accuracy", "pooling": "mean", "languages": "sw-en"}
    probes = [
        of_probe | {"layer": layer, "transformation": kind, "value": layer + bonus}
        for layer in (1, 2)
        for kind, bonus in (("plain", 0.1), ("centred", 0.2))
    ]
    probes += [p | {"step": step, "value": p["value"] / step} for p in probes for step in (2, 4)]
    rows = measured(run, 4, study.measures[0], probes)
    for n, measure in zip((0, 2), frozen, strict=True):
        rows += measured(run, 4, measure, [{"language": "sw", "seed": 0, "test": {"f1": n / 10}}])
    results = Results(rows, {"all": ("en", "sw"), "small": ("sw",)})
    at = {"layer": "2", "transformation": "centred", "pooling": "mean"}
    assert results.mean("held retrieval accuracy", **at).value == 2.2
    assert results.mean("held retrieval accuracy", "small", **at).value == 2.2
    assert results.mean("held retrieval accuracy", **at, checkpoint="2").value == 1.1
    assert results.mean("ner-2 f1", frozen="2").value == 0.2 and results.labels("frozen") == ["0", "2"]
    by_layer = Curve("held retrieval accuracy", "layer", "transformation", where={"pooling": "mean"})
    assert drawn(study, results, by_layer) == {
        "plain": {"1": (1.1, NAN, 1), "2": (2.1, NAN, 1)},
        "centred": {"1": (1.2, NAN, 1), "2": (2.2, NAN, 1)},
    }
    by_checkpoint = Curve(
        "held retrieval accuracy", "checkpoint", "layer", where={"pooling": "mean", "transformation": "plain"}
    )
    assert drawn(study, results, by_checkpoint)["1"] == {"2": (0.55, NAN, 1), "4": (0.275, NAN, 1)}
    validate_study(
        dataclasses.replace(study, curves=(by_layer, by_checkpoint, Curve("ner f1", "frozen", groups=("all",))))
    )


class Nan(float):
    """Equal to any NaN: one seed has no error."""

    def __eq__(self, other):
        return math.isnan(other)

    __hash__ = float.__hash__


NAN = Nan("nan")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measures": (Measure("a", PROBED), Measure("a", PROBED))}, "measures: a, a: two of one name"),
        ({"measures": (Measure("a", PROBED, {"layer": "2"}),)}, "a has a label layer, which rows have already"),
        ({"measures": (Measure("a", PROBED, {"metric": "2"}),)}, "a has a label metric, which rows have already"),
        ({"measures": (Measure("a/b", PROBED),)}, "measures"),
        ({"curves": (Curve("x", "layer"),)}, "layer is no factor"),
        ({"curves": (Curve("loss", "exponent", where={"layer": "2"}),)}, "layer is none of exponent"),
        ({"curves": (Curve("loss", "exponent", groups=("tiny",)),)}, "tiny is none of exponent"),
    ],
)
def test_measures_and_curves_that_cannot_be_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        validate_study(study_of(**options))


def test_what_fails_after_its_results_is_not_taken_as_done(tmp_path, monkeypatch):
    study = study_of(
        tmp_path, seeds=(0,), measures=(Measure("x", Analyze(aligned=(Aligned("a", (("aa", "f"), ("bb", "g"))),))),)
    )
    runs = runs_of(study)
    for run in runs:
        place = Path(run.config.workdir, "measured/x")
        place.mkdir(parents=True)
        place.joinpath("results.json").write_text("[]")
        place.joinpath("config.json").write_text("{}")
        Path(run.config.workdir, "metrics.jsonl").write_text('{"kind": "validation", "step": 4, "seconds": 1.0}\n')
    Path(runs[0].config.workdir, FAILED).write_text("its page\n")
    assert [running.is_done(study, run) for run in runs] == [False, True]
    said = unfinished([progress_of(run) for run in runs])
    assert said == [f"1 of 2 runs are trained, but not all of them was measured: {runs[0].name}"]
    begun = []
    monkeypatch.setattr(running, "run_in_own_process", lambda *arguments: begun.append(arguments))
    for run in runs:
        running.train_or_note(study, run)
    assert begun == [("analyze", "--", f"{runs[0].config.workdir}/measured/x")]
    assert all(running.is_done(study, run) for run in runs)


def test_runs_of_another_config_are_refused_and_a_moved_study_goes_on(tmp_path):
    aligned = Measure("x", Analyze(aligned=(Aligned("a", (("aa", "f"), ("bb", "g"))),)))
    study = study_of(tmp_path / "here", seeds=(0,), measures=(aligned,))
    (run, *_), saved = runs_of(study), Path("checkpoints", "4")
    running.store(running.of_run(study, run))
    running.store(running.of_measure(study, run, aligned))

    def warmer(study):
        optimizer = dataclasses.replace(study.base.optimizer, learning_rate=0.5)
        return dataclasses.replace(study, base=dataclasses.replace(study.base, optimizer=optimizer))

    def longer(study):
        return dataclasses.replace(study, base=cfg.with_sections(study.base, train={"steps": 8}))

    running.refuse_changed(warmer(study))  # nothing is saved yet
    running.store(running.of_run(warmer(study), run))  # so that the run may be mended
    stored = Path(run.config.workdir, "config.json")
    assert '"learning_rate": 0.001' in stored.read_text()
    running.store(running.of_run(warmer(study), runs_of(warmer(study))[0]))
    assert '"learning_rate": 0.5' in stored.read_text()
    running.store(running.of_run(study, run))
    Path(run.config.workdir, saved).mkdir(parents=True)
    running.refuse_changed(study)
    for changed, option in (
        (warmer, "optimizer.learning_rate: 0.001 there, 0.5 here"),
        (longer, "train.steps: 4 there, 8 here"),
    ):
        with pytest.raises(UserError, match=re.escape(option)) as refused:
            running.refuse_changed(changed(study))
        assert f"{run.config.workdir}: holds a run" in str(refused.value) and "remove that folder" in str(refused.value)
        running.refuse_changed(dataclasses.replace(changed(study), run="1"))  # another run, which has saved nothing
    # Fewer updates, to try the study out, are in a folder of their own.
    running.refuse_changed(dataclasses.replace(study, limit=2))
    assert runs_of(dataclasses.replace(study, limit=2))[0].config.workdir == f"{tmp_path}/here/limit_2/runs/{run.name}"

    (tmp_path / "here").rename(tmp_path / "there")
    moved = dataclasses.replace(study, workdir=str(tmp_path / "there"))
    running.refuse_changed(moved)
    place = Path(runs_of(moved)[0].config.workdir)
    (place / "measured/x/results.json").write_text("[]")
    running.refuse_changed(moved)
    other = dataclasses.replace(aligned, config=dataclasses.replace(aligned.config, max_length=64))
    with pytest.raises(UserError, match=r"measured/x: holds a run with another config \(max_length: "):
        running.refuse_changed(dataclasses.replace(moved, measures=(other,)))


def test_the_time_that_is_left_is_by_updates_and_not_by_runs(tmp_path, monkeypatch, capsys):
    """Of one run with 100 updates and one with 900 the first says that nine times what it took is left."""
    longer = Value("900", {"train.steps": 900, "train.validate_every": 900})
    shorter = Value("100", {"train.steps": 100, "train.validate_every": 100})
    study = study_of(tmp_path, seeds=(0,), factors=(Factor("updates", (shorter, longer)),))
    runs, now = runs_of(study), iter([0.0])

    def start_alone(study, run, number, share, arguments):
        folder = Path(run.config.workdir)
        folder.mkdir(parents=True)
        if number == 0:
            (folder / "metrics.jsonl").write_text('{"kind": "validation", "step": 100, "seconds": 1.0}\n')
        return subprocess.Popen(["true"])

    monkeypatch.setattr(running, "start_alone", start_alone)
    monkeypatch.setattr(running.time, "monotonic", lambda: next(now, 60.0))
    running.train_several(study, runs, [])
    assert f"run 1 of 2: {runs[0].name}: done, about 9 min 0 s left" in capsys.readouterr().out


def test_figures_of_one_metric_are_told_apart_by_their_titles():
    assert title_of(Curve("bits_per_byte", "exponent")) == "bits per byte by exponent"
    assert title_of(Curve("bits_per_byte", "exponent", "language")) == "bits per byte by exponent and language"


def test_what_a_file_defines_and_fails_is_one_line(tmp_path):
    def fails(results):
        raise KeyError("sw")

    results = Results(rows_of({("1", 0, "sw"): 1.0}), {"all": ("sw",)})
    said = "{} fails .KeyError: 'sw'.; mend the study's file"
    with pytest.raises(UserError, match=said.format("conclude")):
        findings_of(study_of(tmp_path, conclude=fails), results)
    with pytest.raises(UserError, match=said.format("draw")):
        write_study_page(study_of(tmp_path, draw=fails), [], results, [])


def test_what_a_study_names_and_nothing_has_is_said(tmp_path):
    results = Results(rows_of({(e, s, "sw"): float(e) for e in ("1", "0.3") for s in (0, 1)}), {"all": ("sw",)})
    study = study_of(tmp_path, curves=(Curve("los", "exponent"),), groups={"small": ("sw", "xx")})
    said = [
        "no run has measured los, which a figure is of; did you mean loss?",
        "no run has measured xx, which group small has",
    ]
    assert [f"caution: {x}" for x in said] == study_table(study, [], results, []).split("\n\n")
    assert cautions(study, [], results) == said
    (tried, *rest) = cautions(dataclasses.replace(study, limit=20), [], results)
    assert tried == "tried out with 20 updates per run (--limit), which tell nothing of languages" and rest == said
    assert all(x in write_study_page(study, [], results, []).read_text() for x in said)
    of, than = {"exponent": "0.3"}, {"exponent": "1.0"}
    assert "not measured yet; of exponent there is 1, 0.3" in lower(results, "It", "loss", of, than).said
    assert "of exponnt there is nothing" in lower(results, "It", "loss", {"exponnt": "1"}, than).said
    with pytest.raises(
        UserError, match=r"conclude fails \(TypeError: it returns something else than a list of Finding"
    ):
        findings_of(study_of(tmp_path, conclude=lambda results: "it holds"), results)


def test_a_caption_says_of_which_languages_the_means_are():
    study, found = study_of(), {"0": {"1": (2.0, 0.1, 3)}}
    for groups, of in (((), "all languages"), (("small",), "small")):
        curve = Curve("bits_per_byte", "exponent", "causal", "Bits per byte", groups=groups)
        assert caption(study, curve, found).startswith(f"bits per byte of {of} by exponent: means over 3 seeds.")
    assert title_of(Curve("bits_per_byte", "exponent", "language", "Lost")) == "Lost"


def test_one_of_several_is_the_best_where_it_is_beyond_two_errors_of_the_next():
    rows = rows_of({(e, s, "sw"): v + 0.01 * s for e, v in (("1", 0.5), ("0.3", 0.7)) for s in (0, 1, 2)})
    found = highest(Results(rows, {"all": ("sw",)}), "One is best", "loss", "exponent", ("1", "0.3"), {})
    assert found.holds and found.said.startswith("0.3 (0.710), then 1 (0.510), +0.200")
    assert highest(Results(rows[:1], {"all": ("sw",)}), "One", "loss", "exponent", ("1", "0.3"), {}).holds is None


@pytest.fixture
def trained_here(monkeypatch):
    """Commands of a study run in this process; the names of those that were begun."""
    begun = []

    def here(*arguments):
        begun.append(arguments[0])
        status = cli.main([x for x in arguments if x != "--"])
        if status:
            raise Ended(status)

    monkeypatch.setattr(running, "run_in_own_process", here)
    return begun


def write_text(folder: Path):
    """Two languages of 300 and 120 lines."""
    folder.mkdir()
    draw = random.Random(0)
    for language, words, count in (
        ("nb", ["jeg", "du", "han", "hun", "vi", "er", "har", "kan"], 300),
        ("sw", ["mimi", "wewe", "sisi", "ninyi", "wao"], 120),
    ):
        lines = [" ".join(draw.choices(words, k=12)) for _ in range(count)]
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n")


def on_text(folder: Path, workdir: str) -> Study:
    base = tiny_config(
        "",
        data={"sources": (cfg.Source("*", f"{folder}/{{language}}.txt"),), "sequence_length": 16, "workers": 1},
        vocabulary={"size": 280},
        train={"steps": 4, "batch_size": 8, "log_every": 2, "validate_every": 4, "save_every": 2},
    )
    study = study_of(workdir, base=base, curves=(Curve("bits_per_byte", "exponent", "language"),))

    def conclude(results):
        return [lower(results, "It helps", "bits_per_byte", {"exponent": "0.3"}, {"exponent": "1"}, "sw")]

    return dataclasses.replace(study, conclude=conclude)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_a_study_that_goes_on_ends_with_the_same_table(
    tmp_path, trained_here, monkeypatch, capsys
):
    write_text(tmp_path / "text")
    monkeypatch.chdir(tmp_path)
    whole, broken = on_text(tmp_path / "text", "whole"), on_text(tmp_path / "text", "broken")
    assert running.run_study(whole) == []
    assert trained_here == ["prepare", *["pretrain"] * 4]
    report_study(whole)
    table = Path("whole/results.csv").read_bytes()
    # Four runs: of each language four metrics of the validation and two of how its text is cut, and their Gini coefficient.
    assert len(table.splitlines()) == 1 + 4 * (2 * (4 + 2) + 1)

    # One fails, the next is stopped.
    here = running.run_in_own_process

    def failing(*arguments):
        if "exponent-1--seed-1" in arguments[2]:
            raise Ended(2)
        if "exponent-0.3--seed-0" in arguments[2]:
            raise Ended(143)
        here(*arguments)

    monkeypatch.setattr(running, "run_in_own_process", failing)
    with pytest.raises(Ended):
        running.run_study(broken)
    capsys.readouterr()
    report_study(broken)
    page = Path("broken/report/index.html").read_text()
    assert "1 of 4 runs failed" in page and "exponent-1--seed-1" in page and "2 of 4 runs are not finished" in page
    said = capsys.readouterr().out
    assert "too few runs to say" in said or "not measured yet" in said
    monkeypatch.setattr(running, "run_in_own_process", here)
    assert running.run_study(broken) == []
    report_study(broken)
    assert Path("broken/results.csv").read_bytes() == table
    assert "runs failed" not in Path("broken/report/index.html").read_text()
    trained_here.clear()
    assert running.run_study(broken) == [] and trained_here == []
    # One run alone, as an array of jobs trains it.
    alone = dataclasses.replace(on_text(tmp_path / "text", "alone"), run="3")
    running.run_study(alone)
    assert [path.name for path in Path("alone/runs").iterdir()] == ["exponent-0.3--seed-1"]
    assert {r["run"] for r in read_study(alone)[1].rows} == {"exponent-0.3--seed-1"}


@pytest.mark.slow
def test_a_run_that_another_machine_trained_is_the_studys_own(tmp_path, trained_here, monkeypatch):
    """As a pod trains it: of what the study made there is only the run's own folder, at another place."""
    write_text(tmp_path / "text")
    monkeypatch.chdir(tmp_path)
    here, away = (dataclasses.replace(on_text(tmp_path / "text", x), seeds=(0,)) for x in ("here", "away"))
    running.run_study(here)
    report_study(here)
    trained_here.clear()
    running.run_study(dataclasses.replace(away, only="prepare", run="exponent-1--seed-0"))
    assert trained_here == ["prepare", "prepare"]  # the corpus, and the run of it
    ours = Path("away/runs/exponent-1--seed-0")
    assert (ours / "corpus/manifest.json").exists() and not (ours / "checkpoints").exists()
    shutil.copytree(ours, "bucket")
    Path("away").rename("hidden")
    Path("pod/exponent-1--seed-0").mkdir(parents=True)
    shutil.copy("bucket/config.json", "pod/exponent-1--seed-0")
    assert cli.main(["pretrain", "pod/exponent-1--seed-0", "--workdir", "bucket"]) == 0
    Path("hidden").rename("away")
    shutil.rmtree(ours)
    shutil.copytree("bucket", ours)
    trained_here.clear()
    assert running.run_study(away) == []
    assert trained_here == ["pretrain"]
    report_study(away)
    assert Path("away/results.csv").read_bytes() == Path("here/results.csv").read_bytes()


ALONE_AND_TOGETHER = """\
from pathlib import Path
from tests.study.test_study import on_text

def get_config():
    return on_text(Path({text!r}), "")
"""


@pytest.mark.slow
def test_runs_two_at_a_time_give_the_same_table_and_a_stopped_study_goes_on(tmp_path):
    write_text(tmp_path / "text")
    config = tmp_path / "study.py"
    config.write_text(ALONE_AND_TOGETHER.format(text=str(tmp_path / "text")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}

    def start(workdir, *options):
        command = [
            sys.executable,
            "-m",
            "mlm_jax",
            "study",
            str(config),
            "--workdir",
            str(tmp_path / workdir),
            *options,
        ]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    with start("alone") as alone:
        assert alone.communicate()[0] and alone.returncode == 0
    with start("several", "--jobs", "2") as several:
        for line in several.stdout:
            if line.startswith("run 1 of 4") and "done" in line:
                several.send_signal(signal.SIGTERM)
        assert several.wait() == 128 + signal.SIGTERM
    with start("several", "--jobs", "2") as again:
        said = again.communicate()[0]
    assert again.returncode == 0 and re.search("[12] of 4 runs are done; 2 at a time", said), said
    assert (tmp_path / "several/results.csv").read_bytes() == (tmp_path / "alone/results.csv").read_bytes()
    assert "4 of 4 steps" in (tmp_path / "several/runs/exponent-1--seed-0.txt").read_text()
