# SPDX-License-Identifier: Apache-2.0
"""JAX's plugin for CUDA, where it is installed: with a GPU, or to compile for one that is not here."""

from __future__ import annotations

import importlib
import importlib.util
import os


def has_cuda_plugin() -> bool:
    """Whether JAX's plugin for CUDA is installed."""
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") is not None for version in (12, 13))


def import_jax() -> None:
    """Import JAX, where a CUDA plugin of it is installed, without what the plugin's parts print of a machine that has no driver.

    They heed no setting, and standard error is for what the user has to know. What goes wrong is an exception all the same.
    """
    if not has_cuda_plugin():
        return
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        importlib.import_module("jax")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
