# SPDX-License-Identifier: Apache-2.0
"""Encoder and text → a workdir with the encoder's parameters and another vocabulary, from top to bottom in the order things happen."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.adapt.config import Adapt
from mlm_jax.adapt.count import Compared, compare, count_pieces
from mlm_jax.adapt.extend import extend
from mlm_jax.adapt.folder import write_pieces
from mlm_jax.adapt.pieces import Pieces, changed, open_pieces
from mlm_jax.adapt.rows import new_rows
from mlm_jax.adapt.trim import kept_pieces
from mlm_jax.errors import UserError
from mlm_jax.files import aside_folder, make_folder, write_whole
from mlm_jax.interchange.tokenizer_files import SPECIALS
from mlm_jax.interchange.workdir import import_encoder
from mlm_jax.model.encoder import padded_rows
from mlm_jax.names import check_names
from mlm_jax.prepare.held_out import gather, streams_of
from mlm_jax.prepare.pool import run_all
from mlm_jax.prepare.slices import Slice
from mlm_jax.prepare.vocabulary import draw_sample, take_vocabulary, train_vocabulary
from mlm_jax.pretrained import Params, Pretrained
from mlm_jax.stored import read_json
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train.initial import has_initial, read_initial, read_source, write_initial
from mlm_jax.vocabulary import Vocabulary, vocabulary_of_file, write_vocabulary

FILE = "adapt.json"  # what was done, and by which options
LONGEST = 80  # characters of a document in a message
MATRIX, BIAS = "embedding/token_embedding", "head/output_bias"  # the parameters with a row per piece
SAMPLE = 1_000  # documents of a slice that are cut by both vocabularies
Slices = dict[str, list[Slice[cfg.Source]]]


def adapt(config: Adapt) -> None:
    """Make a workdir's `vocabulary/`, `adapt.json`, `initial.safetensors` and, last, `initial.json`; where it has them, nothing is done.

    Args:
      config: validated.

    Raises:
      UserError: encoder or text cannot be read, the vocabulary cannot be changed so, or the workdir is in use.
    """
    workdir = epath.Path(config.workdir)
    if is_adapted(config):
        return
    # The encoder takes a folder of its own until its parameters have been read; it is removed at the end.
    make_folder(workdir)
    with aside_folder(workdir / "start") as start:
        import_encoder(config.init, str(start), config.step)
        before, words = read_initial(start), epath.Path(start) / "vocabulary"
        old = open_pieces(words, before.vocabulary)
        slices = texts_of(config)
        text = Text(config, slices, words, workdir)
        vocabulary, matched = CHANGES[config.change](old, before, text)
        table = rows_of(before.params)
        if (matched < 0).any():
            new = open_pieces(workdir / "vocabulary", vocabulary)
            texts = load_tokenizer(workdir / "vocabulary").encode(text.sentences) if config.rows == "focus" else []
            table = new_rows(config.rows, old, new, matched, table, texts, before.model.initializer_std, config.seed)
        else:
            table = table[matched]
        compared = compare_all(text, matched, before.vocabulary.size)
        say_differing(compared, config)
        params = with_rows(before.params, table)
        after = dataclasses.replace(
            before, params=params, vocabulary=vocabulary, source=f"{config.init}, {config.change} of its vocabulary"
        )
        kept = int((matched >= 0).sum())
        write_whole(workdir / FILE, json.dumps(described(config, before, after, kept, compared), indent=1) + "\n")
        write_initial(workdir, after)


def is_adapted(config: Adapt) -> bool:
    """Whether the workdir has what the config makes.

    Raises:
      UserError: it has another encoder.
    """
    workdir = epath.Path(config.workdir)
    if not has_initial(workdir):
        if (workdir / "checkpoints").exists() or (workdir / "corpus").exists():
            raise UserError(f"{workdir}: holds a run already; adapt into a new workdir")
        return False
    if not (workdir / FILE).exists() or read_json(workdir / FILE, dict[str, Any])["config"] != _options(config):
        raise UserError(f"{workdir}: starts from {read_source(workdir)} already; adapt into a new workdir")
    return True


def _options(config: Adapt) -> dict[str, Any]:
    """What another config has to have alike to make the same."""
    return json.loads(cfg.config_to_json(dataclasses.replace(config, workdir="", init=os.path.realpath(config.init))))


def texts_of(config: Adapt) -> Slices:
    """The slices of every language's text.

    Raises:
      UserError: no file matches, or a language's name cannot be one.
    """
    languages, _ = streams_of(config.data, workers_of(config))
    check_names("data", languages)
    return languages


def workers_of(config: Adapt) -> int:
    """Processes that read text."""
    return config.data.workers or os.cpu_count() or 1


@dataclass
class Text:
    """The text, and the folders of the vocabularies that read it.

    Attributes:
      slices: each language's.
      old: the folder of the old vocabulary.
      workdir: in which the new one is made.
    """

    config: Adapt
    slices: Slices
    old: epath.Path
    workdir: epath.Path

    @property
    def new(self) -> epath.Path:
        """The folder of the new vocabulary."""
        return self.workdir / "vocabulary"

    @cached_property
    def sentences(self) -> list[str]:
        """The sample that a vocabulary is trained on, drawn as `prepare` draws it: without what is held out."""
        config = cfg.Config(
            seed=self.config.seed,
            data=self.config.data,
            vocabulary=self.config.vocabulary,
            sampling=self.config.sampling,
        )
        _, pairs = streams_of(self.config.data, workers_of(self.config))
        held_out = gather(self.slices, pairs, self.old, workers_of(self.config))
        return draw_sample(config, self.slices, held_out, workers_of(self.config))[1]


def trim(old: Pieces, before: Pretrained, text: Text) -> tuple[Vocabulary, np.ndarray]:
    """Write the vocabulary of the pieces that occur.

    Returns:
      The vocabulary, and of each of its pieces the old id, int64 [new].
    """
    config = text.config
    jobs = [(part, str(text.old), old.kind == "WordPiece") for found in text.slices.values() for part in found]
    done = run_all(count_pieces, jobs, workers_of(config), "counting pieces", lambda job: str(job[0]))
    kept = kept_pieces(old, np.sum([counts for _, counts in done], axis=0), config.min_count)
    return write_pieces(changed(old, kept.tolist()), kept, before, text.old, text.new), kept


def extend_by(old: Pieces, before: Pretrained, text: Text) -> tuple[Vocabulary, np.ndarray]:
    """Write the vocabulary with new pieces after the old ones.

    Returns:
      The vocabulary, and of each of its pieces the old id, -1 of new ones, int64 [new].
    """
    made = extend(old, text.sentences, text.config.vocabulary)
    kept = np.arange(len(old.names))
    vocabulary = write_pieces(made, kept, before, text.old, text.new)
    return vocabulary, np.concatenate([kept, np.full(vocabulary.size - len(kept), -1)])


def replace(old: Pieces, before: Pretrained, text: Text) -> tuple[Vocabulary, np.ndarray]:
    """Write a vocabulary of its own.

    Returns:
      The vocabulary, and of each of its pieces the old id of the same characters or role, -1 of others, int64 [new].
    """
    options = text.config.vocabulary
    name, content = take_vocabulary(options) if options.path else train_vocabulary(options, text.sentences)
    make_folder(text.new)
    write_whole(text.new / name, content)
    # Two texts stand together as they did.
    vocabulary = dataclasses.replace(
        vocabulary_of_file(text.new / name),
        second_type=before.vocabulary.second_type,
        separators=before.vocabulary.separators,
    )
    write_vocabulary(vocabulary, text.new)
    new = open_pieces(text.new, vocabulary)
    same = [old.ids.get(old.form(new.surface(name)), -1) for name in new.names]
    same = [-1 if number in old.roles else number for number in same]
    for role in SPECIALS:
        same[getattr(vocabulary, role)] = getattr(before.vocabulary, role)
    return vocabulary, np.array(same)


CHANGES = {"trim": trim, "extend": extend_by, "replace": replace}


def rows_of(params: Params) -> np.ndarray:
    """The rows of pieces: the token embedding, and in the last column the output layer's bias or 0, float32 [rows, width + 1]."""
    flat = traverse_util.flatten_dict(params, sep="/")
    matrix = np.asarray(flat[MATRIX])
    bias = np.asarray(flat[BIAS]) if BIAS in flat else np.zeros(len(matrix), np.float32)
    return np.concatenate([matrix, bias[:, None]], axis=1)


def with_rows(params: Params, table: np.ndarray) -> Params:
    """The parameters with other rows, float32 [pieces, width + 1] as `rows_of` has them; beyond the pieces they are 0."""
    flat = traverse_util.flatten_dict(params, sep="/")
    filled = np.zeros((padded_rows(len(table)), table.shape[1]), np.float32)
    filled[: len(table)] = table
    flat[MATRIX] = filled[:, :-1]
    if BIAS in flat:
        flat[BIAS] = filled[:, -1]
    return traverse_util.unflatten_dict(flat, sep="/")


def compare_all(text: Text, matched: np.ndarray, size: int) -> dict[str, Compared]:
    """How the two vocabularies cut each language's text: all of it, or after more than a trim some of each slice.

    Args:
      matched: of each new piece the old id, or -1, int64 [new].
      size: of the old vocabulary.
    """
    ids = np.full(size, -1)
    ids[matched[matched >= 0]] = np.flatnonzero(matched >= 0)
    most = 0 if text.config.change == "trim" else SAMPLE
    jobs = [(language, part) for language, found in text.slices.items() for part in found]
    arguments = [(part, str(text.old), str(text.new), ids, most) for _, part in jobs]
    found = dict.fromkeys(text.slices, Compared())
    workers = workers_of(text.config)
    for number, one in run_all(compare, arguments, workers, "comparing cuts", lambda job: str(job[0])):
        found[jobs[number][0]] += one
    return found


def say_differing(compared: dict[str, Compared], config: Adapt) -> None:
    """Say how much of the text a trimmed vocabulary cuts otherwise."""
    whole = sum(compared.values(), Compared())
    if whole.differing and config.change == "trim":
        why = (
            f"they have pieces that occur less than {config.min_count:,} times"
            if config.min_count > 1
            else "which should not be"
        )
        console.warn(
            f"trim: {whole.differing:,} of {whole.documents:,} documents are cut otherwise ({why}), the first {whole.first[:LONGEST]!r}"
        )


def described(
    config: Adapt, before: Pretrained, after: Pretrained, kept: int, compared: dict[str, Compared]
) -> dict[str, Any]:
    """What adapt.json says."""
    counts = [sum(x.size for x in jax.tree.leaves(each.params)) for each in (before, after)]
    return {
        "config": _options(config),
        "pieces": {"before": before.vocabulary.size, "after": after.vocabulary.size, "kept": kept},
        "parameters": {"before": counts[0], "after": counts[1]},
        "languages": {language: dataclasses.asdict(found) for language, found in sorted(compared.items())},
    }


def table(workdir: str) -> str:
    """What was done, in words, and how each language's text is cut before and after.

    Raises:
      UserError: nothing was adapted there.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        raise UserError(f"{workdir}: nothing was adapted there; run: mlm-jax adapt CONFIG")
    found = read_json(path, dict[str, Any])
    pieces, parameters = found["pieces"], found["parameters"]
    rows = []
    for language, of in found["languages"].items():
        each = [f"{of['bytes'] / max(tokens, 1):.2f}" for tokens in of["tokens"]]
        unknown = [f"{100 * u / max(t, 1):.2f}" for u, t in zip(of["unknown"], of["tokens"], strict=True)]
        rows.append([language, f"{of['documents']:,}", *each, *unknown, f"{of['differing']:,}"])
    headings = ("language", "documents", "bytes per token", "after", "<unk> %", "after", "cut otherwise")
    return (
        f"{console.format_table(headings, rows)}\n"
        f"{pieces['before']:,} pieces before, {pieces['after']:,} after ({pieces['kept']:,} of the old ones); "
        f"{parameters['before'] / 1e6:,.1f} million parameters before, {parameters['after'] / 1e6:,.1f} after"
    )
