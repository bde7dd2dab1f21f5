# SPDX-License-Identifier: Apache-2.0
"""The signals that stop a run."""

from __future__ import annotations

import signal

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def heard() -> list[signal.Signals]:
    """`STOPS`, without a SIGHUP that is ignored (nohup), which stays so."""
    return [number for number in STOPS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
