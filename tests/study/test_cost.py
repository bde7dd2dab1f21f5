# SPDX-License-Identifier: Apache-2.0
"""What a study's dry run tells: FLOPs and time of what is left, here or on a topology that is not here."""

import importlib.util
import json
import re
from types import SimpleNamespace

import pytest

from mlm_jax import cli
from mlm_jax.config import Phase, with_sections
from mlm_jax.errors import UserError
from mlm_jax.plan import topology
from mlm_jax.study import cost
from mlm_jax.study.config import Study, vary
from tests.corpora import tiny_config

needs_compiler = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (extra plan)")


def study_of(folder, **options):
    """Two sizes of batches, and two learning rates, which change no program."""
    base = tiny_config("", train={"steps": 10, "validate_every": 5})
    factors = (vary("train.batch_size", 8, 24), vary("optimizer.learning_rate", 1e-3, 1e-4))
    return Study(**{"workdir": str(folder), "base": base, "factors": factors, "seeds": (0,)} | options)


@pytest.fixture
def planned(monkeypatch):
    """Steps are planned without a compiler, as a second per block; the configs that were."""
    configs = []

    def plan(config, where, effort):
        configs.append(config)
        return SimpleNamespace(predicted=SimpleNamespace(step=float(config.train.batch_size)))

    monkeypatch.setattr(cost, "plan_step", plan)
    monkeypatch.setattr(topology, "require_compiler", lambda where: None)
    return configs


def test_each_program_is_planned_once_with_batches_that_divide(planned, tmp_path):
    study = study_of(tmp_path, topology="v5e-16")
    costs = cost.cost_of(study)
    assert [(c.mesh.data, c.train.batch_size) for c in planned] == [(16, 16), (16, 32)]
    assert [c.seconds for c in costs] == [160, 160, 320, 320]
    assert [c.flops for c in costs] == [c.flops for c in cost.cost_of(study_of(tmp_path, topology="h100:8"))]
    last, how = cost.described(study, costs).splitlines()[-2:]
    assert last.split()[:2] == ["4", "runs"] and "16 min" in last
    assert how.startswith("time: on v5e-16, one run after the other, by the roofline")


def test_what_a_run_has_done_is_not_counted_and_its_phases_are_planned_apart(planned, tmp_path):
    base = tiny_config(
        "", train={"steps": 10, "batch_size": 8, "validate_every": 5, "phases": (Phase(6, batch_size=16),)}
    )
    study = study_of(tmp_path, base=base, factors=(vary("sampling.exponent", 1.0, 0.3),), topology="h100:1")
    run = tmp_path / "runs/exponent-1--seed-0"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"kind": "validation", "step": 5, "seconds": 1.0}) + "\n")
    assert [c.seconds for c in cost.cost_of(study)] == [1 * 8 + 4 * 16, 6 * 8 + 4 * 16]
    assert len(planned) == 2


def test_what_cannot_be_planned_is_refused_by_name(planned, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"^topology: v3-8; name TPUs by"):
        cost.cost_of(study_of(tmp_path, topology="v3-8"))
    slices = study_of(tmp_path, topology="h100:8", base=with_sections(study_of("").base, mesh={"slices": 2}))
    with pytest.raises(UserError, match=r"^batch_size-8--learning_rate-0\.001--seed-0: mesh\.slices: 2"):
        cost.cost_of(slices)
    memory = SimpleNamespace(total=topology.CHIPS["v5e"].memory + 2**30)
    monkeypatch.setattr(cost, "plan_step", lambda *asked: SimpleNamespace(predicted=None, memory=memory))
    with pytest.raises(UserError, match=r"seed-0: takes 1\.00 GiB more than a chip of v5e:4x4 has"):
        cost.cost_of(study_of(tmp_path, topology="v5e-16"))


FILE = """\
from mlm_jax.study.config import Study, vary
from tests.corpora import tiny_config


def get_config():
    base = tiny_config("", train={"steps": 1_000, "batch_size": 8, "validate_every": 4})
    return Study(base=base, factors=(vary("model.layers", 1, 2),), seeds=(0, 1))
"""


def test_without_the_compiler_a_line_names_the_extra(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.py").write_text(FILE)
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["study", str(tmp_path / "study.py"), "--dry-run", "--topology", "v5e-4"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "[plan]" in said.err and not said.out


@pytest.mark.slow
@needs_compiler
def test_a_pods_dry_run_by_the_real_compiler(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "study.py", "--dry-run", "--topology", "v5e-4"]) == 0
    said = capsys.readouterr().out
    rows = re.findall(r"(layers-\d)--seed-\d +0 of 1,000 +(\S+) +(.*)", said)
    assert [name for name, *_ in rows] == ["layers-1", "layers-1", "layers-2", "layers-2"]
    assert rows[0] == rows[1] and rows[2] == rows[3] and float(rows[2][1]) > float(rows[0][1])
    assert "on v5e-4" in said and "programs" in said and not (tmp_path / "runs").exists()
