# SPDX-License-Identifier: Apache-2.0
"""Tokenizers as Hugging Face folders hold them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from etils import epath
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from mlm_jax import console
from mlm_jax import vocabulary as vocabularies
from mlm_jax.errors import UserError
from mlm_jax.files import check_file, copy_whole, make_folder, write_whole
from mlm_jax.given import LARGEST_JSON, given_file, given_json, given_text
from mlm_jax.interchange.agreement import check_agreement
from mlm_jax.interchange.sentencepiece_json import from_sentencepiece, unrounded
from mlm_jax.interchange.settings import is_number
from mlm_jax.tokenizers import (
    MOST_ADDED,
    MOST_PIECES,
    from_library,
    largest_model,
    load_json,
    load_tokenizer,
    read_vocab_txt,
    word_piece,
)
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
# Those of any tokenizer; and the others, of which the first that is whole is read.
SETTINGS = KEPT[1:4]
MODELS = (("tokenizer.json",), ("sentencepiece.bpe.model",), ("vocab.txt",), ("vocab.json", "merges.txt"))
KEPT_FOLDER = "hugging_face"
SPECIALS = {"pad": "pad_token", "bos": "cls_token", "eos": "sep_token", "unk": "unk_token", "mask": "mask_token"}


def import_tokenizer(source: Path, folder: epath.Path, size: int) -> Vocabulary:
    """Make a `vocabulary/` folder from a Hugging Face folder.

    Args:
      source: with tokenizer.json, sentencepiece.bpe.model, vocab.txt, or vocab.json and merges.txt.
      size: rows of the checkpoint's token embedding.

    Raises:
      UserError: there is no tokenizer, or it has ids that the checkpoint has no row for.
    """
    made, named = _load_flagged(source, size)
    if "mask" not in named:  # of encoders that came without a head: `_name_mask` names it on the way out
        _flag(made, {"mask": next((m for m in vocabularies.NAMES["mask"] if made.token_to_id(m) is not None), "")})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "tokenizer.json", made.to_str())
    described = vocabularies.vocabulary_of_file(folder / "tokenizer.json")
    vocabulary = made.get_vocab(with_added_tokens=True)
    ids = {name: getattr(described, name) for name in SPECIALS}
    for name, content in named.items():
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
    _refuse_shared(ids, source)
    made_vocabulary = vocabularies.with_specials(size, ids, special)
    made_vocabulary = vocabularies.with_file(made_vocabulary, folder / "tokenizer.json")
    second_type, separators = _pair_rule(made, source)
    made_vocabulary = dataclasses.replace(made_vocabulary, second_type=second_type, separators=separators)
    kept = folder / KEPT_FOLDER
    make_folder(kept)
    used = _used(source)
    for name in KEPT:
        if name in used:
            copy_whole(source / name, kept / name)
        else:
            (kept / name).unlink(missing_ok=True)
    vocabularies.write_vocabulary(made_vocabulary, folder)
    return made_vocabulary


def _used(source: Path) -> tuple[str, ...]:
    """The files of a folder that its tokenizer is read from. Others are not looked at, nor kept.

    Raises:
      UserError: one is a link to elsewhere, no regular file, or too large.
    """
    there = {name for name in KEPT if os.path.lexists(source / name)}
    models = [set(names) for names in MODELS if set(names) <= there]
    used = tuple(name for name in KEPT if name in there and (name in SETTINGS or name in (models or [set()])[0]))
    for name in used:
        given_file(source, name, LARGEST_JSON if name in SETTINGS else None)
    return used


def _load_flagged(source: Path, most: int = MOST_PIECES) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """A folder's tokenizer, in which the token of every role is special; and the roles' tokens.

    Raises:
      UserError: as `_load`, and a role that an ordinary piece has.
    """
    made, named = _load(source, most), _special_tokens(source)
    _refuse_ordinary(made, named, source)
    _flag(made, named)
    return made, named


def _flag(made: tokenizers.Tokenizer, named: dict[str, str]) -> None:
    """Make the roles' tokens special, so that no text gives them."""
    made.add_special_tokens(
        [
            AddedToken(name, lstrip=role == "mask" and name == "<mask>", special=True, normalized=False)
            for role, name in named.items()
            if made.token_to_id(name) is not None and not _is_special(made, name)
        ]
    )


def _load(source: Path, most: int) -> tokenizers.Tokenizer:
    """A folder's tokenizer, with the settings and added tokens of the files beside it.

    Args:
      most: pieces that it may have, about.

    Raises:
      UserError: there is none, it is too large, or has a setting that is not honoured; names it.
    """
    used = _used(source)
    settings = given_json(source, "tokenizer_config.json")
    named = _special_tokens(source)
    if "tokenizer.json" in used:
        made = load_json(source / "tokenizer.json", most)
        _refuse_contradictions(made, settings, source)
    elif "sentencepiece.bpe.model" in used:
        check_file(source / "sentencepiece.bpe.model", largest_model(most))
        # Our own exports keep the model's ids and name another class.
        is_fairseq = settings.get("tokenizer_class") != "PreTrainedTokenizerFast"
        made = from_sentencepiece(source / "sentencepiece.bpe.model", is_fairseq)
        made = _with_template(made, "<s>", "</s>", 0, source) if is_fairseq else made
    elif "vocab.txt" in used:
        made = _bert(source, settings, most)
        made = _with_template(made, named.get("bos", "[CLS]"), named.get("eos", "[SEP]"), 1, source)
    elif "vocab.json" in used:
        made = _xlm(source, most)
    else:
        raise UserError(
            f"{source}: no tokenizer; put tokenizer.json, sentencepiece.bpe.model, vocab.txt, or vocab.json and merges.txt there"
        )
    _add_tokens(made, settings, source)
    return made


# BERT's settings → what `BertNormalizer` calls them.
BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
FLAGS = ("single_word", "lstrip", "rstrip", "special")  # of an added token
BERT_CLASSES = ("", "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")


def _bert(source: Path, settings: dict[str, Any], most: int) -> tokenizers.Tokenizer:
    """BERT's tokenizer of a vocab.txt, with the settings of tokenizer_config.json."""
    found = settings.get("tokenizer_class") or ""
    if found not in BERT_CLASSES:
        raise UserError(
            f"{source}: tokenizer_config.json names {found}, which may split text otherwise than BERT's; put its tokenizer.json there"
        )
    for field, honoured in (("do_basic_tokenize", True), ("never_split", None), ("word_tokenizer_type", "basic")):
        if settings.get(field) not in (None, [], honoured):
            raise UserError(
                f"{source}: tokenizer_config.json has {field} {settings[field]!r}, which is not honoured; put a tokenizer.json there that does it"
            )
    vocabulary = read_vocab_txt(source / "vocab.txt", most)
    if settings.get("do_lower_case") is None:
        capitals = sum(piece != piece.lower() and not piece.startswith("[") for piece in vocabulary)
        told = "has no do_lower_case" if (source / "tokenizer_config.json").exists() else "is missing"
        console.say(
            f"{source}: tokenizer_config.json {told}: text is lower-cased, as BERT's class does unless told otherwise"
            + (
                f'; but {capitals:,} pieces of vocab.txt have capital letters: for a cased model write {{"do_lower_case": false}} there'
                if capitals
                else ""
            )
        )
    made = word_piece(vocabulary, True)
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_given(settings, "tokenize_chinese_chars", True),
        strip_accents=_given(settings, "strip_accents", None),
        lowercase=_given(settings, "do_lower_case", True),
    )
    return made


def _given(settings: dict[str, Any], field: str, default: bool | None) -> Any:
    found = settings.get(field, default)
    if field != "strip_accents" and found is None:
        return default
    if found is not None and not isinstance(found, bool):
        raise UserError(f"tokenizer_config.json: {field} is {found!r}; make it true or false")
    return found


def _refuse_contradictions(made: tokenizers.Tokenizer, settings: dict[str, Any], source: Path) -> None:
    """Refuse settings of tokenizer_config.json that its tokenizer.json does otherwise: classes differ in which they follow."""
    normalizer = json.loads(made.to_str())["normalizer"] or {}
    if normalizer.get("type") != "BertNormalizer":
        return
    for field, name in BERT_SETTINGS.items():
        does, said = normalizer.get(name), settings.get(field)
        if field in settings and said != does and not (field == "strip_accents" and said is None):
            raise UserError(
                f"{source}: tokenizer_config.json has {field} {json.dumps(said)}, tokenizer.json {name} {json.dumps(does)}; "
                "make them agree, as the encoder was trained"
            )


def _add_tokens(made: tokenizers.Tokenizer, settings: dict[str, Any], source: Path) -> None:
    """Add what added_tokens.json, added_tokens_decoder and the lists of special tokens name.

    Raises:
      UserError: a token has an id that the library cannot give it.
    """
    wanted: dict[int, tuple[AddedToken, str]] = {}
    roles = set(_special_tokens(source).values())
    listed = given_json(source, "added_tokens.json")
    for content, number in listed.items():
        if not content or not is_number(number, whole=True):
            raise UserError(
                f"{source}: added_tokens.json gives {content!r} the id {number!r:.60}; it has to be a whole number"
            )
        special = content in roles
        wanted[number] = AddedToken(content, special=special, normalized=not special), "added_tokens.json"
    decoder = settings.get("added_tokens_decoder") or {}
    field = "tokenizer_config.json (added_tokens_decoder)"
    if not isinstance(decoder, dict):
        raise UserError(f"{source}: {field} is {decoder!r:.60}; it has to give tokens by their ids")
    for number, token in decoder.items():
        flags = {name: token.get(name, False) for name in FLAGS} if isinstance(token, dict) else {}
        written = token.get("content") if isinstance(token, dict) else None
        if not written or not isinstance(written, str) or not re.fullmatch(r"[0-9]{1,9}", number):
            raise UserError(
                f"{source}: {field} gives id {number!r:.60} the token {token!r:.60}; it has to be a token's content"
            )
        normalized = token.get("normalized", not flags["special"])
        if not all(isinstance(flag, bool) for flag in (*flags.values(), normalized)):
            raise UserError(
                f"{source}: {field} gives {written!r:.60} {token!r:.200}; its settings have to be true or false"
            )
        wanted[int(number)] = AddedToken(written, normalized=normalized, **flags), field
    if len(wanted) > MOST_ADDED:
        raise UserError(
            f"{source}: {len(wanted):,} added tokens, where {MOST_ADDED:,} are the most; get the right tokenizer"
        )
    there = made.get_added_tokens_decoder()
    for number, (token, where) in sorted(wanted.items()):
        if number in there and there[number].content == token.content:
            continue
        # Special tokens are named by their role; raw text may not find them.
        (made.add_special_tokens if token.special else made.add_tokens)([token])
        if made.token_to_id(token.content) != number:
            raise UserError(
                f"{source}: {where} gives {token.content!r} id {number}, the tokenizer's next is {made.token_to_id(token.content)}; "
                "they do not belong together"
            )
    more: list[str] = []
    for field in ("additional_special_tokens", "extra_special_tokens"):
        extra = settings.get(field) or given_json(source, "special_tokens_map.json").get(field) or []
        if not isinstance(extra, (list, dict)) or len(extra) > MOST_ADDED:
            raise UserError(f"{source}: {field} is {extra!r:.60}; it has to be a list of at most {MOST_ADDED:,} tokens")
        for token in extra.values() if isinstance(extra, dict) else extra:
            named = token.get("content") if isinstance(token, dict) else token
            if not isinstance(named, str) or not named:
                raise UserError(f"{source}: {field} has {token!r:.60}; it has to be a token's content")
            more.append(named)
    known = {token.content for token in made.get_added_tokens_decoder().values() if token.special}
    new = [name for name in dict.fromkeys(more) if name not in known]
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in new])


def _is_special(made: tokenizers.Tokenizer, name: str) -> bool:
    return any(token.content == name and token.special for token in made.get_added_tokens_decoder().values())


def _refuse_ordinary(made: tokenizers.Tokenizer, named: dict[str, str], source: Path) -> None:
    """Refuse roles that share a token, or have one that text gives."""
    encode = from_library(made).encode
    usual = {name for names in vocabularies.NAMES.values() for name in names}
    for role, name in named.items():
        number = made.token_to_id(name)
        if role == "unk" or number is None:
            continue
        others = [other for other, its in named.items() if its == name and other != role]
        if others and role == "mask":
            raise UserError(
                f"{source}: mask_token is {name!r}, as {SPECIALS[others[0]]} is; give it a token of its own"
            )
        is_found = any(number in ids for ids in encode([name, f"a {name} b", f"a{name}b"]))
        if is_found and not (name in usual or _is_special(made, name)):
            raise UserError(
                f"{source}: {SPECIALS[role]} is {name!r}, an ordinary piece that text gives; name a special token in tokenizer_config.json"
            )


def _refuse_shared(ids: dict[str, int], source: Path) -> None:
    """Refuse padding or a mask that is another special too: what is padded or hidden could not be told from it."""
    for role in ("mask", "pad"):
        for other, number in ids.items():
            if other != role and number == ids[role] >= 0:
                raise UserError(
                    f"{source}: {SPECIALS[role]} and {SPECIALS[other]} have one id, {number}; give each a token of its own in "
                    "tokenizer_config.json"
                )


def _pair_rule(made: tokenizers.Tokenizer, source: Path) -> tuple[int, int]:
    """`second_type` and `separators` of a vocabulary, as the folder's tokenizer puts two texts together."""
    if made.post_processor is None:
        return 1, 0
    pair = made.encode("a", "b")
    of_text = pair.sequence_ids
    if 0 not in of_text or 1 not in of_text:
        return 1, 0
    second = of_text.index(1)
    between = sum(text is None for text in of_text[of_text.index(0) : second])
    inputs = given_json(source, "tokenizer_config.json").get("model_input_names")
    typed = inputs is None or "token_type_ids" in inputs
    return min(pair.type_ids[second], 1) if typed else 0, between


def _xlm(source: Path, most: int) -> tokenizers.Tokenizer:
    """XLM's BPE on words at white space: text has to be cut up by Moses and lower-cased beforehand, as XLM's was."""
    vocabulary = given_json(source, "vocab.json", largest_model(most))
    for piece, number in vocabulary.items():
        if not is_number(number, whole=True) or not 0 <= number <= MOST_PIECES:
            raise UserError(
                f"{source}: vocab.json gives {piece!r:.60} the id {number!r:.60}; it has to be a whole number from 0"
            )
    check_file(source / "merges.txt", largest_model(most))
    lines = [line.split()[:2] for line in given_text(epath.Path(source / "merges.txt")).splitlines()]
    merges = [(a, b) for a, b in (line for line in lines if len(line) == 2) if a in vocabulary or a + b in vocabulary]
    known = [(a, b) for a, b in merges if {a, b, a + b} <= vocabulary.keys()]
    made = tokenizers.Tokenizer(models.BPE(vocabulary, known, unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    return _with_template(made, "<s>", "</s>", 0, source)


def _special_tokens(source: Path) -> dict[str, str]:
    """Role → the token that tokenizer_config.json or special_tokens_map.json gives it."""
    settings = given_json(source, "tokenizer_config.json") | given_json(source, "special_tokens_map.json")
    found = {}
    for role, field in SPECIALS.items():
        token = settings.get(field)
        content = token.get("content") if isinstance(token, dict) else token
        if content in (None, "", False):
            continue
        if not isinstance(content, str):
            raise UserError(f"{source}: {field} is {token!r:.60}; it has to be a token's content")
        found[role] = content
    return found


def export_tokenizer(
    folder: epath.Path,
    vocabulary: Vocabulary,
    family: str,
    positions: int,
    out: Path,
    lines: Iterable[str] = (),
    token_types: int = 2,
    differing: int = 0,
) -> int:
    """Write a `vocabulary/` folder's tokenizer into a Hugging Face folder; a tokenizer.json that was imported, as it came.

    Args:
      positions: of the encoder, which are the tokenizer's longest text.
      lines: text that both must cut alike, besides `agreement.ODD`.
      token_types: of the encoder.
      differing: lines that may be cut otherwise.

    Returns:
      How many lines they were compared on.

    Raises:
      UserError: no tokenizer.json can equal the vocabulary, or it does not; shows the first line that is cut otherwise.
    """
    kept = folder / KEPT_FOLDER
    if kept.exists():
        for name in KEPT:
            if (path := given_file(folder, f"{KEPT_FOLDER}/{name}")) is not None:
                copy_whole(path, out / name)
    if (out / "tokenizer.json").exists():
        _name_mask(folder, vocabulary, out)
    else:
        _write_tokenizer(folder, vocabulary, family, positions, out, token_types)
    why = unrounded(folder / vocabulary.file) if vocabulary.file == "sentencepiece.model" else ""
    return check_agreement(folder, _load_flagged(out)[0], lines, "export: tokenizer.json", why, differing)


def _write_tokenizer(
    folder: epath.Path, vocabulary: Vocabulary, family: str, positions: int, out: Path, token_types: int
) -> None:
    if vocabulary.file == "sentencepiece.model":
        model = folder / vocabulary.file
        made = from_sentencepiece(model)
        if family.startswith("xlm-roberta"):
            copy_whole(model, out / "sentencepiece.bpe.model")
    else:
        made = load_json(folder / vocabulary.file)
        made.encode_special_tokens = False
    names = name_specials(made, vocabulary, folder)
    second_type = min(vocabulary.second_type, max(token_types - 1, 0))
    if made.post_processor is None:
        made = _with_template(made, names["bos"], names["eos"], second_type, folder, vocabulary.separators)
    write_whole(out / "tokenizer.json", made.to_str())
    settings = given_json(out, "tokenizer_config.json") | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", *(["token_type_ids"] if second_type else []), "attention_mask"],
        **{field: names[role] for role, field in SPECIALS.items()},
        "bos_token": names["bos"],
        "eos_token": names["eos"],
    }
    write_whole(out / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def name_specials(made: tokenizers.Tokenizer, vocabulary: Vocabulary, folder: epath.Path) -> dict[str, str]:
    """Each role's token. Specials that the tokenizer lacks have ids after its last piece; they get names and are added.

    Raises:
      UserError: they are not the next ids, so that the library would give them others.
    """
    by_id = {number: piece for piece, number in made.get_vocab(with_added_tokens=True).items()}
    names = {}
    for role in SPECIALS:
        name = f"<{role}>"
        while made.token_to_id(name) is not None:  # an ordinary piece is called so
            name = f"<{name}>"
        names[role] = by_id.get(getattr(vocabulary, role), name)
    added = sorted({(getattr(vocabulary, role), names[role]) for role in SPECIALS} - by_id.items())
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for _, name in added])
    for role, name in names.items():
        if made.token_to_id(name) != getattr(vocabulary, role):
            raise UserError(
                f"{folder}: {role} has id {getattr(vocabulary, role)}, which no tokenizer.json can give it: "
                "not all ids below it have a piece; prepare with another vocabulary"
            )
    return names


def _name_mask(folder: epath.Path, vocabulary: Vocabulary, out: Path) -> None:
    """Name the mask in a tokenizer_config.json that names none, as encoders without a head come, for it has one now."""
    pieces = load_tokenizer(folder / vocabulary.file).pieces
    if "mask" not in _special_tokens(out) and vocabulary.mask < len(pieces):
        settings = given_json(out, "tokenizer_config.json") | {"mask_token": pieces[vocabulary.mask]}
        write_whole(out / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _with_template(
    made: tokenizers.Tokenizer, begin: str, end: str, second_type: int, where: epath.PathLike, separators: int = 0
) -> tokenizers.Tokenizer:
    """Put specials around a text; between two, `separators` ends (0: `</s>` twice, as XLM-R, others once, as BERT)."""
    vocabulary = made.get_vocab(with_added_tokens=True)
    for name in (begin, end):
        if name not in vocabulary:
            raise UserError(
                f"{where}: no {name!r}, which stands around a text; name a cls_token and a sep_token that it has"
            )
    between = [end] * (separators or (2 if end == "</s>" else 1))
    made.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end],
        pair=[begin, "$A", *between, f"$B:{second_type}", f"{end}:{second_type}"],
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    return made
