# SPDX-License-Identifier: Apache-2.0
"""The vocabulary as both halves see it: `vocabulary/sentencepiece.model` and `vocabulary.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import sentencepiece
from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.files import write_whole

# Ids of a vocabulary that we train. Padding is 0 because SeqIO and T5X take 0 for padding.
PAD, EOS, UNK, BOS, MASK = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Vocabulary:
    """What training needs to know of a vocabulary.

    Attributes:
      size: ids in use; all ids are below it.
      pad, eos, unk, bos, mask: ids of the specials. `mask` is never the id of raw text.
      special_ids: ids never hidden, and never shown in place of another.
      sha256: of the .model file.
    """

    size: int
    pad: int
    eos: int
    unk: int
    bos: int
    mask: int
    special_ids: tuple[int, ...]
    sha256: str

    @property
    def ordinary_ids(self) -> np.ndarray:
        """Ids that may be hidden and drawn as replacements, int32 [n]."""
        return np.setdiff1d(np.arange(self.size, dtype=np.int32), np.asarray(self.special_ids, np.int32))


def from_model(model_path: epath.PathLike) -> Vocabulary:
    """Describe a SentencePiece model: ours, or any other.

    A model without `<pad>`, `<s>`, `</s>` or `<mask>` gets them as new ids after its last piece.

    Raises:
      UserError: the file is no SentencePiece model.
    """
    data = epath.Path(model_path).read_bytes()
    pieces = load_pieces(model_path)
    size = pieces.get_piece_size()
    # A <mask> that raw text can produce (user-defined, or an ordinary piece) would let text hold the mask id.
    mask = pieces.piece_to_id("<mask>")
    if mask == pieces.unk_id() or not pieces.is_control(mask):
        mask = -1
    ids = {"pad": pieces.pad_id(), "bos": pieces.bos_id(), "eos": pieces.eos_id(), "mask": mask}
    for name in ids:
        if ids[name] < 0:
            ids[name] = size
            size += 1
    special = set(ids.values()) | {pieces.unk_id()}
    special |= {i for i in range(pieces.get_piece_size()) if pieces.is_control(i)}
    return Vocabulary(
        size=size,
        unk=pieces.unk_id(),
        special_ids=tuple(sorted(special)),
        sha256=hashlib.sha256(data).hexdigest(),
        **ids,
    )


def load_pieces(model_path: epath.PathLike) -> sentencepiece.SentencePieceProcessor:
    """Load a SentencePiece model file.

    Raises:
      UserError: there is no such file or it is no SentencePiece model.
    """
    path = epath.Path(model_path)
    if not path.exists():
        raise UserError(f"{path}: no such vocabulary; give a SentencePiece .model file")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError as e:
        raise UserError(f"{path}: not a SentencePiece model; give a .model file that spm_train wrote") from e


def write(vocabulary: Vocabulary, folder: epath.PathLike) -> None:
    """Write `vocabulary.json`, aside and then by rename."""
    write_whole(epath.Path(folder) / "vocabulary.json", json.dumps(dataclasses.asdict(vocabulary), indent=1) + "\n")


def read(folder: epath.PathLike) -> Vocabulary:
    """Read a workdir's `vocabulary/` folder and check that its model is the one described.

    Raises:
      UserError: a file is missing, or the model is another one.
    """
    description = epath.Path(folder) / "vocabulary.json"
    model = epath.Path(folder) / "sentencepiece.model"
    if not description.exists() or not model.exists():
        raise UserError(f"{folder}: no vocabulary there; run: mlm-jax prepare CONFIG")
    stored = json.loads(description.read_text())
    found = hashlib.sha256(model.read_bytes()).hexdigest()
    if found != stored["sha256"]:
        raise UserError(
            f"{model}: not the model that {description} describes (sha256 {found[:12]}, not "
            f"{stored['sha256'][:12]}); put the right one back, or prepare into an empty workdir"
        )
    return Vocabulary(**stored | {"special_ids": tuple(stored["special_ids"])})


def word_starts(folder: epath.PathLike, vocabulary: Vocabulary) -> np.ndarray:
    """Which ids begin a word, bool [vocabulary.size]: pieces that begin with U+2581, and the specials."""
    pieces = load_pieces(epath.Path(folder) / "sentencepiece.model")
    starts = np.ones(vocabulary.size, bool)
    for i in range(pieces.get_piece_size()):
        starts[i] = pieces.id_to_piece(i).startswith("\u2581")
    starts[list(vocabulary.special_ids)] = True
    return starts
