# SPDX-License-Identifier: Apache-2.0
"""The tools that hold the style, the types and the one way of imports; their settings are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


def check(program: str, *arguments: str) -> None:
    # The program beside this Python, whatever PATH holds.
    executable = Path(sys.executable).with_name(program)
    if not executable.exists():
        pytest.skip(f"{program} is not installed; it comes with the [test] extra")
    done = subprocess.run([executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout}{done.stderr}"


def test_lint() -> None:
    check("ruff", "check", "--quiet", ".")


def test_format() -> None:
    check("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_types() -> None:
    check("mypy")


def test_imports_go_one_way() -> None:
    check("lint-imports")
