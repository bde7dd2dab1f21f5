# SPDX-License-Identifier: Apache-2.0
"""The command line: what users type, and the one line they get when it is wrong."""

import dataclasses
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from etils import epath

from mlm_jax import cli, lock
from mlm_jax import config as cfg
from mlm_jax.commands import COMMANDS, find_command
from mlm_jax.errors import Ended, UserError
from mlm_jax.finetune.config import Finetune
from mlm_jax.options import option_names, parse, read_arguments
from mlm_jax.options_page import options_page
from mlm_jax.pretrained import Pretrained
from mlm_jax.start import needing_memory, run_in_own_process
from mlm_jax.train.initial import write_initial
from mlm_jax.vocabulary import Vocabulary
from mlm_jax.workdir import has_saved, own_workdir, warn_of_newer
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
        (["--model.heads", "0"], "model.heads: 0 is less than 1"),
        (["--seed", "-1"], "seed: -1 is less than 0"),
        (["--optimizer.b2", "2"], "optimizer.b2: 2.0 is outside 0 to 1"),
        (["--optimizer.warmup_steps", "-5"], "optimizer.warmup_steps: -5 is less than 0"),
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
        (["pretrain", "-c.py"], "a path that begins with a dash stands after --"),
        (["pretrain", "--", "-c.py"], "-c.py: no such config file"),
        (["export", "--run", "out"], "paths that begin so stand after --"),
        (["export", "--", "--run", "out"], "--run: no such folder"),
        (["export", "-run", "out"], "-run: no such folder"),
        (["import", "--step", "3", "--", "-hf", "--new"], "-hf: no such folder"),
        (["predict", "run", "in", "out", "--model", "--language", "de"], "--model: needs a value"),
        (["predict", "run", "in", "--model=", "out"], "--model: needs a value"),
    ],
)
def test_bad_commands(arguments, message, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_options_reach_the_config(config_file):
    config = parse(
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


@pytest.mark.parametrize("value", ["-run", "-1", "-", "-r/-s", "-é b"])
@pytest.mark.parametrize("option", ["workdir", "init", "corpus"])
def test_a_value_may_begin_with_a_dash(config_file, option, value):
    for given in ([f"--{option}", value], [f"--{option}={value}"], ["--train.steps", "7", f"--{option}", value]):
        config = parse("pretrain", [str(config_file), *given, "--seed", "3"])
        assert getattr(config, option) == value and config.seed == 3


def test_a_value_that_begins_with_two_dashes_is_told_from_an_option(config_file):
    with pytest.raises(UserError, match=r"--run: no such option; .*where it is a value, write --workdir=--run"):
        parse("pretrain", [str(config_file), "--workdir", "--run"])
    assert parse("pretrain", [str(config_file), "--workdir=--run"]).workdir == "--run"
    with pytest.raises(UserError, match="Missing value for argument"):
        parse("pretrain", [str(config_file), "--workdir", "--train.steps", "3"])
    given = read_arguments(find_command("predict"), ["--model", "-x", "-w", "--", "--in", "-"])
    assert (given["--model"], given["WORKDIR"], given["FILE"], given["OUT"]) == ("-x", "-w", "--in", "-")


def test_help_documents_every_option(config_file, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("pretrain", config_file, "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in option_names(cfg.Config):
        assert f"--{name}" in text
    assert run("--help") == 0
    assert "pretrain" in capsys.readouterr().out


def test_help_comes_without_jax_or_tensorflow():
    for arguments in (["--help"], ["pretrain", "--help"], ["predict", "--help"], ["pretrain", "none.py"]):
        program = (
            "import sys; from mlm_jax.cli import main; main(sys.argv[1:]); "
            "print([m for m in ('jax', 'flax', 'tensorflow', 'orbax', 'grain') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_each_command_has_a_page_of_its_own(command, capsys):
    assert run(command.name, "--help") == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: mlm-jax {command.name} ") and command.run.__doc__.splitlines()[0] in page
    assert all(other.usage not in page for other in COMMANDS if other is not command)
    assert run("--help") == 0
    assert command.name in capsys.readouterr().out


def test_the_page_of_options_is_what_the_program_prints():
    page = (Path(__file__).parents[1] / "docs" / "options.md").read_text()
    assert page == options_page(), "python -m mlm_jax.options_page > docs/options.md"
    for command in COMMANDS:
        for name in option_names(command.config) if command.config else command.options:
            assert f"`{name}`" in page or f"{name} " in page
    assert "| `optimizer.learning_rate` | `float` | `0.0007` | above 0 | from then on |" in page


def test_an_annotated_option_is_on_the_command_line_and_one_for_config_files_is_not():
    names = option_names(cfg.Config)
    assert "train.steps" in names and "mesh.data" in names and "sampling.exponent" in names
    assert "data.sources" not in names and "objective.mask_rate_schedule" not in names


def test_a_workdir_with_another_config_is_refused_by_field(config_file, tmp_path, capsys):
    config = parse("pretrain", [str(config_file)])
    own_workdir(config)
    (tmp_path / "run" / "corpus").mkdir()
    (tmp_path / "run" / "corpus" / "manifest.json").write_text("{}")
    # Before anything is saved only what the corpus was made by counts: a batch that is too large may be mended.
    other = parse("pretrain", [str(config_file), "--model.layers", "3", "--data.sequence_length", "8"])
    with pytest.raises(UserError, match=r"another config \(data.sequence_length: 16 there, 8 here\)"):
        own_workdir(other)
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    other = parse("pretrain", [str(config_file), "--model.layers", "3", "--train.steps", "9"])
    with pytest.raises(UserError, match=r"holds a run with another config \(model.layers: 2 there, 3 here\)"):
        own_workdir(other)
    longer = parse("pretrain", [str(config_file), "--train.steps", "99"])
    own_workdir(longer)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["steps"] == 99


def test_a_refused_workdir_says_the_command_that_goes_on(config_file, tmp_path, capsys, monkeypatch):
    config = parse("pretrain", [str(config_file)])
    own_workdir(config)
    (tmp_path / "run" / "corpus").mkdir()
    (tmp_path / "run" / "corpus" / "manifest.json").write_text("{}")
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "run_2").mkdir()
    assert run("pretrain", config_file, "--optimizer.b1", "0.8", "--seed", "3") == 2
    said = capsys.readouterr().err
    assert "(optimizer.b1: 0.9 there, 0.8 here; seed: 0 there, 3 here)" in said
    (command,) = re.findall(r"to begin another from its encoder: mlm-jax (.*)\n", said)
    arguments = shlex.split(command)
    new = ["--init", f"{tmp_path}/run", "--workdir", f"{tmp_path}/run_3"]
    assert arguments == ["pretrain", str(config_file), "--optimizer.b1", "0.8", "--seed", "3", *new]
    again = parse(arguments[0], arguments[1:])
    own_workdir(again)  # as printed
    # Another encoder is not to be had from this one's.
    assert run("pretrain", config_file, "--model.layers", "3") == 2
    said = capsys.readouterr().err
    assert "model.layers: 2 there, 3 here" in said and "--init" not in said and "to begin another: mlm-jax" in said


@pytest.mark.parametrize(
    ("made", "counts"),
    [
        ("models/en-seed0/metrics.jsonl", False),
        ("models/en-seed0/checkpoints/12/state", True),
        ("models/en-seed0/results.json", True),
        ("xnli/models/en-seed0/results.json", True),
        ("done/tatoeba.json", True),
        ("labelled/x.jsonl", False),
    ],
)
def test_what_a_workdir_holds_that_depends_on_its_options(tmp_path, made, counts):
    path = tmp_path / "a[1] run" / made
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert has_saved(epath.Path(tmp_path / "a[1] run")) is counts


def test_a_workdir_of_another_command_is_refused_from_the_first(config_file, tmp_path):
    own_workdir(parse("pretrain", [str(config_file)]))
    with pytest.raises(UserError, match="holds a run with another config"):
        own_workdir(Finetune(workdir=str(tmp_path / "run")))


def test_a_config_that_was_refused_may_be_mended_in_its_workdir(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a b c\nd e f\n" * 50)
    config = tiny_config(str(tmp_path / "run"))
    data = dataclasses.replace(config.data, sources=(cfg.Source("xx", str(tmp_path / "text.txt")),))
    config = dataclasses.replace(config, data=data, vocabulary=cfg.Vocabulary(size=5_000))
    path = write_config(tmp_path / "c.py", config)
    assert run("prepare", path) == 2
    assert "vocabulary.size: 5000" in capsys.readouterr().err.replace(",", "")
    assert run("prepare", path, "--vocabulary.size", "5001") == 2
    assert "another config" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sources = (cfg.Source('xx', 'x.txt'))", "a tuple of one ends in a comma"),
        (
            "sources = (cfg.Source('xx', 'x.txt', documents='page'),)",
            "the default value `page` has type",
        ),
        ("sources = {}['S']", "get_config() fails (KeyError: 'S'); mend the config file"),
    ],
)
def test_slips_in_a_config_file(tmp_path, body, message, capsys):
    path = tmp_path / "c.py"
    path.write_text(
        "from mlm_jax import config as cfg\n\ndef get_config():\n"
        f"    {body}\n    return cfg.Config(data=cfg.Data(sources=sources))\n"
    )
    assert run("prepare", path, "--workdir", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("TMP/text.txt", "text.txt: not a config file; name a .py file"),
        ("CHECKOUT/configs/finetune/own_tags.py", "not mlm_jax.config.Config; it is for mlm-jax finetune"),
    ],
)
def test_files_that_are_no_config_of_the_command(tmp_path, path, message, capsys):
    (tmp_path / "text.txt").write_text("words\n")
    path = path.replace("TMP", str(tmp_path)).replace("CHECKOUT", str(Path(__file__).parents[1]))
    assert run("pretrain", path) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_positions_follow_the_data_unless_they_are_set(tmp_path):
    config = tiny_config(str(tmp_path / "run"))
    unset = dataclasses.replace(config, model=dataclasses.replace(config.model, positions=cfg.Model().positions))
    path = write_config(tmp_path / "unset.py", unset)

    def positions(*options):
        return parse("pretrain", [str(path), *options]).model.positions

    assert positions() == 16
    assert positions("--data.sequence_length", "32") == 32
    assert positions("--data.sequence_length", "32", "--model.positions", "64") == 64
    # A run of before keeps the number that was the default then, and one of now follows its data.
    (tmp_path / "run").mkdir()
    for stored, expected in ((512, 512), (16, 32)):
        was = dataclasses.replace(config, model=dataclasses.replace(config.model, positions=stored))
        (tmp_path / "run" / "config.json").write_text(cfg.config_to_json(was))
        assert positions("--data.sequence_length", "32") == expected


def test_another_encoder_to_start_from_is_refused(tmp_path, capsys):
    words = Vocabulary(9, 0, 1, 2, 3, 4, tuple(range(5)), "")
    write_initial(tmp_path / "run", Pretrained(cfg.Model(), {}, words, ("de",), f"{tmp_path}/first at step 60"))
    own_tags = Path(__file__).parents[1] / "configs" / "finetune" / "own_tags.py"
    arguments = (own_tags, "--workdir", tmp_path / "run", "--init")
    assert run("finetune", *arguments, tmp_path / "second") == 2
    assert (
        f"run starts from {tmp_path}/first already, not from {tmp_path}/second; use another" in capsys.readouterr().err
    )
    assert run("finetune", *arguments, tmp_path / "first") == 2
    assert "starts from" not in capsys.readouterr().err


def test_text_that_is_newer_than_the_corpus_is_named(tmp_path, capsys):
    made = tmp_path / "run" / "corpus" / "manifest.json"
    made.parent.mkdir(parents=True)
    for name in ("de", "fr"):
        (tmp_path / f"{name}.txt").write_text("words\n")
    made.write_text("{}")
    data = cfg.Data(sources=(cfg.Source("*", f"{tmp_path}/{{language}}.txt"), cfg.Source("sw", "sample:django")))
    os.utime(tmp_path / "de.txt", (1, 1))
    os.utime(tmp_path / "fr.txt", (1, 1))
    warn_of_newer(epath.Path(made), cfg.text_files(data))
    assert capsys.readouterr().err == ""
    os.utime(tmp_path / "fr.txt")
    os.utime(made, (2, 2))
    warn_of_newer(epath.Path(made), cfg.text_files(data))
    assert f"{tmp_path}/fr.txt: newer than what {made.parent} has" in capsys.readouterr().err


def test_out_of_memory_is_one_line():
    with (
        pytest.raises(
            UserError, match=r"^out of memory \(RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\.\); less$"
        ),
        needing_memory("less"),
    ):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")
    with pytest.raises(RuntimeError, match="quota"), needing_memory("less"):
        raise RuntimeError("RESOURCE_EXHAUSTED: quota")


@pytest.mark.parametrize("arguments", ["--help", "pretrain CONFIG --help"])
def test_what_nobody_reads_is_no_error(config_file, arguments):
    program = f"{sys.executable} -m mlm_jax {arguments.replace('CONFIG', str(config_file))} | true"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(program, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_process_that_a_signal_ended_is_named(monkeypatch, capsys):
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **given: real([sys.executable, "-c", killed], **given))
    with pytest.raises(Ended) as ended:
        run_in_own_process("prepare", "x.py")
    assert ended.value.status == 137
    assert str(ended.value) == "mlm-jax prepare: its process was ended by SIGKILL; often memory is short"


def test_the_line_that_a_process_ends_in_is_said_once(monkeypatch, capsys):
    """By whoever began it; what it warns of comes through at once."""
    ends = "import sys; print('warning: w', 'error: ü\\\\n is wrong', file=sys.stderr, sep='\\n'); sys.exit(2)"
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **given: real([sys.executable, "-c", ends], **given))
    with pytest.raises(UserError, match=r"^ü\\n is wrong$") as ended:
        run_in_own_process("prepare", "x.py")
    assert ended.value.status == 2
    assert capsys.readouterr().err == "warning: w\n"


def test_ctrl_c_while_libraries_load_is_one_line(tmp_path):
    # A library that takes its time, and keeps the interruption to itself.
    (tmp_path / "etils").mkdir()
    (tmp_path / "etils" / "__init__.py").write_text(
        "import time\nprint('loading', flush=True)\n"
        "while True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "mlm_jax", "pretrain", "configs/quickstart.py"]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout.readline() == "loading\n"
        program.send_signal(signal.SIGINT)
        said = program.stderr.read()
    assert (program.returncode, said) == (130, "interrupted; the same command goes on from what is done\n")


def test_a_folder_under_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{")
    assert run("import", tmp_path / "hf", tmp_path / "new") == 2
    assert "config.json: not JSON" in capsys.readouterr().err
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "xlm-roberta"}')
    assert run("import", tmp_path / "hf", tmp_path / "new") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, *(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGHUP, signal.SIGKILL))]
)
def test_what_ends_a_run_ends_its_preparation_too(tmp_path, how):
    (tmp_path / "text.txt").write_text("\n".join(f"word{i} and {i * 7} others" for i in range(400_000)))
    sources = tuple(cfg.Source(language, str(tmp_path / "text.txt")) for language in ("xx", "yy"))
    config = tiny_config(str(tmp_path / "run"))
    data = dataclasses.replace(config.data, sources=sources, workers=2)
    path = write_config(tmp_path / "c.py", dataclasses.replace(config, data=data))
    with subprocess.Popen(
        [sys.executable, "-m", "mlm_jax", "pretrain", str(path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        deadline = time.monotonic() + 120
        while not (found := children(parent.pid)):
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.05)
        # Past the imports, or, to see whether its pool ends too, until there is one.
        time.sleep(1)
        while how != signal.SIGTERM and len(pool := children(found[0])) < 3:
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.05)
        found += pool if how != signal.SIGTERM else []
        parent.send_signal(how)
        assert parent.wait(60) == (-how if how == signal.SIGKILL else 128 + how)
        while any(lock._started(pid) for pid in found):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


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
        config = parse("prepare", [str(config_file), *said, "--train.steps", "7"])
        assert config.objective.whole_words is expected and config.train.steps == 7


ENCODINGS = {
    "utf-8": {},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C"},
    "C without coercion": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX without UTF-8 mode": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": ""},
}
REDIRECTIONS = (
    "",
    ">&-",
    "2>&-",
    "<&-",
    ">&- 2>&-",
    ">/dev/full",
    "2>/dev/full",
    ">/dev/full 2>/dev/full",
    "<&- >&- 2>&-",
)


def in_shell(arguments, redirection="", **environment):
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    command = f"{sys.executable} -m mlm_jax {shlex.join(map(str, arguments))} {redirection}"
    return subprocess.run(command, shell=True, env=given | environment, capture_output=True, check=False)


# What a command does with its streams, without what else it imports.
LIGHT = """
import sys, types
from mlm_jax import __main__, console
def command():
    __main__.mend_streams()
    console.say("said – ü 字 😀")
    console.warn("warned – ü")
    with console.progress("p", 2) as advance:
        advance(2)
    with open(sys.argv[1], "w") as file:
        file.write("done 字")
    console.say_aside("error: so")
    return 2
sys.modules["mlm_jax.cli"] = types.SimpleNamespace(main=command)
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("redirection", REDIRECTIONS)
@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
def test_streams_that_are_closed_full_or_lack_letters(tmp_path, environment, redirection):
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    (tmp_path / "light.py").write_text(LIGHT)
    command = f"{sys.executable} {tmp_path}/light.py {tmp_path}/ü字 {redirection}"
    done = subprocess.run(command, shell=True, env=given | environment, capture_output=True, check=False)
    assert (done.returncode, (tmp_path / "ü字").read_text()) == (2, "done 字")
    assert b"Traceback" not in done.stderr and b"ignored" not in done.stderr
    shown, said = (x.decode(environment.get("PYTHONIOENCODING", "utf-8")) for x in (done.stdout, done.stderr))
    if ">&-" in redirection.replace("2>&-", "") or ">/dev/full" in redirection.replace("2>/dev/full", ""):
        assert shown == ""
    else:
        assert "said – ü 字 😀" in shown or "said \\u2013 " in shown
    full = redirection == ">/dev/full"
    lines = ["warning: standard output: No space left on device; going on without it"] if full else []
    if "2>" in redirection:
        assert said == ""
    else:
        assert [line for line in said.splitlines() if "warned" not in line] == [*lines, "error: so"]


@pytest.mark.slow
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_output_that_cannot_be_written_ends_nothing(tmp_path, redirection):
    """A command that prints, warns, writes files and ends in one line of error."""
    made = tmp_path / "made"
    path = write_config(tmp_path / "c.py", tiny_config(str(tmp_path / "run")))
    path.write_text(
        f"{path.read_text()}\n\nfrom mlm_jax import console\nconsole.say('said – ü')\nconsole.warn('warned – ü')\n"
        "with console.progress('p', 2) as advance:\n    advance(2)\n"
        f"open({str(made)!r}, 'w').write('done')\n"
    )
    done = in_shell(["report", path], redirection)
    assert (done.returncode, made.read_text()) == (2, "done")
    said = (done.stdout + done.stderr).decode()
    assert "Traceback" not in said and "Exception ignored" not in said and "Error" not in said
    if "2>" not in redirection:
        assert "error: " in said and "warned – ü" in said
    if ">/dev/full" in redirection and "2>" not in redirection:
        assert "warning: standard output: No space left on device; going on without it" in said


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
def test_letters_that_the_output_lacks_are_escaped(tmp_path, environment):
    folder = tmp_path / "ü 字"
    folder.mkdir()
    path = write_config(folder / "ç.py", tiny_config(str(folder / "läuft")))
    path.write_text(
        f"{path.read_text()}\n\nfrom mlm_jax import console, files\nconsole.say('– ü 字 😀')\n"
        f"files.write_whole({str(folder / 'é')!r}, '字')\n"
    )
    done = in_shell(["report", path], **environment)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and (folder / "é").read_text() == "字"
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    shown = done.stdout.decode(environment.get("PYTHONIOENCODING", "utf-8"))
    assert "– ü 字 😀" in shown or "\\u2013" in shown


@pytest.mark.slow
def test_help_into_a_full_device(config_file):
    for arguments in (["--help"], ["pretrain", "--help"], ["pretrain", config_file, "--help"], ["--version"]):
        said = in_shell(arguments, ">/dev/full").stderr.decode()
        assert said.startswith("warning: standard output: No space left on device") and said.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.EACCES, errno.EIO, errno.EISDIR])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_an_error_that_names_no_file_is_said_of_the_place(command, number, monkeypatch, capsys, tmp_path):
    arguments = [f"/{name.lower()}" for name in command.arguments]
    if command.config:
        monkeypatch.setattr(cli, "parse", lambda *_: types.SimpleNamespace(workdir="/run"))

    def fail(*_):
        raise OSError(number, os.strerror(number))

    failing = dataclasses.replace(command, run=fail)
    monkeypatch.setattr(cli, "find_command", lambda name: failing)
    assert run(command.name, *arguments) == 2
    said = capsys.readouterr().err
    place = "/run" if command.config else arguments[-1] if arguments else f"mlm-jax {command.name}"
    assert said.startswith(f"error: {place}: {os.strerror(number)}; ") and said.count("\n") == 1
    assert ("then run the same command again" in said) is (number != errno.EISDIR)
    goes_on = command.name in ("curate", "prepare", "pretrain", "finetune", "evaluate", "analyze", "embed", "study")
    assert ("it goes on from what is done" in said) is (goes_on and number != errno.EISDIR)
