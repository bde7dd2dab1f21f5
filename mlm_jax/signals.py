# SPDX-License-Identifier: Apache-2.0
"""The signals that stop a run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# What `signal.signal` takes and returns; None of a handler that is not Python's.
Handler = Callable[[int, Any], Any] | int | None

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def heard() -> list[signal.Signals]:
    """`STOPS`, without a SIGHUP that is ignored (nohup), which stays so."""
    return [number for number in STOPS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]


def can_handle() -> bool:
    """Whether this thread may set handlers: Python's main thread alone does. In another a run hears no signal, and whoever started it does."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def handling(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Handle signals so within the block, and afterwards as before; in a thread that may not, nothing changes."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()} if can_handle() else {}
    try:
        yield
    finally:
        restore(before)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Handle `STOPS` after the block as before it, whatever was set in between."""
    before = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    finally:
        if can_handle():
            restore(before)


def restore(handlers: Mapping[signal.Signals, Handler]) -> None:
    """Set the handlers again that there were."""
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)
