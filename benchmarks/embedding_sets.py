# SPDX-License-Identifier: Apache-2.0
"""Sets of configs/evaluate/embeddings.py, made of others: search from XQuAD, topics from the LibreOffice help.

    python benchmarks/embedding_sets.py FOLDER OUT

FOLDER/xquad/xquad.{language}.json (SQuAD's form) gives OUT/questions.{language}.tsv, paragraphs.{language}.tsv and answers.tsv: a question is answered by the
paragraph that it was asked of, of any language, as they are parallel. FOLDER/libreoffice_help/{language}.tsv.gz (key, tab, text) gives OUT/topics.{language}.{part}.tsv: the
program that a paragraph helps with, the first word of its key; the same paragraphs are tested in every language, and none of them is trained on.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from pathlib import Path

LANGUAGES = ("en", "de", "el", "hi", "ja", "ru")
TOPICS = ("swriter", "scalc", "smath", "sbasic")
LEAST = 30  # characters of a paragraph
EACH = {"test": 50, "train": 200}  # paragraphs per topic, as far as there are so many


def search(folder: Path, out: Path) -> None:
    """Questions, paragraphs and which answers which."""
    for path in sorted(folder.glob("xquad.*.json")):
        language = path.name.split(".")[1]
        paragraphs = [p for article in json.loads(path.read_text())["data"] for p in article["paragraphs"]]
        questions = [(qa["id"], qa["question"], i) for i, p in enumerate(paragraphs) for qa in p["qas"]]
        write(out / f"paragraphs.{language}.tsv", [(f"p{i}", p["context"]) for i, p in enumerate(paragraphs)])
        write(out / f"questions.{language}.tsv", [(key, text) for key, text, _ in questions])
        write(out / "answers.tsv", [(key, f"p{i}", 1) for key, _, i in questions])


def topics(folder: Path, out: Path) -> None:
    """Paragraphs and their topics."""
    texts = {x: dict(rows(folder / f"{x}.tsv.gz")) for x in LANGUAGES}
    shared = set.intersection(*map(set, texts.values()))
    of: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    seen: set[str] = set()
    for key in sorted(shared):
        topic, text = topic_of(key), texts["en"][key]
        if topic in of and len(text) >= LEAST and text not in seen:
            seen.add(text)
            of[topic].append(key)
    begin = 0
    for part, count in EACH.items():
        chosen = []
        for topic, keys in of.items():
            random.Random(topic).shuffle(keys := list(keys))
            chosen += [(key, topic) for key in keys[begin : begin + count]]
        begin += count
        for language, found in texts.items():
            write(out / f"topics.{language}.{part}.tsv", [("label", "text"), *((t, found[key]) for key, t in chosen)])


def topic_of(key: str) -> str:
    """The first part of a key that is a topic; empty: none is."""
    return next((part for part in re.split(r"[^a-z]+", key) if part in TOPICS), "")


def rows(path: Path) -> list[tuple[str, str]]:
    """(key, text) of each line."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [(key, text.strip()) for key, _, text in (line.partition("\t") for line in file)]


def write(path: Path, lines: list[tuple[object, ...]]) -> None:
    """Write rows of cells with tabs between, which cells have not."""
    text = "".join("\t".join(" ".join(str(cell).split()) for cell in line) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    data, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    search(data / "xquad", target)
    topics(data / "libreoffice_help", target)
