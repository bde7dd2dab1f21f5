# SPDX-License-Identifier: Apache-2.0
"""What a user is meant to read: the exceptions, the nearest name, the word on Ctrl-C, and the last line of a process that ends at once."""

import contextlib
import difflib
import os
from collections.abc import Iterable
from typing import NoReturn

INTERRUPTED = "interrupted; the same command goes on from what is done"

CONTROLS = {*map(chr, (*range(32), *range(127, 160))), "\u2028", "\u2029"}


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command line prints it as `error: ...` and exits with status 2, without a traceback. Line ends and other control characters, which
    names and values that it cites may hold, are escaped.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__("".join(repr(c)[1:-1] if c in CONTROLS else c for c in str(message)))


class Ended(UserError):
    """A process that ran a part of the command did not succeed, for the reason that it gave; `status` is its exit status."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(reason)
        self.status = status


def end_at_once(line: str, status: int) -> NoReturn:
    """Print a line to standard error and end the process, without anything that waits or writes."""
    with contextlib.suppress(OSError):  # nobody to read it
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    os._exit(status)


def did_you_mean(name: str, names: Iterable[str], least: float = 0.5) -> str:
    """For a message that refuses a name: `; did you mean NAME?`, or nothing where none of the names is near."""
    near = difflib.get_close_matches(name, list(names), 1, least)
    return f"; did you mean {near[0]}?" if near else ""
