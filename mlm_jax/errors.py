# SPDX-License-Identifier: Apache-2.0
"""What a user is meant to read: the exceptions, and the word on Ctrl-C."""

INTERRUPTED = "interrupted; the same command goes on from what is done"


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command line prints it as `error: ...` and exits with status 2, without a traceback.
    """


class Ended(Exception):
    """A process that ran a part of the command did not succeed and has said why; `status` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
