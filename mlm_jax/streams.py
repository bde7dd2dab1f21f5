# SPDX-License-Identifier: Apache-2.0
"""Standard input, output and error, whatever state a program is started with."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys


def mend_streams() -> None:
    """Open closed ones on nothing, and let output show letters that its encoding lacks as escapes.

    A number that is left free (`>&-`) would go to the next file that is opened, into which libraries would print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # it flushes first
                stream.reconfigure(errors="backslashreplace")


def silence(stream: object) -> None:
    """Let a stream that cannot be written to swallow all that is still printed."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # type: ignore[attr-defined]
        os.close(nothing)


def import_jax() -> None:
    """Import JAX, where a CUDA plugin of it is installed, without what the plugin's parts print of a machine that has no driver.

    They heed no setting, and standard error is for what the user has to know. What goes wrong is an exception all the same.
    """
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        return
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        importlib.import_module("jax")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
