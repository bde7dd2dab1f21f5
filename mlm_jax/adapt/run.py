# SPDX-License-Identifier: Apache-2.0
"""Encoder and text → a workdir with the encoder's parameters and another vocabulary, from top to bottom in the order things happen."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.adapt.config import Adapt
from mlm_jax.adapt.count import Compared, compare, count_pieces
from mlm_jax.adapt.folder import write_pieces
from mlm_jax.adapt.pieces import changed, open_pieces
from mlm_jax.adapt.trim import kept_pieces
from mlm_jax.errors import UserError
from mlm_jax.files import aside_folder, make_folder, write_whole
from mlm_jax.interchange.workdir import import_encoder
from mlm_jax.model.encoder import padded_rows
from mlm_jax.names import check_names
from mlm_jax.prepare.held_out import streams_of
from mlm_jax.prepare.pool import run_all
from mlm_jax.prepare.slices import Slice
from mlm_jax.pretrained import Params, Pretrained
from mlm_jax.stored import read_json
from mlm_jax.train.initial import has_initial, read_initial, read_source, write_initial

FILE = "adapt.json"  # what was done, and by which options
LONGEST = 80  # characters of a document in a message
ROWS = {"embedding/token_embedding", "head/output_bias"}  # parameters with a row per piece
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
        kept = kept_pieces(old, total_counts(config, slices, words, old.kind), config.min_count)
        made = changed(old, kept.tolist())
        vocabulary = write_pieces(
            made, ids_of(kept), before.vocabulary, words, workdir / "vocabulary", before.model.token_types
        )
        params = with_rows(before.params, kept, vocabulary.size)
        compared = compare_all(config, slices, words, workdir / "vocabulary", kept, before.vocabulary.size)
        say_differing(compared, config)
        after = dataclasses.replace(
            before, params=params, vocabulary=vocabulary, source=f"{config.init} with a vocabulary to {config.change}"
        )
        write_whole(workdir / FILE, json.dumps(described(config, before, after, len(kept), compared), indent=1) + "\n")
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


def total_counts(config: Adapt, slices: Slices, words: epath.Path, kind: str) -> np.ndarray:
    """How often each id occurs in all of the text, int64 [vocabulary size]."""
    jobs = [(text, str(words), kind == "WordPiece") for found in slices.values() for text in found]
    done = run_all(count_pieces, jobs, workers_of(config), "counting pieces", lambda job: str(job[0]))
    return np.sum([counts for _, counts in done], axis=0)


def ids_of(kept: np.ndarray) -> dict[int, int]:
    """Old id → new id, of pieces that stay: ids int64 [n], ascending."""
    return {number: i for i, number in enumerate(kept.tolist())}


def with_rows(params: Params, kept: np.ndarray, size: int) -> Params:
    """The parameters with the rows of these pieces alone, in the token embedding and in the output layer's bias.

    Args:
      kept: their ids, int64 [n].
      size: of the new vocabulary; rows from there on are 0. Both have float32 [rows, ...].
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for name in ROWS & flat.keys():
        rows = np.zeros((padded_rows(size), *flat[name].shape[1:]), np.float32)
        rows[: len(kept)] = flat[name][kept]
        flat[name] = rows
    return traverse_util.unflatten_dict(flat, sep="/")


def compare_all(
    config: Adapt, slices: Slices, old: epath.Path, new: epath.Path, kept: np.ndarray, size: int
) -> dict[str, Compared]:
    """How the two vocabularies cut each language's text.

    Args:
      old, new: their folders.
      kept: old ids of the pieces that stay, int64 [n].
      size: of the old one.
    """
    ids = np.full(size, -1)
    ids[kept] = np.arange(len(kept))
    jobs = [(language, text) for language, found in slices.items() for text in found]
    arguments = [(text, str(old), str(new), ids) for _, text in jobs]
    found = dict.fromkeys(slices, Compared())
    for number, one in run_all(compare, arguments, workers_of(config), "comparing cuts", lambda job: str(job[0])):
        found[jobs[number][0]] += one
    return found


def say_differing(compared: dict[str, Compared], config: Adapt) -> None:
    """Say how much of the text a trimmed vocabulary cuts otherwise."""
    whole = sum(compared.values(), Compared())
    if whole.differing:
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
