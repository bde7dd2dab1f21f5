# SPDX-License-Identifier: Apache-2.0
"""Flash attention with this project's dropout: no array of all scores, forwards or backwards (Dao 2023, FlashAttention-2).

Scores are computed tile by tile (queries × keys), in the forward pass and again in the backward pass, which is given the output
and the logarithm of each query's sum. What dropout keeps is a hash of a score's number (`dropout.dropout`), so a tile makes
its own bits, and they are those of the plain products on every backend and mesh.

One body serves TPUs (Mosaic) and NVIDIA GPUs (Triton). They differ in two things:

    mirrored  TPUs: a tile is [head, tokens] in memory, and scores are [keys, queries]. A head of 64 would fill half of the 128
              lanes that arrays are padded to, and a query's maximum and sum are taken across registers instead of within them.
              GPUs: [tokens, head] and [queries, keys], so that a warp has whole rows.
    backward  TPUs run a grid in order, so the kernel of keys and values sums the queries' gradient on its way. On GPUs, which
              do not, that is a kernel of its own, which computes the scores once more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

GOLDEN = 0x9E3779B9  # of `dropout`
LOG2E = float(np.log2(np.e))
LOW = -0.7 * float(np.finfo(np.float32).max)  # a score that is not seen; not -inf, whose differences are NaN

Ref = Any  # what a kernel reads and writes


@dataclass(frozen=True)
class Settings:
    """What the kernels' programs depend on.

    Attributes:
      length: of the blocks, before they are padded to whole tiles.
      scale: of the scores.
      causal: nobody sees a later token.
      local: there is a window.
      rate: of dropout.
      queries, keys: tokens of a tile.
      mirrored, interpret: see above and `flash`.
    """

    length: int
    scale: float
    causal: bool
    local: bool
    rate: float
    queries: int
    keys: int
    mirrored: bool
    interpret: bool

    @property
    def axis(self) -> int:
        """Along which queries lie in a tile of scores, and tokens in a tile of vectors."""
        return 1 if self.mirrored else 0


def flash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array,
    seeds: jax.Array | None,
    window: jax.Array | None = None,
    first_head: jax.Array | int = 0,
    *,
    causal: bool = False,
    rate: float = 0.0,
    mirrored: bool = True,
    interpret: bool = False,
) -> jax.Array:
    """softmax(q · k / sqrt(head)) · v of the rows and heads of one device.

    Args:
      query, key, value: [batch, heads, length, head], float32 or bfloat16.
      segment_ids: not negative, int32 [batch, length]; a token sees those of its own number.
      seeds: dropout's keys for this site of the network, uint32 [batch]; None: no dropout.
      window: tokens seen to either side, int32 []; None: all.
      first_head: the first head's number among those of all devices, int32 [].
      rate: of dropout, below 1.
      mirrored: the program for a TPU; else that for a GPU.
      interpret: it is interpreted and not compiled.

    Returns:
      [batch, heads, length, head] in the dtype of `value`; scores, softmax and sums are float32.
    """
    *_, length, head = query.shape
    tile = tile_size(length, mirrored)
    settings = Settings(
        length=length,
        scale=head**-0.5,
        causal=causal,
        local=window is not None,
        rate=0.0 if seeds is None else rate,
        queries=tile,
        keys=tile,
        mirrored=mirrored,
        interpret=interpret,
    )
    longer = -length % tile
    # Triton's arrays are powers of two, and its products at least 16 wide. Zeros add nothing to a score.
    wider = 0 if mirrored else max(16, 1 << (head - 1).bit_length()) - head
    arrays = [jnp.pad(x, ((0, 0), (0, 0), (0, longer), (0, wider))) for x in (query, key, value)]
    if mirrored:
        arrays = [jnp.swapaxes(x, 2, 3) for x in arrays]
    # What fills the last tile sees itself alone.
    ids = jnp.pad(segment_ids, ((0, 0), (0, longer)), constant_values=-1)
    numbers = jnp.stack([jnp.int32(length) if window is None else window, jnp.int32(first_head)])
    bits = jnp.zeros(len(ids), jnp.int32) if seeds is None else jax.lax.bitcast_convert_type(seeds, jnp.int32)
    out = _attention(settings, numbers, bits, ids, *arrays)
    return (jnp.swapaxes(out, 2, 3) if mirrored else out)[:, :, :length, :head]


def tile_size(length: int, mirrored: bool) -> int:
    """Tokens of a tile's side.

    On a TPU as large as wastes no padding: scores of 512 × 512 are 1 MiB of a core's memory in float32, and each pass over them is
    long against what it costs to begin one. On a GPU scores and sums lie in registers.
    """
    if not mirrored:
        return 64
    padded = -(-length // 128) * 128
    return next(size for size in (512, 384, 256, 128) if padded % size == 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    settings: Settings,
    numbers: jax.Array,
    seeds: jax.Array,
    ids: jax.Array,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> jax.Array:
    """Attention of whole tiles.

    Args:
      numbers: the window, and the first head's number, int32 [2].
      seeds: int32 [batch].
      ids: int32 [batch, length].
      query, key, value: [batch, heads, length, head], mirrored [batch, heads, head, length].

    Returns:
      As `value`.
    """
    return _forward(settings, numbers, seeds, ids, query, key, value)[0]


def _attention_forward(settings: Settings, *given: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out, sums = _forward(settings, *given)
    return out, (*given, out, sums)


def _attention_backward(settings: Settings, kept: tuple[jax.Array, ...], slope: jax.Array) -> tuple[Any, ...]:
    return None, None, None, *_backward(settings, kept, slope)


_attention.defvjp(_attention_forward, _attention_backward)


def _forward(
    settings: Settings,
    numbers: jax.Array,
    seeds: jax.Array,
    ids: jax.Array,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The output, as `value`, and the binary logarithm of each query's sum, float32 [batch, heads, 1, length]."""
    bounds = _visited(settings, ids, numbers[0], of_queries=True)
    tile, whole, row, _ = _blocks(settings, query, settings.queries)
    sums = jax.ShapeDtypeStruct((*query.shape[:2], 1, ids.shape[1]), jnp.float32)
    return _call(
        settings,
        "flash_forward",
        _forward_kernel,
        settings.queries,
        [(bounds, None), (numbers, None), (seeds, None), (ids, None), (query, tile), (key, whole), (value, whole)],
        [(value, tile), (sums, row)],
    )


def _backward(
    settings: Settings, kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of query, key and value, from what `_attention_forward` kept and the gradient of the output, `slope`."""
    numbers, seeds, ids, query, key, value, out, sums = kept
    # What the softmax takes off each score's gradient, [batch, heads, 1, length]. Factors of 1 / (1 - rate) come last in the kernels.
    head_axis = 2 if settings.mirrored else 3
    taken = jnp.sum(slope.astype(jnp.float32) * out.astype(jnp.float32), axis=head_axis) * (1 - settings.rate)
    taken = taken[:, :, None]
    common = [(numbers, None), (seeds, None), (ids, None)]

    bounds = _visited(settings, ids, numbers[0], of_queries=False)
    tile, whole, _, whole_row = _blocks(settings, key, settings.keys)
    read = [(bounds, None), *common, (query, whole), (key, tile), (value, tile), (slope, whole)]
    read += [(sums, whole_row), (taken, whole_row)]
    if settings.mirrored:
        # Its block is the whole length, which stays where it is from one tile of keys to the next.
        sum_of_query = pltpu.VMEM(query.shape[2:], jnp.float32)
        written = [(key, tile), (value, tile), (query, whole)]
        dk, dv, dq = _call(settings, "flash_backward", _backward_kernel, settings.keys, read, written, [sum_of_query])
        return dq, dk, dv
    dk, dv = _call(settings, "flash_dkv", _backward_kernel, settings.keys, read, [(key, tile), (value, tile)])

    bounds = _visited(settings, ids, numbers[0], of_queries=True)
    tile, whole, row, _ = _blocks(settings, query, settings.queries)
    read = [
        (bounds, None),
        *common,
        (query, tile),
        (key, whole),
        (value, whole),
        (slope, tile),
        (sums, row),
        (taken, row),
    ]
    (dq,) = _call(settings, "flash_dq", _query_kernel, settings.queries, read, [(query, tile)])
    return dq, dk, dv


def _visited(settings: Settings, ids: jax.Array, window: jax.Array, of_queries: bool) -> jax.Array:
    """The tiles that hold all that a tile sees, or all by whom it is seen.

    Args:
      ids: int32 [batch, length].
      of_queries: which tiles of keys each tile of queries visits; else which of queries each of keys does.

    Returns:
      The first and the one after the last, int32 [batch, tiles, 2].
    """

    def edges(size: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Lowest and highest segment, [batch, tiles], and first and last place, [tiles], of each tile."""
        parts = ids.reshape(len(ids), -1, size)
        first = jnp.arange(parts.shape[1]) * size
        return parts.min(-1), parts.max(-1), first, first + size - 1

    q_low, q_high, q_first, q_last = edges(settings.queries)
    k_low, k_high, k_first, k_last = edges(settings.keys)
    # [batch, tiles of queries, tiles of keys]
    meet = (q_low[:, :, None] <= k_high[:, None]) & (k_low[:, None] <= q_high[:, :, None])
    if settings.local:
        near = (k_first[None] <= q_last[:, None] + window) & (q_first[:, None] <= k_last[None] + window)
        meet &= near[None]
    if settings.causal:
        meet &= (k_first[None] <= q_last[:, None])[None]
    if not of_queries:
        meet = jnp.swapaxes(meet, 1, 2)
    end = meet.shape[2] - jnp.argmax(meet[:, :, ::-1], axis=2)
    return jnp.stack([jnp.argmax(meet, axis=2), end], axis=-1).astype(jnp.int32)


# ---- What a kernel is called with: the grid is (batch, heads, tiles).


def _blocks(settings: Settings, x: jax.Array, size: int) -> tuple[pl.BlockSpec, ...]:
    """What a program sees of an array like `x`: a tile of it or all its tokens; and of a number per token [.., 1, length], the same."""
    _, _, *shape = x.shape
    length = shape[settings.axis]
    tile = list(shape)
    tile[settings.axis] = size
    at = (lambda b, h, t: (b, h, 0, t)) if settings.mirrored else (lambda b, h, t: (b, h, t, 0))
    return (
        pl.BlockSpec((None, None, *tile), at),
        pl.BlockSpec((None, None, *shape), lambda b, h, t: (b, h, 0, 0)),
        pl.BlockSpec((None, None, 1, size), lambda b, h, t: (b, h, 0, t)),
        pl.BlockSpec((None, None, 1, length), lambda b, h, t: (b, h, 0, 0)),
    )


def _call(
    settings: Settings,
    name: str,
    kernel: Callable[..., None],
    tile: int,
    read: Sequence[tuple[jax.Array, pl.BlockSpec | None]],
    written: Sequence[tuple[Any, pl.BlockSpec]],
    scratch: Sequence[Any] = (),
) -> Any:
    """Run a kernel on each tile of each head of each row.

    Args:
      read: arrays with what a program sees of each: first `bounds`, `numbers`, `seeds` and `ids`, which have none.
      written: as `read`, of what has the shape and dtype of an array.
      scratch: memory of a core.
    """
    (bounds, _), (numbers, _), (seeds, _), (ids, _), *blocked = read
    grid = (*blocked[0][0].shape[:2], ids.shape[1] // tile)
    small = pl.BlockSpec(memory_space=pltpu.SMEM) if settings.mirrored else pl.BlockSpec()
    segments = pl.BlockSpec((None, 1, ids.shape[1]), lambda b, h, t: (b, 0, 0))
    if settings.mirrored:
        parameters: Any = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"))
    else:
        # Not at the top: it needs Triton's part of jaxlib, which not every build has.
        from jax.experimental.pallas import triton as plgpu

        parameters = plgpu.CompilerParams(num_warps=4, num_stages=2)
    return pl.pallas_call(
        functools.partial(kernel, settings),
        name=name,
        grid=grid,
        in_specs=[small, small, small, segments, *(block for _, block in blocked)],
        out_specs=[block for _, block in written],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in written],
        scratch_shapes=scratch,
        compiler_params=parameters,
        interpret=settings.interpret,
    )(bounds, numbers, seeds, ids[:, None], *(x for x, _ in blocked))


# ---- The kernels. Shapes are not mirrored in comments.


def _forward_kernel(
    settings: Settings,
    bounds: Ref,
    numbers: Ref,
    seeds: Ref,
    ids: Ref,
    query: Ref,
    key: Ref,
    value: Ref,
    out: Ref,
    sums: Ref,
) -> None:
    """A tile of queries visits tiles of keys."""
    scores = _Scores(settings, numbers, seeds, ids)
    keys = 1 - settings.axis  # the axis of scores along which they lie
    start = scores.tile * settings.queries
    q = query[...]

    def visit(number: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        most, total, mixed = carry  # [queries, 1] twice, [queries, head]
        at = number * settings.keys
        k, v = _take(settings, key, at, settings.keys), _take(settings, value, at, settings.keys)
        score = scores.seen(q, k, start, at)
        higher = jnp.maximum(most, jnp.max(score, axis=keys, keepdims=True))
        shrink, weight = jnp.exp2(most - higher), jnp.exp2(score - higher)
        # Before dropout, which comes after the softmax.
        total = total * shrink + jnp.sum(weight, axis=keys, keepdims=True)
        if settings.rate:
            weight = jnp.where(scores.kept(start, at), weight, 0.0)
        return higher, total, mixed * shrink + _product(settings, weight.astype(v.dtype), v, 1, 0)

    column = (1, settings.queries) if settings.mirrored else (settings.queries, 1)
    first = (jnp.full(column, LOW, jnp.float32), jnp.zeros(column, jnp.float32), jnp.zeros(q.shape, jnp.float32))
    most, total, mixed = scores.visits(bounds, key, settings.keys, visit, first)
    out[...] = (mixed * (1 / (1 - settings.rate) / total)).astype(out.dtype)
    sums[...] = _turn(most + jnp.log2(total), settings.axis == 0)


def _backward_kernel(
    settings: Settings,
    bounds: Ref,
    numbers: Ref,
    seeds: Ref,
    ids: Ref,
    query: Ref,
    key: Ref,
    value: Ref,
    slope: Ref,
    sums: Ref,
    taken: Ref,
    key_slope: Ref,
    value_slope: Ref,
    query_slope: Ref = None,
    query_sum: Ref = None,
) -> None:
    """A tile of keys visits tiles of queries, and on a TPU adds its part to their gradient."""
    scores = _Scores(settings, numbers, seeds, ids)
    start = scores.tile * settings.keys
    k, v = key[...], value[...]
    if query_sum is not None:

        @pl.when(scores.tile == 0)
        def _() -> None:
            query_sum[...] = jnp.zeros(query_sum.shape, jnp.float32)

    def visit(number: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        k_sum, v_sum = carry  # [keys, head]
        at = number * settings.queries
        q, d = _take(settings, query, at, settings.queries), _take(settings, slope, at, settings.queries)
        total, less = (_turn(_row(x, at, settings.queries), settings.axis == 0) for x in (sums, taken))
        weight, score_slope = scores.slopes(q, k, v, d, total, less, at, start)
        v_sum += _product(settings, weight.astype(d.dtype), d, 0, 0)
        k_sum += _product(settings, score_slope.astype(q.dtype), q, 0, 0)
        if query_sum is not None:
            place = _place(settings, at, settings.queries)
            query_sum[place] += _product(settings, score_slope.astype(k.dtype), k, 1, 0)
        return k_sum, v_sum

    first = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    k_sum, v_sum = scores.visits(bounds, query, settings.queries, visit, first)
    back = 1 / (1 - settings.rate)
    key_slope[...] = (k_sum * (settings.scale * back)).astype(key_slope.dtype)
    value_slope[...] = (v_sum * back).astype(value_slope.dtype)
    if query_sum is not None:

        @pl.when(scores.tile == pl.num_programs(2) - 1)
        def _() -> None:
            query_slope[...] = (query_sum[...] * (settings.scale * back)).astype(query_slope.dtype)


def _query_kernel(
    settings: Settings,
    bounds: Ref,
    numbers: Ref,
    seeds: Ref,
    ids: Ref,
    query: Ref,
    key: Ref,
    value: Ref,
    slope: Ref,
    sums: Ref,
    taken: Ref,
    query_slope: Ref,
) -> None:
    """A tile of queries visits tiles of keys again, for its gradient."""
    scores = _Scores(settings, numbers, seeds, ids)
    start = scores.tile * settings.queries
    q, d = query[...], slope[...]
    total, less = _turn(sums[...], settings.axis == 0), _turn(taken[...], settings.axis == 0)

    def visit(number: jax.Array, q_sum: jax.Array) -> jax.Array:
        at = number * settings.keys
        k, v = _take(settings, key, at, settings.keys), _take(settings, value, at, settings.keys)
        _, score_slope = scores.slopes(q, k, v, d, total, less, start, at)
        return q_sum + _product(settings, score_slope.astype(k.dtype), k, 1, 0)

    q_sum = scores.visits(bounds, key, settings.keys, visit, jnp.zeros(q.shape, jnp.float32))
    query_slope[...] = (q_sum * (settings.scale / (1 - settings.rate))).astype(query_slope.dtype)


class _Scores:
    """The scores of one head of one row, tile by tile, within a kernel. `q_at` and `k_at` are a tile's first query and key."""

    def __init__(self, settings: Settings, numbers: Ref, seeds: Ref, ids: Ref) -> None:
        self.settings, self.numbers, self.ids = settings, numbers, ids
        self.row, self.tile = pl.program_id(0), pl.program_id(2)
        self.head = pl.program_id(1) + numbers[1]
        self.seed = seeds[self.row]

    def visits(self, bounds: Ref, others: Ref, size: int, visit: Callable[..., Any], first: Any) -> Any:
        """`visit` (number of a tile, carry) each tile of `size` of the tokens of `others` within this program's bounds."""
        if others.shape[self.settings.axis] == size:
            return visit(jnp.int32(0), first)  # no loop, whose turns the compiler does not weave into each other
        return jax.lax.fori_loop(bounds[self.row, self.tile, 0], bounds[self.row, self.tile, 1], visit, first)

    def places(self, q_at: jax.Array, k_at: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Places in the block: int32 [queries, 1] and [1, keys]."""
        settings = self.settings
        shape = [1, 1]
        shape[settings.axis] = settings.queries
        queries = q_at + jax.lax.broadcasted_iota(jnp.int32, shape, settings.axis)
        shape = [1, 1]
        shape[1 - settings.axis] = settings.keys
        return queries, k_at + jax.lax.broadcasted_iota(jnp.int32, shape, 1 - settings.axis)

    def seen(self, q: jax.Array, k: jax.Array, q_at: jax.Array, k_at: jax.Array) -> jax.Array:
        """Scores in units of log 2, as exp2 is what the hardware has, and `LOW` where a query sees no key: [queries, keys]."""
        settings = self.settings
        q_ids = _turn(_row(self.ids, q_at, settings.queries), settings.axis == 0)
        k_ids = _turn(_row(self.ids, k_at, settings.keys), settings.axis == 1)
        visible = q_ids == k_ids
        queries, keys = self.places(q_at, k_at)
        if settings.local:
            visible &= jnp.abs(queries - keys) <= self.numbers[0]
        if settings.causal:
            visible &= queries >= keys
        return jnp.where(visible, _product(settings, q, k, 1, 1) * (settings.scale * LOG2E), LOW)

    def kept(self, q_at: jax.Array, k_at: jax.Array) -> jax.Array:
        """What dropout keeps, bool [queries, keys]: bit for bit that of `dropout.dropout` for a row's [heads, length, length].

        In int32, since Mosaic has no unsigned comparisons: products and sums are the same bits.
        """
        length = self.settings.length
        queries, keys = self.places(q_at, k_at)
        # The number of a score times the constant, from two vectors.
        golden = _int32(GOLDEN)
        of_queries = (self.head * _int32(length * length) + queries * length) * golden
        bits = (of_queries + keys * golden) ^ self.seed
        bits = (bits ^ _shifted(bits, 16)) * _int32(0x7FEB352D) ^ (self.seed * golden)
        bits = (bits ^ _shifted(bits, 15)) * _int32(0x846CA68B)
        bits = bits ^ _shifted(bits, 16)
        # With the highest bit turned the order of int32 is that of uint32.
        return bits ^ _int32(1 << 31) >= _int32(round(self.settings.rate * 2**32) ^ 1 << 31)

    def slopes(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        slope: jax.Array,
        total: jax.Array,
        taken: jax.Array,
        q_at: jax.Array,
        k_at: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The weights that dropout left, and the gradient of the scores, both (1 - rate) times what they are: [queries, keys].

        Args:
          q, slope: [queries, head]; the latter of the output.
          k, v: [keys, head].
          total, taken: [queries, 1], see `_backward`.
        """
        weight = jnp.exp2(self.seen(q, k, q_at, k_at) - total)
        weight_slope = _product(self.settings, slope, v, 1, 1)
        left = weight
        if self.settings.rate:
            kept = self.kept(q_at, k_at)
            left, weight_slope = jnp.where(kept, weight, 0.0), jnp.where(kept, weight_slope, 0.0)
        return left, weight * (weight_slope - taken)


def _int32(bits: int) -> np.int32:
    """The int32 with these bits."""
    return np.uint32(bits % 2**32).view(np.int32)


def _shifted(x: jax.Array, places: int) -> jax.Array:
    """Bits moved to the right, zeros coming from the left."""
    return jax.lax.shift_right_logical(x, jnp.full(x.shape, places, x.dtype))


def _product(settings: Settings, left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """A matrix product over one axis of each, summed in float32; of mirrored matrices the mirrored product."""
    if settings.mirrored:
        left, right, left_axis, right_axis = right, left, 1 - right_axis, 1 - left_axis
    dimensions = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)


def _take(settings: Settings, ref: Ref, start: jax.Array, size: int) -> jax.Array:
    """A tile of an array's tokens, [size, head]."""
    return ref[_place(settings, start, size)]


def _place(settings: Settings, start: jax.Array, size: int) -> tuple[Any, Any]:
    """Where a tile of tokens lies in an array of all."""
    tokens = pl.ds(pl.multiple_of(start, size), size)
    return (slice(None), tokens) if settings.mirrored else (tokens, slice(None))


def _row(ref: Ref, start: jax.Array, size: int) -> jax.Array:
    """A tile of numbers, one per token: [1, size]."""
    return ref[:, pl.ds(pl.multiple_of(start, size), size)]


def _turn(row: jax.Array, turned: bool) -> jax.Array:
    """A row as a column, or a column as a row, if `turned`."""
    return row.T if turned else row
