# SPDX-License-Identifier: Apache-2.0
"""A workdir belongs to one config, which is stored in it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.fields import Difference, FixedBy, differences, types_of
from mlm_jax.files import listed, make_folder, said, write_whole
from mlm_jax.patterns import matching_files
from mlm_jax.starts import last_saved, note_start
from mlm_jax.stored import read_json

CALL = "mlm_jax."  # what a call from Python begins with, to which no options can be added
SHOWN = 8  # options that differ, named in a message


def own_workdir(config: Any, again: str = "", write: bool = True) -> None:
    """Make the workdir and store the config in it, or check that the one stored there agrees.

    Until something is saved, whatever did not work may be mended but for what the vocabulary and the corpus that are there
    were made by.

    Args:
      config: of any command.
      again: the command line, from which a refusal says how to go on elsewhere, or the function that Python called.
      write: store it; of several processes one does.

    Raises:
      UserError: the workdir holds a run with another config, or cannot be written.
    """
    folder = epath.Path(config.workdir)
    if "\\" in os.path.abspath(config.workdir):
        raise UserError(
            f"{os.path.abspath(config.workdir)}: a path with a backslash, under which TensorStore saves no checkpoint; use another "
            "--workdir"
        )
    stored = folder / "config.json"
    if stored.exists():
        was = read_json(stored, dict[str, Any], "delete it, or use another workdir")
        different = differences(was, config)
        # What another command made a workdir for is its own from the first.
        saved = has_saved(folder) or bool(was.keys() - types_of(type(config)).keys())

        def is_fixed(option: Difference) -> bool:
            made = any(isinstance(note, FixedBy) and (folder / note.file).exists() for note in option.notes)
            if option.may_change is not None and option.may_change.onwards:
                return has_finished(folder, config)
            return option.may_change is None and (saved or made)

        refused = [d for d in different if is_fixed(d)]
        if refused:
            raise UserError(refusal(config, refused, again if saved else ""))
        onwards = [str(d) for d in different if d.may_change and d.may_change.onwards]
        if saved and onwards and write:
            console.warn(f"{config.workdir}: {'; '.join(onwards)}; what is trained from here on uses what is here")
    if write:
        write_text(config.workdir, "config.json", cfg.config_to_json(config))
        if again:
            note_start(folder, again)


def holds_another(workdir: str, different: Sequence[Difference]) -> str:
    """What is wrong with a workdir that has another config: the options that differ."""
    named = "; ".join(str(d) for d in different[:SHOWN])
    more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    return f"{workdir}: holds a run with another config ({named}{more})"


def refusal(config: Any, refused: Sequence[Difference], again: str) -> str:
    """What a workdir with another config says: every option that differs, and how to go on elsewhere."""
    how = "use another --workdir, or move this one away"
    if again and not again.startswith(CALL):
        folder = epath.Path(config.workdir)
        new = next(f"{folder}_{n}" for n in range(2, 1000) if not epath.Path(f"{folder}_{n}").exists())
        # `--init` brings the encoder and its vocabulary: no way to another of them.
        init = isinstance(config, cfg.Config) and not any(d.name.startswith(("model.", "vocab")) for d in refused)
        start = f" --init {shlex.quote(str(folder))}" if init else ""
        how = f"to begin another{' from its encoder' if init else ''}: {again}{start} --workdir {shlex.quote(new)}"
    return f"{holds_another(config.workdir, refused)}; {how}"


def warn_of_newer(made: epath.Path, globs: Sequence[str]) -> None:
    """Warn of text files that are newer than what a workdir made of them, which is kept."""
    if not made.exists():
        return
    since = made.stat().mtime
    # Compare in whole seconds, the resolution of object stores; skip files that have vanished.
    present = (path for pattern in globs for path in matching_files(pattern) if os.path.exists(path))
    newer = sorted(path for path in present if int(os.stat(path).st_mtime) > since)
    if newer:
        others = f" and {len(newer) - 1:,} others" if len(newer) > 1 else ""
        console.warn(
            f"{newer[0]}{others}: newer than what {made.parent} has, which stays as it is; use another --workdir for the new text"
        )


def has_saved(folder: epath.Path) -> bool:
    """Whether a workdir holds results, a curated corpus, finished benchmarks or probes, or checkpoints: of its own, its models, its experiments."""
    return (
        (folder / "results.json").exists()
        or (folder / "curate.json").exists()
        or any(path.name.endswith(".json") for path in listed(folder / "done"))
        or any(path.name.isdigit() for path in listed(folder / "checkpoints"))
        or any(has_saved(path) for path in listed(folder / "models"))
        or any(has_saved(path) for path in listed(folder) if (path / "models").is_dir())
    )


def has_finished(folder: epath.Path, config: Any) -> bool:
    """Whether a workdir has a model of which nothing is left to train: what is said of it is of the options it had."""
    tested = any((model / "results.json").exists() for model in listed(folder / "models"))
    return tested or (isinstance(config, cfg.Config) and last_saved(folder) >= config.train.steps)


def write_text(workdir: epath.PathLike, name: str, text: str) -> None:
    """Write a file of the workdir, aside and then by rename.

    Raises:
      UserError: it cannot be written.
    """
    folder = epath.Path(workdir)
    try:
        make_folder(folder)
        write_whole(folder / name, text)
    except OSError as e:
        raise UserError(said(e, folder / name, "then run the same command again, or use another --workdir")) from e
