# SPDX-License-Identifier: Apache-2.0
"""Tokenizers as Hugging Face folders hold them."""

from __future__ import annotations

import json
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from etils import epath
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from mlm_jax import vocabulary as vocabularies
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.tokenizers import load_json, load_tokenizer, read_vocab_txt, word_piece
from mlm_jax.vocabulary import Vocabulary

# What a folder may hold of a tokenizer; kept beside an imported vocabulary, for exporting it again.
KEPT = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
KEPT_FOLDER = "hugging_face"
SPECIALS = {"pad": "pad_token", "bos": "cls_token", "eos": "sep_token", "unk": "unk_token", "mask": "mask_token"}
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")  # before the model's own pieces; its first three are left out


def import_tokenizer(source: Path, folder: epath.Path, size: int) -> Vocabulary:
    """Make a `vocabulary/` folder from a Hugging Face folder.

    Args:
      source: with tokenizer.json, sentencepiece.bpe.model, vocab.txt, or vocab.json and merges.txt.
      size: rows of the checkpoint's token embedding.

    Raises:
      UserError: there is no tokenizer, or it has ids that the checkpoint has no row for.
    """
    made = _load(source)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "tokenizer.json", made.to_str())
    described = vocabularies.vocabulary_of_file(folder / "tokenizer.json")
    vocabulary = made.get_vocab(with_added_tokens=True)
    ids = {name: getattr(described, name) for name in SPECIALS}
    for name, content in _special_tokens(source).items():
        if content in vocabulary:
            ids[name] = vocabulary[content]
    pieces = max(vocabulary.values()) + 1
    if pieces > size:
        raise UserError(
            f"{source}: the tokenizer has {pieces:,} pieces, the checkpoint {size:,}; they do not belong together"
        )
    # Rows without a piece are never hidden, nor shown in place of another.
    special = set(described.special_ids) | set(range(pieces, size))
    ids = {name: -1 if number >= pieces else number for name, number in ids.items()}
    free = iter(range(pieces, size))
    ids = {name: next(free, -1) if number < 0 else number for name, number in ids.items()}
    made_vocabulary = vocabularies.with_specials(size, ids, special)
    made_vocabulary = vocabularies.with_file(made_vocabulary, folder / "tokenizer.json")
    kept = folder / KEPT_FOLDER
    kept.mkdir(exist_ok=True)
    for name in KEPT:
        if (source / name).exists():
            (kept / name).write_bytes((source / name).read_bytes())
    vocabularies.write_vocabulary(made_vocabulary, folder)
    return made_vocabulary


def _load(source: Path) -> tokenizers.Tokenizer:
    settings = _json(source / "tokenizer_config.json")
    if (source / "tokenizer.json").exists():
        return load_json(source / "tokenizer.json")
    if (source / "sentencepiece.bpe.model").exists():
        # Our own exports keep the model's ids and name another class.
        return from_sentencepiece(
            source / "sentencepiece.bpe.model", settings.get("tokenizer_class") != "PreTrainedTokenizerFast"
        )
    if (source / "vocab.txt").exists():
        made = word_piece(read_vocab_txt(source / "vocab.txt"), bool(settings.get("do_lower_case", True)))
        return _with_template(made, "[CLS]", "[SEP]")
    if (source / "vocab.json").exists() and (source / "merges.txt").exists():
        return _xlm(source)
    raise UserError(
        f"{source}: no tokenizer; put tokenizer.json, sentencepiece.bpe.model, vocab.txt, or vocab.json and merges.txt there"
    )


def _xlm(source: Path) -> tokenizers.Tokenizer:
    """XLM's BPE on words at white space: text has to be cut up by Moses and lower-cased beforehand, as XLM's was."""
    vocabulary = json.loads((source / "vocab.json").read_text())
    lines = [line.split()[:2] for line in (source / "merges.txt").read_text().splitlines()]
    merges = [(a, b) for a, b in (line for line in lines if len(line) == 2) if a in vocabulary or a + b in vocabulary]
    known = [(a, b) for a, b in merges if {a, b, a + b} <= vocabulary.keys()]
    made = tokenizers.Tokenizer(models.BPE(vocabulary, known, unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    return _with_template(made, "<s>", "</s>")


def _special_tokens(source: Path) -> dict[str, str]:
    """Role → the token that tokenizer_config.json or special_tokens_map.json gives it."""
    settings = _json(source / "tokenizer_config.json") | _json(source / "special_tokens_map.json")
    found = {}
    for role, field in SPECIALS.items():
        token = settings.get(field)
        content = token.get("content") if isinstance(token, dict) else token
        if content:
            found[role] = content
    return found


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def export_tokenizer(folder: epath.Path, vocabulary: Vocabulary, family: str, positions: int, out: Path) -> None:
    """Write a `vocabulary/` folder's tokenizer into a Hugging Face folder; one that was imported, as it came."""
    kept = folder / KEPT_FOLDER
    if kept.exists():
        for path in kept.iterdir():
            (out / path.name).write_bytes(path.read_bytes())
        if (out / "tokenizer.json").exists() or (out / "tokenizer_config.json").exists():
            _name_mask(folder, vocabulary, out)
            return
    if vocabulary.file == "sentencepiece.model":
        model = folder / vocabulary.file
        made = from_sentencepiece(model)
        if family.startswith("xlm-roberta"):
            (out / "sentencepiece.bpe.model").write_bytes(model.read_bytes())
    else:
        made = load_json(folder / vocabulary.file)
        made.encode_special_tokens = False
    by_id = {number: piece for piece, number in made.get_vocab(with_added_tokens=True).items()}
    # Specials that the tokenizer lacked have ids after its last piece, and names of ours.
    names = {role: by_id.get(getattr(vocabulary, role), f"<{role}>") for role in SPECIALS}
    added = sorted(
        (getattr(vocabulary, role), name) for role, name in names.items() if getattr(vocabulary, role) not in by_id
    )
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for _, name in added])
    if made.post_processor is None:
        made = _with_template(made, names["bos"], names["eos"])
    write_whole(out / "tokenizer.json", made.to_str())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
        **{field: names[role] for role, field in SPECIALS.items()},
        "bos_token": names["bos"],
        "eos_token": names["eos"],
    }
    write_whole(out / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _name_mask(folder: epath.Path, vocabulary: Vocabulary, out: Path) -> None:
    """Name the mask in a tokenizer_config.json that names none, as encoders without a head come, for it has one now."""
    pieces = load_tokenizer(folder / vocabulary.file).pieces
    if "mask" not in _special_tokens(out) and vocabulary.mask < len(pieces):
        settings = _json(out / "tokenizer_config.json") | {"mask_token": pieces[vocabulary.mask]}
        write_whole(out / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def from_sentencepiece(path: epath.Path | Path, fairseq: bool = False) -> tokenizers.Tokenizer:
    """A SentencePiece model as a tokenizer of the Hugging Face library, that gives the same ids.

    Args:
      path: a unigram or BPE .model.
      fairseq: with XLM-R's ids: `<s> <pad> </s> <unk>`, the model's pieces without its own first three, `<mask>`.

    Raises:
      UserError: the model is of another kind.
    """
    made_of: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    proto = made_of.ModelProto.FromString(path.read_bytes())
    trainer, kinds = proto.trainer_spec, made_of.ModelProto.SentencePiece
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == kinds.UNKNOWN)
    special = [piece.piece for piece in proto.pieces if piece.type in (kinds.UNKNOWN, kinds.CONTROL)]
    if fairseq:
        pieces = [(name, 0.0) for name in FAIRSEQ] + pieces[3:] + [("<mask>", 0.0)]
        unknown, special = 3, [*FAIRSEQ, "<mask>"]
    if trainer.model_type == trainer.UNIGRAM:
        model: Any = models.Unigram(pieces, unk_id=unknown, byte_fallback=trainer.byte_fallback)
    elif trainer.model_type == trainer.BPE:
        vocabulary = {piece: i for i, (piece, _) in enumerate(pieces)}
        model = models.BPE(
            vocabulary,
            _merges(pieces, vocabulary),
            unk_token=pieces[unknown][0],
            fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
        )
    else:
        raise UserError(f"{path}: neither unigram nor BPE, so it cannot be written as tokenizer.json")
    made = tokenizers.Tokenizer(model)
    spec = proto.normalizer_spec
    steps: list[Any] = []
    if "nfkc" in spec.name:
        # The library looks up clusters of fewer than six bytes as a whole and others character by character,
        # which composes nothing. (NFC would do, did it not also put marks in another order.)
        steps += [
            normalizers.Replace(parts, composed) for parts, composed in _compositions() if len(parts.encode()) >= 6
        ]
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    made.normalizer = normalizers.Sequence(steps)
    scheme = "always" if spec.add_dummy_prefix else "never"
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)
    parts: list[Any] = [decoders.ByteFallback()] if trainer.byte_fallback else []
    made.decoder = decoders.Sequence([*parts, decoders.Metaspace(replacement="\u2581", prepend_scheme=scheme)])
    # The mask takes in the space before it, as XLM-R's does.
    made.add_special_tokens([AddedToken(s, lstrip=s == "<mask>", special=True, normalized=False) for s in special])
    return _with_template(made, "<s>", "</s>")


@cache
def _compositions() -> list[tuple[str, str]]:
    """Unicode's canonical compositions of two characters: (the two, what they are together)."""
    found = []
    for character in map(chr, range(sys.maxunicode + 1)):
        decomposed = unicodedata.decomposition(character)
        if " " in decomposed and "<" not in decomposed:
            parts = "".join(chr(int(code, 16)) for code in decomposed.split())
            if unicodedata.normalize("NFC", parts) == character:
                found.append((parts, character))
    return found


def _merges(pieces: list[tuple[str, float]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a BPE model: every way to make a piece of two, in the order of the pieces' scores."""
    merges = []
    for piece, score in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((-score, vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(merges)]


def _with_template(made: tokenizers.Tokenizer, begin: str, end: str) -> tokenizers.Tokenizer:
    """Put specials around a text; between two, `</s>` twice where `</s>` is the end (XLM-R), else once (BERT)."""
    vocabulary = made.get_vocab(with_added_tokens=True)
    between = f"{end} {end}" if end == "</s>" else end
    second = "" if end == "</s>" else ":1"
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {between} $B{second} {end}{second}",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    return made
