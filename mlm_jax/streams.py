# SPDX-License-Identifier: Apache-2.0
"""Standard input, output and error, whatever state a program is started with."""

from __future__ import annotations

import contextlib
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
