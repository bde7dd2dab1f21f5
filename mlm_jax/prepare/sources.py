# SPDX-License-Identifier: Apache-2.0
"""The config's sources → pieces of text that a process can read on its own, and their documents."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from etils import epath

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.lines import UNPACK, read_chunks, uncompressed
from mlm_jax.prepare import sample, text

FORMATS = (".txt", ".jsonl")


@dataclass(frozen=True)
class Piece:
    """A part of one language's or one pair's text.

    Attributes:
      source: what it is a piece of, its languages resolved.
      part: what its documents are for; "both" divides them by their hash.
      paths: the file; two for aligned parallel files.
      start, end: bytes of a plain file.
      index, count: which of how many shards, for tfds: and seqio:.
    """

    source: cfg.Source | cfg.Parallel
    part: Literal["train", "validation", "both"]
    paths: tuple[str, ...]
    start: int = 0
    end: int | None = None
    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        where = f" bytes {self.start:,} to {self.end:,}" if self.start else ""
        shard = f" shard {self.index} of {self.count}" if self.count > 1 else ""
        return " and ".join(self.paths) + where + shard

    def fingerprint(self) -> str:
        """Changes when what would be read changes: the piece itself, and its files' sizes and times."""
        files = [epath.Path(p).stat() for p in self.paths if not cfg.is_named(p)]
        found = [(s.length, s.mtime) for s in files]
        return hashlib.sha256(repr((dataclasses.asdict(self), found)).encode()).hexdigest()


def language_pieces(data: cfg.Data) -> dict[str, list[Piece]]:
    """Every language's pieces, in the order of the languages' codes.

    Raises:
      UserError: no file matches, an empty file, a language named twice, an unknown format.
    """
    pieces: dict[str, list[Piece]] = {}
    named_by: dict[str, cfg.Source] = {}
    for source in data.sources:
        for resolved in _resolve(source):
            language = resolved.language
            if language in named_by:
                raise UserError(
                    f"data.sources: language {language} is named twice ({named_by[language].path} and {source.path}); "
                    "name it once, with a glob that matches all its files"
                )
            named_by[language] = source
            pieces[language] = _pieces(resolved, data)
    return dict(sorted(pieces.items()))


def _resolve(source: cfg.Source) -> Iterator[cfg.Source]:
    """A source of many languages → one source each."""
    if source.path == "sample:django" and source.language == "*":
        yield from (dataclasses.replace(source, language=language) for language in sample.languages())
    elif "{language}" in source.path:
        pattern = re.escape(source.path).replace(r"\{language\}", "(?P<language>[^/]+)", 1)
        pattern = pattern.replace(r"\{language\}", "(?P=language)").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        matches = [re.fullmatch(pattern, path) for path in _glob(source.path.replace("{language}", "*"))]
        found = sorted({m["language"] for m in matches if m})
        if source.language != "*":
            found = [language for language in found if language == source.language]
        if not found:
            raise UserError(f"data.sources: no file matches {source.path}; check the path")
        for language in found:
            yield dataclasses.replace(
                source,
                language=language,
                path=source.path.replace("{language}", language),
                validation=source.validation.replace("{language}", language),
            )
    elif source.language == "*":
        raise UserError(
            f"data.sources: language '*' with path {source.path}, which does not say which language a file is of; "
            "put {language} into the path, e.g. text/{language}.txt"
        )
    else:
        yield source


def _pieces(source: cfg.Source, data: cfg.Data) -> list[Piece]:
    if source.path.startswith(("tfds:", "seqio:")):
        from mlm_jax.prepare import named  # imports TensorFlow

        train: Literal["train", "both"] = "train" if source.validation else "both"
        count = named.shard_count(source, "train")
        pieces = [Piece(source, train, (source.path,), index=i, count=count) for i in range(count)]
        if source.validation:
            count = named.shard_count(source, source.validation)
            pieces += [Piece(source, "validation", (source.path,), index=i, count=count) for i in range(count)]
        return pieces
    if source.path.startswith("sample:"):
        if source.path != "sample:django":
            raise UserError(f"data.sources: {source.path}: no such sample; there is sample:django")
        return [Piece(source, "both", (source.path,))]
    pieces = _file_pieces(source, source.path, "train" if source.validation else "both", data)
    if source.validation:
        pieces += _file_pieces(source, source.validation, "validation", data)
    return pieces


def _file_pieces(
    source: cfg.Source, pattern: str, part: Literal["train", "validation", "both"], data: cfg.Data
) -> list[Piece]:
    files = _glob(pattern)
    if not files:
        raise UserError(f"data.sources: language {source.language}: no file matches {pattern}; check the path")
    pieces = []
    for file in files:
        if not uncompressed(file).endswith(FORMATS):
            packed = f"{', '.join([*UNPACK][:-1])} or {[*UNPACK][-1]}"
            raise UserError(f"{file}: not a format that is read; name it .txt or .jsonl, and {packed} if compressed")
        if epath.Path(file).stat().length == 0:
            raise UserError(f"{file}: empty; remove it, or give the language some text")
        for start, end in text.cut_file(file, source.documents, data.shard_bytes):
            pieces.append(Piece(source, part, (file,), start, end))
    return pieces


def _glob(pattern: str) -> list[str]:
    """Files that match a pattern, sorted; the pattern may have wildcards in any of its folders."""
    if not any(c in pattern for c in "*?["):
        return [pattern] if epath.Path(pattern).exists() else []
    root, names = [], pattern.split("/")
    while not any(c in names[0] for c in "*?["):
        root.append(names.pop(0))
    folder = "/".join(root) or ("/" if pattern.startswith("/") else ".")
    prefix = f"{'/'.join(root)}/" if root else ""
    found = epath.Path(folder).glob("/".join(names))
    return sorted(prefix + str(path.relative_to(folder)) for path in found if not path.is_dir())


def pair_pieces(data: cfg.Data) -> dict[tuple[str, str], list[Piece]]:
    """Every language pair's pieces, in order.

    Raises:
      UserError: a file is missing or empty, or a pair is named twice.
    """
    pieces: dict[tuple[str, str], list[Piece]] = {}
    for parallel in (resolved for named in data.parallel for resolved in _resolve_pair(named)):
        pair = (parallel.languages[0], parallel.languages[1])
        if pair in pieces or pair[::-1] in pieces:
            raise UserError(f"data.parallel: pair {pair[0]}-{pair[1]} is named twice; name it once")
        if not 1 <= len(parallel.paths) <= 2:
            raise UserError(f"data.parallel: pair {pair[0]}-{pair[1]}: give two aligned files, or one TSV")
        count = 1
        if parallel.paths[0].startswith("tfds:"):
            from mlm_jax.prepare import named as tfds  # imports TensorFlow

            count = tfds.pair_shard_count(parallel)
        for path in parallel.paths:
            if not cfg.is_named(path) and (not epath.Path(path).exists() or epath.Path(path).stat().length == 0):
                raise UserError(f"data.parallel: {path}: no such file, or empty; check the path")
        pieces[pair] = [Piece(parallel, "both", parallel.paths, index=i, count=count) for i in range(count)]
    return dict(sorted(pieces.items()))


def _resolve_pair(parallel: cfg.Parallel) -> Iterator[cfg.Parallel]:
    """The sample's pairs of one language with all others ("*") → one each."""
    if "*" not in parallel.languages:
        yield parallel
        return
    if parallel.paths != ("sample:django",):
        raise UserError(f"data.parallel: {'-'.join(parallel.languages)}: only sample:django takes '*' for a language")
    for other in sample.languages():
        if other not in parallel.languages:
            first, second = (other if language == "*" else language for language in parallel.languages)
            yield dataclasses.replace(parallel, languages=(first, second))


def documents(piece: Piece) -> Iterator[list[str]]:
    """A piece's documents, in batches; each is text without line breaks at its ends, never empty.

    Raises:
      UserError: the text cannot be read, with file and place.
    """
    source = piece.source
    assert isinstance(source, cfg.Source)
    if source.path.startswith("sample:"):
        yield sample.documents(source.language)
    elif source.path.startswith(("tfds:", "seqio:")):
        from mlm_jax.prepare import named

        split = source.validation if piece.part == "validation" else "train"
        yield from named.documents(source, split, piece.index, piece.count)
    else:
        yield from text.read_documents(piece.paths[0], source.documents, source.field, piece.start, piece.end)


def pairs(piece: Piece) -> Iterator[list[tuple[str, str]]]:
    """A piece's sentence pairs, in batches; pairs with an empty side are left out.

    Raises:
      UserError: aligned files of different length; a TSV line without two columns.
    """
    source = piece.source
    assert isinstance(source, cfg.Parallel)
    if source.paths == ("sample:django",):
        yield sample.pairs(*source.languages)
        return
    if source.paths[0].startswith("tfds:"):
        from mlm_jax.prepare import named

        yield from named.pairs(source, piece.index, piece.count)
        return
    if len(source.paths) == 2:
        yield from _aligned(*source.paths)
        return
    (path,) = source.paths
    for chunk in read_chunks(path):
        batch = []
        for i, line in enumerate(chunk.lines):
            columns = line.split("\t")
            if line.strip():
                if len(columns) < 2:
                    raise UserError(f"{chunk.place(i)}: no tab; a TSV needs two columns, a sentence each")
                batch.append((columns[0].strip(), columns[1].strip()))
        yield [pair for pair in batch if all(pair)]


def _aligned(first: str, second: str) -> Iterator[list[tuple[str, str]]]:
    sides: list[list[str]] = [[], []]
    counts = [0, 0]
    readers = [(chunk.lines for chunk in read_chunks(path)) for path in (first, second)]
    while True:
        for i in (0, 1):
            while not sides[i]:
                lines = next(readers[i], None)
                if lines is None:
                    break
                sides[i] = lines
                counts[i] += len(lines)
        number = min(len(sides[0]), len(sides[1]))
        if number == 0:
            break
        batch = [(a.strip(), b.strip()) for a, b in zip(sides[0][:number], sides[1][:number], strict=True)]
        yield [pair for pair in batch if all(pair)]
        sides = [side[number:] for side in sides]
    for i in (0, 1):
        counts[i] += sum(len(lines) for lines in readers[i])
    if counts[0] != counts[1]:
        raise UserError(
            f"{first} and {second}: {counts[0]:,} lines against {counts[1]:,}; aligned files need as many lines each"
        )


def is_held_out(document: str, fraction: float) -> bool:
    """Whether a document is for validation: decided by its text alone, so that it never moves."""
    if not fraction:
        return False
    digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def divide(piece: Piece, batch: list[Any], fraction: float) -> dict[str, list[Any]]:
    """Documents (or pairs) of a batch by what they are for: train and validation."""
    if piece.part != "both":
        return {piece.part: batch}
    parts: dict[str, list[Any]] = {"train": [], "validation": []}
    for document in batch:
        decides = document if isinstance(document, str) else document[0]
        parts["validation" if is_held_out(decides, fraction) else "train"].append(document)
    return parts
