# SPDX-License-Identifier: Apache-2.0
"""The text that a study's runs learn from: parts of one parallel text, with the same paragraphs held out in every language."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.files import aside_folder, make_folder, sync_tree
from mlm_jax.lines import read_lines

SOURCE = "source.txt"  # in the folder of what was taken: of which folder
ENDS = (".tsv.gz", ".tsv", ".tsv.zst", ".tsv.xz", ".tsv.bz2")


@dataclass(frozen=True)
class Texts:
    """What is taken of a folder that has {language}.tsv (or .tsv.gz, …) of a key, a tab and a paragraph per line, where the same key is
    the same paragraph translated.

    Paragraphs are taken in the order of their keys' hashes, so that a smaller part lies within a larger one, and parts of two languages are
    translations of each other as far as they can be.

    Attributes:
      sets: name → language → paragraphs; 0: all. Their files are `{text}/NAME/{language}.txt`.
      pairs: name → (two languages, pairs). Their files are `{text}/NAME/XX-YY.tsv`, of paragraphs that sets have too.
      held_out: paragraphs of `{text}/held_out/{language}.txt`, which all languages have, no two the same in any, and no set.
      topics: a regular expression whose first group is, in a paragraph's key, what it is about: `{text}/held_out/topics.txt` has a line per paragraph that is held
        out, `{text}/topics/{language}.tsv` that, a tab and the paragraph; empty: there is none.
    """

    sets: Mapping[str, Mapping[str, int]]
    pairs: Mapping[str, tuple[tuple[str, str], int]] = field(default_factory=dict)
    held_out: int = 600
    topics: str = ""

    @property
    def languages(self) -> list[str]:
        """All of them, sorted."""
        return sorted(
            {x for part in self.sets.values() for x in part} | {x for pair, _ in self.pairs.values() for x in pair}
        )

    @property
    def digest(self) -> str:
        """A short name of what is taken."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def take(texts: Texts, source: str, folder: epath.Path) -> None:
    """Write the files of `Texts` into a folder, if it is not there; warn where it was taken of another source.

    Args:
      source: the folder that text is taken of.

    Raises:
      UserError: a language has no file there, or too few paragraphs.
    """
    origin = str(Path(source).resolve())
    if folder.exists():
        taken_of = folder / SOURCE
        before = taken_of.read_text() if taken_of.exists() else origin
        if before != origin and Path(source).exists():
            console.warn(
                f"{folder}: was taken of {before}, and stays; to take the text of {source}, use another --workdir"
            )
        return
    make_folder(folder.parent)
    every = {language: read_paragraphs(source, language) for language in texts.languages}
    common = _different(sorted(set.intersection(*(set(found) for found in every.values())), key=_order), every)
    if len(common) < 2 * texts.held_out:
        raise UserError(
            f"{source}: {len(common):,} paragraphs are there in all of {', '.join(every)}, each once; holding out {texts.held_out:,} takes twice as many: leave "
            "a language out"
        )
    held_out = set(common[: texts.held_out])
    topics = [re.search(texts.topics, key) for key in common[: texts.held_out]] if texts.topics else []
    unknown = next((key for key, topic in zip(common, topics, strict=False) if topic is None), None)
    if unknown is not None:
        raise UserError(f"{source}: {unknown}: no topic by {texts.topics}; mend the expression")
    # Of paragraphs that are the same as one that is held out none is learned from.
    known = {language: {found[key] for key in held_out} for language, found in every.items()}
    rest = {
        language: [
            key for key in sorted(found, key=_order) if key not in held_out and found[key] not in known[language]
        ]
        for language, found in every.items()
    }
    with aside_folder(folder) as aside:
        _write(aside / "held_out", {x: [found[key] for key in common[: texts.held_out]] for x, found in every.items()})
        if topics:
            named = [topic[1] for topic in topics if topic]
            (Path(aside) / "held_out" / "topics.txt").write_text("\n".join(named) + "\n", encoding="utf-8")
            make_folder(aside / "topics")
            for language, found in every.items():
                rows = [f"{name}\t{found[key]}" for name, key in zip(named, common, strict=False)]
                (Path(aside) / "topics" / f"{language}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        for name, part in texts.sets.items():
            taken = {}
            for language, count in part.items():
                if count > len(rest[language]):
                    raise UserError(
                        f"{source}: {language} has {len(rest[language]):,} paragraphs to learn from, fewer than {count:,}; take fewer"
                    )
                taken[language] = [every[language][key] for key in rest[language][: count or None]]
            _write(aside / name, taken)
        for name, ((first, second), count) in texts.pairs.items():
            there = set(rest[second])
            keys = [key for key in rest[first] if key in there][: count or None]
            rows = [f"{every[first][key]}\t{every[second][key]}" for key in keys]
            make_folder(aside / name)
            (aside / name / f"{first}-{second}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (aside / SOURCE).write_text(origin)
        sync_tree(aside)
        aside.rename(folder)
    console.say(
        f"text: {', '.join(texts.sets)} of {len(every)} languages, {texts.held_out} paragraphs held out, in {folder}"
    )


def _different(keys: Sequence[str], every: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The keys whose paragraph is in no language that of an earlier one."""
    seen: dict[str, set[str]] = {language: set() for language in every}
    kept = []
    for key in keys:
        if all(found[key] not in seen[language] for language, found in every.items()):
            kept.append(key)
            for language, found in every.items():
                seen[language].add(found[key])
    return kept


def read_paragraphs(source: str, language: str) -> dict[str, str]:
    """Key → paragraph of a language; of a key that is there twice the first.

    Raises:
      UserError: there is no file, or a line has no tab.
    """
    path = next((p for end in ENDS if (p := Path(source) / f"{language}{end}").is_file()), None)
    if path is None:
        raise UserError(
            f"text: {source} has no {language}.tsv (or .tsv.gz) of a key, a tab and a paragraph per line; name another folder by --text, or other languages in the study's file"
        )
    found: dict[str, str] = {}
    for number, line in read_lines(str(path)):
        key, tab, text = line.partition("\t")
        if not tab:
            raise UserError(f"{path}:{number}: no tab; a line is a key, a tab and a paragraph")
        text = " ".join(text.split())
        if text:
            found.setdefault(key, text)
    return found


def _order(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _write(folder: epath.Path | Path, texts: Mapping[str, Sequence[str]]) -> None:
    make_folder(folder)
    for language, lines in texts.items():
        (Path(folder) / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
