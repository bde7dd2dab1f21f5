# SPDX-License-Identifier: Apache-2.0
"""`python -m mlm_jax` and `mlm-jax`: see `mlm_jax.cli`."""

import os
import select
import signal
import sys

from mlm_jax.children import end_with_parent
from mlm_jax.errors import INTERRUPTED, end_at_once

# Ctrl-C ends the process at once, because libraries that are being imported, and their callbacks, may swallow
# KeyboardInterrupt or turn it into another exception. No file is ever half-written; training and preparation handle the
# signal themselves.


def end(number: int, frame: object) -> None:
    """Release the workdir, print one line, and exit."""
    lock = sys.modules.get("mlm_jax.lock")
    if lock is not None:
        lock.release_all()
    end_at_once(INTERRUPTED, 130)


def main() -> int:
    """The command line."""
    end_with_parent()
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
