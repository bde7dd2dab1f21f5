# SPDX-License-Identifier: Apache-2.0
"""The vocabulary as preparation and training see it: `vocabulary.json`, and `sentencepiece.model` or `tokenizer.json` beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np
from etils import epath

from mlm_jax import words
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.stored import ADVICE, read_json
from mlm_jax.tokenizers import load_json, load_pieces, load_tokenizer

# Ids of a vocabulary that we train. Padding is 0 because SeqIO and T5X take 0 for padding.
PAD, EOS, UNK, BOS = 0, 1, 2, 3

# What the specials are called in a tokenizer.json (BERT's names, SentencePiece's and Gemma's).
NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "bos": ("[CLS]", "<s>", "<bos>", "<cls>"),
    "eos": ("[SEP]", "</s>", "<eos>", "<sep>"),
    "unk": ("[UNK]", "<unk>"),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class Vocabulary:
    """What training needs to know of a vocabulary.

    Attributes:
      size: ids in use; all ids are below it.
      pad, eos, unk, bos, mask: ids of the specials. raw text never encodes to `mask`.
      special_ids: never masked, and never a random replacement.
      sha256: of the tokenizer's file.
      file: the tokenizer's, in the `vocabulary/` folder.
      second_type: token type of the second of two texts, where the encoder has token types.
      separators: how often `eos` stands between two texts; 0: twice where it is called `</s>` (XLM-R), else once.
    """

    size: int
    pad: int
    eos: int
    unk: int
    bos: int
    mask: int
    special_ids: tuple[int, ...]
    sha256: str
    file: str = "sentencepiece.model"
    second_type: int = 1
    separators: int = 0

    @property
    def ordinary_ids(self) -> np.ndarray:
        """Ids that may be masked, and drawn as random replacements, int32 [n]."""
        return np.setdiff1d(np.arange(self.size, dtype=np.int32), np.asarray(self.special_ids, np.int32))


def vocabulary_of_file(path: epath.PathLike) -> Vocabulary:
    """Describe a SentencePiece model or a tokenizer.json: ours, or any other.

    One without padding, begin, end or mask token gets them as new ids after its last piece.

    Raises:
      UserError: the file is neither.
    """
    path = epath.Path(path)
    return with_file(_from_pieces(path) if path.suffix == ".model" else _from_json(path), path)


def with_file(vocabulary: Vocabulary, path: epath.PathLike) -> Vocabulary:
    """The vocabulary with a tokenizer file's name and hash."""
    path = epath.Path(path)
    return dataclasses.replace(vocabulary, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), file=path.name)


def _from_pieces(path: epath.Path) -> Vocabulary:
    pieces = load_pieces(path)
    # A <mask> that is user-defined or an ordinary piece is not taken: raw text could encode to it.
    mask = pieces.piece_to_id("<mask>")
    if mask == pieces.unk_id() or not pieces.is_control(mask):
        mask = -1
    ids = {"pad": pieces.pad_id(), "bos": pieces.bos_id(), "eos": pieces.eos_id(), "mask": mask}
    ids["unk"] = pieces.unk_id()
    control = {i for i in range(pieces.get_piece_size()) if pieces.is_control(i)}
    return with_specials(pieces.get_piece_size(), ids, control)


def _from_json(path: epath.Path) -> Vocabulary:
    loaded = load_json(path)
    found = loaded.get_vocab(with_added_tokens=True)
    ids = {name: next((found[c] for c in called if c in found), -1) for name, called in NAMES.items()}
    special = {i for i, token in loaded.get_added_tokens_decoder().items() if token.special}
    # Ids without a piece count as special: they are never masked or drawn.
    size = max(found.values()) + 1
    return with_specials(size, ids, special | (set(range(size)) - set(found.values())))


def with_specials(size: int, ids: dict[str, int], special: set[int]) -> Vocabulary:
    """A vocabulary of `size` pieces whose specials have these ids; -1 gets a new id after the last."""
    ids = dict(ids)
    for name in ids:
        if ids[name] < 0:
            ids[name] = size
            size += 1
    return Vocabulary(
        size,
        ids["pad"],
        ids["eos"],
        ids["unk"],
        ids["bos"],
        ids["mask"],
        tuple(sorted(special | set(ids.values()))),
        "",
    )


def write_vocabulary(vocabulary: Vocabulary, folder: epath.PathLike) -> None:
    """Write `vocabulary.json`, aside and then by rename."""
    write_whole(epath.Path(folder) / "vocabulary.json", json.dumps(dataclasses.asdict(vocabulary), indent=1) + "\n")


def read_vocabulary(folder: epath.PathLike) -> Vocabulary:
    """Read a workdir's `vocabulary/` folder and check that its model is the one described.

    Raises:
      UserError: a file is missing, or the model is another one.
    """
    description = epath.Path(folder) / "vocabulary.json"
    if not description.exists():
        raise UserError(f"{folder}: no vocabulary there; run: mlm-jax prepare CONFIG")
    described: Vocabulary = read_json(description, Vocabulary)
    file = epath.Path(folder) / described.file
    content = file.read_bytes() if file.name == described.file and file.is_file() else None
    found = "no such file" if content is None else hashlib.sha256(content).hexdigest()
    if found != described.sha256:
        raise UserError(
            f"{file}: not the one that {description} describes (sha256 {found[:12]}, not {described.sha256[:12]}); "
            "put the right one back, or prepare into an empty workdir"
        )
    ids = {described.pad, described.eos, described.unk, described.bos, described.mask, *described.special_ids}
    # Every piece but the specials takes a byte of the file.
    if max(ids) >= described.size or min(ids) < 0 or described.size > len(content or "") + len(NAMES):
        raise UserError(f"{description}: damaged (ids {min(ids)} to {max(ids)}, of {described.size:,}); {ADVICE}")
    return described


def word_classes(folder: epath.PathLike, vocabulary: Vocabulary) -> np.ndarray:
    """The classes of each id's first and last character (`words.classes_of_piece`), uint8 [2, vocabulary.size].

    No word goes on over a special.

    Raises:
      UserError: the vocabulary's pieces do not say where a word begins.
    """
    tokenizer = load_tokenizer(epath.Path(folder) / vocabulary.file)
    if tokenizer.starts_word is None:
        raise UserError(f"{folder}: its pieces do not say where words begin; set objective.whole_words to False")
    found = np.empty((2, vocabulary.size), np.uint8)
    found[:] = np.array([[words.START], [words.END]])
    found[:, : len(tokenizer.pieces)] = np.array(
        [words.classes_of_piece(p, tokenizer.starts_word(p), tokenizer.byte_level) for p in tokenizer.pieces]
    ).T
    found[:, list(vocabulary.special_ids)] = np.array([[words.START], [words.END]])
    return found
