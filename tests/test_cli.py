# SPDX-License-Identifier: Apache-2.0
"""The command line: what users type, and the one line they get when it is wrong."""

import json
import os
import subprocess
import sys

import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.options import option_names, parse
from mlm_jax.workdir import own_workdir
from tests.corpora import tiny_config, write_config


@pytest.fixture
def config_file(tmp_path):
    return write_config(tmp_path / "tiny.py", tiny_config(str(tmp_path / "run")))


def run(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.widht", "5"], "--model.widht: no such option; did you mean --model.width?"),
        (["--train.stesp=4"], "--train.stesp=4: no such option; did you mean --train.steps?"),
        (["--objective.no-whole-word"], "did you mean --objective.whole_words?"),
        (["--train.steps", "many"], "invalid literal for int"),
        (["--sampling.strategy", "unimaxx"], "--sampling.strategy"),
        (["--sampling.exponent", "2"], "sampling.exponent: 2.0 is outside 0 to 1"),
        (["--data.sequence-length", "600"], "data.sequence_length: 600 is beyond model.positions 16"),
        (["--model.heads", "5"], "model.heads: 5 does not divide model.width 32; use one of 1, 2, 4, 8, 16, 32"),
    ],
)
def test_bad_options_are_one_line_and_status_2(config_file, options, message, capsys):
    assert run("pretrain", config_file, *options) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("error: ") and message in said.err
    assert not said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian", "x.py"], "pretrian: no such command; did you mean pretrain?"),
        (["pretrain"], "name a config file"),
        (["pretrain", "nothing.py"], "nothing.py: no such config file"),
        (["pretrain", "--train.steps", "3"], "name the config file before any option"),
    ],
)
def test_bad_commands(arguments, message, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_options_reach_the_config(config_file):
    config, _ = parse(
        "pretrain",
        [
            str(config_file),
            "--train.steps",
            "7",
            "--sampling.strategy=temperature",
            "--objective.whole-words",
            "--seed",
            "3",
        ],
    )
    assert (config.train.steps, config.sampling.strategy, config.objective.whole_words, config.seed) == (
        7,
        "temperature",
        True,
        3,
    )
    assert config.model == tiny_config("").model


def test_help_documents_every_option(config_file, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("pretrain", config_file, "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in option_names(cfg.Config):
        assert f"--{name}" in text
    assert run("--help") == 0
    assert "pretrain" in capsys.readouterr().out


def test_a_workdir_with_another_config_is_refused_by_field(config_file, tmp_path, capsys):
    config, _ = parse("pretrain", [str(config_file)])
    own_workdir(config)
    other, _ = parse("pretrain", [str(config_file), "--model.layers", "3", "--train.steps", "9"])
    with pytest.raises(UserError, match=r"holds a run with another config \(model.layers: 2 there, 3 here\)"):
        own_workdir(other)
    longer, _ = parse("pretrain", [str(config_file), "--train.steps", "99"])
    own_workdir(longer)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["steps"] == 99


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_no_write_permission(tmp_path):
    config = write_config(tmp_path / "c.py", tiny_config("/proc/mlm_jax_run"))
    done = subprocess.run(
        [sys.executable, "-m", "mlm_jax", "pretrain", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: /proc/mlm_jax_run/running.json: cannot be written")
    assert done.stderr.count("\n") == 1


def test_flags_may_be_given_a_value(config_file):
    for said, expected in ((["--objective.whole_words", "True"], True), (["--objective.whole_words", "false"], False)):
        config, _ = parse("prepare", [str(config_file), *said, "--train.steps", "7"])
        assert config.objective.whole_words is expected and config.train.steps == 7
