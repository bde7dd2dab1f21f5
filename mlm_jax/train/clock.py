# SPDX-License-Identifier: Apache-2.0
"""What a training loop knows of time and of the signals that end it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.experimental import multihost_utils

from mlm_jax import hosts
from mlm_jax.signals import handling, heard


class Clock:
    """Training time, without validation and saving, and the part of it spent waiting for input.

    Attributes:
      total: seconds of training up to the last lap, those before the run was continued included.
    """

    def __init__(self, total: float):
        self.total = total
        self._since = self._waited = self._paused = 0.0

    def start(self) -> None:
        self._since, self._waited, self._paused = time.perf_counter(), 0.0, 0.0

    def now(self) -> float:
        """Seconds of training so far, those before the run was continued included."""
        return self.total + max(time.perf_counter() - self._since - self._paused, 0.0)

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
    """The first of `signals.STOPS` since the handlers were set."""

    signal: signal.Signals | None = field(default=None)


@contextmanager
def catch_signals(but: Sequence[int] = ()) -> Iterator[Caught]:
    """Note the signals that stop a run (`signals.heard`) instead of dying of them; a second SIGINT interrupts at once.

    Args:
      but: signals that are left to others.
    """
    caught = Caught()
    terminals = [output for output in (1, 2) if os.isatty(output)]

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            # The terminal is gone: what is written to it would be an error.
            nothing = os.open(os.devnull, os.O_WRONLY)
            for output in terminals:
                os.dup2(nothing, output)
        if caught.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.signal = signal.Signals(number)

    with handling({number: handle for number in heard() if number not in but}):
        yield caught


@contextmanager
def catch_stop(max_seconds: float, start: int = 0) -> Iterator[Callable[[int], signal.Signals | None]]:
    """Why a training is to stop, asked after each step by its number: one of `signals.STOPS`, SIGALRM once `max_seconds`
    (0: no limit) are over, or None.

    Processes that train together stop at the same step, whichever of them has a reason: JAX's preemption service
    hears SIGTERM on any of them, from `jax.distributed.initialize` on, and finds the step; so the other reasons are
    turned into it.

    Args:
      start: the step that the training continues from.
    """
    began, told = time.monotonic(), False
    together = jax.process_count() > 1
    # reached_preemption_sync_point returns True for one step only: the one after the last queried. If SIGTERM arrived
    # before the first query that step is 1, so a run that continues also queries step 1.
    early = together and start > 0 and any(multihost_utils.reached_preemption_sync_point(n) for n in (1, start))
    # With several processes JAX handles SIGTERM: a handler of ours would replace its own.
    with catch_signals(but=[signal.SIGTERM] if together else []) as caught:

        def stop(step: int) -> signal.Signals | None:
            nonlocal told
            late = max_seconds and time.monotonic() - began > max_seconds
            reason = caught.signal or (signal.SIGALRM if late else None)
            if not together:
                return reason
            if reason is not None and not told:
                signal.raise_signal(signal.SIGTERM)
                told = True
            # By the run's own number: Orbax asks by that one while it saves, and JAX finds the step from the last asked.
            if not early and not multihost_utils.reached_preemption_sync_point(step):
                return None
            reasons = [number for number in hosts.allgather(reason or 0) if number]
            return signal.Signals(reasons[0]) if reasons else signal.SIGTERM

        yield stop
