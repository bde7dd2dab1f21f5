# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders ↔ workdirs: what `import` and `export` do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from etils import epath

from mlm_jax import vocabulary
from mlm_jax.errors import UserError
from mlm_jax.interchange.folder import read_folder, write_folder
from mlm_jax.interchange.settings import family_of
from mlm_jax.interchange.tokenizer_files import export_tokenizer, import_tokenizer
from mlm_jax.train import initial
from mlm_jax.train.trained import read_trained


def import_encoder(source: str, workdir: str, which: str = "best") -> str:
    """Make a workdir that starts from the encoder of a Hugging Face folder, or of another run.

    Args:
      source: the folder, or the run's workdir.
      workdir: to be made; it may not hold an encoder yet.
      which: of a run's checkpoints: "best", "last" or a step.

    Returns:
      What was imported, in words.

    Raises:
      UserError: the source cannot be read, or the workdir is in use.
    """
    folder = epath.Path(workdir)
    if initial.exists(folder):
        raise UserError(f"{folder}: starts from {initial.read(folder).source} already; import into a new workdir")
    if (folder / "checkpoints").exists() or (folder / "vocabulary" / "vocabulary.json").exists():
        raise UserError(f"{folder}: holds a run already; import into a new workdir")
    settings = Path(source) / "config.json"
    if not settings.exists():
        raise UserError(f"{source}: no config.json there; give a Hugging Face folder or the workdir of a run")
    if "model_type" in json.loads(settings.read_text()):
        found = read_folder(Path(source))
        import_tokenizer(Path(source), folder / "vocabulary", found.size)
        start = initial.Initial(source, found.model, found.params, found.languages)
    else:
        trained = read_trained(source, which)
        (folder / "vocabulary").mkdir(parents=True, exist_ok=True)
        for path in (epath.Path(source) / "vocabulary").iterdir():
            if path.is_file():
                path.copy(folder / "vocabulary" / path.name)
        start = initial.Initial(f"{source} at step {trained.step:,}", trained.model, trained.params, trained.languages)
    initial.write(folder, start)
    count = sum(tensor.size for tensor in initial.flatten(start.params).values())
    pieces = vocabulary.read(folder / "vocabulary").size
    return f"{start.model.layers} layers of width {start.model.width}, {count:,} parameters, {pieces:,} pieces"


def export_encoder(workdir: str, out: str, which: str = "best") -> str:
    """Write a run's encoder as a Hugging Face folder.

    Args:
      workdir: of the run.
      out: folder to be made; it may not exist, or be empty.
      which: "best", "last" or a step.

    Returns:
      What was exported, in words.

    Raises:
      UserError: no such checkpoint, no Hugging Face class has this encoder, or the folder is in use.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty; export into a new folder")
    trained = read_trained(workdir, which)
    family = family_of(trained.model)
    aside = folder.parent / f"{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    export_tokenizer(epath.Path(workdir) / "vocabulary", trained.vocabulary, family, trained.model.positions, aside)
    write_folder(aside, trained.model, trained.params, trained.vocabulary, trained.languages)
    if folder.exists():
        folder.rmdir()
    aside.rename(folder)
    return f"step {trained.step:,} as {json.loads((folder / 'config.json').read_text())['architectures'][0]}"
