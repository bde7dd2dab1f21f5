# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders ↔ workdirs: what `import` and `export` do."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import vocabulary
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, read_json, write_whole
from mlm_jax.finetune import config as options
from mlm_jax.finetune.models import choose, nested, save_model
from mlm_jax.interchange.folder import read_folder, write_folder
from mlm_jax.interchange.settings import family_of
from mlm_jax.interchange.task_heads import HeadOf
from mlm_jax.interchange.tokenizer_files import export_tokenizer, import_tokenizer
from mlm_jax.train import initial
from mlm_jax.train.trained import Trained, read_trained

TASK_HEAD = "task_head"


def _is_hugging_face(settings: epath.Path) -> bool:
    """Whether a config.json is of a Hugging Face folder, and not of a run.

    Raises:
      UserError: it is of neither.
    """
    stored = read_json(settings)
    if not isinstance(stored, dict) or not stored:
        raise UserError(f"{settings}: has no fields; give a Hugging Face folder or the workdir of a run")
    return "model_type" in stored


def import_encoder(source: str, workdir: str, which: str = "best", model: str = "") -> str:
    """Make a workdir that starts from the encoder of a Hugging Face folder, or of another run.

    A fine-tuned folder's head comes too, as the model `imported` that `predict` and `evaluate` read.

    Args:
      source: the folder, or the run's workdir.
      workdir: to be made; it may not hold an encoder yet.
      which: of a run's checkpoints: "best", "last" or a step.
      model: of a workdir of `finetune` that has several.

    Returns:
      What was imported, in words.

    Raises:
      UserError: the source cannot be read, or the workdir is in use.
    """
    folder = epath.Path(workdir)
    if initial.exists(folder):
        raise UserError(f"{folder}: starts from {initial.read(folder).source} already; import into a new workdir")
    # A vocabulary alone is what an import that was stopped left.
    if (folder / "checkpoints").exists() or (folder / "corpus").exists():
        raise UserError(f"{folder}: holds a run already; import into a new workdir")
    settings = epath.Path(source) / "config.json"
    # A workdir that import made has an encoder, and no config yet.
    if not settings.exists() and not initial.exists(source):
        raise UserError(f"{source}: no config.json there; give a Hugging Face folder or the workdir of a run")
    if settings.exists() and _is_hugging_face(settings):
        if in_bucket(source):
            raise UserError(f"{source}: a Hugging Face folder is read from a local disk; copy it here first")
        try:
            found = read_folder(Path(source))
            import_tokenizer(Path(source), folder / "vocabulary", found.size)
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as e:
            # What those who wrote the folder's files never write: said by the library that came upon it.
            raise UserError(
                f"{source}: not a whole Hugging Face folder ({type(e).__name__}: {str(e).splitlines()[0][:200]}); "
                "mend its config.json, tokenizer or weights, or export it again"
            ) from e
        start = initial.Initial(source, found.model, found.params, found.languages)
        # A workdir with a config is of an experiment that only starts from the encoder.
        if found.head is not None and not (folder / "config.json").exists():
            write_imported(folder, start, found.head)
    else:
        trained = read_either(source, which, model)
        (folder / "vocabulary").mkdir(parents=True, exist_ok=True)
        for path in (epath.Path(source) / "vocabulary").iterdir():
            if path.is_file():
                path.copy(folder / "vocabulary" / path.name, overwrite=True)
        params = {name: part for name, part in trained.params.items() if name != TASK_HEAD}
        start = initial.Initial(f"{source} at step {trained.step:,}", trained.model, params, trained.languages)
    initial.write(folder, start)
    count = sum(tensor.size for tensor in initial.flatten(start.params).values())
    pieces = vocabulary.read(folder / "vocabulary").size
    return f"{start.model.layers} layers of width {start.model.width}, {count:,} parameters, {pieces:,} pieces"


def write_imported(folder: epath.Path, start: initial.Initial, head: HeadOf) -> None:
    """Store a fine-tuned encoder as the model `imported` of a workdir."""
    length = min(start.model.positions, 512)
    config = options.Finetune(
        workdir=str(folder),
        task=dataclasses.replace(head.task, labels=()),
        data=options.Data(max_length=length, pair=""),
    )
    params = {"encoder": start.params, "head": head.params}
    save_model(folder / "models" / "imported", start.source, start.model, params, start.languages, head.task.labels, 0)
    write_whole(folder / "config.json", cfg.to_json(config))


def is_tuned(workdir: epath.PathLike) -> bool:
    """Whether a workdir is of `finetune`."""
    config = epath.Path(workdir) / "config.json"
    return config.exists() and "task" in read_json(config)


def read_either(workdir: epath.PathLike, which: str, model: str) -> Trained:
    """The encoder of a run's checkpoint, or of a model that `finetune` made.

    Raises:
      UserError: there is none, or `model` names one where nothing was fine-tuned.
    """
    if is_tuned(workdir):
        return read_tuned(workdir, model)
    if model:
        raise UserError(
            f"{workdir}: --model {model}, but nothing was fine-tuned there; leave it out, or choose a --step"
        )
    return read_trained(workdir, which)


def read_tuned(workdir: epath.PathLike, model: str = "") -> Trained:
    """A fine-tuned encoder; its head is among the parameters as `task_head`.

    Raises:
      UserError: there is no such model.
    """
    folder = epath.Path(workdir)
    chosen = choose(folder, model)
    found = initial.read(chosen)
    tree = nested(found.params)
    step = read_json(chosen / "model.json")["step"]
    words = vocabulary.read(folder / "vocabulary")
    return Trained(found.model, tree["encoder"] | {TASK_HEAD: tree["head"]}, words, found.languages, step)


def export_encoder(workdir: str, out: str, which: str = "best", model: str = "") -> str:
    """Write a run's encoder, or a fine-tuned one with its head, as a Hugging Face folder.

    Args:
      workdir: of the run.
      out: folder to be made; it may not exist, or be empty.
      which: "best", "last" or a step.
      model: of a workdir of `finetune` that has several.

    Returns:
      What was exported, in words.

    Raises:
      UserError: no such checkpoint, no Hugging Face class has this encoder or head, or the folder is in use.
    """
    if in_bucket(out):
        raise UserError(f"{out}: export writes to a local folder; name one, and copy it there")
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty; export into a new folder")
    head = None
    trained = read_either(workdir, which, model)
    if is_tuned(workdir):
        labels = tuple(read_json(choose(epath.Path(workdir), model) / "model.json")["labels"])
        task = dataclasses.replace(options.read(workdir).task, labels=labels)
        head = HeadOf(task, trained.params.pop(TASK_HEAD))
    family = family_of(trained.model)
    aside = folder.parent / f"{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    export_tokenizer(epath.Path(workdir) / "vocabulary", trained.vocabulary, family, trained.model.positions, aside)
    write_folder(aside, trained.model, trained.params, trained.vocabulary, trained.languages, head=head)
    if folder.exists():
        folder.rmdir()
    aside.rename(folder)
    return f"step {trained.step:,} as {read_json(folder / 'config.json')['architectures'][0]}"
