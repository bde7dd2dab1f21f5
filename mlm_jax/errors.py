# SPDX-License-Identifier: Apache-2.0
"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command line prints it as `error: ...` and exits with status 2, without a traceback.
    """
