# SPDX-License-Identifier: Apache-2.0
"""A workdir is enough to go on with, and its corpus serves other runs."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.actions import command_line
from tests.corpora import logged, make_workdir, tiny_config, write_config

STEPS = ("--train.steps", "12", "--train.save_every", "4", "--train.log_every", "20", "--train.validate_every", "100")


def run(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.mark.slow
def test_a_workdir_goes_on_and_is_reported_without_its_config_file(tmp_path, capsys):
    config = write_config(tmp_path / "tiny.py", make_workdir(tmp_path / "run", {"en": 40, "sw": 9}))
    assert run("pretrain", config, *STEPS, "--train.steps", "4") == 0
    Path(config).unlink()
    assert run("pretrain", tmp_path / "run", "--train.steps", "8") == 0
    assert "continuing at step 4 of 8" in capsys.readouterr().out
    assert logged(tmp_path / "run")[-1]["step"] == 8
    assert run("report", tmp_path / "run") == 0
    assert "index.html" in capsys.readouterr().out
    # Of another command's, and of none.
    assert run("finetune", tmp_path / "run") == 2
    assert "no Finetune that this command can go on with" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("pretrain", tmp_path / "empty") == 2
    assert "no such config file" in capsys.readouterr().err


def test_every_command_reads_the_config_that_it_stored(tmp_path):
    from mlm_jax.commands import WITH_CONFIG
    from mlm_jax.study.config import Study

    kinds = tuple({c.config for c in WITH_CONFIG if c.config and c.report} - {Study})
    for path in set(Path("configs").glob("**/*.py")) - set(Path("configs/studies").iterdir()):  # a study is its file
        config = cfg.load_config(str(path), kinds)
        folder = tmp_path / path.stem
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(cfg.config_to_json(config))
        assert cfg.load_config(str(folder), kinds) == dataclasses.replace(config, workdir=str(folder))


def test_what_is_said_of_how_to_go_on_works_where_it_was_typed(monkeypatch, tmp_path):
    assert command_line("pretrain", ["a b.py"]) == "mlm-jax pretrain 'a b.py'"
    monkeypatch.setenv("PATH", str(tmp_path))
    program = command_line("finetune", []).removesuffix(" finetune ")
    assert os.path.exists(program) or program.endswith(" -m mlm_jax")
    monkeypatch.setenv("MLM_JAX_COMMAND", "bash launch/local.sh")
    assert command_line("pretrain", ["mine.py"]) == "bash launch/local.sh mine.py"
    assert "local.sh" not in command_line("prepare", ["mine.py"])


@pytest.mark.slow
def test_a_corpus_serves_another_run(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    (tmp_path / "text.txt").write_text("\n".join(f"{i} words and {i * 7} others, {i % 13}" for i in range(3_000)))
    made = tiny_config(str(tmp_path / "one"))
    data = dataclasses.replace(made.data, sources=(cfg.Source("xx", str(tmp_path / "text.txt")),), workers=1)
    made = dataclasses.replace(made, data=data, vocabulary=cfg.Vocabulary(size=300))
    config = write_config(tmp_path / "tiny.py", made)
    assert run("prepare", config) == 0
    again = ("--corpus", tmp_path / "one", "--workdir", tmp_path / "two")
    assert run("pretrain", config, *STEPS, "--optimizer.learning_rate", "1e-3", *again) == 0
    assert "using the vocabulary and the blocks of" in capsys.readouterr().out
    shards = list(tmp_path.glob("*/corpus/*/train.tfrecord-*-of-00001"))
    assert len(shards) == 2 and shards[0].samefile(shards[1])  # one file, twice
    assert json.loads((tmp_path / "two" / "corpus" / "manifest.json").read_text())
    # An encoder that is only started from lies on the disk once, a trained one is written.
    assert run("import", tmp_path / "two", tmp_path / "start") == 0
    assert run("import", tmp_path / "start", tmp_path / "again") == 0
    assert (tmp_path / "start" / "initial.safetensors").samefile(tmp_path / "again" / "initial.safetensors")
    described = json.loads((tmp_path / "again" / "initial.json").read_text())
    assert described["source"] == f"{tmp_path}/start at step 0"
    assert run("pretrain", config, *STEPS, "--init", tmp_path / "start", "--corpus", tmp_path / "one",
               "--workdir", tmp_path / "tuned") == 0  # fmt: skip
    # It goes on with and without the option, and where the first is gone.
    assert run("pretrain", config, *STEPS, "--optimizer.learning_rate", "1e-3", "--workdir", tmp_path / "two") == 0
    (tmp_path / "one").rename(tmp_path / "moved")
    assert run("pretrain", config, *STEPS, "--optimizer.learning_rate", "1e-3", *again) == 0
    other = ("--corpus", tmp_path / "moved", "--workdir", tmp_path / "three")
    for option, value in (("--data.packing", "segments"), ("--vocabulary.size", "310")):
        assert run("prepare", config, *other, option, value) == 2
        said = capsys.readouterr().err
        assert f"moved was made by other options ({option.split('.')[1]}: " in said and "leave --corpus out" in said
    assert run("prepare", config, "--corpus", tmp_path / "nothing", "--workdir", tmp_path / "three") == 2
    assert "nothing/corpus/manifest.json: no manifest" in capsys.readouterr().err
