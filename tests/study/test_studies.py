# SPDX-License-Identifier: Apache-2.0
"""The studies of configs/studies: each can run, and makes its figures and sentences of what its runs would leave."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from mlm_jax import config as cfg
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.neutrality.config import Analyze
from mlm_jax.study import languages, laws
from mlm_jax.study.config import ALL, Study, runs_of
from mlm_jax.study.page import drawn, findings_of, study_table, write_study_page
from mlm_jax.study.refuse import validate_study
from mlm_jax.study.table import Progress, Results, measured, row

STUDIES = sorted(Path("configs/studies").glob("*.py"))


def left(measure, run, languages, draw):
    """What a measure would leave of a run: rows of its command's results.json."""
    config, value = measure.config, lambda: float(draw.uniform())
    if isinstance(config, Evaluate):
        return [
            {"task": task.name, "language": pair.languages[0], "every": {"accuracy": value()}}
            for task in config.retrieval
            for pair in task.pairs
        ]
    if not isinstance(config, Analyze):
        return [
            {"language": x.language, "seed": 0, "test": {"accuracy": value(), "entity_f1": value()}}
            for x in config.data.test
        ]
    rows = []
    layers = range(run.config.model.layers + 1)
    for part, layer, kind in itertools.product(config.aligned, layers, config.transformations):
        at = {"set": part.name, "layer": layer, "transformation": kind, "pooling": "mean"}
        of = [("identification", "accuracy", ""), ("identification", "network_accuracy", "")]
        of += [("transfer", "accuracy", x) for x, _ in part.files]
        of += [("retrieval", m, f"{x}-{config.pivot}") for x, _ in part.files[1:] for m in ("accuracy", "mexa")]
        of += [("cka", "cka", f"{x}-{config.pivot}") for x, _ in part.files[1:]]
        rows += [at | {"probe": p, "metric": m, "languages": x, "value": value()} for p, m, x in of]
    for part, layer, kind in itertools.product(config.word_alignment, layers, config.transformations):
        at = {"set": part.name, "layer": layer, "transformation": kind, "pooling": "words", "languages": "en-fr"}
        rows.append(at | {"probe": "alignment, edge_cover", "metric": "f1", "value": value()})
        for other in config.compare:
            plain = at | {"transformation": "plain", "metric": "margin"}
            rows += [plain | {"probe": f"aligned words, {x}", "value": value()} for x in ("before", Path(other).name)]
    every, steps = run.config.train.save_every, run.config.train.steps
    steps_of = range(every, steps + 1, every) if config.checkpoints else ()
    return rows + [r | {"step": step} for r in rows for step in steps_of]


def languages_of(study):
    """The languages of a study's text, which full-size twins have of their own."""
    return study.texts.languages if study.texts else sorted(x.language for x in study.base.data.sources)


def finished(study):
    """How far the runs of a study are, and what was measured, where all are finished with numbers drawn at random."""
    draw, rows, progress = np.random.default_rng(0), [], []
    for run in runs_of(study):
        steps = run.config.train.steps
        sampling = run.config.sampling
        drawn_in = [sampling.languages, *(stage.languages for stage in sampling.stages)]
        languages = sorted({x for part in drawn_in for x in part or languages_of(study)})
        for language in languages:
            for metric in ("bits_per_byte", "loss", "tokens_per_document"):
                rows.append(row(run, steps, language, metric, float(draw.uniform(2, 3))))
        rows.append(row(run, steps, "", "gini", float(draw.uniform())))
        for measure in study.measures:
            rows += measured(run, steps, measure, left(measure, run, languages, draw))
        progress.append(Progress(run, steps, 1.0, {"kind": "validation", "step": steps, "seconds": 1.0}))
    return progress, Results(rows, {**study.groups, ALL: tuple(languages_of(study))})


def test_every_study_has_a_full_size_twin():
    names = {path.stem for path in STUDIES}
    assert {f"full_{name}" for name in names if not name.startswith("full_")} == {
        x for x in names if x.startswith("full_")
    }
    for path in STUDIES:
        if not path.stem.startswith("full_"):
            assert f"full_{path.name}" in path.read_text()


def test_the_study_that_the_documentation_shows_can_run():
    made = {}
    exec(Path("docs/studies.md").read_text().split("```python\n")[1].split("```")[0], made)
    study = dataclasses.replace(made["get_config"](), workdir="none")
    validate_study(study)
    rows = [row(run, 1, "sw", "bits_per_byte", float(run.labels["exponent"]) + run.seed) for run in runs_of(study)]
    (finding,) = study.conclude(Results(rows, {"small": ("sw",)}))
    assert finding.holds and "0.3 against exponent 1: -0.700" in finding.said


@pytest.mark.parametrize(
    "path",
    [pytest.param(x, marks=pytest.mark.slow if x.stem.startswith("full_") else [], id=x.stem) for x in STUDIES],
)
def test_a_study_can_run_and_says_something_of_what_it_measured(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MLM_JAX_DATA", "data")
    # Whether laws are found is tested elsewhere; of random losses they take minutes.
    monkeypatch.setattr(laws, "STARTS", 2)
    monkeypatch.setattr(languages, "STARTS", 2)
    monkeypatch.setattr(languages, "SAMPLES", 5)
    study = cfg.load_config(str(path), (Study,))
    study = dataclasses.replace(study, workdir=str(tmp_path / "study"), seeds=(0, 1))
    validate_study(study)
    (tmp_path / "study").mkdir()
    found = finished(study)
    for curve in study.curves:
        assert drawn(study, found[1], curve), curve
    findings = findings_of(study, found[1])
    assert findings and not [f for f in findings if f.holds is None], [f.said for f in findings if f.holds is None]
    page = write_study_page(study, *found, findings).read_text()
    assert page.count("<svg") >= len(study.curves) + (study.draw is not None)
    table = study_table(study, *found, findings)
    assert all(finding.sentence in table for finding in findings)
    # Of a study that has only begun.
    some = Results(found[1].rows[:3], found[1].groups)
    write_study_page(study, found[0][:1], some, findings_of(study, some))
