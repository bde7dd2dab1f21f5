# SPDX-License-Identifier: Apache-2.0
"""Distillation: a student learns what a teacher makes of the same rows: relations of its attention, hidden states, vectors of texts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.manifest import Stream
from mlm_jax.model.batch import Batch, MaskedBatch
from mlm_jax.model.dropout import row_keys as dropout_row_keys
from mlm_jax.model.encoder import Encoder, backbone
from mlm_jax.model.products import product
from mlm_jax.model.task_head import Pooling
from mlm_jax.objectives import max_predictions, score_features
from mlm_jax.pretrained import Pretrained, SentenceVectors
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train import initial
from mlm_jax.train.language_model import language_model_objective, validation_masks
from mlm_jax.train.learning import Given, Learning
from mlm_jax.train.matching import distance, read_by_attention, relation_divergence, text_vectors, vector_distance
from mlm_jax.train.metrics import Record
from mlm_jax.train.state import Params
from mlm_jax.train.step import Measured, Objective
from mlm_jax.vocabulary import Vocabulary, read_vocabulary

FOLDER = "teacher"  # of the workdir: what `distillation.teacher` was when the run began, as `import` makes it
PART = 1 << 24  # bytes that are hashed at a time
PARTS = ("sum", "number")

# name → per row its sum and its weight, float32 [rows] each: of each kind that is learned, and `accuracy` of masked tokens
Sums = dict[str, tuple[jax.Array, jax.Array]]
# student's parameters, teacher's parameters, batch, dropout keys of the student or None
Compare = Callable[[Params, Params, Any, jax.Array | None], Sums]


def learn_distillation(given: Given) -> Learning:
    """Learn what a teacher makes of the same rows, and to predict masked tokens where `distillation.masked` says so."""
    config, folder = given.config, epath.Path(given.config.workdir) / FOLDER
    if not initial.has_initial(folder):
        raise UserError(f"{folder}: the teacher is missing; put the folder back, or begin in another --workdir")
    teacher = initial.read_initial(folder, given.mesh)
    refuse_other_vocabulary(config.workdir, given.words, teacher)
    matches = plan_matches(config, teacher)
    console.say(f"learning from {teacher.source}: {teacher.model.layers} layers of width {teacher.model.width}")
    weights = cfg.weights_of(config.distillation)
    compare = make_comparison(given, teacher, matches)
    rates = (config.model.dropout, config.model.attention_dropout, config.model.attention_out_dropout)
    masks = weights.get("masked", 0) > 0
    mask = language_model_objective(given).prepare if masks else lambda step, batch: batch
    mask_the_same = validation_masks(given.words, config.data.sequence_length) if masks else lambda batch: batch

    def prepare(step: jax.Array, batch: Batch) -> Batch:
        rows = jnp.arange(len(batch["tokens"]), dtype=jnp.uint32)
        keys = dropout_row_keys(config.seed, step, rows)
        return {**mask(step, batch), "dropout_keys": keys}  # type: ignore[typeddict-unknown-key,typeddict-item]  # `mask` keeps what there is

    def loss(params: Params, frozen: Params, batch: MaskedBatch) -> Measured:
        found = compare(params, frozen, batch, batch["dropout_keys"] if max(rates) > 0 else None)
        # What a name ending in loss stands for is minimised as it is, so the sums hold the weights; `log` takes them out.
        return {
            _name(kind): (weights.get(kind, 1.0) * jnp.sum(total), jnp.sum(number))
            for kind, (total, number) in found.items()
        }

    def validation(params: Params, frozen: Params, batch: Batch) -> dict[str, jax.Array]:
        found = compare(params, frozen, mask_the_same(batch), None)
        return {f"{kind}_{part}": x for kind, of in found.items() for part, x in zip(PARTS, of, strict=True)}

    def score(stream: Stream, of_blocks: dict[str, np.ndarray]) -> dict[str, Any] | None:
        sums = {name: float(values.sum(dtype=np.float64)) for name, values in of_blocks.items()}
        numbers = {kind: sums[f"{kind}_number"] for kind in (*weights, *(["accuracy"] if masks else []))}
        means = {kind: sums[f"{kind}_sum"] / number for kind, number in numbers.items() if number}
        return described(means, weights) | {"targets": int(max(numbers.values()))} if means else None

    def log(sums: dict[str, np.ndarray]) -> Record:
        pairs = {kind: sums[_name(kind)].tolist() for kind in weights}
        return described({kind: total / max(n, 1.0) / weights[kind] for kind, (total, n) in pairs.items()}, weights)

    return Learning(
        objective=Objective(prepare, loss),
        measured=(*map(_name, weights), *(["accuracy"] if masks else [])),
        validation=validation,
        score=score,
        predictions=max_predictions(config.data.sequence_length, config.objective) if masks else 0,
        log=log,
        frozen={name: teacher.params[name] for name in ("embedding", "layers")},
        besides=matches.projections(config.model, teacher.model),
        must_match={"teacher_sha256": digest_of(folder)},
    )


def _name(kind: str) -> str:
    return kind if kind == "accuracy" else f"{kind}_loss"


def described(means: dict[str, float], weights: dict[str, float]) -> dict[str, Any]:
    """What a line of metrics and validation say: the loss of each kind, and the weighted sum, which is minimised."""
    total = sum(weights[kind] * mean for kind, mean in means.items() if kind in weights)
    return {"loss": total, **{_name(kind): mean for kind, mean in means.items()}}


@dataclass(frozen=True)
class Matches:
    """What is compared of a student and a teacher.

    Attributes:
      relations: of which layer of the teacher, and of the student, counted from 1, where they are learned.
      heads: relation heads.
      hidden: (teacher's, student's) layers whose outputs are compared, counted from 1.
      vectors: of the teacher.
      projects: whether hidden states are projected to the teacher's width.
    """

    relations: tuple[int, int]
    heads: int
    hidden: tuple[tuple[int, int], ...]
    vectors: SentenceVectors
    projects: bool

    def projections(self, student: cfg.Model, teacher: cfg.Model) -> Callable[[jax.Array], Params] | None:
        """Makes the projections' parameters, boxed: float32 [student's width, teacher's width] for each of `hidden`."""
        if not self.projects:
            return None

        def init(key: jax.Array) -> Params:
            shape, std = (student.width, teacher.width), student.initializer_std
            boxed = nn.with_logical_partitioning(nn.initializers.normal(std), ("embed", "embed_out"))
            keys = jax.random.split(key, len(self.hidden))
            return {"projection": {f"kernel_{i}": boxed(k, shape, jnp.float32) for i, k in enumerate(keys)}}

        return init


def plan_matches(config: cfg.Config, teacher: Pretrained) -> Matches:
    """What a config compares of the student and a teacher.

    Raises:
      UserError: the two do not go together.
    """
    options, mine, its = config.distillation, config.model, teacher.model
    length = config.data.sequence_length
    if its.positions < length:
        raise UserError(
            f"data.sequence_length: {length}, but the teacher has {its.positions} positions; lower it, or choose another distillation.teacher"
        )
    if its.language_embedding:
        raise UserError("distillation.teacher: has language embeddings, whose ids are its own; choose one without")
    if its.causal:
        raise UserError("distillation.teacher: is causal, and the student is not; choose one that looks both ways")
    for name, layers, which in (
        ("relation_layer", (options.relation_layer,), "teacher"),
        ("hidden_layers", tuple(a for a, _ in options.hidden_layers), "teacher"),
        ("hidden_layers", tuple(b for _, b in options.hidden_layers), "student"),
    ):
        most = (its if which == "teacher" else mine).layers
        lowest = 0 if name == "relation_layer" else 1
        if wrong := [layer for layer in layers if not lowest <= layer <= most]:
            raise UserError(f"distillation.{name}: {wrong[0]} is no layer of the {which}, which has 1 to {most}")
    heads = options.relation_heads or its.heads
    if options.relations and (mine.width % heads or its.width % heads):
        both = [h for h in range(1, 129) if mine.width % h == 0 and its.width % h == 0]
        raise UserError(
            f"distillation.relation_heads: {heads} does not divide the widths {mine.width} (student) and {its.width} (teacher); "
            f"use one of {', '.join(map(str, both))}"
        )
    # Spread evenly, the last on the last.
    even = tuple((-(-i * its.layers // mine.layers), i) for i in range(1, mine.layers + 1))
    if mine.width != its.width:
        widths = f"the teacher's width is {its.width}, the student's {mine.width}"
        if options.hidden and not options.projection:
            raise UserError(f"distillation.hidden: {widths}; set distillation.projection, or learn relations instead")
        if options.vectors:
            raise UserError(
                f"distillation.vectors: {widths}, and vectors that are to be the teacher's need its width; learn relations or hidden"
            )
    vectors = teacher.vectors or SentenceVectors()
    pooling: Pooling = options.pooling or vectors.pooling
    return Matches(
        (options.relation_layer or its.layers, mine.layers),
        heads,
        (options.hidden_layers or even) if options.hidden else (),
        dataclasses.replace(vectors, pooling=pooling),
        bool(options.hidden) and options.projection,
    )


def student_vectors(config: cfg.Config) -> SentenceVectors | None:
    """How a run's student makes vectors of texts: as the teacher whose vectors it learned does; None where it learned none."""
    folder, options = epath.Path(config.workdir) / FOLDER, config.distillation
    if config.objective.learn != "distillation" or not options.vectors:
        return None
    vectors = (initial.read_vectors(folder) if initial.has_initial(folder) else None) or SentenceVectors()
    return dataclasses.replace(vectors, layer=0, pooling=options.pooling or vectors.pooling)


def make_comparison(given: Given, teacher: Pretrained, matches: Matches) -> Compare:
    """Build what compares a student and a teacher on the same rows: the masked ones, where masked tokens are predicted (Sanh et al. 2019)."""
    config, options, student = given.config, given.config.distillation, given.model
    its = teacher.encoder(student.dtype.name, layers=teacher.model.layers)
    sides, slots = slots_of(config.data)
    # Layers whose output is read, 0 being the embedding: what a layer's attention reads is the output of the one below.
    wanted_its, wanted = {layer for layer, _ in matches.hidden}, {layer for _, layer in matches.hidden}
    if options.relations:
        wanted_its, wanted = wanted_its | {matches.relations[0] - 1}, wanted | {matches.relations[1] - 1}
    layer_of_vectors = matches.vectors.layer or teacher.model.layers
    if options.vectors:
        wanted_its, wanted = wanted_its | {layer_of_vectors}, wanted | {student.config.layers}
    if options.masked:
        wanted |= {student.config.layers}

    def compare(params: Params, frozen: Params, batch: Any, keys: jax.Array | None) -> Sums:
        segments = batch["segment_ids"]
        tokens = jnp.sum(segments > 0, axis=1, dtype=jnp.float32)  # [rows]
        target, _ = layer_outputs(its, frozen, batch, None, sorted(wanted_its))
        hidden, matrix = layer_outputs(student, params, batch, keys, sorted(wanted))
        found: Sums = {}
        if options.relations:
            its_layer, mine = (layer - 1 for layer in matches.relations)
            theirs = read_by_attention(frozen["layers"], its_layer, target[its_layer], student.dtype)
            ours = read_by_attention(params["layers"], mine, hidden[mine], student.dtype)
            found["relations"] = relation_divergence(theirs, ours, segments, matches.heads), tokens
        if options.hidden:
            total = jnp.zeros_like(tokens)
            for i, (layer, mine) in enumerate(matches.hidden):
                x = hidden[mine]
                if matches.projects:
                    x = product("ble,eo->blo", x, params["projection"][f"kernel_{i}"], student.dtype)
                of_tokens = distance(target[layer], x, options.distance)  # [rows, length]
                total += jnp.sum(of_tokens * (segments > 0), axis=1) / len(matches.hidden)
            found["hidden"] = total, tokens
        if options.vectors:
            how = matches.vectors.pooling
            theirs, there = text_vectors(target[layer_of_vectors], segments, slots, how)
            ours, _ = text_vectors(hidden[student.config.layers], segments, slots, how)
            found["vectors"] = vector_distance(theirs, ours, there, sides, options.distance)
        if options.masked:
            features = student.apply(
                {"params": params}, hidden[student.config.layers], matrix, batch["masked_positions"], method="read"
            )
            of_masked = score_features(student, features, batch, given.words.size, config.model.loss_chunk)  # type: ignore[arg-type]  # flax types `__call__` only
            found["masked"] = of_masked["loss"], of_masked["targets"]
            found["accuracy"] = of_masked["correct"], of_masked["targets"]
        return found

    return compare


def slots_of(data: cfg.Data) -> tuple[int, int]:
    """Texts that belong together, and segments that a row of `data` has at most."""
    if data.packing == "pairs":
        sides = cfg.sides_of_pairs(data)
        return sides, sides * cfg.pairs_per_block(data)
    if data.packing == "segments":
        return 1, data.sequence_length // 3  # a text is no shorter than a piece and its specials
    if data.packing == "pairs":
        sides = cfg.sides_of_pairs(data)
        return sides, cfg.pairs_per_block(data) * sides
    return 1, 1


def layer_outputs(
    encoder: Encoder, params: Params, batch: Batch, keys: jax.Array | None, wanted: Sequence[int]
) -> tuple[dict[int, jax.Array], jax.Array]:
    """What some layers of an encoder give.

    Args:
      batch, keys: as in `Encoder.__call__`.
      wanted: layers counted from 1, 0 being the embedding; ascending. Those above the last are not run.

    Returns:
      layer → [batch, length, embed], activations as the next layer reads them; and the token embedding, as of `Encoder.embed`, float32.
    """
    residual: Any
    matrix: Any
    residual, matrix = encoder.apply({"params": params}, batch, keys, method="embed")  # type: ignore[misc]  # flax types `__call__` only
    found: dict[int, jax.Array] = {0: residual.normed}
    done = 0
    for layer in wanted:
        if layer > done:
            some = jax.tree.map(lambda leaf, end=layer, begin=done: leaf[begin:end], params["layers"])
            piece = encoder.clone(
                config=backbone(encoder.config, layer - done), unroll=min(encoder.unroll, layer - done)
            )
            of = {"params": {"embedding": params["embedding"], "layers": some}}
            residual = piece.apply(of, residual, batch, keys, done, method="run_layers")
        found[layer], done = residual.normed, layer
    return found, matrix


def refuse_other_vocabulary(workdir: str, words: Vocabulary, teacher: Pretrained) -> None:
    """Refuse a teacher that cuts text otherwise than its student.

    Raises:
      UserError: their vocabularies differ.
    """
    its = teacher.vocabulary
    if its.sha256 == words.sha256:
        return
    folders = (epath.Path(workdir) / "vocabulary", epath.Path(workdir) / FOLDER / "vocabulary")
    if all(getattr(its, name) == getattr(words, name) for name in ("size", "pad", "bos", "eos", "unk", "mask")):
        ours, theirs = (load_tokenizer(folder / x.file) for folder, x in zip(folders, (words, its), strict=True))
        if list(ours.pieces) == list(theirs.pieces):
            return
    raise UserError(
        f"distillation.teacher: {teacher.source} has another vocabulary ({its.size:,} pieces) than {folders[0]} ({words.size:,}), and both read the "
        "same rows; begin the student with some of the teacher's layers (mlm-jax import TEACHER WORKDIR --layers ...), or in a new --workdir "
        "without init, where it takes the teacher's vocabulary"
    )


def digest_of(folder: epath.Path) -> str:
    """sha256 of an encoder to start from: a run continued with another teacher would learn something else."""
    described = json.dumps(dataclasses.asdict(initial.read_model(folder)), sort_keys=True)
    digest = hashlib.sha256(described.encode() + read_vocabulary(folder / "vocabulary").sha256.encode())
    with (folder / initial.TENSORS).open("rb") as file:
        while part := file.read(PART):
            digest.update(part)
    return digest.hexdigest()
