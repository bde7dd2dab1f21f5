# SPDX-License-Identifier: Apache-2.0
"""The sample corpus: Django's translation catalogues, real and wildly unbalanced text in 98 languages.

Read from the installed package's .mo files without importing Django. A message is a document; English is
the message ids, so every other language is aligned with it (Django is BSD-licensed).
"""

from __future__ import annotations

import gettext
import importlib.util
from functools import cache
from pathlib import Path

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.prepare.slices import Pair, Slice, SourceKind

PATH = "sample:django"


def sample_languages() -> list[str]:
    """Codes of the languages of the sample, sorted: Django's locale names."""
    return sorted(set(_catalogues()) | {"en"})


def sample_documents(language: str) -> list[str]:
    """The messages of a language, each once, in the order of their ids.

    Raises:
      UserError: Django is not installed, or has no such language.
    """
    if language == "en":
        ids = sorted({key for other in _catalogues() for key in _messages(other)})
        return list(dict.fromkeys(_plain(key) for key in ids))
    return list(dict.fromkeys(text for _, text in sorted(_messages(language).items())))


def sample_pairs(first: str, second: str) -> list[Pair]:
    """Messages that two languages share, aligned by message id.

    Raises:
      UserError: Django is not installed, or has no such language.
    """
    if "en" in (first, second):
        other = second if first == "en" else first
        aligned = [(_plain(key), text) for key, text in sorted(_messages(other).items())]
        return list(aligned) if first == "en" else [(b, a) for a, b in aligned]
    one, two = _messages(first), _messages(second)
    return [(one[key], two[key]) for key in sorted(one.keys() & two.keys())]


@cache
def _catalogues() -> dict[str, list[Path]]:
    """Language → its .mo files, sorted."""
    spec = importlib.util.find_spec("django")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("sample:django: Django is not installed; run: pip install 'mlm_jax[sample]'")
    root = Path(next(iter(spec.submodule_search_locations)))
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/locale/*/LC_MESSAGES/*.mo")):
        found.setdefault(path.parent.parent.name, []).append(path)
    found.pop("en", None)  # its catalogue is empty: the ids are the text
    return found


@cache
def _messages(language: str) -> dict[str, str]:
    """Message id (with its context) → translation; of plurals, the first form."""
    if language not in _catalogues():
        raise UserError(f"sample:django: no language {language}; it has {', '.join(sample_languages())}")
    messages: dict[str, str] = {}
    for path in _catalogues()[language]:
        with path.open("rb") as file:
            catalogue = vars(gettext.GNUTranslations(file))["_catalog"]  # there is no public way to list messages
        for key, text in catalogue.items():
            if isinstance(key, tuple):
                key, form = key
                if form != 0:
                    continue
            text = " ".join(text.split())
            if key and text:
                messages.setdefault(key, text)
    return messages


def _plain(key: str) -> str:
    """A message id without its context."""
    return " ".join(key.split("\x04")[-1].split())


def _slices(source: cfg.Source, data: cfg.Data) -> list[Slice[cfg.Source]]:
    if source.path != PATH:
        raise UserError(f"data.sources: {source.path}: no such sample; there is {PATH}")
    return [Slice(source, "both", (source.path,))]


def _pair_slices(parallel: cfg.Parallel, data: cfg.Data) -> list[Slice[cfg.Parallel]]:
    if parallel.paths != (PATH,):
        raise UserError(f"data.parallel: {' and '.join(parallel.paths)}: no such sample; there is {PATH}")
    return [Slice(parallel, "both", parallel.paths)]


SAMPLE = SourceKind(
    slices=_slices,
    documents=lambda part: iter([sample_documents(part.source.language)]),
    pair_slices=_pair_slices,
    pairs=lambda part: iter([sample_pairs(*part.source.languages)]),
    languages=sample_languages,
    small=True,
)
