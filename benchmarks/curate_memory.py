# SPDX-License-Identifier: Apache-2.0
"""The most memory that all processes of `curate` take at once, at 1 and at 100 times the input.

    python -m benchmarks.curate_memory [MEGABYTES [MEMORY]]

The input is made: documents that are all different; near copies of a hundred; near copies of one, in one cluster; one paragraph in every document. MEGABYTES (0.3) of
text at 1 ×, `--memory` MEMORY (0.05) GiB, two processes. Files that are mapped are not counted, which the kernel takes back when it needs the room.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.curate.peak import Ran, run_measured

TIMES = 100
COMMON = ["the", "of", "and", "to", "in", "that", "was", "for", "with", "his", "they", "this", "have", "which", "one", "you", "were", "all", "her", "she", "would"]  # fmt: skip
WORDS = 300  # of a document


def words(draw: random.Random, number: int) -> list[str]:
    """English enough to be told as such and to pass the rules."""
    return [
        draw.choice(COMMON) if draw.random() < 0.5 else f"{draw.choice(COMMON)}{draw.choice(COMMON)}s"
        for _ in range(number)
    ]


def text(found: list[str], paragraphs: int = 6) -> str:
    size = -(-len(found) // paragraphs)
    lines = (" ".join(found[at : at + size]) for at in range(0, len(found), size))
    return "\n".join(f"{line}." for line in lines)


def distinct(draw: random.Random) -> Iterator[str]:
    while True:
        yield text(words(draw, WORDS))


def near(draw: random.Random, originals: int = 100) -> Iterator[str]:
    """One paragraph each, as equal ones would go before; one word of it is another."""
    pages = [words(draw, WORDS) for _ in range(originals)]
    while True:
        page = list(draw.choice(pages))
        page[draw.randrange(WORDS)] = f"{draw.choice(COMMON)}{draw.randrange(10**9)}"
        yield text(page, 1)


def cluster(draw: random.Random) -> Iterator[str]:
    return near(draw, 1)


def paragraph(draw: random.Random) -> Iterator[str]:
    same = " ".join(words(draw, 60)) + "."
    for page in distinct(draw):
        yield f"{page}\n{same}"


def write(path: Path, texts: Iterator[str], size: float) -> None:
    """JSON lines of about so many MB, in files of 4 MB."""
    path.mkdir()
    left, number = size * 1e6, 0
    while left > 0:
        with (path / f"{number:05}.jsonl").open("w") as file:
            room = min(left, 4e6)
            while room > 0:
                row = json.dumps({"text": next(texts), "url": f"http://a.org/{number}/{room:.0f}"})
                room -= len(row)
                left -= len(row)
                print(row, file=file)
        number += 1


def measure(folder: Path, memory: float) -> Ran:
    config = folder / "curate.py"
    config.write_text(
        f"from mlm_jax.curate.config import Curate\n\ndef get_config():\n"
        f"    return Curate(inputs=({str(folder / 'in')!r} + '/*',), workdir={str(folder / 'run')!r}, workers=2, memory={memory})\n"
    )
    return run_measured([sys.executable, "-m", "mlm_jax", "curate", str(config)], os.environ)


def main() -> None:
    """Print the table."""
    size, memory = (float(x) for x in [*sys.argv[1:], *("0.3", "0.05")[len(sys.argv) - 1 :]])
    kinds: list[Callable[[random.Random], Iterator[str]]] = [distinct, near, cluster, paragraph]
    print(
        f"{size} MB, {TIMES} times; --memory {memory}\ninput      MB at 1 ×, at {TIMES} ×   ratio   the largest process"
    )
    for kind in kinds:
        ran = []
        for times in (1, TIMES):
            with tempfile.TemporaryDirectory() as name:
                write(Path(name) / "in", kind(random.Random(1)), size * times)
                ran.append(measure(Path(name), memory))
                if ran[-1].status:
                    sys.exit(ran[-1].said)
        one, many = ran
        print(
            f"{kind.__name__:10} {one.together:9.0f} {many.together:8.0f} {many.together / one.together:11.2f}   {one.peak:.0f}, {many.peak:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
