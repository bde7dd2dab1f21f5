# SPDX-License-Identifier: Apache-2.0
"""Environment variables that a program has to be started with, because Python or the C library reads them once."""

from __future__ import annotations

import sys
from collections.abc import Mapping

HUGE_PAGES = "glibc.malloc.hugetlb"
CHOICE = "/sys/kernel/mm/transparent_hugepage/enabled"


def missing(given: Mapping[str, str]) -> dict[str, str]:
    """What an environment lacks: it is empty for one that has what this returned.

    - UTF-8: text and names of files are UTF-8 here, whatever LC_ALL says.
    - Huge pages, where Linux leaves them to the program: a step on CPUs gets and gives back hundreds of megabytes, and in pages of
      4 KiB that took a sixth of its time (benchmarks/README.md).
    """
    wanted = {}
    if sys.getfilesystemencoding() == "ascii" and given.get("PYTHONUTF8") != "1":
        wanted["PYTHONUTF8"] = "1"
    tunables = given.get("GLIBC_TUNABLES", "")
    if HUGE_PAGES not in tunables and _left_to_programs():
        wanted["GLIBC_TUNABLES"] = f"{tunables}:{HUGE_PAGES}=1".lstrip(":")
    return wanted


def _left_to_programs() -> bool:
    try:
        with open(CHOICE) as file:
            return "[madvise]" in file.read()
    except OSError:
        return False
