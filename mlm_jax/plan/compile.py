# SPDX-License-Identifier: Apache-2.0
"""The training step compiled for given devices, and what the compiler says of its memory."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlm_jax import mesh as meshes
from mlm_jax import objectives
from mlm_jax.config import Config, Mesh
from mlm_jax.input.mixture import batch_shapes
from mlm_jax.model.batch import MaskedBatch
from mlm_jax.model.encoder import make_encoder, parameter_shapes
from mlm_jax.train.pretraining import Training, build, pretraining_step
from mlm_jax.vocabulary import Vocabulary

LANGUAGES = 15  # rows of the language embedding where there is one and the config names no languages (XLM's)


@dataclass(frozen=True)
class Memory:
    """Bytes per chip.

    Attributes:
      parameters, optimizer: of the state, which a step updates in place.
      batch: of the input.
      activations: that the forward pass keeps for the backward one (`activations`).
      temporaries: gradients and what else lives within a step, when most does.
      total: at that moment, as the compiler counts, or refuses, it.
    """

    parameters: float
    optimizer: float
    batch: float
    activations: float
    temporaries: float
    total: float


@dataclass(frozen=True)
class Step:
    """A compiled step: the model's parameters, memory, and the program as text, None where it does not fit the chip."""

    parameters: int
    memory: Memory
    program: str | None


def stand_in_vocabulary(size: int) -> Vocabulary:
    """A vocabulary of `size` pieces, of which nothing but the number matters to the program."""
    return Vocabulary(size, 0, 1, 2, 3, 4, tuple(range(5)), "")


def languages(config: Config) -> int:
    """Rows of the language embedding."""
    named = {source.language for source in config.data.sources if source.language != "*"}
    return len(named) or LANGUAGES


def build_training(config: Config, mesh: jax.sharding.Mesh) -> Training:
    """What `pretrain` builds, on the mesh of another machine. No corpus is needed."""
    words = stand_in_vocabulary(config.vocabulary.size)
    word_classes = np.zeros((2, words.size), np.uint8) if config.objective.whole_words else None
    counts = np.ones(words.size, int) if config.objective.frequency_exponent else None
    return build(config, words, languages(config), mesh, word_classes, counts)


def lower_step(config: Config, training: Training, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """The step that `pretrain` runs, ready to be compiled for the mesh's devices."""
    sharding = meshes.batch_sharding(mesh)
    shapes = batch_shapes(config.train.batch_size, config.data.sequence_length)
    batch = {name: jax.ShapeDtypeStruct(shape, kind, sharding=sharding) for name, (shape, kind) in shapes.items()}
    with meshes.mesh_context(mesh):
        return pretraining_step(config, training, mesh).lower(training.abstract_state, training.learning.frozen, batch)


def compile_step(config: Config, mesh: jax.sharding.Mesh, effort: float = 0.0, room: float = math.inf) -> Step:
    """Compile the training step for a mesh's devices.

    Args:
      effort: of the compiler for the program's speed, -1 to 0, as the run's own (see `Plan.effort`).
      room: bytes of a chip. The GPU compiler compiles what needs more, without a word.
    """
    training = build_training(config, mesh)
    state = training.abstract_state
    parameters, optimizer = bytes_a_chip(state.params), bytes_a_chip(state.opt_state)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    shapes = batch_shapes(config.train.batch_size, config.data.sequence_length).values()
    batch = sum(math.prod(shape) * 4 for shape, _ in shapes) / (mesh.shape["data"] * mesh.shape["fsdp"])
    text = None
    try:
        options = compiler_effort(effort)
        if mesh.devices.flat[0].platform == "gpu":
            options["xla_gpu_autotune_level"] = 0  # there is no GPU to try kernels on
        compiled = lower_step(config, training, mesh).compile(compiler_options=options)
        text, said = compiled.as_text(), compiled.memory_analysis()
        assert said is not None
        total = float(said.peak_memory_in_bytes)
        if total > room:
            text = None
    except jax.errors.JaxRuntimeError as e:
        needed = out_of_memory(str(e))
        if needed is None:
            raise
        total = needed
    others = total - parameters - optimizer - batch
    kept = min(others, activations(config, mesh))
    memory = Memory(parameters, optimizer, batch, kept, others - kept, total)
    return Step(count, memory, text)


def compiler_effort(effort: float) -> dict[str, Any]:
    """The compiler's option for an effort of -1 to 0; none for 0, which is its own."""
    if effort == 0:
        return {}
    if hasattr(jax.config, "jax_exec_time_optimization_effort"):
        return {"exec_time_optimization_effort": effort}
    return {"optimization_level": "O0"}  # jax 0.11 has levels instead: this is the least


def activations(config: Config, mesh: jax.sharding.Mesh, platform: str | None = None) -> float:
    """Bytes per chip of what the backward pass needs of the forward pass, parameters left out, as JAX's derivative of the loss has it.

    The compiler may keep less and compute it again. Where heads and the feed-forward width are split (`tensor`), they count whole.

    Args:
      platform: whose program it is; None: the mesh's own.
    """
    size, length = config.vocabulary.size, config.data.sequence_length
    rows = config.train.batch_size // config.train.accumulate // (mesh.shape["data"] * mesh.shape["fsdp"])
    predictions = objectives.max_predictions(length, config.objective, config.model.causal)
    shapes = batch_shapes(rows, length) | {
        **dict.fromkeys(("masked_positions", "targets", "weights"), ((rows, predictions), np.int32)),
        "dropout_keys": ((rows,), np.uint32),
    }
    batch = {name: jax.ShapeDtypeStruct(shape, kind) for name, (shape, kind) in shapes.items()}
    platform = platform or mesh.devices.flat[0].platform
    model = make_encoder(config.model, size, languages(config), config.model.dtype, platform=platform)
    params = parameter_shapes(config.model, size, languages(config))

    def backward(params: Any, batch: MaskedBatch) -> Any:
        def loss(params: Any) -> jax.Array:
            sums = objectives.loss_sums(model, params, batch, batch["dropout_keys"], size, config.model.loss_chunk)
            return jnp.sum(sums["loss"])

        return jax.vjp(loss, params)[1]

    one = meshes.make_mesh(Mesh(), rows, list(mesh.devices.flat)[:1])
    with meshes.mesh_context(one):
        kept = jax.tree.leaves(jax.eval_shape(backward, params, batch))
    # The derivative holds the parameters that it needs as well, the embedding as one copy of several.
    own = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params))
    total = 0
    for leaf in kept:
        shape = leaf.shape[1:] if leaf.shape[:1] == (1,) else leaf.shape
        if own[shape, leaf.dtype]:
            own[shape, leaf.dtype] -= 1
        else:
            total += math.prod(leaf.shape) * leaf.dtype.itemsize
    return float(total)


def bytes_a_chip(tree: Any) -> float:
    """Bytes of a tree of shapes with shardings on one device."""
    return float(
        sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    )


def out_of_memory(message: str) -> float | None:
    """Bytes of HBM that a step would need, from the compiler's refusal; None where it refused for another reason."""
    match = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm|\(([\d.]+)([KMGT])\) exceeds available HBM", message)
    if match is None:
        return None
    number, unit = (part for part in match.groups() if part is not None)
    return float(number) * 2.0 ** (10 * (1 + "KMGT".index(unit)))
