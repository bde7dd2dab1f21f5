# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept, so that a second start of a run compiles nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from mlm_jax.files import in_bucket


def keep_compiled(workdir: str, folder: str = "") -> None:
    """Have JAX keep what it compiles from here on, and load what was kept.

    Args:
      workdir: of the run, whose `compiled/` it is.
      folder: another one, local or gs://; "none": nothing is kept. Empty: that of the workdir, unless the environment
        (JAX_COMPILATION_CACHE_DIR) names one.
    """
    if folder == "none":
        compilation_cache.reset_cache()
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if not folder and os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = folder or f"{workdir}/compiled"
    if kept_in() != folder:
        # JAX decides once per process whether it keeps programs, and where: by the first that it compiled, if only a notebook's line.
        compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if in_bucket(folder):
        # XLA's own files (how it tuned GPU kernels) go beside; it writes to local folders only.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def kept_in() -> str | None:
    """Where JAX keeps what it compiles; None: nowhere."""
    folder: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009 (its types lack it)
    return folder


# What `keep_compiled` sets.
SETTINGS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Keep compiled programs after the block where they were kept before it, whatever `keep_compiled` said in between."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    try:
        yield
    finally:
        if any(getattr(jax.config, name) != value for name, value in before.items()):
            compilation_cache.reset_cache()
        for name, value in before.items():
            jax.config.update(name, value)
