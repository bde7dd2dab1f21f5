# SPDX-License-Identifier: Apache-2.0
"""The config's sources → slices of text that a process can read on its own, and their documents."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import UserError, did_you_mean
from mlm_jax.language_names import folded
from mlm_jax.patterns import matching_files
from mlm_jax.prepare import hub, labelled, named, sample, text
from mlm_jax.prepare.slices import Pair, Slice, SourceKind

# A code that a file may be named by: two or three letters, and after - or _ a script, a region or a variant (zh, zho-CN, en_GB, sr-Latn,
# be-tarask, zh-min-nan, es-419, de-1996).
CODE = re.compile(r"simple|[A-Za-z]{2,3}([-_]([A-Za-z]{2,12}|\d{3,4}|[xX]([-_][A-Za-z]+)?))*")
# Parts of files' names that say what became of a text, and that codes of rare languages have too.
NO_CODE = re.compile(
    "all|bak|backup|clean|copy|dedup|dev|doc|final|full|log|new|old|orig|out|part|raw|ref|sample|src|temp|test|tgt|tmp|train|trg|tst|val"
    "|valid|validation"
)

# By what stands before the colon of a path that names a data set. Other paths are files.
KINDS: dict[str, SourceKind] = {
    "tfds": dataclasses.replace(named.TFDS, examples=labelled.tfds_examples),
    "seqio": named.SEQIO,
    "hf": hub.HUB,
    "sample": sample.SAMPLE,
}


def kind_of(path: str) -> SourceKind:
    """The kind of source that a path is of.

    Raises:
      UserError: it is none of those there are.
    """
    if not cfg.is_named(path):
        return text.FILES
    prefix = path.partition(":")[0]
    if prefix not in KINDS:
        kinds = [f"{name}:" for name in KINDS]
        raise UserError(
            f"{path}: no file, and no kind of source is called {prefix}:{did_you_mean(f'{prefix}:', kinds)}; there are {', '.join(kinds)} "
            "and files"
        )
    return KINDS[prefix]


def language_slices(data: cfg.Data) -> dict[str, list[Slice[cfg.Source]]]:
    """Every language's slices, in the order of the languages' codes.

    Raises:
      UserError: no file matches, an empty file, a language named twice, an unknown format.
    """
    slices: dict[str, list[Slice[cfg.Source]]] = {}
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
            slices[language] = kind_of(resolved.path).slices(resolved, data)
    return dict(sorted(slices.items()))


def _resolve(source: cfg.Source) -> Iterator[cfg.Source]:
    """A source of many languages → one source for each."""
    languages = kind_of(source.path).languages
    if source.language == "*" and languages is not None:
        yield from (dataclasses.replace(source, language=language) for language in languages())
    elif cfg.is_named(source.path):
        if source.language == "*":
            raise UserError(
                f"data.sources: language '*' with path {source.path}; name each language, with a source of its own"
            )
        yield dataclasses.replace(source, path=source.path.replace("{language}", source.language))
    elif "{language}" in source.path:
        pattern = re.escape(source.path).replace(r"\{language\}", "(?P<language>[^/]+)", 1)
        pattern = pattern.replace(r"\{language\}", "(?P=language)").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        matches = [re.fullmatch(pattern, path) for path in matching_files(source.path.replace("{language}", "*"))]
        found = _without_removed(source.path, sorted({m["language"] for m in matches if m}))
        if source.language != "*":
            found = [language for language in found if language == source.language]
        if not found:
            raise UserError(f"data.sources: no file matches {source.path}; check the path")
        _refuse_odd(source, found)
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


def _without_removed(path: str, names: list[str]) -> list[str]:
    """The names without those of what filters removed, which FineWeb-2 has in folders beside the languages' own (swh_Latn_removed)."""
    removed = [name for name in names if name.endswith("_removed")]
    if removed:
        console.say(f"{path}: left out, as text that was removed: {', '.join(removed)}")
    return [name for name in names if name not in removed]


def is_code(name: str) -> bool:
    """Whether a file's name is a language's code, as far as its form tells: no `README`, `de (1)`, `en_old`, `dev`."""
    first, *parts = re.split(r"[-_]", name.casefold())
    # Newar has an edition of Wikipedia.
    if not CODE.fullmatch(name) or (NO_CODE.fullmatch(first) and first != "new"):
        return False
    return not any(
        NO_CODE.fullmatch(part) and before != "x" for before, part in zip([first, *parts], parts, strict=False)
    )


def _refuse_odd(source: cfg.Source, found: list[str]) -> None:
    """Say which languages a path gives, and refuse what is no language code: a README, a copy, a hidden file.

    Raises:
      UserError: with the sources to write instead.
    """
    good = [language for language in found if is_code(language)]
    odd = [language for language in found if language not in good]
    if odd and source.language == "*":
        path = source.path.replace("{language}", odd[0])
        one = (good or ["en"])[0]
        raise UserError(
            f"data.sources: {source.path} takes {path} for the text of a language {odd[0]!r}"
            f"{f', and {len(odd) - 1} more like it' if len(odd) > 1 else ''}; move what is no text away, or name each language: "
            f'Source("{one}", "{source.path.replace("{language}", one)}")'
        )
    alike = {folded(language): language for language in found}
    for language in found:
        if (other := alike[folded(language)]) != language:
            raise UserError(
                f"data.sources: {source.path} takes {language} and {other} for two languages; put their text into one file, or move one away"
            )
    console.say(f"{source.path}: {len(found)} languages: {', '.join(found)}")


def pair_slices(data: cfg.Data) -> dict[tuple[str, str], list[Slice[cfg.Parallel]]]:
    """Every language pair's slices, in order.

    Raises:
      UserError: a file is missing or empty, or a pair is named twice.
    """
    slices: dict[tuple[str, str], list[Slice[cfg.Parallel]]] = {}
    for parallel in (resolved for listed in data.parallel for resolved in _resolve_pair(listed)):
        pair = (parallel.languages[0], parallel.languages[1])
        if pair in slices or pair[::-1] in slices:
            raise UserError(f"data.parallel: pair {pair[0]}-{pair[1]} is named twice; name it once")
        if not 1 <= len(parallel.paths) <= 2:
            raise UserError(f"data.parallel: pair {pair[0]}-{pair[1]}: give two aligned files, or one TSV")
        find = kind_of(parallel.paths[0]).pair_slices
        if find is None:
            raise UserError(f"data.parallel: {parallel.paths[0]}: sentence pairs are not read from this kind of source")
        strict = data.packing == "pairs"
        slices[pair] = [dataclasses.replace(found, strict=strict) for found in find(parallel, data)]
    return dict(sorted(slices.items()))


def _resolve_pair(parallel: cfg.Parallel) -> Iterator[cfg.Parallel]:
    """The sample's pairs of one language with all others ("*") → one each."""
    if "*" not in parallel.languages:
        yield parallel
        return
    languages = kind_of(parallel.paths[0]).languages if parallel.paths else None
    if languages is None:
        raise UserError(f"data.parallel: {'-'.join(parallel.languages)}: only sample:django takes '*' for a language")
    for other in languages():
        if other not in parallel.languages:
            first, second = (other if language == "*" else language for language in parallel.languages)
            yield dataclasses.replace(parallel, languages=(first, second))


def read_documents(part: Slice[cfg.Source]) -> Iterator[list[str]]:
    """A slice's documents, in batches.

    Raises:
      UserError: the text cannot be read, with file and line.
    """
    return kind_of(part.source.path).documents(part)


def read_pairs(part: Slice[cfg.Parallel]) -> Iterator[list[Pair]]:
    """A slice's sentence pairs, in batches.

    Raises:
      UserError: aligned files of different length; a TSV line without two columns; what `Slice.is_whole` refuses.
    """
    read = kind_of(part.source.paths[0]).pairs
    assert read is not None  # `pair_slices` has refused it
    return read(part)


def read_texts(part: Slice[Any]) -> Iterator[list[Any]]:
    """A slice's documents or sentence pairs, whichever it has, in batches."""
    return read_pairs(part) if isinstance(part.source, cfg.Parallel) else read_documents(part)


def first_texts(part: Slice[Any]) -> list[Any]:
    """The first batch of a slice's documents or sentence pairs."""
    return next((batch for batch in read_texts(part) if batch), [])
