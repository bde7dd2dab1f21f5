# SPDX-License-Identifier: Apache-2.0
"""`python -m mlm_jax` and `mlm-jax`: see `mlm_jax.cli`."""

import os
import signal
import sys

# Ctrl-C ends the command on the spot, as libraries that are just being loaded, and callbacks of theirs, swallow an exception
# or make another of it. Files are whole at any moment; training and preparation see to their own end.
INTERRUPTED = b"interrupted; the same command goes on from what is done\n"


def end(number: int, frame: object) -> None:
    """Say so and exit."""
    os.write(2, INTERRUPTED)
    os._exit(130)


def main() -> int:
    """The command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    from mlm_jax.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
