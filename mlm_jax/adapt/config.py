# SPDX-License-Identifier: Apache-2.0
"""Every option of `adapt`: which encoder, which text, and what becomes of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.fields import AtLeast, check_bounds
from mlm_jax.files import in_bucket
from mlm_jax.names import check_names

NO_TEXT = cfg.Data()
TRAINED = cfg.Vocabulary()
SMOOTHED = cfg.Sampling()


@dataclass(frozen=True)
class Adapt:
    """Another vocabulary for an encoder, made from the text of the languages wanted."""

    workdir: str = ""
    """Folder to be made, which `pretrain` goes on from and `export` writes; empty: runs/NAME-OF-CONFIG."""
    init: str = ""
    """A run or a Hugging Face folder whose encoder is adapted."""
    step: str = "best"
    """Of a run: its best checkpoint, its last, or that of a step."""
    change: Literal["trim", "extend", "replace"] = "trim"
    """trim: only the pieces that occur in the text stay, and the encoder computes what it did; extend: pieces of a vocabulary that is
    trained on the text come after the old ones; replace: that vocabulary takes the old one's place."""
    rows: Literal["mean", "focus", "script", "random"] = "focus"
    """extend, replace: what new pieces' rows are. mean: of the old pieces that a new one was cut into; focus: of old pieces that are used
    as it is in the text (Dobler and de Melo 2023); script: drawn from the distribution of its script's old rows (Downey et al. 2023), which
    the others do too where they cannot; random: drawn as a new encoder's, for contrast."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Seeds the draws of text and of new rows."""
    data: cfg.Data = NO_TEXT
    """The text. The same `data` as that of the `pretrain` that goes on from here holds the same documents out."""
    vocabulary: cfg.Vocabulary = TRAINED
    """extend, replace: the vocabulary that is trained. Of extend `size`, `character_coverage` and `sample_bytes` count: the kind and the
    normalisation are the old one's, and BPE gets `size` merges more."""
    sampling: cfg.Sampling = SMOOTHED
    """How much of each language's text it is trained on."""
    min_count: Annotated[int, AtLeast(1)] = 1
    """trim: how often a piece has to occur. With 1 all of the text is cut as before; with more some of it is cut otherwise, which is
    counted and said."""


def validate_adaptation(config: Adapt) -> None:
    """Refuse a config that cannot work, before anything is loaded.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    check_bounds(config)
    if in_bucket(config.workdir):
        raise UserError(f"workdir: {config.workdir}: adapt works on a local disk; use a local --workdir")
    if not config.init:
        raise UserError("init: empty; name a run or a Hugging Face folder to adapt (--init FOLDER)")
    if not config.data.sources:
        raise UserError("data.sources: empty; name at least one Source(language, path)")
    if config.vocabulary.path and config.change != "replace":
        raise UserError(
            f"vocabulary.path: {config.vocabulary.path}, but {config.change} makes its own; leave it out, or set change replace"
        )
    check_names("data", [source.language for source in config.data.sources if source.language != "*"])
