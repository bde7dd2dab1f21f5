# SPDX-License-Identifier: Apache-2.0
"""The most memory that a command and its processes took, as the kernel counts it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """Attributes:
    status: of its exit.
    said: what it printed.
    peak: MB of the process that took most.
    together: MB of all at one moment, without the files that are mapped, which the kernel takes back when it needs the room.
    """

    status: int
    said: str
    peak: float
    together: float


def run_measured(command: Sequence[str], environment: Mapping[str, str], every: float = 0.05) -> Ran:
    """Run a command to its end, looking at it and at all that it starts every so many seconds."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    peak = together = 0.0
    while process.poll() is None:
        found = [sizes for pid in _family(process.pid) if (sizes := _sizes(pid))]
        peak = max([peak, *(most for most, _ in found)])
        together = max(together, sum(now for _, now in found))
        time.sleep(every)
    assert process.stdout is not None
    return Ran(process.returncode, process.stdout.read(), peak, together)


def _family(pid: int) -> list[int]:
    try:
        children = [
            int(x) for task in Path(f"/proc/{pid}/task").iterdir() for x in (task / "children").read_text().split()
        ]
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _family(child))]


def _sizes(pid: int) -> tuple[float, float] | None:
    """Of a process, MB at most until now, and MB now that are no files'."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        return None
