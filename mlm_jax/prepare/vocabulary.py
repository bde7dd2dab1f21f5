# SPDX-License-Identifier: Apache-2.0
"""Train the vocabulary (SentencePiece, or WordPiece) on a sample drawn at the smoothed rates, or take an existing one."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2
from tokenizers import trainers

from mlm_jax import config as cfg
from mlm_jax import console, sampling
from mlm_jax import vocabulary as vocabularies
from mlm_jax.errors import UserError
from mlm_jax.files import make_folder, write_whole
from mlm_jax.lines import read_lines
from mlm_jax.prepare import parity_bpe
from mlm_jax.prepare.held_out import HeldOut
from mlm_jax.prepare.pool import run_all
from mlm_jax.prepare.slices import Slice
from mlm_jax.prepare.sources import read_documents
from mlm_jax.tokenizers import in_run, load_json, load_pieces, read_vocab_txt, word_piece

LONGEST_SENTENCE = 4_000  # bytes; SentencePiece drops longer ones silently
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
THREADS = 16  # fixed: the trainer's sums depend on their number


def make_vocabulary(
    config: cfg.Config, slices: dict[str, list[Slice[cfg.Source]]], held_out: HeldOut, folder: epath.Path, workers: int
) -> vocabularies.Vocabulary:
    """Make `vocabulary/`, unless it is there already.

    Args:
      slices: each language's text.
      folder: gets sentencepiece.model or tokenizer.json, training.json (the exact settings and the sample's table) and
        vocabulary.json, which is written last.

    Raises:
      UserError: the text cannot be read, or gives no vocabulary of this size.
    """
    if (folder / "vocabulary.json").exists():
        return vocabularies.read_vocabulary(folder)
    make_folder(folder)
    options = config.vocabulary
    if not options.path and not slices:
        raise UserError(
            "data.sources: empty, so there is no text to make a vocabulary of; name some, or set vocabulary.path or init"
        )
    if options.path:
        name, content = take_vocabulary(options)
        settings: dict[str, Any] = {"taken_from": options.path}
    else:
        table, sentences = draw_sample(config, slices, held_out, workers)
        settings = {"trainer": trainer_settings(options), "sample": table}
        name, content = train_vocabulary(options, sentences, {row["language"]: row["sentences"] for row in table})
    write_whole(folder / name, content)
    described = vocabularies.vocabulary_of_file(folder / name)
    write_whole(folder / "training.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    vocabularies.write_vocabulary(described, folder)
    return described


def take_vocabulary(options: cfg.Vocabulary) -> tuple[str, bytes]:
    """An existing vocabulary's file name in a `vocabulary/` folder, and its content.

    Raises:
      UserError: there is no such file, or it is of no known kind.
    """
    path = epath.Path(options.path)
    if not path.exists():
        raise UserError(f"{path}: no such vocabulary; give a SentencePiece .model, a tokenizer.json or a vocab.txt")
    if options.lowercase and path.suffix != ".txt":
        console.warn(f"vocabulary.lowercase: {path} cuts text as it was made to, lower-case or not")
    if path.suffix == ".model":
        load_pieces(path)
        return "sentencepiece.model", path.read_bytes()
    if path.suffix == ".json":
        load_json(path)
        return "tokenizer.json", path.read_bytes()
    if path.suffix == ".txt":
        return "tokenizer.json", word_piece_json(read_vocab_txt(path), options.lowercase, options.normalization)
    raise UserError(
        f"{path}: not a vocabulary that is read; give a SentencePiece .model, a tokenizer.json or a vocab.txt"
    )


def draw_sample(
    config: cfg.Config, slices: dict[str, list[Slice[cfg.Source]]], held_out: HeldOut, workers: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """Draw the training sample: two passes over the text, to count it and to draw from it.

    A language's documents get random keys, and those with the lowest are taken until its share of
    `sample_bytes` is full; one that has less gives all it has, once. Memory is bounded by
    `sample_bytes`, and the sample depends on neither the number of processes nor their order.

    Returns:
      The table (language, documents and bytes there are, rate, bytes and sentences drawn), and the sentences, in the order of its rows.

    Raises:
      UserError: the text cannot be read, or a language has none.
    """
    budget = config.vocabulary.sample_bytes
    jobs = [(language, text) for language, mine in slices.items() for text in mine if text.part != "validation"]
    documents_of, bytes_of, held_out_of = (dict.fromkeys(slices, 0) for _ in range(3))
    counted = run_all(_count, [(text, held_out) for _, text in jobs], workers, "counting text", lambda j: str(j[0]))
    for number, (found_documents, found_bytes, found_held_out) in counted:
        language = jobs[number][0]
        held_out_of[language] += found_held_out
        documents_of[language] += found_documents
        bytes_of[language] += found_bytes
    for language in slices:
        if bytes_of[language]:
            continue
        if held := held_out_of[language]:
            raise UserError(
                f"language {language}: all of its {held:,} documents are held out, here or in another language, which leaves none to train "
                "on; equal documents are held out together: give it other text, or drop it"
            )
        raise UserError(f"language {language}: only white space in {slices[language][0]}; give it text or drop it")

    by = documents_of if config.sampling.count == "documents" else bytes_of
    rates = sampling.language_rates(config.sampling, list(by.values()), budget)
    share = {language: int(rate * budget) for language, rate in zip(slices, rates.tolist(), strict=True)}

    keyed: dict[str, list[tuple[float, str]]] = {language: [] for language in slices}
    # Keep a little more than the share of each slice, so that chance cannot leave it unfilled. Keys go by a slice's number and not by
    # its file's name: the same text makes the same vocabulary, wherever it lies and in whatever format.
    count = Counter[str]()
    arguments = []
    for language, text in jobs:
        below = min(1.0, 1.2 * share[language] / bytes_of[language] + 1e-4)
        arguments.append((text, held_out, f"{config.seed}/{language}/{count[language]}", below))
        count[language] += 1
    drawn = run_all(_draw, arguments, workers, "drawing the vocabulary's sample", lambda j: str(j[0]))
    # In the order of the slices and not of the processes.
    for number, found in sorted(drawn, key=lambda result: result[0]):
        keyed[jobs[number][0]] += found

    table: list[dict[str, Any]] = []
    sentences: list[str] = []
    for language, rate in zip(slices, rates.tolist(), strict=True):
        taken, before = 0, len(sentences)
        for _, document in sorted(keyed.pop(language)):
            size = len(document.encode())
            if taken and taken + size > share[language] and share[language] < bytes_of[language]:
                break
            taken += size
            sentences += cut_long(document)
        row = {"language": language, "documents": documents_of[language], "bytes": bytes_of[language]}
        row |= {
            "rate": rate,
            "share_bytes": share[language],
            "drawn_bytes": taken,
            "sentences": len(sentences) - before,
        }
        table.append(row)
    return table, sentences


def _count(text: Slice[cfg.Source], held_out: HeldOut) -> tuple[int, int, int]:
    """Training documents of a slice, their bytes, and how many other documents it has."""
    count = size = others = 0
    for batch in read_documents(text):
        train = held_out.take(text, batch, "train")
        count += len(train)
        others += len(batch) - len(train)
        size += len("".join(train).encode())
    return count, size, others


def _draw(text: Slice[cfg.Source], held_out: HeldOut, seed: str, below: float) -> list[tuple[float, str]]:
    """Training documents of a slice with keys below `below`."""
    keys = random.Random(seed)
    return [
        (key, document)
        for batch in read_documents(text)
        for document in held_out.take(text, batch, "train")
        if (key := keys.random()) < below
    ]


def cut_long(document: str) -> Iterable[str]:
    """Cut a document into sentences short enough for SentencePiece, at spaces where there are any."""
    while len(document.encode()) > LONGEST_SENTENCE:
        head = document.encode()[:LONGEST_SENTENCE].decode(errors="ignore")
        head = head.rpartition(" ")[0] or head
        yield head
        document = document[len(head) :].lstrip()
    if document:
        yield document


def trainer_settings(options: cfg.Vocabulary) -> dict[str, Any]:
    """The trainer's arguments."""
    if options.model == "wordpiece":
        return {
            "vocab_size": options.size,
            "character_coverage": options.character_coverage,
            "lowercase": options.lowercase,
            **({"normalization": options.normalization} if options.normalization else {}),
            "special_tokens": list(BERT_SPECIALS),
            "min_frequency": 2,
        }
    return {
        "model_type": "bpe" if options.model == "parity_bpe" else options.model,
        **({"parallel": options.parallel} if options.model == "parity_bpe" else {}),
        "vocab_size": options.size,
        "character_coverage": options.character_coverage,
        "byte_fallback": options.byte_fallback,
        "pad_id": vocabularies.PAD,
        "eos_id": vocabularies.EOS,
        "unk_id": vocabularies.UNK,
        "bos_id": vocabularies.BOS,
        # A control symbol is never found in text: raw text that says <mask> does not hold the mask id.
        "control_symbols": ["<mask>"],
        "max_sentence_length": LONGEST_SENTENCE + 100,
        "num_threads": THREADS,
        "shuffle_input_sentence": False,
        **({"normalization_rule_name": options.normalization} if options.normalization else {}),
    }  # and unigram scores are rounded afterwards: `round_scores`


def train_vocabulary(
    options: cfg.Vocabulary, sentences: list[str], counts: Mapping[str, int] | None = None
) -> tuple[str, bytes]:
    """Train, and return the file's name and content.

    Args:
      counts: language → how many of the sentences are its own, in their order; parity_bpe alone asks.

    Raises:
      UserError: no vocabulary of this size can be made of the sample; says which size can.
    """
    size = sum(len(s.encode()) for s in sentences)
    memory = f" (may take {size * 70 / 1e9:.1f} GB of memory)" if options.model != "wordpiece" else ""
    console.say(
        f"training a {options.model} vocabulary of {options.size:,} pieces on {size / 1e6:.1f} MB in "
        f"{len(sentences):,} sentences{memory}"
    )
    begin = time.perf_counter()
    if options.model == "wordpiece":
        made = "tokenizer.json", train_word_piece(options, sentences)
    elif options.model == "parity_bpe":
        made = "sentencepiece.model", train_parity_bpe(options, sentences, counts or {})
    else:
        made = "sentencepiece.model", train_sentencepiece(options, sentences)
    console.say(f"trained in {time.perf_counter() - begin:.1f} s")
    return made


def train_word_piece(options: cfg.Vocabulary, sentences: list[str]) -> bytes:
    """BERT's kind of vocabulary, as tokenizer.json.

    Raises:
      UserError: no vocabulary of this size can be made of the sample; says which size can.
    """
    settings = trainer_settings(options)
    trained = word_piece({"[UNK]": 0}, options.lowercase, options.normalization, cut_runs=True)
    words = Counter(
        word
        for sentence in sentences
        for word, _ in trained.pre_tokenizer.pre_tokenize_str(trained.normalizer.normalize_str(sentence))
    )
    alphabet = _alphabet(words, options.character_coverage)
    smallest = len(BERT_SPECIALS) + len(alphabet)
    if options.size < smallest:
        raise UserError(
            f"vocabulary.size: {options.size:,} is less than the specials and the text's characters need, each alone and "
            f"within a word; the smallest possible is {smallest:,}; or lower vocabulary.character_coverage"
        )
    single = [piece for piece in alphabet if len(piece) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.size,
        min_frequency=settings["min_frequency"],
        initial_alphabet=single,
        limit_alphabet=len(single),
        # The alphabet too, because the trainer would number it in an order that changes from run to run.
        special_tokens=[*settings["special_tokens"], *alphabet],
        continuing_subword_prefix="##",
        show_progress=False,
    )
    trained.train_from_iterator(sentences, trainer)
    vocabulary = trained.get_vocab(with_added_tokens=True)
    if len(vocabulary) < options.size:
        raise UserError(
            f"vocabulary.size: {options.size:,} is more than the text can give; the largest possible is {len(vocabulary):,}"
        )
    return word_piece_json(vocabulary, options.lowercase, options.normalization, cut_runs=True)


def _alphabet(words: Counter[str], coverage: float) -> list[str]:
    """The characters that cover this share of the text, the most frequent first; and "##c" of those that continue a word.

    Of scripts without spaces all are taken: there one unknown character would make its whole run <unk>.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    kept: dict[str, None] = {}
    covered = 0
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= coverage * counts.total() and not in_run(character):
            continue
        covered += count
        kept[character] = None
    continuing = {character for word in words for character in word[1:]}
    # A character that only continues words is an initial piece too: the trainer takes it for one.
    return [*kept, *(f"##{character}" for character in kept if character in continuing)]


def word_piece_json(
    vocabulary: dict[str, int], lowercase: bool, normalization: str = "", cut_runs: bool = False
) -> bytes:
    """A WordPiece vocabulary as the content of a tokenizer.json, with the specials that it has; arguments of `word_piece`."""
    made = word_piece(vocabulary, lowercase, normalization, cut_runs)
    made.add_special_tokens([name for name in BERT_SPECIALS if name in vocabulary])
    return made.to_str(pretty=False).encode()


def train_sentencepiece(options: cfg.Vocabulary, sentences: list[str]) -> bytes:
    """A SentencePiece .model.

    Raises:
      UserError: no vocabulary of this size can be made of the sample; says which size can.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, minloglevel=2, **trainer_settings(options)
        )
    except RuntimeError as e:
        raise _impossible(options, str(e)) from e
    return round_scores(model.getvalue()) if options.model == "unigram" else model.getvalue()


def train_parity_bpe(options: cfg.Vocabulary, sentences: list[str], counts: Mapping[str, int]) -> bytes:
    """A SentencePiece .model of parity-aware merges: normalisation, specials, bytes and characters are those that SentencePiece's own BPE has.

    Raises:
      UserError: a language has no parallel text, or they are not parallel; or no vocabulary of this size can be made.
    """
    if not counts:
        raise UserError("vocabulary.model: parity_bpe is made where languages are told apart, by prepare; use bpe here")
    parallel = {language: parallel_lines(options.parallel, language) for language in counts}
    first = next(iter(parallel))
    for language, lines in parallel.items():
        if len(lines) != len(parallel[first]):
            raise UserError(
                f"vocabulary.parallel: {first} has {len(parallel[first]):,} lines, {language} {len(lines):,}; line n has to be the same sentence in all"
            )
    made_of: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    proto = made_of.ModelProto.FromString(train_sentencepiece(dataclasses.replace(options, model="bpe"), sentences))
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    normal = made_of.ModelProto.SentencePiece.NORMAL
    merged = [piece for piece in proto.pieces if piece.type == normal and len(piece.piece) > 1]
    alphabet = [piece.piece for piece in proto.pieces if piece.type == normal and len(piece.piece) == 1]

    def counted(texts: Iterable[str]) -> Counter[str]:
        return parity_bpe.words_of(processor.normalize(text) for text in texts)

    waiting = iter(sentences)
    training = {language: counted(itertools.islice(waiting, count)) for language, count in counts.items()}
    found = parity_bpe.merges(
        training, {language: counted(lines) for language, lines in parallel.items()}, alphabet, len(merged)
    )
    # A piece's score is its merge's place, negative, as in the model that these take the place of.
    for piece, made in zip(merged, found, strict=True):
        piece.piece = made
    return bytes(proto.SerializeToString())


def parallel_lines(pattern: str, language: str) -> list[str]:
    """The lines of a language's parallel text.

    Raises:
      UserError: there is no file, or a line is empty.
    """
    path = pattern.replace("{language}", language)
    if not Path(path).is_file():
        raise UserError(
            f"vocabulary.parallel: {path}: no such file; name one with {{language}} in it, for {language} too"
        )
    lines = [line for _, line in read_lines(path)]
    empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if empty or not lines:
        raise UserError(f"{path}:{empty or 1}: empty; line n has to be the same sentence in all languages")
    return lines


def round_scores(model: bytes) -> bytes:
    """A unigram model with its scores rounded to 2**-7.

    Sums of such scores are exact in float32 and float64 alike (up to some 10,000 pieces), so that SentencePiece and
    the Hugging Face library cut every text the same way, ties included.
    """
    made_of: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    proto = made_of.ModelProto.FromString(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * 2**7) / 2**7
    return proto.SerializeToString()


def _impossible(options: cfg.Vocabulary, reason: str) -> UserError:
    """SentencePiece's message on a size that it cannot reach, as one line."""
    high = re.search(r"set it to a value <= (\d+)", reason)
    if high:
        return UserError(
            f"vocabulary.size: {options.size:,} is more than the text can give; the largest possible is {int(high[1]):,}"
        )
    low = re.search(r"smaller than required_chars\D*(\d+) vs (\d+)", reason.replace("_size", ""))
    if low:
        return UserError(
            f"vocabulary.size: {options.size:,} is less than the characters of the text, the specials and bytes need; "
            f"the smallest possible is {int(low[2])}; or lower vocabulary.character_coverage"
        )
    return UserError(f"vocabulary: SentencePiece cannot train ({reason.strip().splitlines()[-1][:300]})")
