# SPDX-License-Identifier: Apache-2.0
"""Tokenizers as Hugging Face folders hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from etils import epath
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from mlm_jax import vocabulary as vocabularies
from mlm_jax.errors import UserError
from mlm_jax.files import write_whole
from mlm_jax.interchange.agreement import check_agreement
from mlm_jax.interchange.sentencepiece_json import from_sentencepiece, unrounded
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
        is_fairseq = settings.get("tokenizer_class") != "PreTrainedTokenizerFast"
        made = from_sentencepiece(source / "sentencepiece.bpe.model", is_fairseq)
        return _with_template(made, "<s>", "</s>") if is_fairseq else made
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


def export_tokenizer(
    folder: epath.Path, vocabulary: Vocabulary, family: str, positions: int, out: Path, lines: Iterable[str] = ()
) -> int:
    """Write a `vocabulary/` folder's tokenizer into a Hugging Face folder; a tokenizer.json that was imported, as it came.

    Args:
      lines: text that both must cut alike, besides `agreement.ODD`.

    Returns:
      How many lines they were compared on.

    Raises:
      UserError: no tokenizer.json can equal the vocabulary, or it does not; shows the first line that is cut otherwise.
    """
    kept = folder / KEPT_FOLDER
    if kept.exists():
        for path in kept.iterdir():
            (out / path.name).write_bytes(path.read_bytes())
    if (out / "tokenizer.json").exists():
        _name_mask(folder, vocabulary, out)
    else:
        _write_tokenizer(folder, vocabulary, family, positions, out)
    why = unrounded(folder / vocabulary.file) if vocabulary.file == "sentencepiece.model" else ""
    return check_agreement(folder, load_json(out / "tokenizer.json"), lines, "export: tokenizer.json", why)


def _write_tokenizer(folder: epath.Path, vocabulary: Vocabulary, family: str, positions: int, out: Path) -> None:
    if vocabulary.file == "sentencepiece.model":
        model = folder / vocabulary.file
        made = from_sentencepiece(model)
        if family.startswith("xlm-roberta"):
            (out / "sentencepiece.bpe.model").write_bytes(model.read_bytes())
    else:
        made = load_json(folder / vocabulary.file)
        made.encode_special_tokens = False
    names = _name_specials(made, vocabulary, folder)
    if made.post_processor is None:
        made = _with_template(made, names["bos"], names["eos"])
    write_whole(out / "tokenizer.json", made.to_str())
    settings = _json(out / "tokenizer_config.json") | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
        **{field: names[role] for role, field in SPECIALS.items()},
        "bos_token": names["bos"],
        "eos_token": names["eos"],
    }
    write_whole(out / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _name_specials(made: tokenizers.Tokenizer, vocabulary: Vocabulary, folder: epath.Path) -> dict[str, str]:
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
        settings = _json(out / "tokenizer_config.json") | {"mask_token": pieces[vocabulary.mask]}
        write_whole(out / "tokenizer_config.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


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
