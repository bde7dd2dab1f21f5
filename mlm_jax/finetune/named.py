# SPDX-License-Identifier: Apache-2.0
"""Labelled data that a library provides by name (`tfds:NAME/CONFIG:SPLIT`, `hf:NAME/CONFIG:SPLIT`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from etils import epath

from mlm_jax import children
from mlm_jax.config import is_named
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, make_folder


def local_file(path: str, language: str, workdir: epath.PathLike) -> str:
    """The file that holds a named split's examples in a language: kept in the workdir, written where it is not yet.

    Args:
      path: of a `Labelled`; what names no data set is returned as it is.

    Raises:
      UserError: it cannot be had.
    """
    if not is_named(path):
        return path
    folder = Path(tempfile.gettempdir(), "mlm_jax_labelled") if in_bucket(workdir) else Path(workdir, "labelled")
    stem = re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{path}.{language}")
    for suffix in (".jsonl", ".json"):
        if (folder / (stem + suffix)).exists():
            return str(folder / (stem + suffix))
    make_folder(folder)
    # A process of its own, so that TensorFlow never shares memory or threads with the training.
    command = [sys.executable, "-m", "mlm_jax.prepare.labelled", path, language, str(folder / stem)]
    environment = os.environ | children.environment()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise UserError(done.stdout.strip() or f"{path}: cannot be had; what was printed above says why")
    return local_file(path, language, workdir)
