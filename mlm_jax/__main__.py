# SPDX-License-Identifier: Apache-2.0
"""`python -m mlm_jax` and `mlm-jax`: see `mlm_jax.cli`."""

import os
import select
import signal
import sys

from mlm_jax.errors import INTERRUPTED

# Ctrl-C ends the process at once, because libraries that are being imported, and their callbacks, may swallow
# KeyboardInterrupt or turn it into another exception. No file is ever half-written; training and preparation handle the
# signal themselves.
SHOW_CURSOR = b"\x1b[?25h\n"  # which a progress bar hides


def end(number: int, frame: object) -> None:
    """Print one line, release the workdir, and exit."""
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)
    os.write(2, f"{INTERRUPTED}\n".encode())
    lock = sys.modules.get("mlm_jax.lock")
    if lock is not None:
        lock.release_all()
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
