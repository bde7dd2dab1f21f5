# SPDX-License-Identifier: Apache-2.0
"""A workdir belongs to one config, which is stored in it."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence

from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.evaluate.config import Evaluate
from mlm_jax.fields import differences
from mlm_jax.files import in_bucket, write_whole
from mlm_jax.finetune.config import Finetune
from mlm_jax.neutrality.config import Analyze

SHOWN = 8  # options that differ, named in a message


def own_workdir(config: cfg.Config | Finetune | Evaluate | Analyze, write: bool = True) -> None:
    """Make the workdir and store the config in it, or check that the one stored there agrees.

    Raises:
      UserError: the workdir holds a run with another config, or cannot be written.
    """
    if isinstance(config, Evaluate | Analyze) and in_bucket(config.workdir):
        raise UserError(f"workdir: {config.workdir}: evaluate and analyze work on a local disk; use a local --workdir")
    stored = epath.Path(config.workdir) / "config.json"
    if stored.exists() and is_begun(stored.parent, config):
        try:
            different = differences(json.loads(stored.read_text()), config)
        except ValueError as e:
            raise UserError(f"{stored}: not JSON ({e}); delete it, or use another workdir") from e
        if isinstance(config, cfg.Config) and not has_checkpoint(stored.parent):
            # The corpus is made already, and whatever else did not work may be mended.
            different = [d for d in different if d.name.startswith(("data.", "vocabulary.", "sampling.", "seed"))]
        refused = [str(d) for d in different if d.may_change is None]
        if refused:
            more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
            raise UserError(
                f"{config.workdir}: holds a run with another config ({'; '.join(refused[:SHOWN])}{more}); "
                "use another --workdir, or move this one away"
            )
        onwards = [str(d) for d in different if d.may_change and d.may_change.onwards]
        if onwards and write:
            console.warn(f"{config.workdir}: {'; '.join(onwards)}; what is trained from now on uses what is here")
    if write:
        write_text(config, "config.json", cfg.to_json(config))


def warn_of_newer(made: epath.Path, globs: Sequence[str]) -> None:
    """Say that files are newer than what a workdir made of them, which is kept."""
    if not made.exists():
        return
    since = made.stat().mtime
    # Whole seconds, as the other side has them; what cannot be looked at is not needed any more.
    there = (path for pattern in globs for path in glob.glob(pattern) if os.path.exists(path))
    newer = sorted(path for path in there if int(os.stat(path).st_mtime) > since)
    if newer:
        others = f" and {len(newer) - 1:,} others" if len(newer) > 1 else ""
        console.warn(
            f"{newer[0]}{others}: newer than what {made.parent} has, which stays as it is; use another --workdir for the new text"
        )


def is_begun(folder: epath.Path, config: cfg.Config | Finetune | Evaluate | Analyze) -> bool:
    """Whether anything was made in a workdir by its config: one that was refused before may be mended."""
    before = {"config.json", "running.json", "compiled"}
    if not isinstance(config, cfg.Config):
        before |= {"initial.json", "initial.safetensors", "vocabulary", "labelled", "vectors"}
    return any(
        path.name not in before and (not path.is_dir() or any(path.iterdir()))
        for path in folder.iterdir()
        if not path.name.endswith(".partial")
    )


def has_checkpoint(folder: epath.Path) -> bool:
    """Whether a run has saved anything that depends on more than its text."""
    checkpoints = folder / "checkpoints"
    return checkpoints.exists() and any(path.name.isdigit() for path in checkpoints.iterdir())


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
