# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.stand_ins import Launch, make_python


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    made = Launch(tmp_path)
    yield made
    for pid in made.cloud.glob("*/pid"):  # services that a test has left running
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def pod(launch: Launch) -> Launch:
    """A cloud whose TPU VMs have a Python that will do, as python3.13."""
    make_python(launch.programs / "python3.13", "3.13")
    return launch
