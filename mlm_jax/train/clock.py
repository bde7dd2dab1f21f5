# SPDX-License-Identifier: Apache-2.0
"""What a training loop knows of time and of the signals that end it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class Clock:
    """Training time, without validation and saving, and the part of it spent waiting for input.

    Attributes:
      total: seconds of training so far, those before the run was continued included.
    """

    def __init__(self, total: float):
        self.total = total
        self._since = self._waited = self._paused = 0.0

    def start(self) -> None:
        self._since, self._waited, self._paused = time.perf_counter(), 0.0, 0.0

    def lap(self) -> tuple[float, float]:
        """Seconds of training, and of them waiting, since the last lap."""
        now = time.perf_counter()
        seconds, waited = max(now - self._since - self._paused, 1e-9), self._waited
        self.total += seconds
        self.start()
        return seconds, waited

    @contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._paused += time.perf_counter() - begin


@dataclass
class Caught:
    """The first SIGTERM or SIGINT since the handlers were set."""

    signal: signal.Signals | None = field(default=None)


@contextmanager
def catch_signals() -> Iterator[Caught]:
    """Note SIGTERM and SIGINT instead of dying of them; a second SIGINT interrupts at once."""
    caught = Caught()

    def handle(number: int, frame: Any) -> None:
        if caught.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.signal = signal.Signals(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
