# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept, so that a second start of a run compiles nothing."""

from __future__ import annotations

import os

import jax

from mlm_jax.files import in_bucket


def keep_compiled(workdir: str, folder: str = "") -> None:
    """Have JAX keep what it compiles from here on, and load what was kept.

    Args:
      workdir: of the run, whose `compiled/` it is.
      folder: another one, local or gs://; "none": nothing is kept. Empty: that of the workdir, unless the environment
        (JAX_COMPILATION_CACHE_DIR) names one.
    """
    if folder == "none":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if not folder and os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = folder or f"{workdir}/compiled"
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if in_bucket(folder):
        # XLA's own files (how it tuned GPU kernels) go beside; it writes to local folders only.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
