# SPDX-License-Identifier: Apache-2.0
"""Meshes of eight devices, and what lies on them."""

import math

import jax

from mlm_jax.config import Mesh
from mlm_jax.mesh import make_mesh

MESHES = {
    "data 8": Mesh(data=8),
    "fsdp 8": Mesh(data=1, fsdp=8),
    "fsdp 4 x tensor 2": Mesh(data=1, fsdp=4, tensor=2),
}


def one_device():
    return make_mesh(Mesh(), devices=jax.devices()[:1])


def shard_bytes(params):
    """Bytes of a tree on each device, by the arrays' shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * 4 for leaf in jax.tree.leaves(params))


def whole_bytes(params):
    return sum(leaf.size * 4 for leaf in jax.tree.leaves(params))


def buffers(device):
    """Address → bytes of every array on a device; an array and its shards share one."""
    shards = [s.data for array in jax.live_arrays() for s in array.addressable_shards if s.device == device]
    return {shard.unsafe_buffer_pointer(): shard.nbytes for shard in shards}
