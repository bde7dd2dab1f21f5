# SPDX-License-Identifier: Apache-2.0
"""Real processes that train together on this machine's CPU, for tests and the fault drill."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlm_jax.train.metrics import read_metrics
from tests.corpora import write_config

CHECKOUT = Path(__file__).parents[1]
# Notes in a file which rows of its batches the process reads.
PROGRAM = """
import sys
from mlm_jax.__main__ import main
from mlm_jax.input.mixture import Mixture

read, rows = Mixture.__getitem__, open(sys.argv[1], "w", buffering=1)

def noting(self, index):
    print(self.rows[index % len(self.rows)], file=rows)
    return read(self, index)

Mixture.__getitem__ = noting
del sys.argv[1]
sys.exit(main())
"""


# What the collectives' library prints, piece by piece, and several connections at once: the pieces of two lines mix.
GLOO = re.compile(r"\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of connected peer ranks is : ")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


class Processes:
    """`count` processes of `devices` CPU devices each that train `config` together.

    The config is pretraining's, unless a command and the path of its config file are given.

    What process i says is in `folder`: out.i, err.i; the rows it reads, one a line, in rows.i.
    """

    def __init__(
        self,
        folder: Path,
        config,
        count: int,
        devices: int,
        *options: str,
        timeout: int = 30,
        command: str = "pretrain",
        path: str = "",
        program: str = PROGRAM,
    ):
        self.folder, self.workdir = folder, config.workdir
        folder.mkdir(parents=True, exist_ok=True)
        path = path or str(write_config(folder / "config.py", config))
        coordinator = f"localhost:{free_port()}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles several times as fast
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path]),
        }
        self.started = []
        for i in range(count):
            hosts = ["--hosts.start", "given", "--hosts.coordinator", coordinator, "--hosts.timeout", str(timeout)]
            hosts += ["--hosts.processes", str(count), "--hosts.process", str(i)]
            line = [sys.executable, "-c", program, str(folder / f"rows.{i}"), command, path]
            with (folder / f"out.{i}").open("w") as out, (folder / f"err.{i}").open("w") as err:
                process = subprocess.Popen([*line, *hosts, *options], env=environment, stdout=out, stderr=err)
            self.started.append(process)

    def wait(self, seconds: float = 600) -> list[int]:
        """Exit statuses, once all have ended; those that do not are killed."""
        deadline = time.monotonic() + seconds
        try:
            return [p.wait(max(deadline - time.monotonic(), 0.1)) for p in self.started]
        finally:
            for p in self.started:
                p.kill()

    def wait_for_step(self, step: int, seconds: float = 600) -> None:
        """Wait until the run's metrics have come to a step."""
        deadline = time.monotonic() + seconds
        while max((r["step"] for r in read_metrics(self.workdir)), default=0) < step:
            ended = [p.poll() for p in self.started]
            assert not any(status is not None for status in ended), (ended, self.said("err"))
            assert time.monotonic() < deadline, ("the run did not get there", self.said("err"))
            time.sleep(0.02)

    def wait_until(self, is_now: Callable[[str], bool], seconds: float = 600) -> None:
        """Wait until `is_now` of what the first process has said."""
        deadline = time.monotonic() + seconds
        while not is_now(self.said("out")[0]):
            assert time.monotonic() < deadline, ("the moment did not come", self.said("err"))
            time.sleep(0.002)

    def said(self, what: str) -> list[str]:
        """What the processes wrote: out, err or rows."""
        return [(self.folder / f"{what}.{i}").read_text() for i in range(len(self.started))]

    def own_lines(self) -> list[list[str]]:
        """The lines of the processes' output, less those of the collectives' library."""
        return [[line for line in GLOO.sub("", text).splitlines() if line.strip()] for text in self.said("out")]

    def errors(self) -> list[str]:
        """Each process's `error:` lines."""
        time.sleep(0.5)  # a killed process's line is written after its end
        return [
            "\n".join(line for line in text.splitlines() if line.startswith("error: ")) for text in self.said("err")
        ]
