# SPDX-License-Identifier: Apache-2.0
"""Processes that end with the one that started them, whatever ended that one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Final

PARENT = "MLM_JAX_PARENT"  # names the process that a child ends with, in the child's environment
PR_SET_PDEATHSIG: Final = 1  # of Linux's prctl


def environment() -> dict[str, str]:
    """The environment of a process that is to end with this one; its program calls `end_with_parent`."""
    return {PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """End this process when the one that named itself in the environment does; nothing if none did."""
    parent = os.environ.pop(PARENT, "")  # not for what this process starts
    if parent.isdecimal():
        end_with(int(parent))


def end_with(parent: int) -> None:
    """End this process when its parent does.

    Linux's kernel sees to it (SIGKILL, also while a library holds the interpreter); elsewhere a thread looks every second.

    Args:
      parent: pid of the process whose main thread started this one.
    """
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0:
            if os.getppid() != parent:  # it has ended already
                os._exit(1)
            return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
