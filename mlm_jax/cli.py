# SPDX-License-Identifier: Apache-2.0
"""The commands, one short function each: `mlm-jax COMMAND CONFIG.py [--dotted.option value ...]`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Sequence

import tyro
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.evaluate import config as evaluate_options
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.files import write_whole
from mlm_jax.finetune import config as finetune_options
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality import config as analyze_options
from mlm_jax.neutrality.config import Analyze
from mlm_jax.plan.config import Plan

USAGE = """\
mlm-jax: pretrain multilingual text encoders in JAX

usage: mlm-jax COMMAND CONFIG.py [--dotted.option value ...]
       python -m mlm_jax COMMAND CONFIG.py [--dotted.option value ...]

commands:
  prepare   train the vocabulary if there is none, and turn the text into blocks
  pretrain  prepare what is missing, then train; continues where the workdir stands
  report    write the run's page: curves, tables, plots
  finetune  train a classifier, tagger or span finder on labelled data, and test it in every language
  evaluate  an encoder on a suite of cross-lingual benchmarks: a table of tasks × languages
  analyze   what an encoder's layers know of language: identification, retrieval, word alignment, plain and centred
  plan      compile the training step for TPUs that are not here: memory, collectives, FLOPs, predicted speed

CONFIG.py defines get_config(); those that come with mlm_jax are in configs/.
mlm-jax COMMAND CONFIG.py --help lists every option with the config's values as defaults.

To and from Hugging Face folders:
  mlm-jax import FOLDER WORKDIR [--step best|last|N]   make a workdir that starts from the folder's encoder (or a run's)
  mlm-jax export WORKDIR FOLDER [--step best|last|N]   write a run's encoder and tokenizer as a folder

With what finetune made (export too; --model NAME where there are several):
  mlm-jax predict WORKDIR FILE OUT [--model NAME] [--language CODE]   label a file of text, as JSON lines
"""

COMMANDS = ("prepare", "pretrain", "report", "finetune", "evaluate", "analyze", "plan", "import", "export", "predict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 after bad input, or 128 + the signal that stopped a run."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[..., int]] = {
        "prepare": prepare,
        "pretrain": pretrain,
        "report": report,
        "finetune": finetune,
        "evaluate": evaluate,
        "analyze": analyze,
        "plan": plan,
    }
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(USAGE)
            return 0
        name, *rest = arguments
        if name in ("import", "export"):
            return exchange(name, rest)
        if name == "predict":
            return predict(rest)
        if name not in commands:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise UserError(f"{name}: no such command; {hint}")
        if not rest:
            raise UserError(f"{name}: name a config file, e.g. configs/quickstart.py")
        if rest[0] in ("-h", "--help"):
            print(f"{USAGE}\n{commands[name].__doc__}")
            return 0
        return commands[name](*parse(name, rest))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except PermissionError as e:
        print(f"error: {e.filename}: no permission ({e.strerror}); choose another workdir or mend it", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def prepare(config: cfg.Config, arguments: list[str]) -> int:
    """Train the vocabulary if there is none, and turn the text into blocks.

    What is already prepared is kept; a run that was killed goes on with the shards it lacks.
    """
    config = start_from(config)
    own_workdir(config)
    from mlm_jax.prepare.run import prepare as run  # TensorFlow, which the other commands do without

    prepared = run(config)
    blocks = sum(s.train.blocks for s in prepared.monolingual)
    console.say(f"{len(prepared.languages)} languages, {blocks:,} training blocks in {config.workdir}/corpus")
    return 0


def pretrain(config: cfg.Config, arguments: list[str]) -> int:
    """Prepare what is missing, then train; continues where the workdir stands.

    SIGTERM and Ctrl-C finish the step, save and exit; the same command continues the run. With several processes
    (`hosts`) the workdir has to be prepared, and the first of them alone writes what is not a checkpoint.
    """
    from mlm_jax import hosts
    from mlm_jax.lock import locked

    with hosts.together(config.hosts) as first, locked(config.workdir) if first else contextlib.nullcontext():
        hosts.meet("begin")  # the first may have waited for the workdir
        return pretrain_here(config, arguments, first)


def pretrain_here(config: cfg.Config, arguments: list[str], first: bool) -> int:
    """`pretrain`, as one of the processes that train together."""
    if config.hosts.start != "alone":
        refuse_unprepared(config)
    config = start_from(config)
    own_workdir(config, write=first)
    if not (epath.Path(config.workdir) / "corpus" / "manifest.json").exists():
        # A process of its own, so that TensorFlow never shares memory or threads with the training.
        done = subprocess.run([sys.executable, "-m", "mlm_jax", "prepare", *arguments], check=False)
        if done.returncode:
            return done.returncode if done.returncode > 0 else 128 - done.returncode

    from mlm_jax import manifest, sampling
    from mlm_jax.report.page import write_report
    from mlm_jax.report.run import summary_table
    from mlm_jax.train.compiled import keep_compiled
    from mlm_jax.train.loop import train

    keep_compiled(config.workdir, config.compiled)
    streams = sampling.trained_streams(config, manifest.read(epath.Path(config.workdir) / "corpus").streams)
    rows = sampling.table(config, streams)
    if first:
        write_text(config, "sampling.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    console.say(sampling_text(config, rows))
    outcome = train(config)
    if outcome.stopped_by is not None:
        why = "max_seconds" if outcome.stopped_by.name == "SIGALRM" else outcome.stopped_by.name
        command = f"mlm-jax pretrain {' '.join(arguments)}"
        console.say(f"stopped by {why} at step {outcome.step:,}, saved; to continue: {command}")
        return 0 if why == "max_seconds" else 128 + outcome.stopped_by
    if not first:
        return 0
    console.say(summary_table(config.workdir))
    console.say(f"report: {write_report(config.workdir)}")
    return 0


def finetune(config: Finetune, arguments: list[str]) -> int:
    """Train the models of a transfer regime on labelled data, choose among their checkpoints, and test them.

    SIGTERM and Ctrl-C finish the update, save and exit; the same command goes on. Prints a table a language, and leaves it
    in the workdir as results.json, .csv and .html, beside the models and what they predicted.
    """
    own_workdir(config)
    import_init(config)

    from mlm_jax.finetune.run import run
    from mlm_jax.train.compiled import keep_compiled

    keep_compiled(config.workdir)
    _, stopped_by = run(config)
    if stopped_by is not None:
        console.say(f"stopped by {stopped_by.name}, saved; to continue: mlm-jax finetune {' '.join(arguments)}")
        return 128 + stopped_by
    return report(config, arguments)


def evaluate(config: Evaluate, arguments: list[str]) -> int:
    """Run a suite of benchmarks on an encoder: retrieval, mining, language-model loss, and what is fine-tuned first.

    Prints tasks × languages with means and transfer gaps, and leaves results.json, results.csv and results.html in the workdir. What
    is done already is not done again.
    """
    own_workdir(config)
    import_init(config)

    from mlm_jax.evaluate.run import run
    from mlm_jax.train.compiled import keep_compiled

    keep_compiled(config.workdir)
    _, stopped_by = run(config)
    if stopped_by is not None:
        console.say(f"stopped by {stopped_by.name}, saved; to continue: mlm-jax evaluate {' '.join(arguments)}")
        return 128 + stopped_by
    return report(config, arguments)


def analyze(config: Analyze, arguments: list[str]) -> int:
    """Probe every layer of an encoder for language: plain, centred, normalised and projected.

    Prints the headline of each probe, and leaves results.json, results.csv and neutrality.html in the workdir. What is done already
    is not done again.
    """
    own_workdir(config)
    import_init(config)

    from mlm_jax.neutrality.run import run
    from mlm_jax.train.compiled import keep_compiled

    keep_compiled(config.workdir)
    run(config)
    return report(config, arguments)


def plan(config: Plan, arguments: list[str]) -> int:
    """Compile the step that pretrain runs for TPU slices that are not here, and print what it will need and may do.

    --topology v5e:16x16 names the slice, --mesh.slices how many of it; --search looks for the fastest mesh, pieces and
    rematerialisation that fit. Needs no TPU and no corpus, but libtpu (extra `plan`).
    """
    from mlm_jax.plan.run import run

    run(config)
    return 0


def import_init(config: Finetune | Evaluate | Analyze) -> None:
    """Import the encoder of `init` into the workdir, where there is none yet.

    Raises:
      UserError: `init` is empty.
      SystemExit: it cannot be imported.
    """
    from mlm_jax.train import initial

    if initial.exists(config.workdir):
        return
    if not config.init:
        raise UserError("init: empty; name a run or a Hugging Face folder to start from (--init FOLDER)")
    # A process of its own, so that what reads it leaves its memory when it ends.
    done = subprocess.run([sys.executable, "-m", "mlm_jax", "import", config.init, config.workdir], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def predict(arguments: list[str]) -> int:
    """Label a file of text with a model that `finetune` made."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    found, rest = take_options(arguments, {"--model": "", "--language": ""})
    if len(rest) != 3:
        raise UserError(
            f"predict {' '.join(arguments)}: cannot be read; mlm-jax predict WORKDIR FILE OUT [--model NAME] [--language CODE]"
        )
    from mlm_jax.finetune.predict import predict_file

    count = predict_file(rest[0], rest[1], rest[2], found["--model"], found["--language"])
    console.say(f"{count:,} predictions in {rest[2]}")
    return 0


def take_options(arguments: list[str], options: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Options and their values, wherever they stand among the arguments, and the other arguments.

    Raises:
      UserError: an unknown option, or one without a value.
    """
    found, rest, waiting = dict(options), [], iter(arguments)
    for argument in waiting:
        if not argument.startswith("--"):
            rest.append(argument)
            continue
        name, _, value = argument.partition("=")
        if name not in options:
            raise UserError(f"{argument}: no such option; there are {', '.join(options)}")
        value = value or next(waiting, "")
        if not value:
            raise UserError(f"{name}: needs a value")
        found[name] = value
    return found, rest


def report(config: cfg.Config | Finetune | Evaluate | Analyze, arguments: list[str]) -> int:
    """Write the run's page into its workdir (report/index.html; results.html of finetune and evaluate; neutrality.html of
    analyze), and print its table."""
    if isinstance(config, Analyze):
        from mlm_jax.neutrality.run import table
        from mlm_jax.report.neutrality import write_page
        from mlm_jax.report.results import read_results

        page = write_page(config.workdir)
        console.say(table(read_results(config.workdir)))
        console.say(f"page: {page}")
        return 0
    if isinstance(config, Finetune | Evaluate):
        return report_results(config)
    from mlm_jax.report.page import write_report
    from mlm_jax.report.run import summary_table

    console.say(summary_table(config.workdir))
    console.say(f"report: {write_report(config.workdir)}")
    return 0


def report_results(config: Finetune | Evaluate) -> int:
    """Write results.html, and print the table."""
    from mlm_jax.evaluate.run import pretraining_sizes
    from mlm_jax.evaluate.run import table as tasks_table
    from mlm_jax.finetune.run import table as languages_table
    from mlm_jax.report.results import read_results, write_results

    page, rows = write_results(config.workdir), read_results(config.workdir)
    if isinstance(config, Finetune):
        console.say(languages_table(rows, config.source))
    else:
        console.say(tasks_table(rows, config.source, pretraining_sizes(config.init)))
    console.say(f"results: {page}")
    return 0


def exchange(command: str, arguments: list[str]) -> int:
    """Import a Hugging Face folder (or another run) into a workdir, or export a run as a Hugging Face folder."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    found, rest = take_options(arguments, {"--step": "best", "--model": ""})
    if len(rest) != 2:
        order = "FOLDER WORKDIR" if command == "import" else "WORKDIR FOLDER"
        raise UserError(
            f"{command} {' '.join(arguments)}: cannot be read; mlm-jax {command} {order} [--step best|last|N] [--model NAME]"
        )
    source, target = rest
    if not epath.Path(source).exists():
        raise UserError(f"{source}: no such folder; mlm-jax {command} --help")
    from mlm_jax.interchange.workdir import export_encoder, import_encoder

    done = (import_encoder if command == "import" else export_encoder)(
        source, target, found["--step"], found["--model"]
    )
    console.say(f"{done}, in {target}")
    return 0


def start_from(config: cfg.Config) -> cfg.Config:
    """The config with the encoder that its workdir starts from, imported from `init` where it is not there yet.

    Raises:
      UserError: the encoder cannot be imported, or does not fit the config.
    """
    from mlm_jax.train import initial

    if config.init and not initial.exists(config.workdir):
        # A process of its own, so that what reads it shares nothing with preparation.
        done = subprocess.run([sys.executable, "-m", "mlm_jax", "import", config.init, config.workdir], check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    if not initial.exists(config.workdir):
        return config
    adopted = initial.adopt(config)
    cfg.validate(adopted)
    return adopted


def parse(command: str, arguments: list[str]) -> tuple[typing.Any, list[str]]:
    """The config file's config with the command line's options, validated.

    Raises:
      UserError: no such file, an unknown option (the nearest is named), a value of the wrong type.
    """
    path, *options = arguments
    if path.startswith("-"):
        raise UserError(f"{path}: name the config file before any option")
    kinds: dict[str, tuple[type, ...]] = {"finetune": (Finetune,), "evaluate": (Evaluate,), "analyze": (Analyze,)}
    kinds["report"] = (cfg.Config, Finetune, Evaluate, Analyze)
    base = cfg.load(path, kinds.get(command, (cfg.Config,)))
    base = Plan(**vars(base)) if command == "plan" else base
    kind = type(base)
    known = set(option_names(kind))
    for option in options:
        name = option.split("=")[0].replace("-", "_").lstrip("_")
        if not option.startswith("--") or option == "--help" or name in known:
            continue
        on = re.sub(r"(^|\.)no_", r"\1", name)
        if on not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            raise UserError(f"{option}: no such option; " + (f"did you mean --{near[0]}?" if near else "see --help"))
    options = list(_as_flags(options))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(kind, prog=f"mlm-jax {command} {path}", args=options, default=base, use_underscores=True)
    except SystemExit as e:
        if e.code:
            raise UserError(f"{' '.join(options)}: {_first_sentence(said.getvalue())}; see --help") from None
        raise
    validators: dict[type, Callable[[typing.Any], None]] = {
        cfg.Config: cfg.validate,
        Plan: cfg.validate,
        Finetune: finetune_options.validate,
        Evaluate: evaluate_options.validate,
        Analyze: analyze_options.validate,
    }
    validators[kind](config)
    return config, arguments


def _as_flags(options: list[str]) -> Iterator[str]:
    """`--a.b True` and `--a.b False` as tyro has them: `--a.b` and `--a.no_b`."""
    for option, following in itertools.zip_longest(options, options[1:], fillvalue=""):
        section, dot, name = option.rpartition(".")
        if following.lower() == "false" and dot and option.startswith("--"):
            yield f"{section}.no_{name}"
        elif option.lower() not in ("true", "false"):
            yield option


def option_names(section: type, prefix: str = "") -> Iterator[str]:
    """The dotted names of a config dataclass's options."""
    hints = typing.get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from option_names(typing.cast(type, hints[field.name]), f"{prefix}{field.name}.")
        elif typing.get_origin(hints[field.name]) is not typing.Annotated:  # those are for config files only
            yield prefix + field.name


def _first_sentence(box: str) -> str:
    """The message of tyro's error box, on one line."""
    # Title, rule, message, rule, help; the rules are of "─" or "-", as the terminal's encoding allows.
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    message: list[str] = []
    for line in lines:
        if set(line) <= {"─", "-"}:
            if message:
                break
        else:
            message.append(line)
    return " ".join(message) or "cannot be read"


MAY_CHANGE: dict[type, Sequence[str]] = {
    cfg.Config: cfg.MAY_CHANGE,
    Finetune: finetune_options.MAY_CHANGE,
    Evaluate: evaluate_options.MAY_CHANGE,
    Analyze: analyze_options.MAY_CHANGE,
}


def refuse_unprepared(config: cfg.Config) -> None:
    """Several processes do not prepare: all but one would wait for hours, on machines that may not have TensorFlow.

    Raises:
      UserError: the workdir lacks the corpus, or the encoder to start from.
    """
    from mlm_jax.train import initial

    corpus = epath.Path(config.workdir) / "corpus" / "manifest.json"
    if not corpus.exists() or (config.init and not initial.exists(config.workdir)):
        raise UserError(
            f"{config.workdir}: not prepared, which one process alone does; run mlm-jax prepare with the same config first, "
            "in a workdir that all hosts see"
        )


def own_workdir(config: cfg.Config | Finetune | Evaluate | Analyze, write: bool = True) -> None:
    """Make the workdir and store the config in it, or check that the one stored there agrees.

    Raises:
      UserError: the workdir holds a run with another config, or cannot be written.
    """
    stored = epath.Path(config.workdir) / "config.json"
    if stored.exists():
        try:
            different = cfg.differences(json.loads(stored.read_text()), config, MAY_CHANGE[type(config)])
        except ValueError as e:
            raise UserError(f"{stored}: not JSON ({e}); delete it, or use another workdir") from e
        if different:
            raise UserError(
                f"{config.workdir}: holds a run with another config ({'; '.join(different)}); "
                "use another --workdir, or move this one away"
            )
    if write:
        write_text(config, "config.json", cfg.to_json(config))


def write_text(config: cfg.Config | Finetune | Evaluate | Analyze, name: str, text: str) -> None:
    """Write a file of the workdir, aside and then by rename.

    Raises:
      UserError: it cannot be written.
    """
    folder = epath.Path(config.workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, text)
    except OSError as e:
        raise UserError(f"{folder / name}: cannot be written ({e.strerror or e}); choose another --workdir") from e


def sampling_text(config: cfg.Config, rows: list[dict[str, typing.Any]]) -> str:
    """The sampling table as text: what each language has and how often it will be drawn."""
    stages = len(rows[0]["rates"])
    headings = ["language", "tokens", "blocks", f"natural ({config.sampling.count})"]
    headings += ["smoothed"] if stages == 1 else [f"stage {i + 1}" for i in range(stages)]
    cells = [
        [
            row["language"],
            f"{row['tokens']:,}",
            f"{row['blocks']:,}",
            f"{row['natural']:.4f}",
            *(f"{rate:.4f}" for rate in row["rates"]),
            f"{row['epochs']:.1f}",
        ]
        for row in sorted(rows, key=lambda r: (r["is_pair"], -r["natural"]))
    ]
    return console.table([*headings, "epochs"], cells)


def accelerator_defaults() -> None:
    """Flags that have to be set before jax is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's and TensorFlow's start-up chatter


accelerator_defaults()
