# SPDX-License-Identifier: Apache-2.0
"""All probes of an encoder: what `analyze` does, and its table."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath
from jax.sharding import Mesh

from mlm_jax.encode.read import checkpoint_steps, read_pretrained
from mlm_jax.errors import UserError
from mlm_jax.files import write_json, write_whole
from mlm_jax.mesh import make_mesh
from mlm_jax.neutrality.config import Aligned, Analyze
from mlm_jax.neutrality.probe_sentences import probe_aligned, probe_fairness, probe_quality
from mlm_jax.neutrality.probe_words import compare_words, probe_words
from mlm_jax.neutrality.vectors import Vectors, make_vectors
from mlm_jax.pretrained import Pretrained
from mlm_jax.results import PROBE, ProbeRow, as_csv, compute_once, write_results
from mlm_jax.tokenizers import load_tokenizer


def run(config: Analyze) -> list[ProbeRow]:
    """Run every probe that is not done yet.

    Returns:
      The rows of results.json: probe, set, layer (0: the embedding), pooling, transformation, languages, metric, value. What
      is drawn beside them (trees, maps, heat maps, worked alignments) is in figures.json, the heat maps in matrices.csv too.

    Raises:
      UserError: bad input.
    """
    workdir = epath.Path(config.workdir)
    if config.checkpoints:
        checkpoint_steps(config.init)  # before the long work
    mesh = make_mesh(config.mesh)
    pretrained = replace(read_pretrained(workdir, mesh=mesh), dtype=config.dtype)
    tokenizer = load_tokenizer(workdir / "vocabulary")
    made = make_vectors(pretrained, tokenizer, mesh, config.max_length, workdir / "vectors")

    def vectors_of_other(other: str) -> Vectors:
        found = read_like(other, pretrained, mesh)
        return make_vectors(found, tokenizer, mesh, config.max_length, workdir / "vectors" / "compared")

    done = workdir / "done"
    rows: list[ProbeRow] = []
    figures: dict[str, Any] = {}
    for aligned in config.aligned:
        found, drawn = compute_once(done / f"{aligned.name}.json", probe_aligned, aligned, made, config)
        # Apart from the others, so that analyses of earlier versions get it too.
        cut = compute_once(done / f"{aligned.name}.tokens.json", probe_fairness, aligned, tokenizer)
        rows, figures = rows + found + cut, figures | drawn
    for pairs in config.word_alignment:
        found, drawn = compute_once(done / f"{pairs.name}.json", probe_words, pairs, made, config.transformations)
        rows, figures = rows + found, figures | drawn
        for number, other in enumerate(config.compare):
            name = f"{pairs.name}.{Path(other).name}"
            found = compute_once(done / f"{name}.json", compare_words, pairs, made, vectors_of_other, other)
            # Each comparison has this encoder's own words beside the other's.
            rows = rows + [r for r in found if not number or r["probe"] != "aligned words, before"]
    for judged in config.quality:
        rows = rows + compute_once(done / f"{judged.name}.json", probe_quality, judged, made, config)
    if config.checkpoints:
        rows = rows + through_pretraining(config)
    write_results(workdir, rows, PROBE, indent=0)
    write_whole(workdir / "matrices.csv", matrices_as_csv(figures))
    write_json(workdir / "figures.json", figures)
    return rows


def through_pretraining(config: Analyze) -> list[ProbeRow]:
    """Identification and retrieval at each checkpoint of the run that `init` names: the same rows, with their `step`.

    Raises:
      UserError: `init` is not a run with checkpoints.
    """
    workdir, mesh = epath.Path(config.workdir), make_mesh(config.mesh)

    @functools.cache
    def vectors_at(step: int) -> Vectors:
        pretrained = replace(read_pretrained(config.init, str(step), mesh), dtype=config.dtype)
        tokenizer = load_tokenizer(workdir / "vocabulary")
        return make_vectors(pretrained, tokenizer, mesh, config.max_length, workdir / "vectors" / str(step))

    def probe_step(part: Aligned, step: int) -> Any:
        return probe_aligned(part, vectors_at(step), config)

    rows: list[ProbeRow] = []
    for step in checkpoint_steps(config.init):
        for part in config.aligned:
            found, _ = compute_once(workdir / "done" / f"{part.name}.step{step}.json", probe_step, part, step)
            rows += [row | {"step": step} for row in found if row["probe"] in ("identification", "retrieval")]
        vectors_at.cache_clear()  # one checkpoint on the devices at a time
    return rows


def read_like(folder: str, like: Pretrained, mesh: Mesh) -> Pretrained:
    """The encoder of a fine-tuned workdir with one model (or WORKDIR/models/NAME), or of a run.

    Raises:
      UserError: there is none, or it has another vocabulary.
    """
    other = read_pretrained(folder, mesh=mesh)
    if other.vocabulary.sha256 != like.vocabulary.sha256:
        raise UserError(f"{folder}: has another vocabulary, so its words cannot be compared")
    return replace(other, dtype=like.dtype)


def matrices_as_csv(figures: dict[str, Any]) -> str:
    """Retrieval between all pairs of languages (row looks for column) and confusion (row is, column was found), a line a cell."""
    lines = [
        {"set": name, "matrix": matrix, "row": row, "column": column, "value": f"{value:g}"}
        for name, drawn in figures.items()
        for matrix in drawn
        if matrix.startswith(("retrieval_", "confusion_"))
        for row, values in zip(drawn["languages"], drawn[matrix], strict=True)
        for column, value in zip(drawn["languages"], values, strict=True)
    ]
    return as_csv(("set", "matrix", "row", "column", "value"), lines)
