# SPDX-License-Identifier: Apache-2.0
"""A SentencePiece model as a tokenizer of the Hugging Face library, that gives the same ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from etils import epath
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from mlm_jax.errors import UserError
from mlm_jax.interchange.character_map import STAND_INS, map_steps

SPACE = "\u2581"  # what SentencePiece writes for a space
LONGEST_PIECE = 1_000  # characters; spm_train's default is 16
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")  # before the model's own pieces; its first three are left out
_PROTECTED = STAND_INS + 0x800  # private characters that stand for user-defined symbols on their way past the map

_made_of: Any = sentencepiece_model_pb2  # its classes are made when it is imported
_KIND = _made_of.ModelProto.SentencePiece


def from_sentencepiece(path: epath.Path | Path, fairseq: bool = False) -> tokenizers.Tokenizer:
    """A SentencePiece model as a tokenizer of the Hugging Face library, that gives the same ids; without a template.

    Control symbols are special tokens of it. Text on either side of one is encoded by itself.

    Args:
      path: a unigram, BPE or character .model.
      fairseq: with XLM-R's ids: `<s> <pad> </s> <unk>`, the model's pieces without its own first three, `<mask>`.

    Raises:
      UserError: it is no such model, or one that the library cannot equal; says why.
    """
    try:
        proto = _made_of.ModelProto.FromString(path.read_bytes())
    except DecodeError as e:
        raise UserError(f"{path}: not a SentencePiece model; give a .model file that spm_train wrote") from e
    _refuse_inexpressible(proto, path)
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    if fairseq:
        if [kind for *_, kind in pieces[:3]] != [_KIND.UNKNOWN, _KIND.CONTROL, _KIND.CONTROL]:
            raise UserError(
                f"{path}: its pieces do not begin with <unk> <s> </s>, as those of XLM-R's models do; put the folder's tokenizer.json there"
            )
        kinds = [_KIND.CONTROL] * 3 + [_KIND.UNKNOWN]
        pieces = [(name, 0.0, kind) for name, kind in zip(FAIRSEQ, kinds, strict=True)] + pieces[3:]
        pieces.append(("<mask>", 0.0, _KIND.CONTROL))
    made = tokenizers.Tokenizer(_model(proto.trainer_spec, pieces))
    symbols = sorted((name for name, _, kind in pieces if kind == _KIND.USER_DEFINED), key=len, reverse=True)
    steps = _normalizers(proto, symbols, path)
    if steps:
        made.normalizer = normalizers.Sequence(steps)
    cuts = _pre_tokenizers(proto.trainer_spec, pieces, symbols)
    if cuts:
        made.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    made.decoder = _decoder(proto)
    special = [name for name, _, kind in pieces if kind in (_KIND.UNKNOWN, _KIND.CONTROL)]
    # The mask takes in the space before it, as XLM-R's does.
    made.add_special_tokens([AddedToken(s, lstrip=s == "<mask>", special=True, normalized=False) for s in special])
    return made


def unrounded(path: epath.Path | Path) -> str:
    """What may make a unigram model break ties otherwise than the library; "" where nothing does."""
    proto = _made_of.ModelProto.FromString(path.read_bytes())
    scores = [piece.score * 2**7 for piece in proto.pieces]
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM or all(score == int(score) for score in scores):
        return ""
    return (
        " (SentencePiece adds the scores of pieces in float32, the library in float64, and so they may break ties otherwise; "
        "scores rounded to 2**-7, as mlm_jax.prepare.vocabulary.round_scores makes them, have exact sums)"
    )


def _refuse_inexpressible(proto: Any, path: epath.Path | Path) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec

    def refuse(what: str) -> UserError:
        return UserError(f"{path}: {what}, so that no tokenizer.json can equal it; train another vocabulary")

    if not any(piece.type == _KIND.UNKNOWN for piece in proto.pieces):
        raise UserError(f"{path}: not a SentencePiece model, or cut off; give a .model file that spm_train wrote")
    if len({piece.piece for piece in proto.pieces}) < len(proto.pieces):
        raise refuse("has a piece twice")
    if any(len(piece.piece) > LONGEST_PIECE for piece in proto.pieces):
        raise refuse(f"has a piece of over {LONGEST_PIECE:,} characters")
    if trainer.model_type == trainer.WORD:
        raise refuse("a model of whole words, which makes one <unk> of several words")
    if any(piece.type == _KIND.UNUSED for piece in proto.pieces):
        raise refuse("has pieces that are switched off (UNUSED)")
    if not normalizer.escape_whitespaces:
        raise refuse("keeps spaces as they are (escape_whitespaces false)")


def _model(trainer: Any, pieces: Sequence[tuple[str, float, int]]) -> Any:
    """The library's model of (piece, score, kind) in the order of their ids."""
    unknown = next(i for i, (*_, kind) in enumerate(pieces) if kind == _KIND.UNKNOWN)
    if trainer.model_type == trainer.BPE:
        vocabulary = {name: i for i, (name, *_) in enumerate(pieces)}
        return models.BPE(
            vocabulary,
            _merges(pieces),
            unk_token=pieces[unknown][0],
            fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
            # A user-defined symbol is a word by itself, and no merge makes it.
            ignore_merges=any(kind == _KIND.USER_DEFINED for *_, kind in pieces),
        )
    scored = [(name, score if kind == _KIND.NORMAL else 0.0) for name, score, kind in pieces]
    if trainer.model_type == trainer.CHAR:
        scored = [(name, 0.0) for name, _ in scored]
    for i, (name, _, kind) in enumerate(pieces):
        if kind == _KIND.USER_DEFINED:
            scored[i] = (name, 0.1 * len(name.encode()) - 0.1)  # as SentencePiece weighs them
    return models.Unigram(scored, unk_id=unknown, byte_fallback=trainer.byte_fallback)


def _merges(pieces: Sequence[tuple[str, float, int]]) -> list[tuple[str, str]]:
    """The merges of a BPE model: every way to make a piece of two, in the order of the pieces' scores."""
    ids = {name: i for i, (name, _, kind) in enumerate(pieces) if kind == _KIND.NORMAL}
    merges = []
    for name, score, kind in pieces:
        if kind == _KIND.NORMAL:
            for cut in range(1, len(name)):
                left, right = name[:cut], name[cut:]
                if left in ids and right in ids:
                    merges.append((-score, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


def _normalizers(proto: Any, symbols: Sequence[str], path: epath.Path | Path) -> list[Any]:
    """What SentencePiece does with a text before it is cut into pieces."""
    spec, suffix = proto.normalizer_spec, proto.trainer_spec.treat_whitespace_as_suffix
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        try:
            steps = map_steps(spec.precompiled_charsmap)
        except ValueError as e:
            raise UserError(f"{path}: has {e}, so that no tokenizer.json can equal it") from e
        # User-defined symbols are not normalised.
        through = normalizers.Sequence(steps)
        changed = [symbol for symbol in symbols if through.normalize_str(symbol) != symbol]
        stand_in = {symbol: chr(_PROTECTED + i) for i, symbol in enumerate(changed)}
        steps = [
            *(normalizers.Replace(symbol, c) for symbol, c in stand_in.items()),
            *steps,
            *(normalizers.Replace(c, symbol) for symbol, c in stand_in.items()),
        ]
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex(r"\A "), "")]
    steps.append(normalizers.Replace(" ", SPACE))
    if spec.add_dummy_prefix and not suffix:
        steps.append(normalizers.Prepend(SPACE))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"{SPACE}+\z"), ""))
    if spec.add_dummy_prefix and suffix:
        steps.append(normalizers.Replace(Regex(r"(?<=[\s\S])\z"), SPACE))
    return steps


def _pre_tokenizers(trainer: Any, pieces: Sequence[tuple[str, float, int]], symbols: Sequence[str]) -> list[Any]:
    """Cuts that no piece crosses. SentencePiece has none, but words are the library's `word_ids`."""
    cuts: list[Any] = []
    if trainer.byte_fallback:
        # The library finds <0x41> in text, SentencePiece does not.
        cuts.append(pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "merged_with_previous"))
    if symbols and trainer.model_type != trainer.UNIGRAM:
        cuts.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, symbols))), "isolated"))
    found = [name for name, _, kind in pieces if kind in (_KIND.NORMAL, _KIND.USER_DEFINED)]
    if SPACE in found:
        if trainer.treat_whitespace_as_suffix and not any(SPACE in name[:-1] for name in found):
            cuts.append(pre_tokenizers.Split(SPACE, "merged_with_previous"))
        elif not any(SPACE in name[1:] for name in found):
            cuts.append(pre_tokenizers.Split(SPACE, "merged_with_next"))
    return cuts


def _decoder(proto: Any) -> Any:
    suffix, dummy = proto.trainer_spec.treat_whitespace_as_suffix, proto.normalizer_spec.add_dummy_prefix
    parts: list[Any] = [decoders.ByteFallback()] if proto.trainer_spec.byte_fallback else []
    if suffix:
        parts += [decoders.Replace(SPACE, " "), decoders.Fuse()]
        parts += [decoders.Strip(" ", 0, 1)] if dummy else []
    else:
        parts.append(decoders.Metaspace(replacement=SPACE, prepend_scheme="always" if dummy else "never"))
    return decoders.Sequence(parts)
