# SPDX-License-Identifier: Apache-2.0
"""What a message advises works as printed, through the command line."""

import dataclasses
import json
import re
import shlex

import pytest

from mlm_jax import cli
from mlm_jax import config as cfg
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Train
from tests.corpora import logged, make_workdir, tiny_config, write_config
from tests.finetune.toys import make_config as make_toy
from tests.finetune.toys import write_config as write_toy
from tests.prepare.test_run import make_config, write_text

STEPS = ("--train.steps", "12", "--train.save_every", "4", "--train.log_every", "20", "--train.validate_every", "100")


def run(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [1.0, 0.0])
def test_after_a_loss_that_is_not_finite_what_is_advised_goes_on(tmp_path, capsys, clip_norm):
    config = write_config(tmp_path / "tiny.py", make_workdir(tmp_path / "run", {"en": 40, "sw": 9}))
    clip = ("--optimizer.clip_norm", clip_norm)
    assert run("pretrain", config, *STEPS, *clip, "--train.steps", "4") == 0
    assert run("pretrain", config, *STEPS, *clip, "--optimizer.learning_rate", "1e30") == 2
    said = capsys.readouterr().err
    assert (
        "the last good checkpoint is of step 4; lower optimizer.learning_rate or set optimizer.clip_norm, and run"
        in said
    )
    # What it says, as it says it.
    lower = ("--optimizer.learning_rate", "1e-4", "--optimizer.clip_norm", "0.5")
    assert run("pretrain", config, *STEPS, *lower) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "learning_rate" in line]
    assert "optimizer.learning_rate: 1e+30 there, 0.0001 here" in warning
    assert clip_norm == 0.5 or f"optimizer.clip_norm: {clip_norm} there, 0.5 here" in warning
    lines = [line for line in logged(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [4, 12] and lines[-1]["learning_rate"] <= 1e-4
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optimizer"]["learning_rate"] == 1e-4


@pytest.mark.slow
def test_clipping_may_be_left_out_from_a_checkpoint_on(tmp_path):
    config = write_config(tmp_path / "tiny.py", make_workdir(tmp_path / "run", {"en": 40, "sw": 9}))
    assert run("pretrain", config, *STEPS, "--train.steps", "4") == 0
    assert run("pretrain", config, *STEPS, "--optimizer.clip_norm", "0") == 0


@pytest.mark.slow
def test_the_command_that_a_refusal_prints_goes_on_from_this_encoder(tmp_path, capfd):
    (tmp_path / "text.txt").write_text("\n".join(f"{i} words and {i * 7} others, {i % 13}" for i in range(3_000)))
    made = tiny_config(str(tmp_path / "a run"))
    data = dataclasses.replace(made.data, sources=(cfg.Source("xx", str(tmp_path / "text.txt")),))
    made = dataclasses.replace(made, data=data, vocabulary=cfg.Vocabulary(size=300))
    config = write_config(tmp_path / "tiny.py", made)
    assert run("pretrain", config, *STEPS) == 0
    assert run("pretrain", config, *STEPS, "--seed", "5") == 2
    said = capfd.readouterr().err
    (command,) = re.findall(r"to begin another from its encoder: mlm-jax (.*)\n", said)
    assert run(*shlex.split(command)) == 0
    assert f"starting from {tmp_path}/a run at step 12" in capfd.readouterr().out
    assert logged(tmp_path / "a run_2")[-1]["step"] == 12


@pytest.mark.slow
def test_fine_tuning_is_clipped_from_a_checkpoint_on(tmp_path, capsys):
    optimizer = dataclasses.replace(FINETUNE_OPTIMIZER, learning_rate=3e-3, layer_decay=0.9, clip_norm=0.0)
    config = make_toy(tmp_path, "classify", optimizer=optimizer, train=Train(epochs=2, batch_size=16))
    path = write_toy(tmp_path / "toy.py", config)
    assert run("finetune", path, "--train.max_seconds", "1e-9") == 0
    assert "stopped by max_seconds, saved; to continue: mlm-jax finetune" in capsys.readouterr().out
    assert run("finetune", path, "--optimizer.clip_norm", "0.5", "--optimizer.learning_rate", "1e-3") == 0
    said = capsys.readouterr()
    assert "continuing at update" in said.out and "optimizer.clip_norm: 0.0 there, 0.5 here" in said.err


@pytest.mark.slow
def test_a_limit_of_epochs_is_raised_as_advised(tmp_path, capsys):
    config = write_config(tmp_path / "tiny.py", make_workdir(tmp_path / "run", {"en": 40, "sw": 9}))
    assert run("pretrain", config, *STEPS, "--train.steps", "4") == 0
    assert (
        "optimizer.warmup_steps: 5 of 4 updates would all warm up; set optimizer.warmup_share"
        in capsys.readouterr().err
    )
    assert run("pretrain", config, *STEPS, "--sampling.max_epochs", "2") == 2
    assert "more than sampling.max_epochs 2; train fewer steps, raise the limit" in capsys.readouterr().err
    assert run("pretrain", config, *STEPS, "--sampling.max_epochs", "9", "--train.steps", "5") == 0


@pytest.mark.parametrize("advised", ["lower data.sequence_length", "drop it"])
def test_a_language_of_too_little_text_is_mended_as_advised(tmp_path, capsys, advised):
    pytest.importorskip("tensorflow")
    write_text(tmp_path / "text", {"de": 300})
    (tmp_path / "text" / "xx.txt").write_text("river\nstone\nlight tree\n")
    made = make_config(tmp_path, validation_fraction=0.0)
    config = write_config(tmp_path / "text.py", made)
    assert run("prepare", config) == 2
    said = capsys.readouterr().err
    assert "language xx: 3 training documents hold" in said and advised in said
    if advised == "drop it":
        sources = (cfg.Source("de", f"{tmp_path}/text/de.txt"),)
        config = write_config(config, dataclasses.replace(made, data=dataclasses.replace(made.data, sources=sources)))
        assert run("prepare", config) == 0
    else:
        assert run("prepare", config, "--data.sequence_length", "8") == 0
    # What the vocabulary was made by is fixed with it, and from now on what the corpus was made by.
    assert run("prepare", config, "--data.sequence_length", "16", "--vocabulary.size", "340") == 2
    said = capsys.readouterr().err
    assert "vocabulary.size: 330 there, 340 here" in said and "data.sequence_length" in said
