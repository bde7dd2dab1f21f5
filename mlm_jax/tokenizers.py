# SPDX-License-Identifier: Apache-2.0
"""Text → token ids, by SentencePiece (`.model`) or Hugging Face tokenizers (`tokenizer.json`, BERT's `vocab.txt`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sentencepiece
import tokenizers
from etils import epath
from sentencepiece import sentencepiece_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mlm_jax.errors import UserError
from mlm_jax.files import check_file
from mlm_jax.given import foreign, given_text

MOST_PIECES = 5_000_000  # of a vocabulary; the largest in use have a million
# Tokens that are added to a model's own, which takes the library a time that grows with their square.
MOST_ADDED = 10_000
FILES = ("sentencepiece.model", "tokenizer.json")  # a `vocabulary/` folder holds one of them

UNSPELLABLE = "\ufdd0\ufdd1"  # not characters, by Unicode

# Processes, not threads, share the work; and a pool forked from a process with these threads would hang.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Tokenizer:
    """Attributes:
    encode: texts → their token ids, without specials; text that spells a special is ordinary text.
    encode_offsets: the same, and each token's (begin, end) offsets in characters of the text.
    decode: token ids → text, as the vocabulary's normalisation left it.
    pieces: each id's piece.
    starts_word: whether a piece carries the mark of a word's beginning; None if the pieces do not tell.
    byte_level: whether the characters of pieces stand for bytes.
    """

    encode: Callable[[list[str]], list[list[int]]]
    encode_offsets: Callable[[list[str]], list[tuple[list[int], list[tuple[int, int]]]]]
    decode: Callable[[list[int]], str]
    pieces: tuple[str, ...]
    starts_word: Callable[[str], bool] | None
    byte_level: bool = False


def load_tokenizer(path: epath.PathLike) -> Tokenizer:
    """Load a tokenizer file, or the one in a `vocabulary/` folder.

    Raises:
      UserError: there is no such file, or it is not what its name says.
    """
    path = epath.Path(path)
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).exists()]
        if not found:
            raise UserError(f"{path}: no vocabulary there; run: mlm-jax prepare CONFIG")
        path = found[0]
    if path.suffix == ".model":
        pieces = load_pieces(path)
        return Tokenizer(
            encode=lambda batch: pieces.encode(batch, num_threads=1),
            encode_offsets=lambda batch: [
                _offsets(text, proto)
                for text, proto in zip(
                    batch, pieces.encode(batch, out_type="serialized_proto", num_threads=1), strict=True
                )
            ],
            decode=pieces.decode,
            pieces=tuple(pieces.id_to_piece(i) for i in range(pieces.get_piece_size())),
            starts_word=lambda piece: piece.startswith("\u2581"),
        )
    return from_library(load_json(path))


def from_library(loaded: tokenizers.Tokenizer) -> Tokenizer:
    """A tokenizer of the Hugging Face library as ours."""
    vocabulary = loaded.get_vocab(with_added_tokens=True)
    by_id = {number: piece for piece, number in vocabulary.items()}
    text = loaded.to_str()
    plain = without_specials(text)
    return Tokenizer(
        encode=lambda batch: [e.ids for e in plain.encode_batch(batch, add_special_tokens=False)],
        encode_offsets=lambda batch: [(e.ids, e.offsets) for e in plain.encode_batch(batch, add_special_tokens=False)],
        decode=lambda ids: loaded.decode(ids, skip_special_tokens=False),
        pieces=tuple(by_id.get(i, "") for i in range(max(by_id) + 1)),
        starts_word=_word_rule(json.loads(text)),
        byte_level='"ByteLevel"' in text,
    )


def _offsets(text: str, serialized: bytes) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and character offsets of SentencePiece's tokens; SentencePiece itself counts UTF-8 bytes."""
    made_of: Any = sentencepiece_pb2  # its classes are made when it is imported
    tokens = made_of.SentencePieceText.FromString(serialized).pieces
    character = [i for i, c in enumerate(text) for _ in c.encode()] + [len(text)]
    return [t.id for t in tokens], [(character[t.begin], character[t.end]) for t in tokens]


def load_pieces(path: epath.PathLike) -> sentencepiece.SentencePieceProcessor:
    """Load a SentencePiece model file.

    Raises:
      UserError: there is no such file or it is no SentencePiece model.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such vocabulary; give a SentencePiece .model file")
    check_file(path, largest_model(MOST_PIECES))
    try:
        # Nothing would count as not given.
        loaded = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes() or b"none")
        if not loaded.get_piece_size():
            raise RuntimeError("no pieces")
        return loaded
    except RuntimeError as e:
        raise UserError(f"{path}: not a SentencePiece model; give a .model file that spm_train wrote") from e


def largest_model(pieces: int) -> int:
    """Bytes that a SentencePiece model or a vocab.txt of so many pieces may have."""
    return 10_000_000 + 100 * pieces


def load_json(path: epath.PathLike, most: int = MOST_PIECES) -> tokenizers.Tokenizer:
    """Load a tokenizer.json so that raw text never becomes a special token.

    Args:
      most: pieces that it may have, about; a file that must have more is refused before the library reads it.

    Raises:
      UserError: there is no such file or it is no tokenizer.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such vocabulary; give a tokenizer.json, a vocab.txt or a SentencePiece .model")
    check_file(path, 10_000_000 + 1_000 * most)
    content = path.read_bytes()
    # A piece of a unigram model has two commas, one of BPE with its merge three; of pieces that were added some have seven.
    if content.count(b",") > 100_000 + 20 * most:
        raise UserError(f"{path}: far more pieces than the {most:,} that belong there; get the right tokenizer.json")
    with foreign(f"{path}: not a tokenizer of the Hugging Face tokenizers library", "get the right tokenizer.json"):
        added = json.loads(content).get("added_tokens") or []
        if len(added) > MOST_ADDED:
            raise UserError(
                f"{path}: {len(added):,} added tokens, where {MOST_ADDED:,} are the most; put them into the model's vocabulary"
            )
        loaded = tokenizers.Tokenizer.from_str(content.decode())
        # Ids may be far apart, and what is made of them has a row for each.
        if max(loaded.get_vocab(with_added_tokens=True).values(), default=0) > MOST_PIECES:
            raise UserError(
                f"{path}: an id above {MOST_PIECES:,}, the most that are read; get the right tokenizer.json"
            )
    loaded.no_truncation()
    loaded.no_padding()
    loaded.encode_special_tokens = True
    return loaded


def without_specials(text: str) -> tokenizers.Tokenizer:
    """From a tokenizer.json, a tokenizer with the same ids, none of which is a special token's whatever the text spells.

    The library leaves special tokens out of its search of added ones, but models find in text all that is in their
    vocabulary: so there they get names that no text has.
    """
    description = json.loads(text)
    model = description["model"]
    special = {token["content"] for token in description["added_tokens"] if token["special"]}

    def renamed(piece: str) -> str:
        return f"{UNSPELLABLE}{piece}" if piece in special else piece

    if model["type"] == "Unigram":
        model["vocab"] = [(renamed(piece), score) for piece, score in model["vocab"]]
    else:
        model["vocab"] = {renamed(piece): number for piece, number in model["vocab"].items()}
        if model.get("unk_token") is not None:
            model["unk_token"] = renamed(model["unk_token"])
    if model["type"] == "BPE":
        model["merges"] = [(a, b) for a, b in model["merges"] if not {a, b, a + b} & special]
    for token in description["added_tokens"]:
        token["content"] = renamed(token["content"])
    description["post_processor"] = None
    plain = tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
    plain.encode_special_tokens = True
    return plain


# Scripts that are written without spaces, whose characters BERT's rules do not set apart as they do Han's.
RUNS = (
    "Thai",
    "Lao",
    "Khmer",
    "Myanmar",
    "Tibetan",
    "Hiragana",
    "Katakana",
    "Javanese",
    "Balinese",
    "Tai_Le",
    "Tai_Tham",
    "Yi",
    "Bopomofo",
    "New_Tai_Lue",
    "Tai_Viet",
    "Ahom",
    "Nushu",
    "Tangut",
    "Khitan_Small_Script",
)
LONGEST_RUN = 25  # characters with their marks: with up to three marks each, within `LONGEST_WORD`
_IN_RUN = "".join(f"\\p{{{script}}}" for script in RUNS)
LONGEST_WORD = 100  # characters that BERT's words may have
_RUN = tokenizers.Regex(f"(?:[{_IN_RUN}]\\p{{M}}*){{1,{LONGEST_RUN}}}|[^{_IN_RUN}]{{{LONGEST_WORD}}}")
_ONE_OF_RUN = pre_tokenizers.Split(tokenizers.Regex(f"[{_IN_RUN}]"), "removed")


def in_run(character: str) -> bool:
    """Whether a character is of a script that is written without spaces (`RUNS`)."""
    return not _ONE_OF_RUN.pre_tokenize_str(character)


def word_piece(
    vocabulary: dict[str, int], lowercase: bool, normalization: str = "", cut_runs: bool = False
) -> tokenizers.Tokenizer:
    """BERT's tokenizer (Devlin et al. 2019, section 3): words at white space and punctuation, CJK characters
    apart, then the longest pieces first.

    Args:
      vocabulary: piece → id, with "##" before pieces that go on a word.
      lowercase: lower-case and without accents ("uncased").
      normalization: of `config.Vocabulary`, before BERT's, of which then is left that Han characters are words; "": BERT's alone.
      cut_runs: words of scripts without spaces end after `LONGEST_RUN` characters, and where another script begins; others after
        `LONGEST_WORD`. BERT's own rules make a whole line of Thai one word, and what has more than 100 characters [UNK].
    """
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
    steps: list[Any] = [normalizers.NFKC()] if normalization.startswith("nfkc") else []
    steps += [normalizers.Lowercase()] if normalization.endswith("_cf") else []
    # BERT's cleaning drops the joiners of Persian and of Indic scripts, as it does control characters.
    accents, clean = (False, False) if normalization else (None, True)
    bert = normalizers.BertNormalizer(
        clean_text=clean, handle_chinese_chars=True, strip_accents=accents, lowercase=lowercase
    )
    made.normalizer = normalizers.Sequence([*steps, bert]) if steps else bert
    words: Any = pre_tokenizers.BertPreTokenizer()
    made.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Split(_RUN, "isolated")]) if cut_runs else words
    made.decoder = decoders.WordPiece(prefix="##")
    return made


def read_vocab_txt(path: epath.PathLike, most: int = MOST_PIECES) -> dict[str, int]:
    """BERT's vocab.txt: one piece per line, its id the line's number from 0.

    Args:
      most: pieces that it may have, about.

    Raises:
      UserError: a piece occurs twice, there is no [UNK], or it is too large or no text.
    """
    path = epath.Path(path)
    check_file(path, largest_model(most))
    pieces = given_text(path).split("\n")
    if pieces[-1] == "":
        pieces.pop()
    vocabulary = {piece.rstrip("\r"): number for number, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise UserError(f"{path}: {len(pieces) - len(vocabulary)} pieces occur twice; a vocab.txt has one per line")
    if "[UNK]" not in vocabulary:
        raise UserError(f"{path}: no [UNK]; give BERT's vocab.txt, a tokenizer.json or a SentencePiece .model")
    return vocabulary


def _word_rule(description: dict[str, Any]) -> Callable[[str], bool] | None:
    if description["model"]["type"] == "WordPiece":
        prefix = description["model"]["continuing_subword_prefix"]
        return lambda piece: not piece.startswith(prefix)
    if description["model"].get("end_of_word_suffix"):
        return None  # XLM's BPE marks where words end
    # Metaspace, or the byte-level alphabet's space.
    return lambda piece: piece.startswith(("\u2581", "\u0120"))
