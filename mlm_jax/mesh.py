# SPDX-License-Identifier: Apache-2.0
"""Devices, and which of them hold what: the only place that knows mesh axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mlm_jax import config as cfg
from mlm_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Logical axis → mesh axes. Activations have names of their own, or splitting `embed` would shard them too.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    # Activations, [act_batch, act_length, act_embed], [.., act_heads, act_length, act_head] and [.., act_length, act_mlp].
    ("act_batch", ("data", "fsdp")),  # every device works on its own rows
    ("act_length", None),
    ("act_embed", None),
    ("act_heads", "tensor"),
    ("act_head", None),
    ("act_mlp", "tensor"),
    # Embeddings, [vocab, embed], [position, embed_small] and their like; output bias, [vocab].
    ("vocab", "tensor"),
    ("position", None),
    ("token_type", None),
    ("language", None),
    ("embed", "fsdp"),
    (
        "embed_small",
        None,
    ),  # of small embeddings: sharded by width, a look-up would bring all rows of the batch together
    # Kernels of the layers, [layers, embed, qkv, heads, head], [layers, heads, head, embed], [layers, embed, half, mlp],
    # [layers, mlp, embed]; norms, [layers, norm].
    ("layers", None),  # each device has a part of every layer: a scan takes them one after the other
    ("qkv", None),
    ("heads", "tensor"),
    ("head", None),
    ("half", None),
    ("mlp", "tensor"),
    ("norm", None),
    # Kernels of heads, [embed, embed_out] and [embed, class].
    ("embed_out", None),  # their input axis is `embed`
    ("class", None),
)


def make_mesh(config: cfg.Mesh, batch_size: int = 0, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a run.

    Of several TPU slices each holds a part of the data axis: gradients alone cross the network between them.

    Args:
      config: devices per axis; -1 takes what is left.
      batch_size: blocks that are computed at once, over all devices; 0: as many as divide over them.
      devices: all there are unless given.

    Raises:
      UserError: the axes do not multiply to the devices, the batch does not divide over them, or the slices are
        others than the config says.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [config.data, config.fsdp, config.tensor]
    fixed = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if int(np.prod(sizes)) != len(devices):
        asked = ", ".join(f"{name} {size}" for name, size in zip(AXES, sizes, strict=True))
        raise UserError(f"mesh: {asked} do not multiply to the {len(devices)} devices; set one of them to -1")
    over = sizes[0] * sizes[1]
    if batch_size % over:
        raise UserError(
            f"train.batch_size: {batch_size} blocks at once (batch_size / accumulate) do not divide over "
            f"{over} devices (mesh.data x mesh.fsdp); use a multiple of {over}"
        )
    kinds = (AxisType.Auto,) * len(AXES)
    # GPUs have slice numbers too, of hosts; their network is one.
    # TPUs of a single slice may have none.
    found = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if found != config.slices:
        raise UserError(f"mesh.slices: {config.slices}, but the devices are of {found} slices; set it to {found}")
    if found == 1:
        return jax.make_mesh(tuple(sizes), AXES, devices=devices, axis_types=kinds)
    if sizes[0] % found:
        raise UserError(f"mesh.data: {sizes[0]} does not divide over {found} slices; use a multiple of {found}")
    inside, across = (sizes[0] // found, *sizes[1:]), (found, 1, 1)
    return Mesh(mesh_utils.create_hybrid_device_mesh(inside, across, devices), AXES, axis_types=kinds)


@contextmanager
def mesh_context(mesh: Mesh) -> Iterator[None]:
    """The context in which everything that is traced for a mesh has to be traced."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def on_own_rows(function: Callable[..., Any], mesh: Mesh, dtype: Any) -> Callable[..., Any]:
    """The function of a batch that sums over the data axis, once, what `function` computes of the rows of each of its devices.

    Within, `data` is no axis any more: what the compiler shards over fsdp and tensor it still does.

    Args:
      function: (arrays that every device has, batch of [rows, ...]) → (tree to sum in `dtype`, tree to sum in its own types).
      dtype: of what crosses the links; the sums have the type that they had.

    Returns:
      The function of whole arrays, [rows, ...], with the same trees.
    """
    if mesh.shape["data"] == 1:
        return function
    # XLA's CPU backend ends the process where such a sum is of bfloat16 (jax 0.10.2); what is rounded it sums in float32 anyway.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    others = tuple((name, "fsdp" if axes == ("data", "fsdp") else axes) for name, axes in RULES)

    def part(shared: Any, batch: Any) -> Any:
        with nn.logical_axis_rules(others):
            large, small = function(shared, batch)
        rounded = jax.tree.map(lambda x: x.astype(dtype).astype(x.dtype if on_cpu else dtype), large)
        summed = jax.lax.psum((rounded, small), "data")
        return jax.tree.map(lambda x, like: x.astype(like.dtype), summed, (large, small))

    specs = PartitionSpec(), PartitionSpec("data")
    return jax.shard_map(part, in_specs=specs, out_specs=PartitionSpec(), axis_names={"data"}, check_vma=False)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where the arrays of a batch, [batch, ...], lie: rows over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def shardings(mesh: Mesh, boxed: Any) -> Any:
    """Where each leaf of a tree with logical axes (flax boxes, shapes suffice) lies; unboxed leaves are copied.

    Raises:
      ValueError: a leaf has a logical axis that has no rule.
    """
    known = {name for name, _ in RULES}

    def without_empty(leaf: Any) -> Any:
        """A box without an array, as optax leaves of what it masks out, has no place either."""
        return leaf if jax.tree.leaves(leaf) else nn.meta.unbox(leaf)

    boxed = jax.tree.map(without_empty, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
    specs = nn.get_partition_spec(boxed)
    for spec in jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, PartitionSpec)):
        unknown = {name for name in spec if name is not None} - known
        if unknown:
            raise ValueError(f"logical axes without a rule: {', '.join(sorted(unknown))}")
    return nn.logical_to_mesh_sharding(specs, mesh, RULES)
