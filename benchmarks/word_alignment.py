# SPDX-License-Identifier: Apache-2.0
"""Word alignment by a statistical aligner, eflomal (Östling and Tiedemann 2016), on the sets that `analyze` aligns.

    pip install eflomal
    python benchmarks/word_alignment.py FOLDER     # FOLDER/word_alignment, FOLDER/ntrex and FOLDER/tatoeba, a minute

It learns from the tested pairs themselves and from what other parallel text of the languages there is (NTREX and Tatoeba), split into words
and punctuation as the tested text is, Chinese into characters; all in lower case. Printed are the intersection and the union of both
directions. What `analyze` gives beside it is in docs/results-neutrality.md.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import eflomal

from mlm_jax.neutrality.word_alignment import Links, read_gold, scores

SETS = {
    "en-fr": (
        "enfr",
        ("ntrex/eng.txt", "ntrex/fra.txt"),
        ("tatoeba/tatoeba.fra-eng.eng", "tatoeba/tatoeba.fra-eng.fra"),
    ),
    "zh-en": (
        "zhen",
        ("ntrex/zho-CN.txt", "ntrex/eng.txt"),
        ("tatoeba/tatoeba.cmn-eng.cmn", "tatoeba/tatoeba.cmn-eng.eng"),
    ),
}


def words(line: str) -> str:
    """Words, punctuation and Han characters with spaces between."""
    return " ".join(re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]", line.lower()))


def align(source: list[str], target: list[str], tested: int) -> tuple[list[Links], list[Links]]:
    """Links of the first `tested` pairs in either direction."""
    with tempfile.TemporaryDirectory() as folder:
        forward, reverse = f"{folder}/forward", f"{folder}/reverse"
        eflomal.Aligner().align(source, target, links_filename_fwd=forward, links_filename_rev=reverse)
        found = [Path(path).read_text().split("\n")[:tested] for path in (forward, reverse)]
    one, other = (
        [{(int(i), int(j)) for i, j in (link.split("-") for link in line.split())} for line in side] for side in found
    )
    return one, other


def main() -> None:
    """Print a line per set and way to join the directions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(
        "| set | pairs learned from | links | F1 | AER | precision | recall |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, (stem, *more) in SETS.items():
        gold = read_gold(f"{folder}/word_alignment/{stem}.src-tgt", f"{folder}/word_alignment/{stem}.gold")
        source, target = ([" ".join(s).lower() for s in side] for side in (gold.source, gold.target))
        for first, second in more:
            source += [words(line) for line in (folder / first).read_text().splitlines()]
            target += [words(line) for line in (folder / second).read_text().splitlines()]
        forward, reverse = align(source, target, len(gold.source))
        both = {
            "intersection": [a & b for a, b in zip(forward, reverse, strict=True)],
            "union": [a | b for a, b in zip(forward, reverse, strict=True)],
        }
        for way, links in both.items():
            s = scores(links, gold.sure, gold.possible)
            figures = " | ".join(f"{100 * s[k]:.1f}" for k in ("f1", "aer", "precision", "recall"))
            print(f"| {name} | {len(source):,} | {way} | {figures} |")


if __name__ == "__main__":
    main()
