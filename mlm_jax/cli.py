# SPDX-License-Identifier: Apache-2.0
"""The command line: `mlm-jax COMMAND CONFIG.py [--dotted.option value ...]`, and what goes wrong in one line."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence

from mlm_jax.commands import find_command, usage
from mlm_jax.errors import INTERRUPTED, Ended, UserError
from mlm_jax.options import parse

# Before jax is imported: XLA's and TensorFlow's start-up chatter.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 2 after bad input, or 128 + the signal that stopped a run."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage())
            return 0
        if arguments[0] == "--version":
            print(f"mlm-jax {importlib.metadata.version('mlm_jax')}")
            return 0
        command, rest = find_command(arguments[0]), arguments[1:]
        if rest[:1] in (["-h"], ["--help"]) or (not rest and not command.config):
            print(command.page)
            return 0
        return command.run(parse(command.name, rest), rest)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except Ended as e:
        return e.status
    except BrokenPipeError:
        raise  # to `__main__`: whoever reads what is printed may have gone
    except PermissionError as e:
        print(f"error: {e.filename}: no permission ({e.strerror}); choose another workdir or mend it", file=sys.stderr)
        return 2
    except OSError as e:
        print(f"error: {e.filename or 'a file'}: {e.strerror or e}; mend it, or name another place", file=sys.stderr)
        return 2
    except ImportError as e:
        if "gcsfs" not in str(e):
            raise
        print("error: gs:// needs gcsfs here: pip install -c constraints.txt gcsfs", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
