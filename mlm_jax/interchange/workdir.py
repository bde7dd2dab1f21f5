# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders ↔ workdirs: what `import` and `export` do."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.encode.read import read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.files import (
    aside_folder,
    copy_whole,
    in_bucket,
    is_aside,
    make_folder,
    resolve,
    sync,
    sync_tree,
    write_whole,
)
from mlm_jax.finetune import config as options
from mlm_jax.finetune.models import save_model
from mlm_jax.given import LARGEST_JSON, foreign, given_file
from mlm_jax.interchange.agreement import corpus_lines
from mlm_jax.interchange.folder import read_folder, write_folder
from mlm_jax.interchange.layers import keep_layers, read_layers
from mlm_jax.interchange.sentence_folder import for_sentences, read_modules, write_modules
from mlm_jax.interchange.settings import exportable_family
from mlm_jax.interchange.tokenizer_files import export_tokenizer, import_tokenizer
from mlm_jax.mesh import make_mesh
from mlm_jax.pretrained import FinetunedHead, Pretrained, SentenceVectors
from mlm_jax.stored import read_json
from mlm_jax.train.initial import has_initial, link_initial, new_parameters, read_source, write_initial
from mlm_jax.typed import as_type

KINDS = ("hugging-face", "sentence-transformers")  # of folders that `export` writes


def _is_hugging_face(settings: epath.Path) -> bool:
    """Whether a config.json is of a Hugging Face folder, and not of a run.

    Raises:
      UserError: it is of neither.
    """
    stored = read_json(settings, dict[str, Any])
    if not stored:
        raise UserError(f"{settings}: has no fields; give a Hugging Face folder or the workdir of a run")
    return "model_type" in stored


def read_foreign(source: str, vocabulary: epath.Path) -> Pretrained:
    """The encoder of a Hugging Face or sentence-transformers folder, its parameters NumPy arrays.

    Args:
      vocabulary: folder that its vocabulary is written into.

    Raises:
      UserError: it is in a bucket, not whole, or has no counterpart here.
    """
    if in_bucket(source):
        raise UserError(f"{source}: a Hugging Face folder is read from a local disk; copy it here first")
    with foreign(
        f"{source}: not a whole Hugging Face folder", "mend its config.json, tokenizer or weights, or get it again"
    ):
        found = read_folder(Path(source), lambda size: import_tokenizer(Path(source), vocabulary, size))
        return read_modules(Path(source), found)


def import_encoder(
    source: str,
    workdir: str,
    which: str = "best",
    model: str = "",
    mesh: cfg.Mesh | None = None,
    layers: str = "",
) -> str:
    """Make a workdir that starts from the encoder of a Hugging Face folder, or of another run.

    A fine-tuned folder's head comes too, as the model `imported` that `predict` and `evaluate` read.

    Args:
      source: the folder, or the run's workdir.
      workdir: to be made; it may not hold an encoder yet.
      which: of a run's checkpoints: "best", "last" or a step.
      model: of a workdir of `finetune` that has several.
      mesh: as in `export_encoder`; a Hugging Face folder is read on the host whatever it is.
      layers: those to keep of it, counted from 1, such as "1,3,5"; empty: all.

    Returns:
      What was imported, in words.

    Raises:
      UserError: the source cannot be read, it has no such layers, or the workdir is in use.
    """
    folder = epath.Path(workdir)
    if has_initial(folder):
        raise UserError(f"{folder}: starts from {read_source(folder)} already; import into a new workdir")
    # A vocabulary alone is what an import that was stopped left.
    if (folder / "checkpoints").exists() or (folder / "corpus").exists():
        raise UserError(f"{folder}: holds a run already; import into a new workdir")
    settings = epath.Path(source) / "config.json"
    given_file(source, "config.json", LARGEST_JSON)
    # A workdir that import made has an encoder, and no config yet.
    if not settings.exists() and not has_initial(source):
        raise UserError(f"{source}: no config.json there; give a Hugging Face folder or the workdir of a run")
    if settings.exists() and _is_hugging_face(settings):
        found = read_foreign(source, folder / "vocabulary")
        kept = read_layers(layers, found.model) if layers else ()
        # A workdir with a config is of an experiment that only starts from the encoder.
        if found.head is not None and not (folder / "config.json").exists():
            write_imported(folder, keep_layers(found, kept) if kept else found, found.head)
    else:
        found = read_pretrained(source, which, None if mesh is None else make_mesh(mesh), model)
        kept = read_layers(layers, found.model) if layers else ()
        make_folder(folder / "vocabulary")
        words = epath.Path(source) / "vocabulary"
        for path in words.iterdir():
            if path.is_file() and not is_aside(path) and given_file(words, path.name) is not None:
                copy_whole(path, folder / "vocabulary" / path.name)
        found = dataclasses.replace(found, source=f"{source} at step {found.step:,}")
    untouched = has_initial(source) and not any((epath.Path(source) / x).exists() for x in ("checkpoints", "models"))
    if untouched and not kept and not in_bucket(source) and not in_bucket(workdir):
        link_initial(source, folder)
    else:
        found = keep_layers(found, kept) if kept else found
        write_initial(folder, dataclasses.replace(found, head=None), kept)
    count = sum(tensor.size for tensor in jax.tree.leaves(found.params))
    return (
        f"{found.model.layers} layers of width {found.model.width}, {count:,} parameters, "
        f"{found.vocabulary.size:,} pieces"
    )


def untrained(workdir: epath.Path, pretrained: Pretrained) -> list[str]:
    """What of a run's encoder little or no training made, in words: positions beyond its data, and parts that it began without."""
    found = []
    positions, trained = pretrained.model.positions, pretrained.trained
    if trained and trained < positions:
        beyond = "" if pretrained.model.position_embedding == "learned" else ", to which it only extrapolates"
        found.append(
            f"positions {trained:,} to {positions - 1:,} were never trained{beyond}: its text had at most {trained:,} tokens, "
            "which is the tokenizer's model_max_length"
        )
    if pretrained.head is None and pretrained.step and has_initial(workdir):
        parts = sorted({name.split("/")[0] for name in new_parameters(workdir, pretrained.params)})
        names = {"head": "the output layer (head)", "pooler": "the pooler"}
        new = " and ".join(names.get(part, part) for part in parts)
        if new:
            found.append(
                f"{new} is new: {read_source(workdir)} had none, and {pretrained.step:,} updates of this run made it"
            )
    return found


def write_imported(folder: epath.Path, found: Pretrained, head: FinetunedHead) -> None:
    """Store a fine-tuned encoder as the model `imported` of a workdir."""
    config = options.Finetune(
        workdir=str(folder),
        task=as_type(options.Task, head.task),
        data=options.Data(max_length=min(found.model.positions, 512), pair=""),
    )
    save_model(folder / "models" / "imported", found)
    write_whole(folder / "config.json", cfg.config_to_json(config))


# workdir, name, encoder, what of it is untrained, its class in transformers, kind of folder (`KINDS`) → its model card
Card = Callable[[str, str, Pretrained, Sequence[str], str, str], str]


def export_encoder(
    workdir: str,
    out: str,
    which: str = "best",
    model: str = "",
    mesh: cfg.Mesh | None = None,
    differing: int = 0,
    card: Card | None = None,
    kind: str = KINDS[0],
    chosen: Callable[[SentenceVectors], SentenceVectors] = lambda own: own,
) -> str:
    """Write a run's encoder, or a fine-tuned one with its head, as a Hugging Face folder, or one of sentence-transformers.

    Args:
      workdir: of the run.
      out: folder to be made; it may not exist, or be empty.
      which: "best", "last" or a step.
      model: of a workdir of `finetune` that has several.
      mesh: of the devices that the parameters are split over, from which one tensor at a time is gathered; None: the host
        holds them all.
      differing: lines that the exported tokenizer may cut otherwise than the vocabulary, of some thousand that are compared.
      card: makes the folder's README.md; None: there is none.
      kind: of folder, one of `KINDS`.
      chosen: how vectors are made, from how the encoder does; sentence-transformers' folders alone say so.

    Returns:
      What was exported, in words.

    Raises:
      UserError: no such checkpoint, no Hugging Face class has this encoder or head, the tokenizer would cut text otherwise
        than the vocabulary did, or the folder is in use.
    """
    if in_bucket(out):
        raise UserError(f"{out}: export writes to a local folder; name one, and copy it there")
    folder = Path(out)
    refuse_folder(folder)
    settings = epath.Path(workdir) / "config.json"
    if settings.exists() and _is_hugging_face(settings):
        raise UserError(
            f"{workdir}: a Hugging Face folder already ({read_json(settings)['model_type']}), which needs no export; to train it on, run: "
            f"mlm-jax import {shlex.quote(workdir)} RUN"
        )
    with new_folder(folder) as aside:
        pretrained, warnings = write_export(workdir, aside, which, model, mesh, differing, kind, chosen)
        if card is not None:
            name, architecture = folder.resolve().name, read_json(aside / "config.json")["architectures"][0]
            write_whole(aside / "README.md", card(workdir, name, pretrained, warnings, architecture, kind))
    for warning in warnings:
        console.warn(f"{folder}: {warning}")
    made = f"step {pretrained.step:,} as {read_json(folder / 'config.json')['architectures'][0]}"
    return made if kind == KINDS[0] else f"{made}, whose vectors sentence-transformers makes"


def refuse_folder(folder: Path) -> None:
    """Refuse a place that no new folder can be made at.

    Raises:
      UserError: it is a file, or a folder that holds something besides what a stopped export left.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a new folder to export into")
    if folder.exists() and any(not is_aside(path) for path in folder.iterdir()):
        raise UserError(f"{folder}: not empty; export into a new folder")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes `folder` at the end of the block, or is removed where that fails.

    An empty folder that is there (`.`, a mount point, one that a link leads to) stays what it is: what was made is moved into it,
    config.json last, since a folder with one is whole.

    Raises:
      UserError: something else came there meanwhile.
    """
    if folder.is_dir():
        with aside_folder(folder, within=True) as aside:
            yield aside
            refuse_folder(folder)
            sync_tree(aside)
            for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):
                path.rename(folder / path.name)
                sync(folder)
        return
    folder = Path(resolve(folder))
    make_folder(folder.parent)
    with aside_folder(folder) as aside:
        yield aside
        sync_tree(aside)
        refuse_folder(folder)
        aside.rename(folder)
    sync(folder.parent)


def write_export(
    workdir: str,
    aside: Path,
    which: str,
    model: str,
    mesh: cfg.Mesh | None,
    differing: int,
    kind: str = KINDS[0],
    chosen: Callable[[SentenceVectors], SentenceVectors] = lambda own: own,
) -> tuple[Pretrained, list[str]]:
    """Fill a folder as `export_encoder` describes; returns the encoder, and what is to be warned of."""
    pretrained = read_pretrained(workdir, which, None if mesh is None else make_mesh(mesh), model)
    if kind == "sentence-transformers":
        vectors = chosen(pretrained.vectors or SentenceVectors())
        pretrained = for_sentences(dataclasses.replace(pretrained, vectors=vectors))
    family = exportable_family(pretrained.model)
    words, positions = pretrained.vocabulary, pretrained.model.positions
    trained = min(pretrained.trained or positions, positions)
    lines = corpus_lines(epath.Path(workdir), words)
    types, folder_of_words = pretrained.model.token_types, epath.Path(workdir) / "vocabulary"
    export_tokenizer(folder_of_words, words, family, trained, aside, lines, types, differing)
    if kind == "sentence-transformers":
        write_modules(aside, pretrained)
    write_folder(aside, pretrained)
    return pretrained, untrained(epath.Path(workdir), pretrained)
