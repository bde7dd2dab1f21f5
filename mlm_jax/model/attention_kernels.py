# SPDX-License-Identifier: Apache-2.0
"""What a query sees of the values, softmax(q · k / sqrt(head)) · v, by the fastest program there is for it here.

    xla     everywhere, and what the others are compared with
    flash   TPUs and NVIDIA GPUs: ours (`flash.py`), with dropout, whose bits are those of the plain products
    cudnn   NVIDIA GPUs: cuDNN's flash attention, in bfloat16; borders and windows are a bias, [batch, 1, length, length]

Pallas kernels run interpreted, which is very slow, where their hardware is missing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.model.dropout import dropout, site_keys
from mlm_jax.model.flash import flash
from mlm_jax.model.products import FLOAT32, product

TILE = 128  # tokens: blocks are filled up to a multiple of it in flash attention on a TPU


def platform() -> str:
    """What is traced for: the devices of the mesh in context, which may be of another machine, or what is here."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def choose(config: cfg.Model, dtype: jnp.dtype, length: int, dropped: bool) -> str:
    """The kernel of a model on this platform.

    Args:
      dtype: compute type.
      length: of the blocks.
      dropped: whether attention's dropout is on.

    Returns:
      xla, flash or cudnn.

    Raises:
      UserError: `config.attention` asks for one that cannot do this.
    """
    here, head = platform(), config.width // config.heads
    on_gpu = here in ("gpu", "cuda")
    # A run of before, which is read and not trained on, may name one that is no more.
    wanted = "auto" if config.attention in cfg.FORMER_ATTENTION else config.attention
    # What keeps each kernel from computing this.
    against = {
        "xla": "",
        "flash": f"needs heads of at most 128 on a GPU, not {head}" if on_gpu and head > 128 else "",
        "cudnn": "runs on NVIDIA GPUs only"
        if not on_gpu
        else "computes in bfloat16 only; set model.dtype bfloat16"
        if dtype != jnp.bfloat16
        else f"needs heads of a multiple of 8, at most 128, not {head}"
        if head % 8 or head > 128
        else "needs an even data.sequence_length"
        if length % 2
        else "",
    }
    if dropped:
        against["cudnn"] = "has no dropout; set model.attention_dropout 0"
    if wanted != "auto":
        if against[wanted]:
            raise UserError(f"model.attention: {wanted} {against[wanted]}; or set model.attention auto")
        return wanted
    # The scores of short blocks are few, and would be filled up to a tile.
    fast = ("cudnn", "flash") if on_gpu else ("flash",) if here == "tpu" else ()
    return next((kernel for kernel in fast if length >= TILE and not against[kernel]), "xla")


def is_kernel(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether a primitive is an attention kernel, whose backward pass reads what the forward one gives."""
    return primitive.name == "pallas_call" or primitive.name.startswith("dot_product_attention_fwd")


def attend(
    kernel: str,
    config: cfg.Model,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    context: dict[str, jax.Array],
    is_global: jax.Array,
    keys: jax.Array | None,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """Attention of all heads.

    Args:
      kernel: of `choose`.
      query, key, value: [batch, heads, length, head].
      context: of `attention.make_context`.
      is_global: whether the layer attends beyond its window, bool [].
      keys: dropout keys of this layer, uint32 [batch], or None.
      dtype: of the products' operands; None: that of `value`.

    Returns:
      [batch, heads, length, head], in the dtype of `value`; softmax and sums are float32.
    """
    if kernel == "xla":
        return xla(config, query, key, value, visible(context, is_global), keys, dtype)
    if dtype is not None and dtype != value.dtype:
        mixed = attend(
            kernel, config, query.astype(dtype), key.astype(dtype), value.astype(dtype), context, is_global, keys
        )
        return mixed.astype(value.dtype)
    rows, heads = nn.logical_to_mesh_axes(("act_batch", "act_heads")) or (None, None)
    meshless = jax.sharding.get_abstract_mesh().empty

    def local(query: jax.Array, key: jax.Array, value: jax.Array, *others: jax.Array) -> jax.Array:
        """One device's rows and heads: a Pallas kernel does not know how to shard itself, and cuDNN's not within `mesh.on_own_rows`."""
        if kernel == "cudnn":
            return cudnn(query, key, value, *others)
        segment_ids, is_global, *seeds = others
        # What dropout keeps depends on a head's number among all of them.
        first = 0 if meshless or heads is None else jax.lax.axis_index(heads) * query.shape[1]
        return ours(config, query, key, value, segment_ids, is_global, seeds[0] if seeds else None, first)

    of_rows, of_heads = jax.sharding.PartitionSpec(rows), jax.sharding.PartitionSpec(rows, heads)
    arrays, specs = [query, key, value], [of_heads] * 3
    if kernel == "cudnn":
        arrays, specs = [*arrays, visible(context, is_global)], [*specs, of_rows]
    else:
        arrays, specs = [*arrays, context["segment_ids"], is_global], [*specs, of_rows, jax.sharding.PartitionSpec()]
        if keys is not None:
            arrays, specs = [*arrays, site_keys(keys, 0)], [*specs, of_rows]
    if meshless:
        return local(*arrays)
    return jax.shard_map(local, in_specs=tuple(specs), out_specs=of_heads, check_vma=False)(*arrays)


def visible(context: dict[str, jax.Array], is_global: jax.Array) -> jax.Array:
    """Who sees whom in a layer: bool [batch, 1, length (of queries), length (of keys)]."""
    if "near" in context:
        return context["allowed"] & (context["near"] | is_global)
    return context["allowed"]


def xla(
    config: cfg.Model,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    seen: jax.Array,
    keys: jax.Array | None,
    dtype: jnp.dtype | None = None,
) -> jax.Array:
    """As written in Vaswani et al. 2017, section 3.2.1, with all scores in memory.

    Args:
      query, key, value: [batch, heads, length, head], activations.
      seen: bool [batch, 1, length, length].
      keys: dropout keys, uint32 [batch], or None.
      dtype: as in `attend`.

    Returns:
      [batch, heads, length, head] in the dtype of `value`.
    """
    # [batch, heads, length, length]: float32 scores, as bfloat16 has 8 bits for what exp() amplifies.
    dtype = value.dtype if dtype is None else dtype
    scores = product("bhqd,bhkd->bhqk", query, key, dtype, FLOAT32)
    # The lowest number and not -inf, which would give NaN to a row that sees nothing.
    scores = jnp.where(seen, scores * query.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    weights = dropout(weights, config.attention_dropout, None if keys is None else site_keys(keys, 0))
    # Named here and not by who calls: what a kernel gives is stored as it gives it.
    return checkpoint_name(product("bhqk,bhkd->bhqd", weights, value, dtype), "attended")


def ours(
    config: cfg.Model,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array,
    is_global: jax.Array,
    seeds: jax.Array | None,
    first_head: jax.Array | int,
) -> jax.Array:
    """Our flash attention on one device; the arguments are as in `attend` and `flash`.

    Returns:
      [batch, heads, length, head] in the dtype of `value`.
    """
    here = platform()
    return flash(
        query,
        key,
        value,
        segment_ids,
        seeds,
        None if config.global_every == 1 else jnp.where(is_global, query.shape[2], config.window // 2),
        first_head,
        causal=config.causal,
        rate=config.attention_dropout,
        mirrored=here not in ("gpu", "cuda"),
        interpret=here not in ("tpu", "gpu", "cuda"),
    )


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array) -> jax.Array:
    """cuDNN's flash attention on one device: [batch, heads, length, head] → the same.

    Args:
      seen: bool [batch, 1, length, length].
    """
    # cuDNN reads [batch, length, heads, head].
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    return jnp.swapaxes(jax.nn.dot_product_attention(query, key, value, mask=seen, implementation="cudnn"), 1, 2)
