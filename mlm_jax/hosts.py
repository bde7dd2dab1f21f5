# SPDX-License-Identifier: Apache-2.0
"""Processes that train together, on one machine or many: JAX's own distributed runtime, started and left in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mlm_jax import console, lock
from mlm_jax.config import Hosts
from mlm_jax.errors import Ended, UserError
from mlm_jax.files import said

GONE = 75  # exit status where another process is gone: nothing to mend, start again (sysexits.h: EX_TEMPFAIL)
AGAIN = "start all of them again to continue from the last checkpoint"
# What JAX's errors hold where the others cannot be reached, by gloo, NCCL and the coordination service.
LOST = ("gloo", "nccl", "coordination", "barrier", "unavailable", "deadline_exceeded", "connection")

# Whether this process trained with others and has left them. `__main__` then ends it without the interpreter's own way out, in which
# processes of a busy machine hung in two of 24 runs.
has_left = False


@contextlib.contextmanager
def initialized(config: Hosts) -> Iterator[bool]:
    """Run as one of the processes that `config` names.

    All but the first process keep silent on standard output. A process that fails says so in one line on standard
    error and ends at once, with status 2, so that the others find it gone; they say that and end, with status `GONE`.
    JAX itself aborts a process (SIGABRT) when the first one or a sign of life is missing, `hosts.timeout` at the latest.

    Yields:
      Whether this is the first process, or alone.
    """
    global has_left
    if config.start == "alone":
        yield True
        return
    number = f"{config.process} of {config.processes}" if config.start == "given" else f"with pid {os.getpid()}"
    name = f"process {number} on {socket.gethostname()}"
    # A shell prints the error for this process, because JAX aborts it (SIGABRT) from a thread of its own when another
    # process dies or never joins.
    line = f"error: {name}: it was killed, or JAX ended it because another process is gone or did not come; {AGAIN}"
    witness = subprocess.Popen(
        ["sh", "-c", 'read ended || echo "$0" >&2', line], stdin=subprocess.PIPE, start_new_session=True
    )
    # A process that ends because its lock is another's says so itself.
    lock.before_end.append(lambda: witness.communicate(b"ended\n"))
    try:
        _connect(config)
        process = jax.process_index()
        name = f"process {process} of {jax.process_count()} on {socket.gethostname()}"
        with contextlib.ExitStack() as stack:
            if process:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield process == 0
        jax.distributed.shutdown()
        has_left = True
        witness.communicate(b"ended\n")
    except BaseException as error:
        # Not the way out through `sys.exit`: JAX would wait for the others there, and they wait for this process.
        witness.communicate(b"ended\n")
        os._exit(_say(name, error))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX's notice of preemption has nobody left to tell


def allgather(value: int) -> list[int]:
    """The values that all processes give here, in the processes' order; every process has to call it."""
    if jax.process_count() == 1:
        return [value]
    with jax.transfer_guard("allow"):
        return multihost_utils.process_allgather(np.int32(value)).tolist()


def barrier(where: str) -> None:
    """Wait until every process is here, up to an hour; a name `where` is used once per run.

    Collective operations wait too, but gloo only for 30 s, and the processes do not compile equally fast.
    """
    ocp.multihost.get_barrier_sync_fn()(key=f"mlm_jax_{where}", timeout_ms=3_600_000)


def is_loss(error: BaseException) -> bool:
    """Whether an error is what is seen of another process's end."""
    said = str(error).lower()
    return jax.process_count() > 1 and isinstance(error, RuntimeError | ValueError) and any(w in said for w in LOST)


def _connect(config: Hosts) -> None:
    # What CPU devices of several processes reduce with; of no effect on GPU and TPU.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given: dict[str, Any] = {}
    if config.start == "given":
        given = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=config.timeout, heartbeat_timeout_seconds=config.timeout
        )
    except Exception as e:
        where = config.coordinator or "the coordinator"
        raise UserError(f"hosts.start: {config.start}: {where}: {e}") from e


def _say(name: str, error: BaseException) -> int:
    """Print what ended this process; returns the exit status."""
    if is_loss(error):
        reason, status = f"another process is gone ({str(error).splitlines()[0][:200]}); {AGAIN}", GONE
    elif isinstance(error, Ended):
        reason, status = str(error) or "what it began in a process of its own did not succeed", error.status
    elif isinstance(error, UserError):
        reason, status = str(error), 2
    elif isinstance(error, OSError):
        reason, status = said(error, "a file of the run", "then start all of them again to continue"), 2
    elif isinstance(error, KeyboardInterrupt):
        reason, status = "interrupted", 130
    else:
        traceback.print_exception(error)
        reason, status = f"{type(error).__name__}: {error}", 1
    console.say_aside(f"error: {name}: {reason}")
    return status
