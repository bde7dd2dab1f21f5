# SPDX-License-Identifier: Apache-2.0
"""Names that a config gives: of languages, and of sets of data, which become names of files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from mlm_jax.errors import UserError

LONGEST = 100  # bytes of a name: a file's may have 255, and that of a pair has two
# What a workdir has of its own, beside the folders of benchmarks.
OWN = {
    "adapt.json", "checkpoints", "compiled", "config.json", "corpus", "done", "initial.json", "initial.safetensors", "metrics.jsonl", "models", "report",
    "results.csv", "results.html", "results.json", "running.json", "started.jsonl", "tensorboard", "vectors", "vocabulary", "words.json",
}  # fmt: skip
# Characters that turn the text after them around, wherever it is shown.
TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def check_names(where: str, names: Iterable[str], as_files: bool = False) -> None:
    """Refuse names that cannot be shown or stored, and two that would share a file.

    Args:
      where: the option that has them, for the message.
      as_files: files are called exactly as they are.

    Raises:
      UserError: with the name, and why.
    """
    known: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if problem := _problem(name) or (as_files and _problem_of_file(name)):
            raise UserError(f"{where}: {shown(name)}: {problem}; rename it")
        other = known.setdefault(_on_disk(name), name)
        if other != name:
            raise UserError(f"{where}: {shown(other)} and {shown(name)} would share a folder; rename one of them")


def shown(name: str) -> str:
    """A name for a message: on one line, not too long, and with what cannot be seen in it escaped."""
    short = name if len(name) <= LONGEST // 2 else f"{name[: LONGEST // 2]}…"
    return "".join(
        c if c.isprintable() and ord(c) not in TURNING else c.encode("unicode_escape").decode() for c in short
    )


def _problem(name: str) -> str:
    """Why a name cannot be one; empty where it can."""
    if not any(unicodedata.category(c)[0] in "LMNPS" for c in name):
        return "a name without a letter that can be seen"
    for c in name:
        # Control characters, half a surrogate pair, line and paragraph separators.
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or ord(c) in TURNING:
            return f"holds U+{ord(c):04X}, which is no part of a name"
    size = len(name.encode())
    return f"{size} bytes, more than the {LONGEST} of a name" if size > LONGEST else ""


def _problem_of_file(name: str) -> str:
    """Why a file cannot be called so."""
    if wrong := next((c for c in name if c in "/\\[]"), ""):
        return f"holds {wrong}, and files are named after it"
    if name.startswith(".") or name != name.strip():
        return "begins with a dot or a space, or ends with a space, and files are named after it"
    return "a name that the workdir needs for a file of its own" if name.casefold() in OWN else ""


def _on_disk(name: str) -> str:
    """What names have in common that could not be told apart, on a disk that knows no case or in a SeqIO task's name."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"\W", "_", "".join(c for c in plain if unicodedata.category(c) != "Cf"))
