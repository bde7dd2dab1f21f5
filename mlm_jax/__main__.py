# SPDX-License-Identifier: Apache-2.0
"""`python -m mlm_jax` and `mlm-jax`: see `mlm_jax.cli`."""

import os
import select
import signal
import sys

from mlm_jax.errors import INTERRUPTED

# Ctrl-C ends the command on the spot, as libraries that are just being loaded, and callbacks of theirs, swallow an exception
# or make another of it. Files are whole at any moment; training and preparation see to their own end.
SHOW_CURSOR = b"\x1b[?25h\n"  # which a progress bar hides


def end(number: int, frame: object) -> None:
    """Say so, give back the workdir, and exit."""
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)
    os.write(2, f"{INTERRUPTED}\n".encode())
    lock = sys.modules.get("mlm_jax.lock")
    if lock is not None:
        lock.give_back()
    os._exit(130)


def main() -> int:
    """The command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    from mlm_jax.cli import main as command

    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        output = select.poll()
        output.register(1, 0)
        if not any(event & select.POLLERR for _, event in output.poll(0)):
            raise
        # Whoever read what is printed has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


if __name__ == "__main__":
    sys.exit(main())
