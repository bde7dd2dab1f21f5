# SPDX-License-Identifier: Apache-2.0
"""What commands do before their work: processes of their own, signals, and the encoder that a workdir starts from."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, TypedDict

from etils import epath

from mlm_jax import children, console
from mlm_jax import config as cfg
from mlm_jax.errors import Ended, UserError
from mlm_jax.files import aside_folder, copy_whole, in_bucket, is_aside, link, make_folder, sync, sync_tree
from mlm_jax.given import given_file
from mlm_jax.phases import corpus_name, in_steps, lengths, longest
from mlm_jax.signals import can_handle, handling, heard
from mlm_jax.stored import read_json

ERROR = "error: "  # what the line begins with that a command ends in


@contextlib.contextmanager
def needing_memory(advice: str) -> Iterator[None]:
    """Turn JAX's out-of-memory error into one line with advice.

    Raises:
      UserError: a device's memory did not suffice.
    """
    try:
        yield
    except RuntimeError as e:
        if "RESOURCE_EXHAUSTED: Out of memory" not in str(e):
            raise
        raise UserError(f"out of memory ({str(e).splitlines()[0]}); {advice}") from e


def run_in_own_process(*arguments: str) -> None:
    """Run a command in a process of its own, which works under the locks of this one and ends with it, by `signals.STOPS` too.

    Raises:
      Ended: it did not succeed; with the line that it ended in, for whoever began the work to say.
    """
    from mlm_jax.lock import environment_of_children

    environment = os.environ | children.environment() | environment_of_children()
    child = subprocess.Popen(
        [sys.executable, "-m", "mlm_jax", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
    )
    sent: list[int] = []

    def send(number: int, frame: object) -> None:
        sent.append(number)
        child.send_signal(number)

    # A Ctrl-C in a terminal reaches the child twice, from the terminal and from here; see `raise_interrupt`.
    reason = ""
    with handling(dict.fromkeys(heard(), send)):
        for line in child.stderr or ():
            if line.startswith(ERROR):
                reason = line.removeprefix(ERROR).rstrip("\n")
            else:
                console.say_aside(line.rstrip("\n"))
        status = child.wait()
    if status < 0 and not sent:
        # What a signal ended could not say so itself.
        name = signal.Signals(-status).name
        reason = f"mlm-jax {arguments[0]}: its process was ended by {name}; often memory is short"
    if status > 0 and not reason and not sent:
        reason = f"mlm-jax {arguments[0]}: ended with status {status}; what it said is above"
    if status:
        raise Ended(status if status > 0 else 128 - status, reason)


def raise_interrupt() -> None:
    """Let the first SIGINT raise KeyboardInterrupt and ignore others: a terminal and a parent process may both send one."""
    if not can_handle():
        return

    def once(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, once)


@contextlib.contextmanager
def as_one_of_several(processes: cfg.Hosts, workdir: str, command: str) -> Iterator[bool]:
    """Run as one of the processes that train together in a workdir, in which no other run may be.

    Yields:
      Whether this is the first of them, or alone.
    """
    from mlm_jax import hosts
    from mlm_jax.lock import locked

    if processes.start != "alone":
        raise_interrupt()  # which process it was has to be said
    with hosts.initialized(processes) as first, locked(workdir, command) if first else contextlib.nullcontext():
        hosts.barrier("begin")  # the first may have waited for the workdir
        yield first


def import_init(workdir: str, init: str, required: bool = True) -> bool:
    """Import the encoder of `init` into the workdir, where there is none yet.

    Returns:
      Whether the workdir has an encoder to start from.

    Raises:
      UserError: `init` is empty and required, or it is another encoder than the workdir starts from.
      Ended: it cannot be imported.
    """
    from mlm_jax.train import initial

    if initial.has_initial(workdir):
        # As `import` wrote it: the folder, and of a run the step.
        source = initial.read_source(workdir).split(" at step ")[0]
        if init and os.path.realpath(init) != os.path.realpath(source):
            raise UserError(
                f"init: {workdir} starts from {source} already, not from {init}; use another --workdir for it, or "
                "leave --init out to go on"
            )
        return True
    if init:
        # A process of its own, so that what reads the encoder leaves its memory when it ends.
        run_in_own_process("import", "--", init, workdir)
    elif required:
        raise UserError("init: empty; name a run or a Hugging Face folder to start from (--init FOLDER)")
    return bool(init)


@contextlib.contextmanager
def finetuned_workdir(folder: str) -> Iterator[str]:
    """The workdir of a fine-tuned model: the folder itself or, of one that `export` wrote, a temporary one that it is imported into.

    Raises:
      UserError: it is a Hugging Face folder without a head that was fine-tuned, or cannot be read.
    """
    with encoder_workdir(folder) as workdir:
        if workdir != folder:
            if not (epath.Path(workdir) / "config.json").exists():
                raise UserError(
                    f"{folder}: a Hugging Face folder without a fine-tuned head; run: mlm-jax finetune CONFIG --init {folder}"
                )
            copy_words(folder, workdir)
        yield workdir


@contextlib.contextmanager
def encoder_workdir(folder: str) -> Iterator[str]:
    """The workdir of an encoder: the folder itself or, of a Hugging Face or sentence-transformers folder, a temporary one that it is
    imported into.

    Raises:
      UserError: the folder cannot be imported.
    """
    if not is_foreign(folder):
        yield folder
        return
    from mlm_jax.interchange.workdir import import_encoder

    with tempfile.TemporaryDirectory() as workdir:
        import_encoder(folder, workdir)
        yield workdir


def is_foreign(folder: str) -> bool:
    """Whether a folder is of Hugging Face's or of sentence-transformers, and not a workdir."""
    settings = epath.Path(folder) / "config.json"
    return settings.exists() and "model_type" in read_json(settings, dict[str, Any])


def copy_words(source: str, target: str) -> None:
    """Copy what says how a tagger's text is cut into words, where there is such a file.

    Raises:
      UserError: it is a link to elsewhere, or no regular file.
    """
    from mlm_jax.finetune.words import FILE

    if (path := given_file(source, FILE)) is not None:
        copy_whole(path, epath.Path(target) / FILE)


class Positions(TypedDict):
    """Of a stored model."""

    positions: int


class SequenceLength(TypedDict):
    """Of stored data."""

    sequence_length: int


class Lengths(TypedDict):
    """Of a stored config."""

    model: Positions
    data: SequenceLength


def with_positions(config: cfg.Config) -> cfg.Config:
    """The config with a number for `model.positions`: its own, or that of its longest blocks.

    A workdir whose stored config has another number than its data keeps it: that was the default once.
    """
    if config.model.positions:
        return config
    positions, stored = longest(config), epath.Path(config.workdir) / "config.json"
    if stored.exists():
        # What is no config of ours is refused later on.
        with contextlib.suppress(UserError):
            was = read_json(stored, Lengths)
            if not config.train.phases and was["model"]["positions"] != was["data"]["sequence_length"]:
                positions = was["model"]["positions"] or positions
    return cfg.with_sections(config, model={"positions": positions})


def start_from(config: cfg.Config) -> cfg.Config:
    """The config in steps, with the encoder that its workdir starts from, imported from `init` where it is not there yet.

    Raises:
      UserError: the encoder does not fit the config, or what begins in it.
      Ended: it cannot be imported.
    """
    from mlm_jax.train import initial

    config = with_positions(in_steps(config))
    starts = import_init(config.workdir, config.init, required=False)
    take_teacher(config)
    if not starts:
        return (
            config
            if cfg.predicts_tokens(config)
            else cfg.with_sections(config, model={"head": "none", "pooler": False})
        )
    adopted = initial.adopt(config)
    try:
        cfg.validate_pretraining(adopted)
    except UserError as e:
        raise UserError(f"{e} (model is the encoder's that {config.workdir} starts from)") from e
    return adopted


def take_teacher(config: cfg.Config) -> None:
    """Import the encoder of `distillation.teacher` into WORKDIR/teacher, where there is none yet; a student that has no vocabulary gets its.

    Raises:
      UserError: it is another teacher than the workdir's student learns from.
      Ended: it cannot be imported.
    """
    from mlm_jax.train import initial
    from mlm_jax.train.distillation import FOLDER

    if config.objective.learn != "distillation":
        return
    workdir, teacher = epath.Path(config.workdir), config.distillation.teacher
    folder = workdir / FOLDER
    if not initial.has_initial(folder):
        run_in_own_process("import", "--", teacher, str(folder))
    source = initial.read_source(folder).split(" at step ")[0]
    if os.path.realpath(teacher) != os.path.realpath(source):
        raise UserError(
            f"distillation.teacher: the student of {workdir} learns from {source} already, not from {teacher}; use another --workdir for it"
        )
    if not (workdir / "vocabulary" / "vocabulary.json").exists():
        make_folder(workdir / "vocabulary")
        # Last: with it the vocabulary is whole.
        for path in sorted((folder / "vocabulary").iterdir(), key=lambda path: path.name == "vocabulary.json"):
            if not is_aside(path):
                copy_whole(path, workdir / "vocabulary" / path.name)


def take_corpus(config: cfg.Config) -> None:
    """Link the vocabulary and the blocks of the run `config.corpus`, of each length, into the workdir, where it has none yet.

    Raises:
      UserError: there are none of a length, they were made by other options, or of another vocabulary than the workdir has.
    """
    workdir, other = epath.Path(config.workdir), epath.Path(config.corpus)
    if not config.corpus or (workdir / "corpus" / "manifest.json").exists():
        return
    from mlm_jax import manifest
    from mlm_jax.fields import differences
    from mlm_jax.vocabulary import read_vocabulary

    if in_bucket(config.corpus) or in_bucket(config.workdir):
        raise UserError(
            f"corpus: {config.corpus}: files are linked on a local disk only; copy vocabulary/ and corpus/ there"
        )
    names = [corpus_name(config, length) for length in lengths(config)]
    every = [manifest.read_manifest(other / name) for name in names]
    made, words = every[0], read_vocabulary(other / "vocabulary")
    if any(x.vocabulary_sha256 != words.sha256 for x in every):
        raise UserError(
            f"corpus: {other}: its blocks are of another vocabulary than its vocabulary/ holds; prepare it again"
        )
    different = differences({"validation_documents": 0} | made.settings["data"], config.data)
    has_own = (workdir / "vocabulary" / "vocabulary.json").exists()
    if has_own and read_vocabulary(workdir / "vocabulary").sha256 != words.sha256:
        raise UserError(
            f"corpus: {other} has another vocabulary than {workdir} has (of its init, or trained); leave --corpus out"
        )
    # One that starts from an encoder has that one's vocabulary, whatever the options say.
    if not has_own:
        different += differences(made.settings["vocabulary"], config.vocabulary)
    fixed = [str(d) for d in different if d.may_change is None]
    if fixed:
        raise UserError(
            f"corpus: {other} was made by other options ({'; '.join(fixed)}); leave --corpus out to prepare anew"
        )
    # The first length's last: where it is, the others are.
    for name in ("vocabulary", *reversed(names)):
        if name == "vocabulary" and has_own:
            continue
        with aside_folder(workdir / name) as aside:
            left_out = shutil.ignore_patterns(".*.partial")
            shutil.copytree(other / name, aside, copy_function=link, ignore=left_out, dirs_exist_ok=True)
            sync_tree(aside)
            shutil.rmtree(workdir / name, ignore_errors=True)  # what a killed preparation left
            aside.rename(workdir / name)
        sync(workdir)
    console.say(f"using the vocabulary and the blocks of {other}")


def is_prepared(config: cfg.Config) -> bool:
    """Whether the workdir has blocks of every length of the run."""
    folder = epath.Path(config.workdir)
    return all((folder / corpus_name(config, length) / "manifest.json").exists() for length in lengths(config))


def refuse_unprepared(config: cfg.Config) -> None:
    """Several processes do not prepare: all but one would wait for hours, on machines that may not have TensorFlow.

    Raises:
      UserError: the workdir lacks the corpus, the encoder to start from, or the teacher.
    """
    from mlm_jax.train import initial
    from mlm_jax.train.distillation import FOLDER

    needed = [config.workdir] if config.init else []
    needed += [f"{config.workdir}/{FOLDER}"] if config.objective.learn == "distillation" else []
    if not is_prepared(config) or not all(map(initial.has_initial, needed)):
        raise UserError(
            f"{config.workdir}: not prepared, which one process alone does; run mlm-jax prepare with the same config first, "
            "in a workdir that all hosts see"
        )
