# SPDX-License-Identifier: Apache-2.0
"""An encoder with its weights: what everything after pretraining begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from mlm_jax import config as cfg
from mlm_jax import mesh as meshes
from mlm_jax.errors import UserError
from mlm_jax.model.encoder import Encoder, boxed_shapes, make_encoder
from mlm_jax.model.task_head import TRANSFORMS, Pooling, TaskHead
from mlm_jax.vocabulary import Vocabulary

Params = dict[str, Any]  # nested dicts of float32 arrays, without flax's boxes


@dataclass(frozen=True)
class FinetunedHead:
    """The head that fine-tuning put on an encoder.

    Attributes:
      task: options of `finetune.config.Task`, as config.json stores them.
      labels: in the order of their scores.
      params: `output_kernel`, ...
    """

    task: dict[str, Any]
    labels: tuple[str, ...]
    params: Params


@dataclass(frozen=True)
class SentenceVectors:
    """How an encoder makes a vector of a text.

    Attributes:
      pooling: of the tokens, specials included: their mean, the first, or the greatest value of each unit.
      layer: whose output is pooled, counted from 1; 0: the last.
      normalise: to length 1.
      prompts: name → what is put before a text ("query" → "query: "), as it was in training.
      dimensions: the first so many are kept, before vectors are normalised (Kusupati et al. 2022); 0: all.
    """

    pooling: Pooling = "mean"
    layer: int = 0
    normalise: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    dimensions: int = 0


@dataclass(frozen=True)
class Pretrained:
    """An encoder with its weights.

    Attributes:
      model: its shape.
      params: embedding, layers and, where the model has them, head (the output layer) and pooler: NumPy arrays, or JAX
        arrays on a mesh.
      vocabulary: of its tokens.
      languages: in the order of language ids; those of a model without language embeddings may be unknown.
      source: where it comes from, for messages.
      step: of the checkpoint or fine-tuned model; 0 where it was imported.
      head: of a fine-tuned encoder.
      trained: the longest text that it was trained on, in tokens; 0: unknown, then as long as its positions.
      dtype: that it computes in, as `make_encoder` has it.
      vectors: that it was trained to make of texts; None: none are known.
    """

    model: cfg.Model
    params: Params
    vocabulary: Vocabulary
    languages: tuple[str, ...]
    source: str
    step: int = 0
    head: FinetunedHead | None = None
    trained: int = 0
    dtype: str = "auto"
    vectors: SentenceVectors | None = None

    def encoder(self, dtype: str = "", layers: int | None = None) -> Encoder:
        """The module whose parameters `params` are, to be run and not trained; arguments as in `make_encoder`, by default its own dtype."""
        of, languages = self.model, len(self.languages)
        return make_encoder(of, self.vocabulary.size, languages, dtype or self.dtype, layers, training=False)


def parameter_shardings(model: cfg.Model, mesh: jax.sharding.Mesh) -> dict[str, jax.sharding.NamedSharding]:
    """Where each parameter of an encoder lies on a mesh, by its path ("layers/attention/qkv_kernel")."""
    return _flat_shardings(mesh, boxed_shapes(make_encoder(model, 1)))


def head_shardings(model: cfg.Model, mesh: jax.sharding.Mesh) -> dict[str, jax.sharding.NamedSharding]:
    """The same of a task's head, whichever it has; what else is trained with a head (a CRF's transitions) is copied."""
    found: dict[str, jax.sharding.NamedSharding] = {}
    for transform in TRANSFORMS:
        head = TaskHead(model, 1, transform, 0.0, jnp.dtype(jnp.float32))
        vectors = jnp.zeros((1, 1, model.width))
        found |= _flat_shardings(mesh, jax.eval_shape(head.init, jax.random.key(0), vectors)["params"])
    return found


def _flat_shardings(mesh: jax.sharding.Mesh, boxed: Any) -> dict[str, jax.sharding.NamedSharding]:
    return traverse_util.flatten_dict(meshes.shardings(mesh, boxed), sep="/")


def abstract_params(shapes: Params, model: cfg.Model, mesh: jax.sharding.Mesh | None) -> Params:
    """The shapes of an encoder's parameters with where they lie on a mesh; None: as they are, for the host.

    Raises:
      UserError: a parameter does not divide over the devices.
    """
    if mesh is None:
        return shapes
    shardings = parameter_shardings(model, mesh)

    def on_mesh(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        refuse_uneven(leaf.shape, name, shardings[name])
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])

    return jax.tree_util.tree_map_with_path(on_mesh, shapes)


def place(pretrained: Pretrained, mesh: jax.sharding.Mesh) -> Pretrained:
    """The same on a mesh: each parameter lies as the mesh's rules say, split wherever they split it.

    Raises:
      UserError: a parameter does not divide over the devices.
    """
    params = _place(pretrained.params, parameter_shardings(pretrained.model, mesh), mesh)
    head = pretrained.head
    if head is not None:
        head = dataclasses.replace(head, params=_place(head.params, head_shardings(pretrained.model, mesh), mesh))
    return dataclasses.replace(pretrained, params=params, head=head)


def _place(params: Params, shardings: dict[str, jax.sharding.NamedSharding], mesh: jax.sharding.Mesh) -> Params:
    flat = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict({name: put(x, name, shardings, mesh) for name, x in flat.items()}, sep="/")


def put(
    array: np.ndarray | jax.Array,
    name: str,
    shardings: dict[str, jax.sharding.NamedSharding],
    mesh: jax.sharding.Mesh,
) -> jax.Array:
    """A parameter on a mesh, each device's part copied alone: [...] → the same shape and dtype.

    Args:
      shardings: by name; a parameter that is not there is copied to every device.

    Raises:
      UserError: it does not divide over the devices.
    """
    sharding = shardings.get(name) or jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    refuse_uneven(array.shape, name, sharding)
    if isinstance(array, jax.Array):
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def refuse_uneven(shape: tuple[int, ...], name: str, sharding: jax.sharding.NamedSharding) -> None:
    """Refuse a mesh that a parameter does not divide over.

    Raises:
      UserError: naming the parameter, its shape and the mesh's axes.
    """
    try:
        sharding.shard_shape(shape)
    except ValueError as e:
        axes = ", ".join(f"{axis} {size}" for axis, size in sharding.mesh.shape.items() if size > 1)
        raise UserError(f"mesh: {name} of shape {list(shape)} does not divide over {axes}; use other sizes") from e


def to_host(array: np.ndarray | jax.Array) -> np.ndarray:
    """A whole array on the host, gathered from the devices that hold its parts; every process has to call it.

    Returns:
      The shape and dtype of `array`, [...].
    """
    if isinstance(array, np.ndarray):
        return array
    if not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    # Of a copy, because an array keeps what was once read of it.
    return np.asarray(jnp.copy(array))


def host_parts(array: np.ndarray | jax.Array, name: str) -> Iterator[np.ndarray]:
    """A parameter on the host; one that is stacked over layers a layer at a time, so that no more is gathered at once.

    Yields:
      Parts that follow one another along the first axis, [1, ...] per layer or the whole, of the dtype of `array`.
    """
    if isinstance(array, np.ndarray) or "layers" not in name.split("/"):
        yield to_host(array)
    else:
        yield from (to_host(array[layer])[None] for layer in range(len(array)))
