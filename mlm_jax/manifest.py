# SPDX-License-Identifier: Apache-2.0
"""The file between the two halves: what preparation wrote and training may read.

`corpus/manifest.json` lists every stream (a language's blocks, or a language pair's), its shards
and its counts. It is written last, by rename, so a corpus with a manifest is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import numpy as np
from etils import epath

from mlm_jax.errors import UserError
from mlm_jax.fields import AtLeast
from mlm_jax.files import write_whole
from mlm_jax.stored import fitting, read_json, reading_arrays
from mlm_jax.typed import as_type

SCHEMA = 2
TOKEN_COUNTS = "token_counts.npy"
FINDINGS = (
    "unknown",
    "unk",
    "lost",
    "left_out",
    "sentences_left_out",
    "in_no_block",
    "unpaired",
    "cut",
)  # of a split: what was found, not what it is


Count = Annotated[int, AtLeast(0)]


class Versioned(TypedDict):
    """A manifest of whatever version."""

    schema: int


@dataclass(frozen=True)
class Shard:
    """One TFRecord file of blocks, with an index of its records' offsets beside it (`FILE.index`)."""

    file: str  # relative to the corpus folder
    blocks: Count
    bytes: Count  # of the file, by which a truncated one is known


@dataclass(frozen=True)
class Split:
    """A stream's training or validation blocks."""

    documents: Count
    bytes: Count  # UTF-8 bytes of text
    tokens: Count  # in the blocks, specials included
    blocks: Count
    shards: tuple[Shard, ...]
    # Corpora of earlier versions do not have these.
    unknown: float = 0.0  # share of the text that the vocabulary cannot write (`coverage.unknown_share`)
    unk: float = 0.0  # share of its tokens, but for specials, that are <unk>
    lost: str = ""  # characters that it drops or cannot write, the most frequent ones
    left_out: int = 0  # documents (or pairs) that are held out elsewhere
    sentences_left_out: int = 0  # of documents
    in_no_block: int = 0  # documents of which no block holds a token
    unpaired: int = 0  # tokens of sentences that stand in no pair of next-sentence prediction
    cut: int = 0  # texts of pairs that lost their end, to fit a block


@dataclass(frozen=True)
class Stream:
    """The blocks of one language (`languages` of length 1) or of one language pair (2).

    Attributes:
      name: the language code, or `xx-yy` for a pair.
      task: name of the SeqIO task, which is also the folder of its cache under the corpus.
      unigram_loss: nats per token that the training tokens' own frequencies (add-one smoothed over the
        vocabulary) give the validation tokens; None for pairs and where nothing is held out.
    """

    name: str
    languages: tuple[str, ...]
    task: str
    train: Split
    validation: Split
    unigram_loss: float | None


@dataclass(frozen=True)
class Manifest:
    """All of a prepared corpus.

    Attributes:
      languages: every language, sorted; a token's language id is its place here.
      settings: the data and vocabulary options it was prepared with.
      tools: versions of the packages that wrote it.
    """

    schema: int
    sequence_length: Annotated[int, AtLeast(1)]
    packing: str
    vocabulary_size: Annotated[int, AtLeast(1)]
    vocabulary_sha256: str
    languages: tuple[str, ...]
    streams: tuple[Stream, ...]
    settings: dict[str, Any]
    tools: dict[str, str]

    @property
    def monolingual(self) -> tuple[Stream, ...]:
        return tuple(s for s in self.streams if len(s.languages) == 1)

    @property
    def parallel(self) -> tuple[Stream, ...]:
        return tuple(s for s in self.streams if len(s.languages) == 2)

    def sha256(self) -> str:
        """Identity of the corpus: the hash of what is in it, not of who wrote it when."""
        content = {k: v for k, v in dataclasses.asdict(self).items() if k not in ("settings", "tools")}
        for stream in content["streams"]:
            for split in ("train", "validation"):
                for name in FINDINGS:
                    del stream[split][name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_manifest(manifest: Manifest, corpus: epath.PathLike) -> None:
    """Write `manifest.json` into the corpus folder, aside and then by rename."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False) + "\n"
    write_whole(epath.Path(corpus) / "manifest.json", text)


def read_manifest(corpus: epath.PathLike) -> Manifest:
    """Read and check a corpus folder's manifest.

    Raises:
      UserError: there is none, it is not JSON, a newer mlm_jax wrote it, or it lacks a field.
    """
    path = epath.Path(corpus) / "manifest.json"
    if not path.exists():
        raise UserError(f"{path}: no manifest, so the corpus is not prepared; run: mlm-jax prepare CONFIG")
    advice = "delete it and run: mlm-jax prepare CONFIG"
    stored = read_json(path, Versioned, advice)
    schema = stored["schema"]
    if schema > SCHEMA:
        raise UserError(f"{path}: schema {schema} is newer than the {SCHEMA} that this mlm_jax reads; upgrade mlm_jax")
    if schema < SCHEMA:
        raise UserError(f"{path}: schema {schema} is older than this mlm_jax's {SCHEMA}; prepare into a new workdir")
    with fitting(str(path), advice):
        made: Manifest = as_type(Manifest, stored)
        for stream in made.streams:
            if len(stream.languages) not in (1, 2) or not {*stream.languages} <= {*made.languages}:
                raise ValueError(f"{stream.name} is of the languages {', '.join(stream.languages)}")
            for split in (stream.train, stream.validation):
                if sum(shard.blocks for shard in split.shards) != split.blocks:
                    raise ValueError(f"the shards of {stream.name} have not the {split.blocks:,} blocks of all")
    return made


def write_token_counts(counts: np.ndarray, corpus: epath.PathLike) -> None:
    """Write how often each token id occurs in the training blocks, int64 [vocabulary_size]."""
    file = io.BytesIO()
    np.save(file, counts)
    write_whole(epath.Path(corpus) / TOKEN_COUNTS, file.getvalue())


def read_token_counts(corpus: epath.PathLike) -> np.ndarray:
    """How often each token id occurs in the training blocks, int64 [vocabulary_size].

    Raises:
      UserError: they are not there.
    """
    path = epath.Path(corpus) / TOKEN_COUNTS
    if not path.exists():
        raise UserError(f"{path}: missing; delete {path.parent / 'manifest.json'} and run: mlm-jax prepare CONFIG")
    with reading_arrays(path, f"delete {path.parent / 'manifest.json'} and run: mlm-jax prepare CONFIG"):
        counts = np.load(io.BytesIO(path.read_bytes()))
        if counts.dtype != np.int64 or counts.ndim != 1:
            raise ValueError(f"{counts.dtype}, of {counts.ndim} dimensions")
    return counts
