# SPDX-License-Identifier: Apache-2.0
"""What each command does, given its config or its arguments, and the command line after its name.

What needs JAX or TensorFlow is imported by the function that uses it, so that `--help` and refusals come at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console, shipped
from mlm_jax.adapt.config import Adapt
from mlm_jax.curate.config import Curate
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.files import in_bucket, make_folder
from mlm_jax.finetune.config import Finetune
from mlm_jax.lock import locked
from mlm_jax.neutrality.config import Analyze
from mlm_jax.plan.config import Plan
from mlm_jax.results import BenchmarkRow, FinetunedRow, ProbeRow
from mlm_jax.start import (
    as_one_of_several,
    copy_words,
    encoder_workdir,
    finetuned_workdir,
    import_init,
    is_prepared,
    needing_memory,
    raise_interrupt,
    refuse_unprepared,
    run_in_own_process,
    start_from,
    take_corpus,
)
from mlm_jax.starts import note_start
from mlm_jax.study.config import Study
from mlm_jax.workdir import own_workdir, warn_of_newer, write_text

if TYPE_CHECKING:
    from mlm_jax.encode.embed import Wanted
    from mlm_jax.train.fit import Outcome

MESH = {"--mesh.data": ("N", ""), "--mesh.fsdp": ("N", ""), "--mesh.tensor": ("N", "")}


VECTORS = {
    "--pooling": ("mean|first|max", ""),
    "--layer": ("N", ""),
    "--normalise": ("true|false", ""),
    "--dimensions": ("N", ""),
}
EMBED = {
    **VECTORS,
    "--prompt": ("NAME_OR_TEXT", ""),
    "--max_length": ("N", "0"),
    "--language": ("CODE", ""),
    "--dtype": ("auto|float32|bfloat16", "auto"),
}


def command_line(name: str, arguments: Sequence[str]) -> str:
    """What was typed, in a form that works where it was: a launch script's, or the installed program where it is no command."""
    if name == "pretrain" and os.environ.get("MLM_JAX_COMMAND"):
        return f"{os.environ['MLM_JAX_COMMAND']} {shlex.join(arguments)}"
    installed = Path(sys.executable).parent / "mlm-jax"
    program = "mlm-jax"
    if shutil.which(program) is None:
        program = shlex.quote(str(installed)) if installed.exists() else f"{shlex.quote(sys.executable)} -m mlm_jax"
    return f"{program} {name} {shlex.join(arguments)}"


def say_stopped(by: signal.Signals, name: str, arguments: Sequence[str], at: str = "") -> int:
    """Say how a run that was stopped goes on, and return its exit status."""
    why = "max_seconds" if by is signal.SIGALRM else by.name
    console.say(f"stopped by {why}{at}, saved; to continue: {command_line(name, arguments)}")
    return 0 if by is signal.SIGALRM else 128 + by


def curate(config: Curate, arguments: list[str]) -> int:
    """Make a corpus of web archives or other text: a folder of .jsonl.zst files per language.

    Documents are read, their languages identified, cleaned, filtered and deduplicated. Killed, the same command goes on from what
    is done. curate.json and report/index.html say what went where, and why. With --dry-run a sample of the input goes through the steps
    elsewhere, and tells what the whole will take: hours, memory, disk, cost.
    """
    if "--dry-run" in arguments:
        from mlm_jax.curate.estimate import described, estimate

        raise_interrupt()
        console.say(described(estimate(config), config.price))
        return 0
    from mlm_jax.curate.run import identity, input_sizes, take_part

    done = (epath.Path(config.workdir) / "curate.json").exists()
    group = identity(config, input_sizes(config)) if config.shared and not done else ""
    with contextlib.nullcontext() if config.shared and done else locked(config.workdir, "curate", group=group) as new:
        there = (epath.Path(config.workdir) / "config.json").exists()
        own_workdir(config, command_line("curate", arguments), write=new or not there)
        raise_interrupt()  # its pool of processes has to end with it
        if take_part(config):
            report_curation(config)
        else:
            console.say(f"{config.workdir}: the corpus is there, by another of the runs that share the work")
        return 0


def prepare(config: cfg.Config, arguments: list[str]) -> int:
    """Train the vocabulary if there is none, and turn the text into blocks.

    What is already prepared is kept; a run that was killed goes on with the shards it lacks. At its end, and with --check of a
    corpus that is prepared, a sample of every stream is read back, and a table says what each language has. Where the corpus is
    there nothing is written, so that it may be looked at while a run trains on it.
    """
    there = is_prepared(config)
    with contextlib.nullcontext() if there else locked(config.workdir, "prepare"):
        return prepare_here(config, arguments, there)


def prepare_here(config: cfg.Config, arguments: list[str], there: bool) -> int:
    """`prepare`, in a workdir that has a corpus, or that no other command writes."""
    config = start_from(config)
    own_workdir(config, command_line("prepare", arguments), write=not there)
    if not there:
        take_corpus(config)
        there = is_prepared(config)
    warn_of_newer(epath.Path(config.workdir) / "corpus" / "manifest.json", cfg.text_files(config.data))
    # TensorFlow, which the other commands do without.
    from mlm_jax.prepare.audit import audit
    from mlm_jax.prepare.check import warn
    from mlm_jax.prepare.run import prepare_corpus

    raise_interrupt()  # its pool of processes has to end with it
    prepared = prepare_corpus(config)
    if not there or "--check" in arguments:
        console.say(audit(config))
        warn(prepared.streams)
    blocks = sum(s.train.blocks for s in prepared.monolingual or prepared.parallel)
    console.say(f"{len(prepared.languages)} languages, {blocks:,} training blocks in {config.workdir}/corpus")
    return 0


def pretrain(config: cfg.Config, arguments: list[str]) -> int:
    """Prepare what is missing, then train; continues where the workdir stands.

    SIGTERM, Ctrl-C and a terminal that goes away finish the step, save and exit; the same command continues the run. With several processes
    (`hosts`) the workdir has to be prepared, and the first of them alone writes what is not a checkpoint.
    """
    with as_one_of_several(config.hosts, config.workdir, "pretrain") as first:
        outcome = pretrain_here(config, command_line("pretrain", arguments), arguments, first)
        if outcome.stopped_by is not None:
            return say_stopped(outcome.stopped_by, "pretrain", arguments, f" at step {outcome.step:,}")
        if first:
            report_pretraining(config)
        return 0


def pretrain_here(config: cfg.Config, again: str, arguments: Sequence[str], first: bool) -> Outcome:
    """What `pretrain` does, as one of the processes that train together.

    Args:
      again: of `own_workdir`.
      arguments: of the command `prepare`, by which a process of its own prepares what is missing.
      first: whether this is the first of the processes.
    """
    if config.hosts.start != "alone":
        refuse_unprepared(config)
    config = start_from(config)
    own_workdir(config, again, write=first)
    if first:
        take_corpus(config)
    made = epath.Path(config.workdir) / "corpus" / "manifest.json"
    if not is_prepared(config):
        # A process of its own, so that TensorFlow never shares memory or threads with the training.
        run_in_own_process("prepare", *arguments)
    elif first:
        warn_of_newer(made, cfg.text_files(config.data))

    from mlm_jax import manifest, sampling
    from mlm_jax.report.run import sampling_text
    from mlm_jax.train.compiled import keep_compiled
    from mlm_jax.train.language_model import few_targets
    from mlm_jax.train.optimizer import endless_warmup
    from mlm_jax.train.pretraining import train

    keep_compiled(config.workdir, config.compiled)
    streams = sampling.trained_streams(config, manifest.read_manifest(epath.Path(config.workdir) / "corpus").streams)
    rows = sampling.sampling_table(config, streams)
    if first:
        write_text(config.workdir, "sampling.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    console.say(sampling_text(config.sampling.count, rows))
    few = few_targets(streams, config.train.validation_blocks, config.data.sequence_length)
    if first and few and cfg.predicts_tokens(config):
        console.warn(few)
    endless = endless_warmup(
        config.optimizer, config.train.steps, "tokens" if config.train.unit == "tokens" else "updates"
    )
    if first and endless:
        console.warn(endless)
    less = "raise train.accumulate, set model.remat to dots or full, or split the parameters over devices (mesh.fsdp)"
    with needing_memory(less):
        return train(config)


def finetune(config: Finetune, arguments: list[str]) -> int:
    """Train the models of a transfer regime on labelled data, choose among their checkpoints, and test them.

    SIGTERM, Ctrl-C and a terminal that goes away finish the update, save and exit; the same command continues. Prints a table of languages, and leaves
    it in the workdir as results.json, .csv and .html, beside the models and what they predicted. With several processes (`hosts`)
    the first alone writes what is not a checkpoint.
    """
    with as_one_of_several(config.hosts, config.workdir, "finetune") as first:
        _, stopped_by = finetune_here(config, command_line("finetune", arguments), first)
        if stopped_by is not None:
            return say_stopped(stopped_by, "finetune", arguments)
        if first:
            report_finetuning(config)
        return 0


def finetune_here(config: Finetune, again: str, first: bool) -> tuple[list[FinetunedRow], signal.Signals | None]:
    """What `finetune` does, as one of the processes that train together; `again` is of `own_workdir`.

    Returns:
      A row for each model and language that is tested, and what stopped it.
    """
    from mlm_jax import hosts
    from mlm_jax.finetune.run import note_budget, run_finetuning
    from mlm_jax.train.compiled import keep_compiled

    if first:
        note_budget(config.workdir)
        own_workdir(config, again)
        parts = (*config.data.train, *config.data.dev, *config.data.test)
        warn_of_newer(epath.Path(config.workdir) / "results.json", [part.path for part in parts])
        import_init(config.workdir, config.init)
    hosts.barrier("imported")
    keep_compiled(config.workdir)
    less = "raise train.accumulate or split the parameters (mesh.fsdp), or lower data.max_length in another --workdir"
    with needing_memory(less):
        return run_finetuning(config)


def evaluate(config: Evaluate, arguments: list[str]) -> int:
    """Run a suite of benchmarks on an encoder: retrieval, mining, language-model loss, and what is fine-tuned first.

    Prints tasks × languages with means and transfer gaps, and leaves results.json, results.csv and results.html in the workdir. What
    is done already is not done again.
    """
    with locked(config.workdir, "evaluate"):
        _, stopped_by = evaluate_here(config, command_line("evaluate", arguments))
        if stopped_by is not None:
            return say_stopped(stopped_by, "evaluate", arguments)
        report_evaluation(config)
        return 0


def evaluate_here(config: Evaluate, again: str) -> tuple[list[BenchmarkRow], signal.Signals | None]:
    """What `evaluate` does, in a workdir that no other command writes; `again` is of `own_workdir`.

    Returns:
      A row for each task and language, and what stopped it.
    """
    own_workdir(config, again)
    import_init(config.workdir, config.init)

    from mlm_jax.evaluate.run import run
    from mlm_jax.train.compiled import keep_compiled

    keep_compiled(config.workdir)
    with needing_memory("split the parameters (mesh.fsdp), or lower max_length in another --workdir"):
        return run(config)


def analyze(config: Analyze, arguments: list[str]) -> int:
    """Probe every layer of an encoder for language: plain, centred, normalised and projected.

    Prints the headline of each probe, and leaves results.json, results.csv and neutrality.html in the workdir. What is done already
    is not done again.
    """
    with locked(config.workdir, "analyze"):
        analyze_here(config, command_line("analyze", arguments))
        report_analysis(config)
        return 0


def analyze_here(config: Analyze, again: str) -> list[ProbeRow]:
    """What `analyze` does, in a workdir that no other command writes; `again` is of `own_workdir`. Returns what the probes found."""
    own_workdir(config, again)
    import_init(config.workdir, config.init)

    from mlm_jax.neutrality.run import run
    from mlm_jax.train.compiled import keep_compiled

    keep_compiled(config.workdir)
    with needing_memory("split the parameters (mesh.fsdp), or lower max_length in another --workdir"):
        return run(config)


def adapt(config: Adapt, arguments: list[str]) -> int:
    """Give an encoder another vocabulary, made from the text of the languages wanted.

    The workdir gets the encoder with its new vocabulary, as `import` makes one: `pretrain` goes on from it, `finetune`, `evaluate` and
    `embed` take it as --init, and `export` writes it with its tokenizer.json. adapt.json says what was done. --change trim keeps the pieces that
    occur in the text, extend adds pieces trained on it, replace takes those alone; --rows says what new pieces' rows begin with.
    """
    from mlm_jax.adapt.run import adapt as run

    with locked(config.workdir, "adapt", "adapt into another workdir"):
        raise_interrupt()  # its pool of processes has to end with it
        run(config)
        report_adaptation(config)
    return 0


def plan(config: Plan, arguments: list[str]) -> int:
    """Compile the step that pretrain runs for TPU slices that are not here, and print what it will need and may do.

    --topology v5e:16x16 names the slice, --mesh.slices how many of it; --search looks for the fastest mesh, pieces and
    rematerialisation that fit. Needs no TPU and no corpus, but libtpu (extra `plan`).
    """
    from mlm_jax.plan.run import run

    run(config)
    return 0


def report_adaptation(config: Adapt) -> None:
    """Print how the text is cut before and after."""
    from mlm_jax.adapt.run import table

    console.say(table(config.workdir))


def study(config: Study, arguments: list[str]) -> int:
    """Train every run of a study that is not finished, measure it, and draw what came out.

    Runs differ in the study's factors, for each of its seeds; they share corpora, are workdirs like any other, and continue where they stand. One that
    fails is named, and the others go on. --only report draws what there is; --run N trains one alone; --runner slurm submits every run that is not
    finished as a task of an array, and the report after them, with --sbatch "--gpus-per-node=1 --time=2:00:00" for each. --dry-run lists the runs with
    their FLOPs and the time they take here, or with --topology v5e-16 there, as plan predicts it, and what would be submitted.
    """
    from mlm_jax.study.run import refuse_changed, run_study

    refuse_changed(config)
    by_slurm = config.runner == "slurm" and config.only in ("all", "runs")
    if "--dry-run" in arguments:
        from mlm_jax.study.cost import cost_of, described

        console.say(described(config, cost_of(config)))
        if by_slurm:
            from mlm_jax.study.slurm import commands

            console.say("\n".join(map(shlex.join, commands(config, _study_file(arguments)))))
        return 0
    if by_slurm:
        from mlm_jax.study.slurm import require_slurm, submit

        require_slurm(config)
    make_folder(epath.Path(config.workdir))
    note_start(epath.Path(config.workdir), command_line("study", arguments))
    failed = run_study(dataclasses.replace(config, only="prepare") if by_slurm else config, arguments)
    if by_slurm and submit(config, _study_file(arguments)):
        return 0
    if config.only in ("all", "report") and not config.run:
        report_study(config)
    return 1 if failed else 0


def _study_file(arguments: list[str]) -> str:
    """The config file that a command line of `study` names."""
    return shipped.config_path(next(x for x in arguments if x not in ("--", "--dry-run")), "study")


def report_study(config: Study) -> None:
    """Print what came out, and write results.csv and report/index.html."""
    from mlm_jax.study.page import findings_of, study_table, write_study_page
    from mlm_jax.study.table import read_study, write_table

    found = read_study(config)
    write_table(config, found[1].rows)
    findings = findings_of(config, found[1])  # once: laws of many languages take half a minute
    page = write_study_page(config, *found, findings)
    console.say(study_table(config, *found, findings))
    console.say(f"report: {page}")


def report_pretraining(config: cfg.Config) -> None:
    """Print the table of languages, and write report/index.html."""
    from mlm_jax.report.page import write_report
    from mlm_jax.report.run import summary_table

    console.say(summary_table(config.workdir))
    console.say(f"report: {write_report(config.workdir)}")


def report_curation(config: Curate) -> None:
    """Print the table of languages, and write report/index.html."""
    from mlm_jax.report.curate import table, write_curation_page

    console.say(table(config.workdir))
    console.say(f"report: {write_curation_page(config.workdir)}")


def report_finetuning(config: Finetune) -> None:
    """Write results.html, and print the table of languages."""
    from mlm_jax.finetune.run import table
    from mlm_jax.report.results import write_results_page
    from mlm_jax.results import read_results

    page = write_results_page(config.workdir)
    console.say(table(read_results(config.workdir), config.source))
    console.say(f"results: {page}")


def report_evaluation(config: Evaluate) -> None:
    """Write results.html, and print tasks × languages."""
    from mlm_jax.evaluate.run import pretraining_sizes, table
    from mlm_jax.report.results import write_results_page
    from mlm_jax.results import read_results

    page = write_results_page(config.workdir)
    console.say(table(read_results(config.workdir), config.source, pretraining_sizes(config.init)))
    console.say(f"results: {page}")


def report_analysis(config: Analyze) -> None:
    """Write neutrality.html, and print the headlines."""
    from mlm_jax.neutrality.headlines import read_cautions, table
    from mlm_jax.report.neutrality import write_analysis_page
    from mlm_jax.results import read_results

    page = write_analysis_page(config.workdir)
    console.say(table(read_results(config.workdir)))
    for caution in read_cautions(config.workdir):
        console.warn(caution)
    console.say(f"page: {page}")


def import_folder(given: dict[str, str], arguments: list[str]) -> int:
    """Make a workdir that starts from the encoder of a Hugging Face folder, or of another run.

    --step takes a run's best checkpoint, its last or that of a step; --model one of several fine-tuned models; --layers 1,3,5 those layers
    alone, counted from 1, with which a student begins; --mesh.fsdp N splits a run's parameters over N devices, where the host has no room for all.
    """
    from mlm_jax.interchange.workdir import import_encoder

    folder = given["WORKDIR"]
    refuse_missing(given["FOLDER"])
    with locked(folder, "import", "import into another folder"):
        return exchange(functools.partial(import_encoder, layers=given["--layers"]), given["FOLDER"], folder, given)


def export_run(given: dict[str, str], arguments: list[str]) -> int:
    """Write a run's encoder and tokenizer, or a fine-tuned model, as a Hugging Face folder.

    --step takes the run's best checkpoint, its last or that of a step; --model one of several fine-tuned models; --mesh.fsdp N
    splits the parameters over N devices, where the host has no room for all. The exported tokenizer is compared with the vocabulary on some
    thousand lines, of which --differing N may be cut otherwise. README.md there is its model card. With --as sentence-transformers
    the folder is one that SentenceTransformer(FOLDER) loads, with the encoder's pooling, normalisation and prompts; --pooling, --layer, --normalise and
    --dimensions are as `embed` has them, and layers above --layer are left out. --push NAME/REPO also uploads the folder to
    a repository of the Hugging Face hub, a new one being private (extra `hub`; `hf auth login` or HF_TOKEN first).
    """
    from mlm_jax.encode.embed import chosen as chosen_vectors
    from mlm_jax.interchange.push import push_folder, refuse_repository
    from mlm_jax.interchange.workdir import KINDS, export_encoder
    from mlm_jax.report.card import model_card

    refuse_repository(given["--push"])
    differing = given["--differing"]
    if not differing.isdecimal():
        raise UserError(f"--differing: {differing} is not a number of lines")
    kind, asked = given["--as"], [option for option in VECTORS if given[option]]
    if kind not in KINDS:
        raise UserError(f"--as {kind}: use {' or '.join(KINDS)}")
    if kind == KINDS[0] and asked:
        raise UserError(
            f"{asked[0]}: a Hugging Face folder does not say how vectors are made; add --as sentence-transformers"
        )
    chosen = functools.partial(chosen_vectors, wanted=wanted_vectors(given))
    convert = functools.partial(export_encoder, differing=int(differing), card=model_card, kind=kind, chosen=chosen)
    folder = given["FOLDER"]
    refuse_missing(given["WORKDIR"])
    # An empty folder may be there, in one that is not ours.
    lockable = not in_bucket(folder) and (
        not os.path.isdir(folder) or os.access(Path(folder).resolve().parent, os.W_OK)
    )
    with locked(folder, "export", "export into another folder", beside=True) if lockable else contextlib.nullcontext():
        status = exchange(convert, given["WORKDIR"], folder, given)
        if given["--push"]:
            console.say(push_folder(folder, given["--push"]))
    return status


def exchange(
    convert: Callable[[str, str, str, str, cfg.Mesh | None], str], source: str, target: str, given: dict[str, str]
) -> int:
    """Convert a folder, and say what was made of it.

    Raises:
      UserError: it cannot be converted.
    """
    done = convert(source, target, given["--step"], given["--model"], given_mesh(given))
    copy_words(source, target)
    console.say(f"{done}, in {target}")
    return 0


def refuse_missing(source: str) -> None:
    """Refuse a folder that is not there.

    Raises:
      UserError: it is not.
    """
    if not epath.Path(source).exists():
        raise UserError(f"{source}: no such folder; name a run's workdir or a Hugging Face folder")


def given_mesh(given: dict[str, str]) -> cfg.Mesh | None:
    """The mesh of `MESH`'s options; None where none of them is given.

    Raises:
      UserError: one is not a number, or they make up no mesh.
    """
    sizes = {name.removeprefix("--mesh."): given[name] for name in MESH if given[name]}
    wrong = [f"--mesh.{name}: {size}" for name, size in sizes.items() if not size.removeprefix("-").isdecimal()]
    if wrong:
        raise UserError(f"{wrong[0]} is not a number")
    mesh = cfg.Mesh(**{name: int(size) for name, size in sizes.items()})
    cfg.validate_mesh(mesh)
    return mesh if sizes else None


def embed(given: dict[str, str], arguments: list[str]) -> int:
    """Turn a file of text into vectors: a line of text, or row with a field (FILE.jsonl#FIELD), is row n of OUT.npy, .parquet or .jsonl.

    The encoder is a run's, an imported one, or that of a folder of Hugging Face's or of sentence-transformers. Unless options say otherwise, its
    vectors are those it was trained to make, else the mean of the last layer, of length 1. --layer 0 is the last; --dimensions N keeps
    the first N; --prompt names one of the encoder's prompts, or is a text to put before each ("query: "). Killed, the same command goes on.
    """
    from mlm_jax.encode.embed import embed_file
    from mlm_jax.train.compiled import keep_compiled

    raise_interrupt()
    wanted, mesh = wanted_vectors(given), given_mesh(given) or cfg.ALL_DEVICES
    source, out = given["RUN_OR_FOLDER"], given["OUT"]
    refuse_missing(source)
    with (
        encoder_workdir(source) as workdir,
        needing_memory("split the parameters (--mesh.fsdp), or lower --max_length"),
    ):
        if workdir == source and os.access(workdir, os.W_OK):
            keep_compiled(workdir)
        console.say(embed_file(workdir, given["FILE"], out, wanted, given["--step"], given["--model"], mesh))
    return 0


def wanted_vectors(given: dict[str, str]) -> Wanted:
    """The options of `EMBED`, or of `VECTORS` alone, as they are wanted of `embed_file`.

    Raises:
      UserError: one is not what it may be.
    """
    from mlm_jax.encode.embed import Wanted

    numbers = ("layer", "dimensions", "max_length")
    found: dict[str, Any] = {}
    for option, (may_be, _) in EMBED.items():
        if option not in given:
            continue
        name, value = option.removeprefix("--"), given[option]
        if name in numbers and value and not value.isdecimal():
            raise UserError(f"{option}: {value} is not a whole number from 0")
        if "|" in may_be and value and value not in may_be.split("|"):
            raise UserError(f"{option}: {value}; use {' or '.join(may_be.split('|'))}")
        if value or name in ("prompt", "language"):
            found[name] = int(value) if name in numbers else value == "true" if name == "normalise" else value
    return Wanted(**found)


def predict(given: dict[str, str], arguments: list[str]) -> int:
    """Label a file of text with a model that `finetune` made, as JSON lines; - is standard input, or output.

    WORKDIR may be a folder that `export` wrote. Of tagged words each line has the words, their offsets in characters and the entities. A tagger's text is split into words as its
    training data was, punctuation apart where it stood apart there; --words spaces splits at spaces alone.
    --model names it where there are several; --language says which language the text is in; --mesh.fsdp N splits the
    parameters over N devices.
    """
    from mlm_jax.finetune.predict import is_standard_output, predict_file
    from mlm_jax.train.compiled import keep_compiled

    out = given["OUT"]
    mesh = given_mesh(given) or cfg.ALL_DEVICES
    with finetuned_workdir(given["WORKDIR"]) as workdir:
        if os.access(workdir, os.W_OK):
            keep_compiled(workdir)
        summary = predict_file(
            workdir, given["FILE"], out, given["--model"], given["--language"], mesh, given["--words"]
        )
    if is_standard_output(out):
        console.say_aside(str(summary))
    else:
        console.say(f"{summary}\n{summary.examples:,} predictions in {out}")
    return 0


def list_configs(given: dict[str, str], arguments: list[str]) -> int:
    """List the configs that come with mlm_jax, by the command they are for; or copy one, to be changed.

    A name stands for its file: mlm-jax pretrain quickstart. A copy goes to FILE, or NAME.py here.
    """
    if "NAME" in given:
        if given["copy"] != "copy":
            raise UserError(f"{given['copy']}: not what configs does; mlm-jax configs copy NAME [FILE]")
        written = shipped.copy_config(given["NAME"], given.get("FILE", ""))
        console.say(f"{written}: a copy of {given['NAME']}")
        return 0
    known = shipped.configs()
    widest = max(len(name.rpartition("/")[2]) for name in known)
    for command, names in itertools.groupby(known, shipped.command_of):
        console.say(f"{'' if command == 'pretrain' else chr(10)}mlm-jax {command} NAME")
        for name in names:
            console.say(f"  {name.rpartition('/')[2]:<{widest}}  {shipped.summary(known[name])}")
    return 0
