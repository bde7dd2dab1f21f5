# SPDX-License-Identifier: Apache-2.0
"""What `curate` makes of the shared web archives, against what each of their pages is known to be.

    python benchmarks/curate_web.py ../shared/data/web [wet] [mixed=drop] [misses]

Prints the rows of issue 18's table, each with what is wanted. `wet`: the text files instead of the HTML; `misses`: each page that counts against
a row. The languages are few and small, so that there is nothing to derive bounds from but in English.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from mlm_jax.curate.config import Curate, Identify
from mlm_jax.curate.run import run

# Kind → the reasons that are right.
REPEATED = {
    "copy",
    "copied_paragraphs",
    "near_copy",
    "few_words",
    *(f"repeated_{n}_grams" for n in range(5, 11)),
    "repeated_lines",
}
REASONS = {
    "thin": {"no_main_text", "few_words", "lists", "short_lines"},
    "spam": REPEATED | {f"top_{n}_gram" for n in (2, 3, 4)},
    "binary": {"binary", "media_type"},
    "error": {"status"},
    "empty": {"empty"},
}
CODES = {"en-us": "en", "zh-cn": "zh"}
COPIES = ("copy", "near", "moved")


def kept_documents(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """Address → its documents in the corpus."""
    found = defaultdict(list)
    for path in sorted(workdir.glob("corpus/*/*.zst")):
        with open(path, "rb") as file:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8"):
                document = json.loads(line)
                found[document["url"]].append(document)
    return found


def reasons_of(workdir: Path) -> dict[str, set[str]]:
    """Address → why its documents went."""
    found = defaultdict(set)
    for path in sorted(workdir.glob("dropped/*.jsonl")):
        for line in path.read_text().splitlines():
            found[json.loads(line)["url"]].add(path.stem.partition(".")[2])
    return found


def rows(truth: list[dict[str, str]], workdir: Path) -> Iterator[tuple[str, int, int, str, list[str]]]:
    """What is judged, how many are right, of how many, what is wanted, and the addresses that are wrong."""
    kept, gone = kept_documents(workdir), reasons_of(workdir)
    of = {row["url"]: row for row in truth}
    groups: dict[str, list[str]] = defaultdict(list)
    for row in truth:
        if row["kind"] in COPIES:
            groups[row["of"]].append(row["url"])
    copies = sum(map(len, groups.values()))
    left = {page: [url for url in (page, *others) if url in kept] for page, others in groups.items()}
    stayed = sum(max(0, len(urls) - 1) for urls in left.values())
    yield (
        "copies, near and moved that went",
        copies - stayed,
        copies,
        "95 %",
        [u for us in left.values() if len(us) > 1 for u in us[1:]],
    )
    pages = [row["url"] for row in truth if row["kind"] == "page"]
    # A page of which a copy stays is not lost.
    lost = [url for url in pages if url not in kept and not gone[url] & {"copy", "near_copy"} and not left.get(url)]
    yield (
        "distinct pages of which something is left",
        len(pages) - len(lost),
        len(pages),
        "99 %",
        [f"{u} {sorted(gone[u])}" for u in lost],
    )
    told = [url for url in pages if url in kept]

    def main_language(url: str) -> str:
        sizes = Counter({d["language"]: len(d["text"]) for d in kept[url]})
        return sizes.most_common(1)[0][0]

    wrong = [url for url in told if main_language(url) != CODES.get(of[url]["language"], of[url]["language"])]
    yield "language of pages", len(told) - len(wrong), len(told), "99 %", [f"{u} {main_language(u)}" for u in wrong]
    mixed = [row["url"] for row in truth if row["kind"] == "mixed"]
    split = [url for url in mixed if len({d["language"] for d in kept[url]}) > 1 or gone[url] or url not in kept]
    yield "mixed pages split, or gone", len(split), len(mixed), "", []
    for kind, right in REASONS.items():
        urls = [row["url"] for row in truth if row["kind"] == kind]
        wrong = [url for url in urls if url in kept or (gone[url] and not gone[url] <= right)]
        yield (
            f"{kind} gone, with its reason",
            len(urls) - len(wrong),
            len(urls),
            "all",
            [f"{u} {sorted(gone[u])}" for u in wrong],
        )


def main() -> None:
    """Curate, and print the table."""
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    with open(folder / "truth.tsv") as file:
        truth = list(csv.DictReader(file, delimiter="\t"))
    inputs = str(folder / ("*.wet.gz" if "wet" in options else "*[0-9].warc.gz"))
    mixed = next((option.partition("=")[2] for option in options if option.startswith("mixed=")), "split")
    with tempfile.TemporaryDirectory() as name:
        run(Curate(workdir=name, inputs=(inputs,), dropped=100_000, identify=Identify(mixed=mixed), workers=1))  # type: ignore[arg-type]
        print("| what | right | of | wanted |\n| --- | --- | --- | --- |")
        for what, right, count, wanted, misses in rows(truth, Path(name)):
            print(f"| {what} | {right} | {count} | {wanted} |")
            if "misses" in options:
                print("".join(f"    {miss}\n" for miss in misses), end="")


if __name__ == "__main__":
    main()
