# SPDX-License-Identifier: Apache-2.0
"""A tokenizer.json that is open for changes: the pieces it has, and the same tokenizer with fewer of them or more."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from etils import epath
from tokenizers import decoders, pre_tokenizers

from mlm_jax.errors import UserError
from mlm_jax.interchange.sentencepiece_json import SPACE, from_sentencepiece
from mlm_jax.interchange.tokenizer_files import name_specials
from mlm_jax.tokenizers import load_json
from mlm_jax.vocabulary import Vocabulary

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
KINDS = ("Unigram", "BPE", "WordPiece")


@dataclass(frozen=True)
class Pieces:
    """Attributes:
    description: what the tokenizer.json says.
    names: each id's piece; "" where an id has none.
    roles: ids of padding, mask and the others that no text gives.
    """

    description: dict[str, Any]
    names: tuple[str, ...]
    roles: tuple[int, ...]

    @property
    def model(self) -> dict[str, Any]:
        """The part of it that cuts words into pieces."""
        return self.description["model"]

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.model["type"]

    @property
    def prefix(self) -> str:
        """Of pieces that go on with a word."""
        return self.model.get("continuing_subword_prefix") or ""

    @property
    def suffix(self) -> str:
        """Of pieces that end a word."""
        return self.model.get("end_of_word_suffix") or ""

    @functools.cached_property
    def byte_level(self) -> bool:
        """Whether the characters of pieces stand for bytes."""
        return '"ByteLevel"' in json.dumps({**self.description, "model": None, "added_tokens": None})

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Piece → its id."""
        return {name: i for i, name in enumerate(self.names) if name}

    @functools.cached_property
    def fixed(self) -> np.ndarray:
        """Ids that no text decides on, bool [n]: specials, added tokens, and the bytes that spell what has no piece."""
        found = np.zeros(len(self.names), bool)
        found[list(self.roles)] = True
        found[[token["id"] for token in self.description["added_tokens"]]] = True
        spelling = [f"<0x{byte:02X}>" for byte in range(256)] if self.model.get("byte_fallback") else []
        spelling += pre_tokenizers.ByteLevel.alphabet() if self.byte_level else []
        found[[self.ids[name] for name in spelling if name in self.ids]] = True
        return found

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer itself."""
        return tokenizers.Tokenizer.from_str(self.text())

    def text(self) -> str:
        """The content of its tokenizer.json."""
        return json.dumps(self.description, ensure_ascii=False)

    def surface(self, name: str) -> str:
        """A piece's characters, after a mark where it begins a word: the same of every kind."""
        if self.byte_level:
            text = decoders.ByteLevel().decode([name]).replace(" ", SPACE)
            return text if self.form(text) == name else name  # half a character has none
        if self.kind == "WordPiece":
            return name.removeprefix(self.prefix) if name.startswith(self.prefix) else SPACE + name
        return name

    def form(self, surface: str) -> str:
        """How this vocabulary writes a piece of such characters."""
        if self.byte_level:
            return "".join(part for part, _ in _BYTES.pre_tokenize_str(surface.replace(SPACE, " ")))
        if self.kind == "WordPiece":
            return surface.removeprefix(SPACE) if surface.startswith(SPACE) else self.prefix + surface
        return surface

    def cut(self, name: str) -> list[int]:
        """The ids that this vocabulary cuts a piece into, which it writes so (`form`)."""
        if self.kind == "WordPiece":
            continues = name.startswith(self.prefix)
            found, whole = longest_match(name.removeprefix(self.prefix), self, continues)
            return found if whole else []
        return [token.id for token in self._cutter.tokenize(name)]

    @functools.cached_property
    def _cutter(self) -> Any:
        return self.tokenizer.model

    def merged(self, first: str, second: str) -> str:
        """The piece that a merge of BPE makes."""
        return first + second.removeprefix(self.prefix)


def open_pieces(folder: epath.Path, vocabulary: Vocabulary) -> Pieces:
    """The tokenizer of a `vocabulary/` folder; a SentencePiece model as the tokenizer.json that gives the same ids.

    Raises:
      UserError: no tokenizer.json can equal it, or it is of another kind than `KINDS`.
    """
    path = folder / vocabulary.file
    made = from_sentencepiece(path) if path.suffix == ".model" else load_json(path)
    made.encode_special_tokens = False
    name_specials(made, vocabulary, folder)
    description = json.loads(made.to_str())
    if (kind := description["model"].get("type")) not in KINDS:
        raise UserError(f"{path}: pieces of the kind {kind}; only {', '.join(KINDS)} can be adapted")
    by_id = {number: name for name, number in made.get_vocab(with_added_tokens=True).items()}
    names = tuple(by_id.get(i, "") for i in range(max(by_id) + 1))
    unk = description["model"].get("unk_id")  # of a unigram model, which may not be the role's
    roles = {i for i in (*vocabulary.special_ids, unk) if i is not None and i < len(names) and names[i]}
    return Pieces(description, names, tuple(sorted(roles)))


def changed(
    old: Pieces,
    kept: Sequence[int],
    added: Sequence[tuple[str, float]] = (),
    merges: Sequence[tuple[str, str]] = (),
) -> Pieces:
    """The tokenizer with these of its pieces, in their order, and after them new ones.

    Args:
      kept: ids, ascending; all that have a piece, where there are new ones.
      added: new pieces with their scores, which the unigram model alone reads.
      merges: of BPE, in their order, after the old ones.
    """
    names = [*(old.names[number] for number in kept), *(name for name, _ in added)]
    ids = {number: i for i, number in enumerate(kept)}
    model, there = dict(old.model), set(names)
    # New pieces come after added tokens, which then are the model's too, so that all ids stand in one list.
    own = len(old.names) if added else None
    if old.kind == "Unigram":
        scores = [score for _, score in model["vocab"]]
        scores += [0.0] * ((own or 0) - len(scores))
        model["vocab"] = [[old.names[n], scores[n]] for n in kept if n < len(scores)] + [list(piece) for piece in added]
        model["unk_id"] = None if model["unk_id"] is None else ids[model["unk_id"]]
    else:
        model["vocab"] = {name: i for i, name in enumerate(names) if own or name in model["vocab"]}
    if old.kind == "BPE":
        stay = [(a, b) for a, b in model["merges"] if {a, b, old.merged(a, b)} <= there]
        model["merges"] = [*stay, *merges]
    tokens = [{**token, "id": ids[token["id"]]} for token in old.description["added_tokens"]]
    return Pieces(
        old.description
        | {
            "model": model,
            "added_tokens": sorted(tokens, key=lambda token: token["id"]),
            "post_processor": _with_ids(old.description["post_processor"], ids),
        },
        tuple(names),
        tuple(ids[number] for number in old.roles),
    )


def _with_ids(processor: dict[str, Any] | None, ids: dict[int, int]) -> dict[str, Any] | None:
    """What puts specials around a text, with their new ids."""
    if processor is None:
        return None
    made = dict(processor)
    if "processors" in made:
        made["processors"] = [_with_ids(each, ids) for each in made["processors"]]
    for role in ("cls", "sep"):  # of BERT's and RoBERTa's
        if role in made:
            name, number = made[role]
            made[role] = [name, ids[number]]
    if isinstance(made.get("special_tokens"), dict):  # of a template
        made["special_tokens"] = {
            name: {**token, "ids": [ids[number] for number in token["ids"]]}
            for name, token in made["special_tokens"].items()
        }
    return made


def words(pieces: Pieces, document: str) -> Iterator[str]:
    """What the model cuts one by one: the document after normalisation and pre-tokenisation."""
    made = pieces.tokenizer
    normal = made.normalizer.normalize_str(document) if made.normalizer else document
    if made.pre_tokenizer is None:
        yield normal
    else:
        yield from (word for word, _ in made.pre_tokenizer.pre_tokenize_str(normal))


def longest_match(word: str, pieces: Pieces, continues: bool = False) -> tuple[list[int], bool]:
    """WordPiece's cut of a word, the longest piece first.

    Args:
      continues: the word goes on with another.

    Returns:
      The ids, and whether they are all of the word: of one that the pieces cannot write, those that were found before.
    """
    found: list[int] = []
    start = 0
    while start < len(word):
        prefix = pieces.prefix if start or continues else ""
        fitting = (end for end in range(len(word), start, -1) if prefix + word[start:end] in pieces.ids)
        end = next(fitting, 0)
        if not end:
            return found, False
        found.append(pieces.ids[prefix + word[start:end]])
        start = end
    return found, True
