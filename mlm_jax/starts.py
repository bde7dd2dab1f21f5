# SPDX-License-Identifier: Apache-2.0
"""When, by which command and with which versions a workdir was started: its started.jsonl."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import platform
from typing import TypedDict

from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.files import listed, write_whole
from mlm_jax.stored import parse_stored
from mlm_jax.version import __version__


class Start(TypedDict):
    """A line of started.jsonl."""

    date: str
    command: str
    step: int
    versions: dict[str, str]


def last_saved(folder: epath.Path) -> int:
    """The step of a workdir's newest checkpoint; 0 where there is none."""
    return max((int(path.name) for path in listed(folder / "checkpoints") if path.name.isdigit()), default=0)


def note_start(folder: epath.Path, command: str) -> None:
    """Add a line to the workdir's started.jsonl, unless it says the same already: date (UTC), command, step, and versions."""
    versions = {"mlm_jax": __version__, "jax": importlib.metadata.version("jax")}
    start: Start = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "step": last_saved(folder),
        "versions": versions | {"python": platform.python_version()},
    }
    before = read_starts(folder)
    if not before or {**before[-1], "date": ""} != {**start, "date": ""}:
        lines = [*before, start]
        write_whole(folder / "started.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_starts(folder: epath.Path) -> list[Start]:
    """The lines of started.jsonl; none in workdirs of earlier versions. Lines that are damaged are left out: nothing depends on them."""
    found = []
    path = folder / "started.jsonl"
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        with contextlib.suppress(UserError):
            found.append(parse_stored(line, str(path), Start))
    return found
