# SPDX-License-Identifier: Apache-2.0
"""Processes that train together, on one machine or many: JAX's own distributed runtime, started and left in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mlm_jax.config import Hosts
from mlm_jax.errors import UserError


@contextlib.contextmanager
def together(config: Hosts) -> Iterator[bool]:
    """Run as one of the processes that `config` names.

    All but the first process keep silent on standard output. A process that fails says so in one line on standard
    error and ends at once, with status 2, so that the others find it gone; they then do the same.

    Yields:
      Whether this is the first process, or alone.

    Raises:
      UserError: the processes do not find each other.
    """
    if config.start == "alone":
        yield True
        return
    _connect(config)
    process, count = jax.process_index(), jax.process_count()
    try:
        with contextlib.ExitStack() as stack:
            if process:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield process == 0
        jax.distributed.shutdown()
    except BaseException as error:
        # Not the way out through `sys.exit`: JAX would wait for the others there, and they wait for this process.
        print(f"error: process {process} of {count} on {socket.gethostname()}: {_in_a_line(error)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130 if isinstance(error, KeyboardInterrupt) else 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX's notice of preemption has nobody left to tell


def agree(value: int) -> list[int]:
    """What every process gives here, in their order; all have to call it."""
    if jax.process_count() == 1:
        return [value]
    with jax.transfer_guard("allow"):
        return multihost_utils.process_allgather(np.int32(value)).tolist()


def meet(where: str) -> None:
    """Wait until every process is here, up to an hour; `where` may name one place a run.

    Collective operations wait too, but gloo only for 30 s, and the processes do not compile equally fast.
    """
    ocp.multihost.get_barrier_sync_fn()(key=f"mlm_jax_{where}", timeout_ms=3_600_000)


def _connect(config: Hosts) -> None:
    # What CPU devices of several processes reduce with; of no effect on GPU and TPU.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given = {}
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


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    traceback.print_exception(error)
    return repr(error)
