# SPDX-License-Identifier: Apache-2.0
"""The commands, one short function each: `mlm-jax COMMAND CONFIG.py [--dotted.option value ...]`."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shlex
import signal
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import INTERRUPTED, UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality.config import Analyze
from mlm_jax.options import parse, take_options
from mlm_jax.plan.config import Plan
from mlm_jax.workdir import own_workdir, warn_of_newer, write_text

STOPS = (signal.SIGTERM, signal.SIGINT)
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
    except BrokenPipeError:
        raise  # to `__main__`: whoever reads what is printed may have gone
    except PermissionError as e:
        print(f"error: {e.filename}: no permission ({e.strerror}); choose another workdir or mend it", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"error: {e.filename or 'a file'}: {e.strerror or e}; mend it, or name another place", file=sys.stderr)
        return 2
    except ImportError as e:
        if "gcsfs" not in str(e):
            raise
        print("error: gs:// needs gcsfs here: pip install -c constraints.txt gcsfs", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


@contextlib.contextmanager
def needing_memory(advice: str) -> Iterator[None]:
    """Say in one line that a device's memory did not suffice.

    Raises:
      UserError: it did not, and what needs less.
    """
    try:
        yield
    except RuntimeError as e:
        if "RESOURCE_EXHAUSTED: Out of memory" not in str(e):
            raise
        raise UserError(f"out of memory ({str(e).splitlines()[0]}); {advice}") from e


def in_own_process(*arguments: str) -> int:
    """Run a command in a process of its own, which SIGTERM and SIGINT end too, and return its exit status."""
    child = subprocess.Popen([sys.executable, "-m", "mlm_jax", *arguments])
    # A terminal's Ctrl-C reaches the child twice so, which `raise_interrupt` bears.
    before = {number: signal.signal(number, lambda number, frame: child.send_signal(number)) for number in STOPS}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def raise_interrupt() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, once: a terminal and a parent may both send it."""

    def once(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, once)


def prepare(config: cfg.Config, arguments: list[str]) -> int:
    """Train the vocabulary if there is none, and turn the text into blocks.

    What is already prepared is kept; a run that was killed goes on with the shards it lacks.
    """
    config = start_from(config)
    own_workdir(config)
    warn_of_newer(epath.Path(config.workdir) / "corpus" / "manifest.json", cfg.text_files(config.data))
    from mlm_jax.prepare.run import prepare as run  # TensorFlow, which the other commands do without

    raise_interrupt()  # its pool of processes has to end with it
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

    if config.hosts.start != "alone":
        raise_interrupt()  # which process it was has to be said
    with hosts.initialized(config.hosts) as first, locked(config.workdir) if first else contextlib.nullcontext():
        hosts.barrier("begin")  # the first may have waited for the workdir
        return pretrain_here(config, arguments, first)


def pretrain_here(config: cfg.Config, arguments: list[str], first: bool) -> int:
    """`pretrain`, as one of the processes that train together."""
    if config.hosts.start != "alone":
        refuse_unprepared(config)
    config = start_from(config)
    own_workdir(config, write=first)
    made = epath.Path(config.workdir) / "corpus" / "manifest.json"
    if made.exists():
        if first:
            warn_of_newer(made, cfg.text_files(config.data))
    else:
        # A process of its own, so that TensorFlow never shares memory or threads with the training.
        status = in_own_process("prepare", *arguments)
        if status:
            return status

    from mlm_jax import manifest, sampling
    from mlm_jax.report.page import write_report
    from mlm_jax.report.run import summary_table
    from mlm_jax.train.compiled import keep_compiled
    from mlm_jax.train.pretraining import train

    keep_compiled(config.workdir, config.compiled)
    streams = sampling.trained_streams(config, manifest.read(epath.Path(config.workdir) / "corpus").streams)
    rows = sampling.table(config, streams)
    if first:
        write_text(config, "sampling.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    console.say(sampling_text(config, rows))
    less = "raise train.accumulate, set model.remat to dots or full, or split the parameters over devices (mesh.fsdp)"
    with needing_memory(less):
        outcome = train(config)
    if outcome.stopped_by is not None:
        why = "max_seconds" if outcome.stopped_by.name == "SIGALRM" else outcome.stopped_by.name
        command = f"mlm-jax pretrain {shlex.join(arguments)}"
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
    parts = (*config.data.train, *config.data.dev, *config.data.test)
    warn_of_newer(epath.Path(config.workdir) / "results.json", [part.path for part in parts])
    import_init(config)

    from mlm_jax.finetune.run import run
    from mlm_jax.train.compiled import keep_compiled

    keep_compiled(config.workdir)
    with needing_memory("lower train.batch_size or data.max_length"):
        _, stopped_by = run(config)
    if stopped_by is not None:
        console.say(f"stopped by {stopped_by.name}, saved; to continue: mlm-jax finetune {shlex.join(arguments)}")
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
    with needing_memory("lower max_length"):
        _, stopped_by = run(config)
    if stopped_by is not None:
        console.say(f"stopped by {stopped_by.name}, saved; to continue: mlm-jax evaluate {shlex.join(arguments)}")
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
    with needing_memory("lower max_length"):
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
        refuse_another_init(config)
        return
    if not config.init:
        raise UserError("init: empty; name a run or a Hugging Face folder to start from (--init FOLDER)")
    # A process of its own, so that what reads it leaves its memory when it ends.
    status = in_own_process("import", config.init, config.workdir)
    if status:
        raise SystemExit(status)


def refuse_another_init(config: cfg.Config | Finetune | Evaluate | Analyze) -> None:
    """Results in a workdir are of the encoder that it started from.

    Raises:
      UserError: `init` names another one.
    """
    from mlm_jax.train import initial

    # As `import` wrote it: the folder, and of a run the step.
    source = initial.read_source(config.workdir).split(" at step ")[0]
    if config.init and os.path.realpath(config.init) != os.path.realpath(source):
        raise UserError(
            f"init: {config.workdir} starts from {source} already, not from {config.init}; use another --workdir for it, or "
            "leave --init out to go on"
        )


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


def report(config: cfg.Config | Finetune | Evaluate | Analyze, arguments: list[str]) -> int:
    """Write the run's page into its workdir (report/index.html; results.html of finetune and evaluate; neutrality.html of
    analyze), and print its table."""
    if isinstance(config, Analyze):
        from mlm_jax.neutrality.headlines import table
        from mlm_jax.report.neutrality import write_analysis_page
        from mlm_jax.results import read_results

        page = write_analysis_page(config.workdir)
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
    from mlm_jax.report.results import write_results_page
    from mlm_jax.results import read_results

    page, rows = write_results_page(config.workdir), read_results(config.workdir)
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
        raise UserError(f"{source}: no such folder; name a run's workdir or a Hugging Face folder")
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
        status = in_own_process("import", config.init, config.workdir)
        if status:
            raise SystemExit(status)
    if not initial.exists(config.workdir):
        return config
    refuse_another_init(config)
    adopted = initial.adopt(config)
    try:
        cfg.validate(adopted)
    except UserError as e:
        raise UserError(f"{e} (model is the encoder's that {config.workdir} starts from)") from e
    return adopted


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
