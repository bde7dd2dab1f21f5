# SPDX-License-Identifier: Apache-2.0
"""`python -m mlm_jax` and `mlm-jax`: see `mlm_jax.cli`."""

import os
import select
import signal
import sys

from mlm_jax.children import end_with_parent
from mlm_jax.environment import missing
from mlm_jax.errors import INTERRUPTED, end_at_once
from mlm_jax.streams import mend_streams, silence

# Ctrl-C ends the process at once, because libraries that are being imported, and their callbacks, may swallow
# KeyboardInterrupt or turn it into another exception. No file is ever half-written; training and preparation handle the
# signal themselves.


def end(number: int, frame: object) -> None:
    """Release the workdir, remove what is half-written, print one line, and exit."""
    for name, clean in (("mlm_jax.lock", "release_all"), ("mlm_jax.files", "remove_asides")):
        module = sys.modules.get(name)
        if hasattr(module, clean):
            getattr(module, clean)()
    end_at_once(INTERRUPTED, 130)


def main() -> int:
    """The command line."""
    mend_streams()
    wanted = missing(os.environ)
    if wanted:
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    end_with_parent()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    from mlm_jax.cli import main as command

    try:
        try:
            status = command()
        finally:
            _flush()
        hosts = sys.modules.get("mlm_jax.hosts")
        if hosts is not None and hosts.has_left:
            os._exit(status)
        return status
    except BrokenPipeError:
        output = select.poll()
        output.register(1, 0)
        if not any(event & select.POLLERR for _, event in output.poll(0)):
            raise
        # Whoever read what is printed has gone.
        silence(sys.stdout)
        return 141


def _flush() -> None:
    from mlm_jax.console import go_on_without_output

    try:
        sys.stdout.flush()
    except OSError as e:
        go_on_without_output(e)


if __name__ == "__main__":
    sys.exit(main())
