# SPDX-License-Identifier: Apache-2.0
"""What curate's rules take of good text, per language: by the bounds for English, and by the language's own.

    python benchmarks/curate_languages.py FOLDER        # of eng.txt and other LANGUAGE.txt, of running text, a sentence a line

Eight lines are a document. All that goes is lost by mistake. The English list of stop words is left out, since no other language has it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from mlm_jax.curate.filters import decide, fineweb2, judge, measure
from mlm_jax.curate.thresholds import Sketch, derive

LINES = 8  # per document
ENGLISH = "eng"


def main() -> None:
    """Print the table."""
    scored, sketches = {}, {}
    for path in sorted(Path(sys.argv[1]).glob("*.txt")):
        lines = path.read_text().splitlines()
        texts = ["\n".join(lines[at : at + LINES]) for at in range(0, len(lines) - LINES + 1, LINES)]
        scored[path.stem] = [(text, measure(text)) for text in texts]
        sketches[path.stem] = Sketch()
        for text, scores in scored[path.stem]:
            sketches[path.stem].add(text, scores, 1.0)
    bounds = derive(sketches, fineweb2(), ENGLISH)
    print(f"{'language':8} {'documents':>9} {'English':>8} {'own':>6}   by English bounds go as")
    for language, documents in scored.items():
        english = Counter(decide(scores, fineweb2()) for _, scores in documents)
        own = Counter(judge(text, bounds[language], scores) for text, scores in documents)
        gone = [1 - counts[""] / len(documents) for counts in (english, own)]
        most = ", ".join(f"{name} {n / len(documents):.0%}" for name, n in english.most_common(3) if name)
        print(f"{language:8} {len(documents):9,} {gone[0]:8.1%} {gone[1]:6.1%}   {most}")


if __name__ == "__main__":
    main()
