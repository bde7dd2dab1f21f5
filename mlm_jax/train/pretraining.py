# SPDX-License-Identifier: Apache-2.0
"""Pretraining, from top to bottom in the order things happen: what it hands to the loop of every training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from mlm_jax import console, manifest, sampling, vocabulary
from mlm_jax import mesh as meshes
from mlm_jax.config import Config, config_to_json
from mlm_jax.errors import UserError
from mlm_jax.input.arrays import local_rows
from mlm_jax.input.blocks import Blocks
from mlm_jax.input.mixture import BatchOrder, Mixture, Order, batch_shapes, in_one_line, training_batches
from mlm_jax.input.validation import validation_sources
from mlm_jax.manifest import Stream
from mlm_jax.model.axes import encoder_axes, parameter_axes
from mlm_jax.model.encoder import Encoder, make_encoder, padded_rows
from mlm_jax.model.flops import peak_flops, step_flops
from mlm_jax.phases import Part, corpus_name, lengths, parts_of
from mlm_jax.train import initial
from mlm_jax.train.checkpoints import Checkpoints
from mlm_jax.train.contrastive import learn_contrast
from mlm_jax.train.distillation import learn_distillation
from mlm_jax.train.fit import Evaluation, HostBatch, Learner, Outcome, Pace, fit
from mlm_jax.train.language_model import learn_language_model
from mlm_jax.train.learning import Given, Learning
from mlm_jax.train.metrics import Record
from mlm_jax.train.optimizer import make_optimizer, make_schedule
from mlm_jax.train.state import State, make_initializer
from mlm_jax.train.step import make_train_step
from mlm_jax.train.validate import Validation, make_validation_step, validate
from mlm_jax.vocabulary import Vocabulary

# By `objective.learn`.
LEARNINGS: dict[str, Callable[[Given], Learning]] = {
    "language_model": learn_language_model,
    "contrastive": learn_contrast,
    "distillation": learn_distillation,
}


def train(config: Config, devices: Sequence[jax.Device] | None = None) -> Outcome:
    """Train from where the workdir stands to `train.steps`, or until a signal.

    Args:
      config: validated; its workdir holds `corpus/` and `vocabulary/`.
      devices: to train on; all there are unless given.

    Raises:
      UserError: bad input, a checkpoint that cannot be written, or a loss that is not finite.
    """
    workdir = epath.Path(config.workdir)

    # 1. What there is to learn from: a corpus per length of blocks.
    words = vocabulary.read_vocabulary(workdir / "vocabulary")
    parts = parts_of(config)
    corpora = {part.corpus: read_corpus(config, part.corpus, words) for part in parts}
    # Rates are those of the first length, whatever is drawn from.
    streams = corpora["corpus"].streams

    # 2. Devices, over which the batches of every part have to divide, and the order of all draws.
    for part in parts:
        mesh = meshes.make_mesh(config.mesh, part.config.train.batch_size // part.config.train.accumulate, devices)
    kind = BatchOrder if config.contrastive.batches == "by_stream" else Order
    order = kind(sampling.stage_rates(config, streams), parts, config.seed)

    # 3. The parts, each a run that goes on where the one before ended: there is a checkpoint at each end.
    languages, began = len(corpora["corpus"].manifest.languages), time.monotonic()
    classes = vocabulary.word_classes(workdir / "vocabulary", words) if config.objective.whole_words else None
    counts = manifest.read_token_counts(workdir / "corpus") if config.objective.frequency_exponent else None
    training = build(parts[0].config, words, languages, mesh, classes, counts)
    with run_checkpoints(config, corpora["corpus"].manifest, training.learning.must_match) as checkpoints:
        state = checkpoints.restore(training.abstract_state)  # the same in every part
        step = 0 if state is None else int(jax.device_get(state.step))
        for number, part in enumerate(parts):
            if step >= part.end and number < len(parts) - 1:
                continue
            if number:
                training = build(part.config, words, languages, mesh, classes, counts)
            learner = make_learner(order, number, training, corpora[part.corpus], words, mesh)
            outcome = fit(learner, pace_of(part, began), mesh, checkpoints, config.workdir, state)
            step, state = outcome.step, outcome.state
            if outcome.stopped_by is not None:
                break
    return outcome


@dataclass(frozen=True)
class Corpus:
    """Prepared blocks of one length, of which a run trains on `streams`; `held_out` are their validation blocks."""

    folder: epath.Path
    manifest: manifest.Manifest
    streams: tuple[Stream, ...]
    held_out: list[Blocks]


def read_corpus(config: Config, name: str, words: Vocabulary) -> Corpus:
    """A corpus of the workdir.

    Args:
      name: of its folder.

    Raises:
      UserError: it is of another vocabulary, or damaged.
    """
    folder = epath.Path(config.workdir) / name
    prepared = manifest.read_manifest(folder)
    if words.sha256 != prepared.vocabulary_sha256:
        raise UserError(
            f"{config.workdir}: {name}/ was prepared with another vocabulary than vocabulary/ holds; prepare again"
        )
    streams = sampling.trained_streams(config, prepared.streams)
    # Damaged ones are refused now, and not at the first validation.
    return Corpus(folder, prepared, streams, validation_sources(folder, prepared, streams, words.pad))


def pace_of(part: Part, began: float) -> Pace:
    """A part's pace; what is left of the time limit, of a run that began at a time of `time.monotonic`."""
    every = part.config.train
    left = max(every.max_seconds - (time.monotonic() - began), 1e-3) if every.max_seconds else 0.0
    return Pace(part.end, every.log_every, every.validate_every, every.save_every, left, every.accumulate)


def make_learner(
    order: Order, number: int, training: Training, corpus: Corpus, words: Vocabulary, mesh: jax.sharding.Mesh
) -> Learner:
    """What pretraining hands to the loop for a part of a run.

    Args:
      number: of the part.
      training: of its config.
      corpus: of its length.
    """
    part = order.parts[number]
    config, streams, length = part.config, corpus.streams, part.config.data.sequence_length
    sharding = meshes.batch_sharding(mesh)
    mixture = Mixture(order, number, local_rows(sharding, config.train.batch_size).tolist())

    def initialize() -> State:
        state = training.initialize()
        if initial.has_initial(config.workdir):
            state, fresh = initial.load_into(state, config.workdir, corpus.manifest.languages)
            new = f"; new: {', '.join(fresh)}" if fresh else ""
            kept = ", ".join(map(str, initial.read_kept(config.workdir)))
            of = f"layers {kept} of " if kept else ""
            console.say(f"starting from {of}{initial.read_source(config.workdir)}{new}")
        return state

    def batches(step: int) -> Iterator[HostBatch]:
        read = training_batches(
            mixture, corpus.folder, corpus.manifest, streams, words.pad, config.seed, step, config.train.readers
        )
        return in_one_line(read)

    learning = training.learning
    validation = Validation(
        training.validation_step, learning.frozen, learning.score, streams, corpus.held_out, length, words.pad, sharding
    )
    return Learner(
        name="",
        unit="step",
        objective=learning.objective,
        optimizer=training.optimizer,
        schedule=training.schedule,
        abstract_state=training.abstract_state,
        initialize=initialize,
        frozen=learning.frozen,
        batches=batches,
        batch_shapes=batch_shapes(config.train.batch_size, length),
        describe=lambda step: describe(order.parts, number, training.abstract_state, words.size, mesh, streams, step),
        log=make_log(config, learning, words.size, mesh, order, streams),
        evaluate=make_evaluate(config, validation, config.model.causal == order.parts[-1].config.model.causal),
        save_evaluated=False,
        sum_dtype=gradient_dtype(config, training.model),
        blame=lambda step: f" (languages in the batch: {languages_of(step, order, streams)})",
    )


@dataclass(frozen=True)
class Training:
    """A config's model, optimizer and functions on a mesh: what `pretrain` runs, and `plan` compiles.

    Attributes:
      initialize: () → the first state, on the mesh.
      abstract_state: its shapes, dtypes and shardings.
      validation_step: (parameters, frozen parameters, batch) → what `Learning.validation` returns.
    """

    model: Encoder
    learning: Learning
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    initialize: Callable[[], State]
    abstract_state: State
    validation_step: jax.stages.Wrapped


def build(
    config: Config,
    words: Vocabulary,
    languages: int,
    mesh: jax.sharding.Mesh,
    word_classes: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    platform: str | None = None,
) -> Training:
    """Build a config's training on a mesh, whose devices may be of another machine.

    Args:
      languages: rows of the language embedding.
      word_classes, counts: uint8 [2, vocabulary] and int [vocabulary], where the objective asks for them; see
        `objectives.make_tables`.
      platform: to build it for; None: the mesh's devices'.
    """
    platform = platform or mesh.devices.flat[0].platform
    model = make_encoder(config.model, words.size, languages, config.model.dtype, platform=platform)
    learning = LEARNINGS[config.objective.learn](Given(config, model, words, languages, mesh, word_classes, counts))
    axes = encoder_axes(model)
    if learning.besides is not None:
        axes |= parameter_axes(jax.eval_shape(learning.besides, jax.random.key(0)))
    optimizer = make_optimizer(config.optimizer, config.train.steps, axes)
    initialize, abstract_state = make_initializer(config, model, optimizer, mesh, learning.measured, learning.besides)
    return Training(
        model,
        learning,
        optimizer,
        make_schedule(config.optimizer, config.train.steps),
        initialize,
        abstract_state,
        make_validation_step(learning, mesh, abstract_state.params),
    )


def pretraining_step(config: Config, training: Training, mesh: jax.sharding.Mesh) -> jax.stages.Wrapped:
    """The jitted step (state, frozen parameters, batch) → (state, window) that `pretrain` runs, for whoever compiles or times it."""
    return make_train_step(
        training.learning.objective,
        training.optimizer,
        training.schedule,
        training.abstract_state,
        training.learning.frozen,
        mesh,
        config.train.log_every,
        config.train.accumulate,
        gradient_dtype(config, training.model),
    )


def gradient_dtype(config: Config, model: Encoder) -> jnp.dtype:
    """In which gradients are summed over the data axis."""
    return model.dtype if config.train.gradient_sum == "auto" else jnp.dtype(config.train.gradient_sum)


def make_log(
    config: Config, learning: Learning, size: int, mesh: jax.sharding.Mesh, order: Order, streams: Sequence[Stream]
) -> Callable[[int, dict[str, np.ndarray], float], Record]:
    """What pretraining's line of metrics has besides every training's: the objective's own, FLOPs, blocks drawn per language
    and, in a run of several lengths, the places for tokens in them."""
    length = config.data.sequence_length
    flops = step_flops(config.model, padded_rows(size), config.train.batch_size, length, learning.predictions)
    peak = peak_flops(mesh.devices.flat[0])
    several = len({part.config.data.sequence_length for part in order.parts}) > 1

    def by_stream(counts: np.ndarray) -> dict[str, int]:
        return {s.name: int(n) for s, n in zip(streams, counts, strict=True)}

    def log(step: int, sums: dict[str, np.ndarray], steps_per_second: float) -> Record:
        rate = flops * steps_per_second
        return {
            **learning.log(sums),
            "model_flops_per_second": rate,
            "mfu": rate / (peak * mesh.size) if peak else None,
            "blocks": by_stream(order.drawn(step)),
            # Blocks say nothing of tokens where they have several lengths.
            **({"places": by_stream(order.places(step))} if several else {}),
        }

    return log


def make_evaluate(config: Config, validation: Validation, chooses: bool) -> Callable[[int, State], Evaluation]:
    """Validation of every stream; where it `chooses`, the mean over languages decides which checkpoint is the best."""
    rows = config.train.batch_size // config.train.accumulate

    def evaluate(step: int, state: State) -> Evaluation:
        result = validate(validation, state.params, config.train.validation_blocks, rows)
        macro = result["macro_loss"]
        if macro is not None:
            over = "languages" if result["languages"] else "pairs"
            console.say(f"step {step:,}: validation loss {macro:.3f}, mean over {over}")
        metrics = {"macro_loss": macro} if chooses and macro is not None else None
        return Evaluation({"kind": "validation", **result}, metrics)

    return evaluate


def describe(
    parts: Sequence[Part],
    number: int,
    abstract_state: State,
    vocabulary_size: int,
    mesh: jax.sharding.Mesh,
    streams: Sequence[Stream],
    start: int,
) -> str:
    """The line that says what is about to be trained, and from where; with phases, a second on the part `number` of the run."""
    part, config = parts[number], parts[number].config
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_state.params))
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1) or "one device"
    where = f"continuing at step {start:,}" if start else "from step 0"
    pairs = sum(len(s.languages) == 2 for s in streams)
    kinds = {"languages": len(streams) - pairs, "pairs": pairs}
    shown = " and ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    steps = config.train.steps
    done = f"\nall {steps:,} steps are done; a larger --train.steps goes on" if start >= steps else ""
    of_part = ""
    if len(parts) > 1:
        before = sum((p.end - p.start) * p.tokens for p in parts[:number])
        tokens = before + (part.end - part.start) * part.tokens
        rotary = f", RoPE theta {config.model.rope_theta:g}" if config.model.position_embedding == "rotary" else ""
        changes = len({p.config.model.causal for p in parts}) > 1
        learned = f", {'causal' if config.model.causal else 'masked'} LM" if changes else ""
        of_part = (
            f"\nphase {number + 1} of {len(parts)}: steps {part.start:,} to {part.end:,}, tokens {before:,} to {tokens:,}, in "
            f"batches of {config.train.batch_size:,} blocks of {config.data.sequence_length:,}{rotary}{learned}"
        )
    return (
        f"{count:,} parameters, {vocabulary_size:,} pieces, {shown}, "
        f"{mesh.devices.flat[0].device_kind} ({axes}), {where} of {steps:,} in {config.workdir}{of_part}{done}"
    )


def languages_of(step: int, order: Order, streams: Sequence[Stream]) -> str:
    """The streams in a step's batch, the first twenty of them by name."""
    names = sorted({streams[i].name for i in order.streams_of(step)})
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def run_checkpoints(
    config: Config, prepared: manifest.Manifest, must_match: Mapping[str, str] | None = None
) -> Checkpoints:
    """The `checkpoints/` of a pretraining run: the last few, and the best by macro validation loss.

    Args:
      prepared: the corpus of the first length.
      must_match: of `Learning`, for who trains on.
    """
    hashes = {
        "manifest_sha256": prepared.sha256(),
        "vocabulary_sha256": prepared.vocabulary_sha256,
        **(must_match or {}),
    }
    for length in lengths(config)[1:]:
        others = manifest.read_manifest(epath.Path(config.workdir) / corpus_name(config, length))
        hashes[f"manifest_{length}_sha256"] = others.sha256()
    noted = {"config": json.loads(config_to_json(config))}
    return Checkpoints(f"{config.workdir}/checkpoints", hashes, noted, config.train.keep_last)
