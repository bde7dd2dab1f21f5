# SPDX-License-Identifier: Apache-2.0
"""Where what a page shows comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from mlm_jax.starts import Start, read_starts


def provenance(folder: epath.Path, config: Mapping[str, Any], steps: int = 0) -> list[tuple[str, str]]:
    """(what, value) of a workdir: where it began, what was typed, when, and with which versions, as far as it has that.

    Args:
      config: as stored there.
      steps: that were trained; only starts before the last of them are told.
    """
    init = config.get("init")
    found = [("began from", str(init))] if init else []
    if not init and "train" in config and "sampling" in config:
        found.append(("began from", "random parameters"))
    starts = told(read_starts(folder), steps)
    for start in starts:
        at = f", at step {start['step']:,}" if start["step"] else ""
        found.append((f"started {start['date']}{at}", start["command"]))
    for versions in {str(start["versions"]): start["versions"] for start in starts}.values():
        found.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return found


def told(starts: Sequence[Start], steps: int) -> list[Start]:
    """Starts without those of `prepare`, where there are others, and without those that had nothing left to do."""
    others = [s for s in starts if not re.search(r"mlm[-_]jax prepare\b", s["command"])] or list(starts)
    return [s for s in others if not steps or s["step"] < steps]
