# SPDX-License-Identifier: Apache-2.0
"""What `on_gpu.py` measures: each part is a function that reports rows, and runs in a process of its own.

A part reports a row as soon as it knows it, so that what it measured before it crashed, ran out of memory or was ended is not lost. Shapes:
XLM-R base at 512 tokens or, `tiny`, one that a CPU computes in seconds.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import embedding
import finetune
import step as steps
from step import Shape

Row = dict[str, Any]
Report = Callable[[Row], None]

ROOT = Path(__file__).resolve().parent.parent
TINY = Shape(2, 64, 2, 128, 128, 2, (1_000,), "cpu")
TINY_ENCODER = finetune.Encoder(2, 64, 2, 128, 1_000)
FIRST = 32  # blocks: the batch that every kernel is measured at, `plan` predicts and the CPU computes too
SIZES = (256, 192, 128, 96, 64, 48, FIRST, 24, 16, 8)  # blocks, from the top
TINY_SIZES = (4, 2)
OURS, FLASH, PLAIN = "mlm_jax", "flash", "xla"
WARMUP = 3


def kernels() -> list[str]:
    """Attention's kernels for GPUs, the most wanted first: those that the config knows."""
    import typing

    from mlm_jax import config as cfg
    from mlm_jax.fields import types_of

    known = [
        name
        for name in typing.get_args(types_of(cfg.Model)["attention"][0])
        if name not in ("auto", *cfg.FORMER_ATTENTION)
    ]
    return sorted(known, key=lambda name: (name != FLASH, name != PLAIN))


def shape_of(tiny: bool, **changes: Any) -> Shape:
    """XLM-R base with the config's own rematerialisation, or the tiny shape."""
    from mlm_jax.config import load_config

    remat = load_config(str(ROOT / "configs/xlmr_base.py")).model.remat
    first = TINY.batch if tiny else FIRST
    base = TINY if tiny else steps.SHAPES["xlmr_base"]
    return dataclasses.replace(base, **{"remat": remat, "batch": first, **changes})


def with_its_dropout(shape: Shape) -> Shape:
    """The shape without attention's dropout where the kernel has none."""
    import jax.numpy as jnp

    from mlm_jax.errors import UserError
    from mlm_jax.model.attention_kernels import choose

    model = steps.our_config(shape).model
    try:
        choose(model, jnp.dtype(jnp.bfloat16), shape.length, dropped=True)
    except UserError:
        return dataclasses.replace(shape, attention_dropout=0.0)
    return shape


# --- the training step


def our_steps(report: Report, tiny: bool, kernel: str) -> None:
    """The step with one kernel: at the first batch, and at the largest that fits, told by the compiler before it is run."""
    shape = with_its_dropout(shape_of(tiny, attention=kernel))
    limit = memory_limit()

    def run(size: int) -> tuple[float, float]:
        row, said = our_step_row(dataclasses.replace(shape, batch=size), tiny, limit)
        report({**row, "kernel": kernel})
        return said["arguments"], said["peak"]

    run_first_and_largest(tiny, shape.batch, limit, run)


def our_step_row(shape: Shape, tiny: bool, limit: float) -> tuple[Row, dict[str, float]]:
    """One run of our step, and what the compiler says of its memory.

    Raises:
      MemoryError: the compiled step needs more than there is.
    """
    began = time.perf_counter()
    vocabulary = shape.vocabularies[0]
    built = steps.our_step(shape, vocabulary)
    compiling = time.perf_counter() - began
    said = compiled_memory(built[0])
    if said["peak"] > limit:
        raise MemoryError(f"the step needs {said['peak'] / 1e9:.1f} GB of {limit / 1e9:.1f}")
    found = steps.ours(shape, vocabulary, WARMUP + timed_steps(tiny), built)
    return step_row(OURS, shape, found, compiling) | {"compiler_memory": said["peak"]}, said


def step_row(side: str, shape: Shape, found: Row, compiling: float) -> Row:
    """What is kept of a run of either side's step."""
    seconds = statistics.median(found["seconds"][WARMUP:])
    kept = ("memory", "loss", "gradient_norm", "device", "peak", "flops")
    return {
        "kind": "step",
        "side": side,
        "batch": shape.batch,
        "length": shape.length,
        "attention_dropout": shape.attention_dropout,
        "seconds": seconds,
        "tokens_per_second": shape.batch * shape.length / seconds,
        "compile_seconds": compiling,
        **{name: found[name] for name in kept if found.get(name) is not None},
    }


def their_steps(report: Report, tiny: bool, compiler: str) -> None:
    """transformers' step: at the largest batch that fits, the next ones after it has run once with room to spare."""
    import torch

    if compiler and tiny:
        compiler = "aot_eager"  # the default's C++ takes minutes
    shape = shape_of(tiny)
    on_gpu = torch.cuda.is_available()
    limit = 0.95 * torch.cuda.get_device_properties(0).total_memory if on_gpu else math.inf

    def run(size: int) -> tuple[float, float]:
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch._dynamo.reset()
        began = time.perf_counter()
        asked = dataclasses.replace(shape, batch=size)
        found = steps.transformers(asked, shape.vocabularies[0], WARMUP + timed_steps(tiny), compiler)
        took = time.perf_counter() - began - sum(found["seconds"])
        row = step_row("transformers", asked, found, took + sum(found["seconds"][:WARMUP]))
        report({**row, "kernel": "sdpa, " + ("torch.compile" if compiler else "eager")})
        # Parameters, gradients and AdamW's two moments, float32.
        return 16 * found["parameters"], found["memory"] or 0.0

    run_first_and_largest(tiny, shape.batch, limit, run)


def reference_step(report: Report, tiny: bool, where: str, attention_dropout: float) -> None:
    """The first step in float32, its products in full precision, with plain attention: what the kernels' losses are compared with."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    shape = shape_of(tiny, attention=PLAIN, dtype="float32", remat="dots", attention_dropout=attention_dropout)
    found = steps.ours(shape, shape.vocabularies[0], 1)
    kept = {name: found[name] for name in ("loss", "gradient_norm", "device")}
    report({"kind": "reference", "where": where, "batch": shape.batch, "attention_dropout": attention_dropout, **kept})


def plan(report: Report, tiny: bool, kernel: str, topology: str) -> None:
    """What `mlm-jax plan` predicts of the step at the first batch."""
    from mlm_jax.plan import topology as topologies
    from mlm_jax.plan.planned import adapt, plan_step

    shape = shape_of(tiny, attention=kernel, dtype="bfloat16")
    where = topologies.parse(topology, 1)
    topologies.require_compiler(where)
    config = steps.our_config(with_its_dropout(shape))
    words = dataclasses.replace(config.vocabulary, size=shape.vocabularies[0])
    planned = plan_step(adapt(dataclasses.replace(config, vocabulary=words), where), where)
    row: Row = {"kind": "plan", "kernel": kernel, "batch": shape.batch, "memory": planned.memory.total}
    if planned.predicted is not None:
        row |= {"seconds": planned.predicted.step, "mfu": planned.mfu}
    report({**row, "topology": topology, "fits": planned.fits})


# --- attention by itself


def attention_kernel(report: Report, tiny: bool, kernel: str) -> None:
    """A kernel against plain products on this device: errors, the same units dropped, time forward and backward."""
    import jax
    import jax.numpy as jnp

    from mlm_jax import config as cfg
    from mlm_jax.model.attention import make_context
    from mlm_jax.model.attention_kernels import attend, choose
    from mlm_jax.model.dropout import row_keys

    shape = with_its_dropout(shape_of(tiny, attention=kernel))
    model = steps.our_config(shape).model
    chosen = choose(model, jnp.dtype(jnp.bfloat16), shape.length, shape.attention_dropout > 0)
    heads, length, head = shape.heads, shape.length, shape.width // shape.heads

    def inputs(batch: int, kind: Any, scale: float) -> tuple[list[jax.Array], dict[str, jax.Array], jax.Array | None]:
        drawn = jax.random.normal(jax.random.key(0), (4, batch, heads, length, head)) * scale
        places = jnp.arange(length, dtype=jnp.int32)[None]
        # Two texts and padding, so that borders are seen.
        segments = jnp.where(places < length // 2, 1, jnp.where(places < length - length // 8, 2, 0))
        rows = jnp.broadcast_to(segments, (batch, length))
        context = make_context(model, rows, jnp.broadcast_to(places, (batch, length)))
        keys = row_keys(0, jnp.int32(0), jnp.arange(batch, dtype=jnp.uint32)) if shape.attention_dropout else None
        return [x.astype(kind) for x in drawn], context, keys

    def run(name: str, settings: cfg.Model, context: Any, keys: Any) -> Callable[..., jax.Array]:
        return lambda q, k, v: attend(name, settings, q, k, v, context, jnp.bool_(True), keys)

    def with_gradients(name: str, batch: int, kind: Any) -> tuple[Callable[..., Any], list[jax.Array]]:
        (*qkv, out), context, keys = inputs(batch, kind, 1.0)
        call = run(name, dataclasses.replace(model, attention=name), context, keys)

        def both(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            value, back = jax.vjp(call, q, k, v)
            return (value, *back(out.astype(value.dtype)))

        return jax.jit(both), qkv

    # 1. Errors in bfloat16, of the kernel and of plain products, from plain products in float32.
    with jax.default_matmul_precision("highest"):
        exact, qkv = with_gradients(PLAIN, 2, jnp.float32)
        # The same numbers as the others read: rounded to bfloat16 first.
        wanted = exact(*(x.astype(jnp.bfloat16).astype(jnp.float32) for x in qkv))
    errors = {}
    for name in (chosen, PLAIN):
        call, qkv = with_gradients(name, 2, jnp.bfloat16)
        differ = [relative_error(got, want) for got, want in zip(call(*qkv), wanted, strict=True)]
        errors[name] = dict(zip(("out", "query", "key", "value"), differ, strict=True))
    row: Row = {"kind": "attention", "kernel": kernel, "attention_dropout": shape.attention_dropout}
    report({**row, "errors": errors[chosen], "plain_errors": errors[PLAIN]})

    # 2. Which units are dropped: values that are columns of the identity matrix give the weights themselves.
    if shape.attention_dropout:
        (query, key, _, _), context, keys = inputs(2, jnp.bfloat16, 0.1)
        dropped = {}
        for name in (chosen, PLAIN):
            call = jax.jit(run(name, dataclasses.replace(model, attention=name), context, keys))
            columns = [
                jnp.broadcast_to(jnp.eye(length, head, -begin, jnp.bfloat16)[None, None], query.shape)
                for begin in range(0, length, head)
            ]
            dropped[name] = jnp.concatenate([call(query, key, value) for value in columns], -1) == 0
        differ = int((dropped[chosen] != dropped[PLAIN]).sum())
        report({**row, "units": dropped[PLAIN].size, "dropped_otherwise": differ})

    # 3. Time forward and backward, alone.
    seconds = {}
    for name in (chosen, PLAIN):
        call, qkv = with_gradients(name, shape.batch, jnp.bfloat16)
        seconds[name] = median_seconds(lambda call=call, qkv=qkv: jax.block_until_ready(call(*qkv)), 2 if tiny else 20)
    report({**row, "batch": shape.batch, "seconds": seconds[chosen], "plain_seconds": seconds[PLAIN]})


# --- a checkpoint, fine-tuning, vectors


def checkpoint(report: Report, tiny: bool) -> None:
    """A state saved, restored, compared, and the step after it."""
    import jax
    import numpy as np

    from mlm_jax.train.checkpoints import Checkpoints

    shape = shape_of(tiny, attention=PLAIN)
    vocabulary = shape.vocabularies[0]
    step, initialize, on_device = steps.our_step(shape, vocabulary)
    batch = on_device(steps.batches(shape, vocabulary, 1)[0])
    state, _ = step(initialize(), {}, batch)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    kept = jax.tree.map(np.asarray, state)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, {}, {}) as checkpoints:
        began = time.perf_counter()
        checkpoints.save(1, state, None)
        checkpoints.wait()
        saved = time.perf_counter() - began
        _, window = step(state, {}, batch)
        loss = np.asarray(window["loss"])
        del state
        began = time.perf_counter()
        restored = checkpoints.restore(abstract)
        jax.block_until_ready(restored)
        took = time.perf_counter() - began
        same = all(
            np.array_equal(a, np.asarray(b))
            for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(restored), strict=True)
        )
        _, window = step(restored, {}, batch)
    row = {"kind": "checkpoint", "bytes": sum(x.nbytes for x in jax.tree.leaves(kept)), "save_seconds": saved}
    again = bool(np.array_equal(loss, np.asarray(window["loss"])))
    report({**row, "restore_seconds": took, "same_state": same, "same_next_loss": again})


def fine_tuning(report: Report, tiny: bool, side: str) -> None:
    """Examples per second of `finetune.py`'s classifier."""
    run = {OURS: finetune.ours, "transformers": finetune.transformers}[side]
    speed = run(*((6, TINY_ENCODER) if tiny else (60, finetune.E5_SMALL)))
    report({"kind": "fine-tuning", "side": side, "examples_per_second": speed})


def vectors(report: Report, tiny: bool, side: str) -> None:
    """Sentences per second of `embedding.py`."""
    run = {OURS: embedding.ours, "transformers": embedding.transformers}[side]
    encoder = TINY_ENCODER if tiny else finetune.E5_SMALL
    speed, _ = run(embedding.sentences(64 if tiny else 4_096, encoder.pieces), encoder)
    report({"kind": "vectors", "side": side, "sentences_per_second": speed})


PARTS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(our_steps, their_steps, reference_step, plan),
        *(attention_kernel, checkpoint, fine_tuning, vectors),
    )
}


# --- memory and time


def sizes(tiny: bool) -> Sequence[int]:
    return TINY_SIZES if tiny else SIZES


def candidates(tiny: bool, first: int) -> list[int]:
    """The first batch, and the smaller ones for cards that it does not fit."""
    return [size for size in sizes(tiny) if size <= first]


def largest_that_fits(tried: Sequence[int], run: Callable[[int], None]) -> int:
    """Run the first of some sizes, from the top, for which there is memory.

    Raises:
      MemoryError: there is for none.
    """
    for size in tried:
        try:
            run(size)
            return size
        except Exception as e:
            if not is_out_of_memory(e):
                raise
            print(f"{size} blocks do not fit: {e!r}"[:300], flush=True)
            # They hold what the run had allocated.
            e.__traceback__ = e.__cause__ = e.__context__ = None
        gc.collect()
    raise MemoryError(f"not even {tried[-1]} blocks fit")


def run_first_and_largest(tiny: bool, first: int, limit: float, run: Callable[[int], tuple[float, float]]) -> None:
    """Run the first batch, or the next smaller that fits, and the largest for which there is memory by what that took.

    Args:
      limit: bytes that there are.
      run: blocks → bytes that do not grow with them, and at the peak.
    """
    took: dict[int, tuple[float, float]] = {}

    def noting(size: int) -> None:
        took[size] = run(size)

    fits = largest_that_fits(candidates(tiny, first), noting)
    most = scaled(fits, *took[fits], limit)
    if larger := [size for size in sizes(tiny) if fits < size <= most]:
        largest_that_fits(larger, noting)


def is_out_of_memory(error: Exception) -> bool:
    """Whether JAX, PyTorch or we ourselves say that memory does not suffice."""
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "RESOURCE_EXHAUSTED" in said
        or "out of memory" in said.lower()
    )


def scaled(size: int, fixed: float, peak: float, limit: float) -> float:
    """The most blocks for which there is memory, if all but the fixed part of the peak grows with them."""
    if not 0 < fixed < peak or math.isinf(limit):
        return math.inf
    return size * (limit - fixed) / (peak - fixed)


def memory_limit() -> float:
    """Bytes of the device that JAX may take."""
    import jax

    return float((jax.devices()[0].memory_stats() or {}).get("bytes_limit", math.inf))


def compiled_memory(compiled: Any) -> dict[str, float]:
    """What the compiler says that a program takes: `arguments`, which are the state and the batch, and `peak`, bytes."""
    said = compiled.memory_analysis()
    arguments = said.argument_size_in_bytes
    whole = arguments + said.output_size_in_bytes - said.alias_size_in_bytes + said.temp_size_in_bytes
    # On the CPU the compiler's own peak leaves out what is temporary.
    return {"arguments": arguments, "peak": max(getattr(said, "peak_memory_in_bytes", 0), whole)}


def timed_steps(tiny: bool) -> int:
    return 3 if tiny else 12


def median_seconds(call: Callable[[], Any], times: int) -> float:
    """Of some calls, after two that are not counted."""
    found = []
    for _ in range(times + 2):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def relative_error(got: Any, wanted: Any) -> float:
    """‖got - wanted‖ / ‖wanted‖, in float32."""
    import jax.numpy as jnp

    got, wanted = jnp.asarray(got, jnp.float32), jnp.asarray(wanted, jnp.float32)
    return float(jnp.linalg.norm((got - wanted).ravel()) / jnp.linalg.norm(wanted.ravel()))
