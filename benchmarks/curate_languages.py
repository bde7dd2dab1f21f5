# SPDX-License-Identifier: Apache-2.0
"""What curate's rules take of good text, per language and rule: by the bounds for English, and by the language's own.

    python benchmarks/curate_languages.py FOLDER [--rules hin eus ...] [--figure OUT.png]

FOLDER has LANGUAGE.txt of running text, a sentence a line, of which eight are a document; or LANGUAGE.tsv.gz of `key<TAB>text`, where the keys up to # are
pages, and those of 300 characters are documents. English is eng or en. All that goes is lost by mistake. A table of languages; with
`--rules` also one of rules, for the languages named, each rule by itself: a document may break several. The English list of stop words is left
out, since no other language has it.
"""

from __future__ import annotations

import argparse
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mlm_jax.curate.filters import (
    ENGLISH_STOP_WORDS,
    LEAST_STOP_WORDS,
    RULES,
    STOP_WORDS,
    Bounds,
    decide,
    fineweb2,
    judge,
    measure,
    stop_words_in,
)
from mlm_jax.curate.thresholds import Sketch, derive

LINES = 8  # per document
SHORTEST = 300  # characters of a page
MOST = 600  # pages of a language
ENGLISH = ("eng", "en")
Scored = list[tuple[str, dict[str, float]]]


def documents(path: Path) -> list[str]:
    """A language's documents."""
    if path.suffix == ".txt":
        lines = path.read_text().splitlines()
        return ["\n".join(lines[at : at + LINES]) for at in range(0, len(lines) - LINES + 1, LINES)]
    pages: dict[str, list[str]] = {}
    with gzip.open(path, "rt") as file:
        for line in file:
            key, _, text = line.rstrip("\n").partition("\t")
            pages.setdefault(key.partition("#")[0], []).append(text)
    texts = ["\n".join(lines) for lines in pages.values()]
    return [text for text in texts if len(text) >= SHORTEST][:MOST]


def broken(scored: Scored, bounds: Bounds) -> dict[str, float]:
    """Rule → the share of the documents that break it."""
    found: dict[str, float] = {}
    for name in RULES:
        if name in bounds.rules:
            one = Bounds({name: bounds.rules[name]})
            found[name] = float(np.mean([decide(scores, one) != "" for _, scores in scored]))
    if bounds.stop_words:
        few = [stop_words_in(text, bounds.stop_words) < LEAST_STOP_WORDS for text, _ in scored]
        found[STOP_WORDS] = float(np.mean(few))
    return found


def rules_table(scored: dict[str, Scored], bounds: dict[str, Bounds]) -> tuple[list[str], np.ndarray]:
    """The rules that take a hundredth somewhere, and what each takes, by English and by own bounds: float64 [2, rules, languages]."""
    english = Bounds(fineweb2().rules, ENGLISH_STOP_WORDS)
    both = [{x: broken(of, side(x)) for x, of in scored.items()} for side in (lambda _: english, bounds.__getitem__)]
    names = [
        name
        for name in (*RULES, STOP_WORDS)
        if any(shares.get(name, 0.0) >= 0.01 for side in both for shares in side.values())
    ]
    return names, np.array([[[side[x].get(name, 0.0) for x in scored] for name in names] for side in both])


def draw(names: list[str], shares: np.ndarray, languages: list[str]) -> Figure:
    """The figure: a panel of English and one of own bounds; rules × languages."""
    figure = Figure(figsize=(1.6 + 1.1 * len(languages), 1.2 + 0.24 * len(names)), layout="constrained")
    for axes, part, title in zip(
        figure.subplots(1, 2, sharey=True), shares, ("English bounds", "own bounds"), strict=True
    ):
        axes.imshow(part, cmap="Reds", vmin=0, vmax=0.6, aspect="auto")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(languages)), languages, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        for (row, column), share in np.ndenumerate(part):
            colour = "white" if share > 0.4 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    figure.suptitle("percent of good documents that break a rule", fontsize=9)
    return figure


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rules", nargs="+", default=[])
    parser.add_argument("--figure", default="")
    options = parser.parse_args()
    scored: dict[str, Scored] = {}
    sketches: dict[str, Sketch] = {}
    for path in sorted([*options.folder.glob("*.txt"), *options.folder.glob("*.tsv.gz")]):
        language = path.name.partition(".")[0]
        scored[language] = [(text, measure(text)) for text in documents(path)]
        sketches[language] = Sketch()
        for text, scores in scored[language]:
            sketches[language].add(text, scores, 1.0)
    english = next(x for x in ENGLISH if x in scored)
    bounds = derive(sketches, fineweb2(), english)
    print(f"{'language':8} {'documents':>9} {'English':>8} {'own':>6}   by English bounds go as")
    for language, listed in scored.items():
        foreign = Counter(decide(scores, fineweb2()) for _, scores in listed)
        own = Counter(judge(text, bounds[language], scores) for text, scores in listed)
        gone = [1 - counts[""] / len(listed) for counts in (foreign, own)]
        most = ", ".join(f"{name} {n / len(listed):.0%}" for name, n in foreign.most_common(3) if name)
        print(f"{language:8} {len(listed):9,} {gone[0]:8.1%} {gone[1]:6.1%}   {most}")
    if options.rules:
        chosen = {language: scored[language] for language in options.rules}
        names, shares = rules_table(chosen, bounds)
        print("\n| rule | " + " | ".join(chosen) + " |\n| --- " + "| --- " * len(chosen) + "|")
        for name, foreign_shares, own_shares in zip(names, *shares, strict=True):
            cells = [f"{a:.0%} → {b:.0%}" for a, b in zip(foreign_shares, own_shares, strict=True)]
            print(f"| {name} | " + " | ".join(cells) + " |")
        if options.figure:
            draw(names, shares, list(chosen)).savefig(options.figure, dpi=110)


if __name__ == "__main__":
    main()
