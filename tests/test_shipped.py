# SPDX-License-Identifier: Apache-2.0
"""The configs that come with mlm_jax: by name, from any folder, and as copies to change."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from mlm_jax import cli, shipped
from mlm_jax.commands import COMMANDS, find_command
from mlm_jax.errors import UserError
from mlm_jax.options import parse, read_config
from mlm_jax.study.config import Study, runs_of


def folder_of(name):
    command = shipped.command_of(name)
    assert command in {known.name for known in COMMANDS}
    return command


def comparable(config):
    """A config; of a study its runs, as functions that a file defines are others each time it is read."""
    return config.workdir, runs_of(config) if isinstance(config, Study) else config


@pytest.mark.parametrize("name", shipped.configs())
def test_each_is_found_by_its_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = find_command(folder_of(name))
    config = read_config(command, name)
    for other in (name.rpartition("/")[2], str(shipped.configs()[name]), f"configs/{name}.py"):
        assert comparable(read_config(command, other)) == comparable(config)
    assert config.workdir == f"runs/{name.rpartition('/')[2]}"
    assert shipped.summary(shipped.configs()[name]).endswith((".", ":"))


def test_the_list_has_a_line_for_each(capsys):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, path in shipped.configs().items():
        assert any(line.split() == [name.rpartition("/")[2], *shipped.summary(path).split()] for line in lines)
    assert lines[0] == "mlm-jax pretrain NAME" and "mlm-jax finetune NAME" in lines


@pytest.mark.parametrize("name", ["own_text", "mmbert_small", "xlm_15_mlm_tlm", "finetune/own_tags"])
def test_a_copy_says_the_same_wherever_it_lies(name, tmp_path, monkeypatch, capsys):
    """Also of a config that builds on another, which is not copied with it."""
    monkeypatch.chdir(tmp_path)
    stem, command = name.rpartition("/")[2], find_command(folder_of(name))
    assert cli.main(["configs", "copy", stem]) == 0
    assert cli.main(["configs", "copy", name, "mine.py"]) == 0
    assert capsys.readouterr().out == f"{stem}.py: a copy of {stem}\nmine.py: a copy of {name}\n"
    assert " mine.py" in Path("mine.py").read_text()  # the command in its docstring
    assert read_config(command, f"{stem}.py") == read_config(command, name)


def test_what_is_there_by_a_name_comes_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()  # an empty folder is no workdir
    assert parse("pretrain", ["quickstart"]).vocabulary.size == 8_000
    Path("own_text.py").write_text(
        "from mlm_jax.config import Config\n\n\ndef get_config():\n    return Config(seed=17)\n"
    )
    assert read_config(find_command("pretrain"), "own_text.py").seed == 17


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs", "copy", "own_texts"], "own_texts: no config of that name; did you mean own_text?"),
        (["configs", "copy", "own_text", "text"], "text: not a .py file"),
        (["configs", "copy", "own_text", "there.py"], "there.py: is there already; name another file"),
        (["configs", "copy", "own_text", "no/such/folder.py"], "no/such/folder.py: cannot be written (No such file"),
        (["configs", "copies", "own_text"], "copies: not what configs does; mlm-jax configs copy NAME [FILE]"),
        (["configs", "copy"], "cannot be read; mlm-jax configs [copy NAME [FILE]]"),
        (
            ["pretrain", "quickstarts"],
            "quickstarts: no such config file and no config of that name; did you mean quickstart?",
        ),
        (["pretrain", "small_ner"], "it is for mlm-jax finetune"),
    ],
)
def test_what_is_not_there_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.py").write_text("")
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert os.listdir() == ["there.py"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_the_example_on_a_commands_page_can_be_typed(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main([command.name, "--help"])
    page = capsys.readouterr().out
    assert command.example in page and command.formats.split()[0] in page
    program, name, *arguments = shlex.split(command.example)
    assert (program, name) == ("mlm-jax", command.name)
    if command.name == "report":  # of a workdir
        with pytest.raises(UserError, match="no such config file"):
            parse(name, arguments)
    else:
        parse(name, arguments)
