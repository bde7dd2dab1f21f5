# SPDX-License-Identifier: Apache-2.0
"""Files by pattern: what is there under a name is a file, whatever is in its name."""

from __future__ import annotations

import glob
import os

from etils import epath

from mlm_jax import storage
from mlm_jax.files import in_bucket

WILDCARDS = "*?["
SAVED = ("state.json", "dataset_dict.json")  # that say what a saved data set has: its files, or its splits


def matching_files(pattern: str) -> list[str]:
    """Files that match a pattern, sorted; the pattern may have wildcards in any of its folders.

    A file or folder that is there by that name is none, and brackets are themselves where they match nothing as a pattern. A folder
    that matches is left out, unless `save_to_disk` of Hugging Face's `datasets` made it.

    Raises:
      UserError: nothing opens this kind of path here.
    """
    if storage.exists(pattern):
        return [pattern]
    if not any(c in pattern for c in WILDCARDS):
        return []
    if storage.is_elsewhere(pattern):
        return storage.glob(pattern)
    root: list[str] = []
    names = pattern.split("/")
    while not any(c in names[0] for c in WILDCARDS) or epath.Path("/".join([*root, names[0]])).exists():
        root.append(names.pop(0))
    folder = "".join(f"{name}/" for name in root)
    rest = "/".join(names)
    if in_bucket(pattern):
        return sorted(str(path) for path in epath.Path(glob.escape(folder)).glob(rest) if not path.is_dir())
    found = glob.glob(glob.escape(folder) + rest) or glob.glob(glob.escape(folder) + rest.replace("[", "[[]"))
    return sorted(path for path in found if not os.path.isdir(path) or is_saved(path))


def is_saved(folder: str) -> bool:
    """Whether a folder of this machine holds a data set that `save_to_disk` wrote."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in SAVED)
