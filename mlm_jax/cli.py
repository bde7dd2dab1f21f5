# SPDX-License-Identifier: Apache-2.0
"""The command line: `mlm-jax COMMAND CONFIG.py [--dotted.option value ...]`, and what goes wrong in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from mlm_jax.commands import Command, find_command, usage
from mlm_jax.console import say, say_aside
from mlm_jax.cuda_plugin import import_jax
from mlm_jax.errors import INTERRUPTED, Ended, UserError
from mlm_jax.files import said
from mlm_jax.options import parse
from mlm_jax.streams import mend_streams
from mlm_jax.version import __version__

# Before jax is imported: XLA's and TensorFlow's start-up chatter.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 after bad input, or 128 + the signal that stopped a run."""
    mend_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command, given = None, None
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            say(usage())
            return 0
        if arguments[0] == "--version":
            say(f"mlm-jax {__version__}")
            return 0
        command, rest = find_command(arguments[0]), arguments[1:]
        if rest[:1] in (["-h"], ["--help"]) or (not rest and command.needs_arguments):
            say(command.page)
            return 0
        given = parse(command.name, rest)
        import_jax()
        return command.run(given, rest)
    except UserError as e:
        if str(e):
            say_aside(f"error: {e}")
        return e.status if isinstance(e, Ended) else 2
    except OSError as e:
        if isinstance(e, BrokenPipeError) and e.filename is None:
            raise  # to `__main__`: whoever reads what is printed may have gone
        goes_on = ": it goes on from what is done" if command and command.goes_on else ""
        say_aside(f"error: {said(e, place_of(command, given), f'then run the same command again{goes_on}')}")
        return 2
    except ImportError as e:
        if "gcsfs" not in str(e):
            raise
        say_aside("error: gs:// needs gcsfs here: pip install -c constraints.txt gcsfs")
        return 2
    except KeyboardInterrupt:
        say_aside(INTERRUPTED)
        return 130


def place_of(command: Command | None, given: Any) -> str:
    """Where a command writes, which an error that names no file is said of."""
    if command is None or given is None:
        return "mlm-jax"
    if isinstance(given, dict):
        return given[command.arguments[-1]] if command.arguments else f"mlm-jax {command.name}"
    return given.workdir
