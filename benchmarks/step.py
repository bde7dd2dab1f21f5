# SPDX-License-Identifier: Apache-2.0
"""The training step against transformers' XLMRobertaForMaskedLM in PyTorch: tokens/s, MFU and peak memory.

    python benchmarks/step.py                        # two cores, both vocabularies, about 5 minutes
    python benchmarks/step.py --vocabularies 32000 --rounds 1
    python benchmarks/step.py --shape xlmr_base      # on whatever device is there
    python benchmarks/step.py --shape xlmr_base --batch 128 --attention-dropout 0   # lets our flash attention run

small is 4 layers of width 256, 4 heads, MLP 1,024, blocks of 128 tokens x 16, in float32 on the CPU; xlmr_base is 12 layers
of width 768 on 250,002 pieces, blocks of 512, in bfloat16 on a GPU or TPU (PyTorch by autocast), with float32 parameters.
Both sides: dropout 0.1, 15 % of the tokens scored, AdamW with decay on matrices only, gradients clipped to norm 1. Ours is
the training loop's own jitted step, masking on the device included; theirs gets batches that are masked already, sdpa
attention and fused AdamW, the fastest of PyTorch's three. No block has padding, so tokens are real tokens. Each run is a
process of its own, the sides take turns, and a step's time is the median over all runs' steps.

FLOP/s are of the model's own products, the same for both sides (`mlm_jax.model.flops.step_flops`): layers and attention over
the whole block, not halved, the head at the scored positions only, backward twice the forward, nothing recomputed. MFU
is their share of the chip's published dense bfloat16 peak, and left out where there is none (CPUs). Memory is the device's
peak of what is allocated; on the CPU the process's.

Needs the extra `[parity]` (torch and transformers).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from mlm_jax.environment import missing

MASK_RATE, SPECIALS = 0.15, 5
SIDES = ("ours", "transformers")


@dataclasses.dataclass(frozen=True)
class Shape:
    """What both sides train."""

    layers: int = 4
    width: int = 256
    heads: int = 4
    mlp: int = 1024
    length: int = 128
    batch: int = 16
    vocabularies: tuple[int, ...] = (32_000, 250_002)
    device: str = "cpu"  # empty: whatever is there
    attention_dropout: float = 0.1
    attention: str = "auto"
    remat: str = "none"
    dtype: str = "auto"  # of our side
    loss_chunk: int = 32_768  # of our side


SHAPES = {
    "small": Shape(),
    "xlmr_base": Shape(12, 768, 12, 3072, 512, 64, (250_002,), ""),
}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as Linux has it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return "a processor of unknown name"


def batches(shape: Shape, vocabulary: int, number: int) -> list[np.ndarray]:
    """Blocks of random ids, int32 [batch, length]; how they are distributed changes no side's work."""
    rng = np.random.default_rng(0)
    return [rng.integers(SPECIALS, vocabulary, (shape.batch, shape.length), dtype=np.int32) for _ in range(number)]


def our_config(shape: Shape) -> Any:
    """The config of our side."""
    from mlm_jax import config as cfg

    return cfg.Config(
        data=cfg.Data(sequence_length=shape.length),
        model=cfg.Model(
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            mlp_width=shape.mlp,
            positions=shape.length,
            attention_dropout=shape.attention_dropout,
            attention=shape.attention,
            remat=shape.remat,  # type: ignore[arg-type]
            dtype=shape.dtype,  # type: ignore[arg-type]
            loss_chunk=shape.loss_chunk,
        ),
        objective=cfg.Objective(mask_rate=MASK_RATE),
        train=cfg.Train(batch_size=shape.batch),
    )


def our_step(shape: Shape, vocabulary: int) -> tuple[Any, Any, Any]:
    """The training loop's own step.

    Returns:
      The compiled step (state, {}, batch) → (state, window); () → its first state; token ids → a batch on the device.
    """
    import jax

    from mlm_jax import mesh as meshes
    from mlm_jax.input.mixture import batch_shapes
    from mlm_jax.train.pretraining import build, pretraining_step
    from mlm_jax.vocabulary import Vocabulary

    config = our_config(shape)
    words = Vocabulary(vocabulary, 0, 1, 2, 3, 4, tuple(range(SPECIALS)), "")
    mesh = meshes.make_mesh(config.mesh, shape.batch, jax.devices()[:1])
    training = build(config, words, 1, mesh)
    sharding = meshes.batch_sharding(mesh)
    shapes = batch_shapes(shape.batch, shape.length)

    def on_device(tokens: np.ndarray) -> Any:
        batch = {name: np.zeros(size, kind) for name, (size, kind) in shapes.items()} | {
            "tokens": tokens,
            "segment_ids": np.ones_like(tokens),
            "positions": np.broadcast_to(np.arange(shape.length, dtype=np.int32), tokens.shape),
        }
        return jax.device_put(batch, sharding)

    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        on_device(batches(shape, vocabulary, 1)[0]),
    )
    with meshes.mesh_context(mesh):
        compiled = pretraining_step(config, training, mesh).lower(training.abstract_state, {}, like).compile()
        return compiled, training.initialize, on_device


def ours(shape: Shape, vocabulary: int, steps: int, built: tuple[Any, Any, Any] | None = None) -> dict[str, Any]:
    """Seconds of each step of `mlm_jax.train`, compilation left out.

    Args:
      built: of `our_step`, where it is there already.
    """
    import jax

    from mlm_jax import objectives
    from mlm_jax.model.encoder import padded_rows
    from mlm_jax.model.flops import peak_flops, step_flops

    step, initialize, on_device = built or our_step(shape, vocabulary)
    state, seconds, first = initialize(), [], None
    for tokens in batches(shape, vocabulary, steps):
        start = time.perf_counter()
        state, window = step(state, {}, on_device(tokens))
        jax.block_until_ready(window)
        seconds.append(time.perf_counter() - start)
        first = first or {name: jax.device_get(window[name]) for name in ("loss", "gradient_norm")}
    assert first is not None
    device, config = jax.devices()[0], our_config(shape)
    bound = objectives.max_predictions(shape.length, config.objective)
    return {
        "seconds": seconds,
        # Of the first step: the mean over the scored tokens, and the norm before clipping.
        "loss": float(first["loss"][0] / first["loss"][1]),
        "gradient_norm": float(first["gradient_norm"]),
        "memory": (device.memory_stats() or {}).get("peak_bytes_in_use"),
        "device": device.device_kind,
        "peak": peak_flops(device),
        "flops": step_flops(config.model, padded_rows(vocabulary), shape.batch, shape.length, bound),
    }


def transformers(shape: Shape, vocabulary: int, steps: int, compiler: str = "") -> dict[str, Any]:
    """Seconds of each step of XLMRobertaForMaskedLM.

    Args:
      compiler: backend of torch.compile ("inductor" is its default); empty: not compiled.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    torch.manual_seed(0)
    torch.set_num_threads(cores())
    on_gpu = torch.cuda.is_available() and shape.device != "cpu"
    device = "cuda" if on_gpu else "cpu"
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.mlp,
        max_position_embeddings=shape.length + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attention_probs_dropout_prob=shape.attention_dropout,
        attn_implementation="sdpa",
    )
    model = XLMRobertaForMaskedLM(config).train().to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=1e-4,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.01,
        fused=True,
    )
    call = torch.compile(model, backend=compiler, dynamic=False) if compiler else model
    rng = np.random.default_rng(1)
    seconds = []
    for tokens in batches(shape, vocabulary, steps):
        scored = rng.random(tokens.shape) < MASK_RATE
        ids = torch.from_numpy(np.where(scored, 4, tokens).astype(np.int64))
        labels = torch.from_numpy(np.where(scored, tokens, -100).astype(np.int64))
        start = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=on_gpu):
            loss = call(input_ids=ids.to(device), labels=labels.to(device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds,
        "memory": torch.cuda.max_memory_allocated() if on_gpu else None,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def measure(side: str, shape: Shape, vocabulary: int, steps: int, warmup: int) -> dict[str, Any]:
    """Run a side in a process of its own: its steps after the warm-up."""
    here = os.path.dirname(os.path.abspath(__file__))
    environment = os.environ | {"PYTHONPATH": os.path.dirname(here)}
    if side == "ours":
        environment |= missing(environment)  # as `mlm-jax` starts itself
    if shape.device:
        environment["JAX_PLATFORMS"] = shape.device
    job = json.dumps([side, dataclasses.asdict(shape), vocabulary, steps + warmup])
    command = [sys.executable, __file__, "--job", job]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    result = json.loads(out.splitlines()[-1])
    return result | {"seconds": result["seconds"][warmup:]}


def run_job(side: str, shape: dict[str, Any], vocabulary: int, steps: int) -> None:
    """What `measure` starts: print a side's figures as JSON."""
    run = {"ours": ours, "transformers": transformers}[side]
    result = run(Shape(**shape), vocabulary, steps)
    result["memory"] = result["memory"] or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--vocabularies", type=int, nargs="+", help="pieces; by default the shape's")
    parser.add_argument("--batch", type=int, help="blocks per step; by default the shape's")
    parser.add_argument("--attention-dropout", type=float, help="on both sides; by default 0.1")
    parser.add_argument("--attention", help="our kernel (`model.attention`); by default auto")
    parser.add_argument("--remat", help="ours (`model.remat`); by default none")
    parser.add_argument("--dtype", help="ours (`model.dtype`); by default auto")
    parser.add_argument("--loss-chunk", type=int, help="ours (`model.loss_chunk`), rows of the vocabulary at a time")
    parser.add_argument("--cores", type=int, help="processor cores that both sides may use; by default all")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side")
    parser.add_argument("--steps", type=int, default=12, help="timed steps a run")
    parser.add_argument("--warmup", type=int, default=3, help="steps before those")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run_job(*options.job)
        return
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # of what this starts too

    asked = {
        name: getattr(options, name)
        for name in ("vocabularies", "batch", "attention_dropout", "attention", "remat", "dtype", "loss_chunk")
    }
    given = {name: value for name, value in asked.items() if value is not None}
    shape = dataclasses.replace(SHAPES[options.shape], **given)
    columns = ("vocabulary", "side", "ms/step", "tokens/s", "TFLOP/s", "MFU", "peak GB")
    print(("{:>10}  {:<12}" + "  {:>9}" * 5).format(*columns), flush=True)
    for vocabulary in shape.vocabularies:
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side in SIDES:
                runs[side].append(measure(side, shape, vocabulary, options.steps, options.warmup))
        known = runs["ours"][0]
        median = {side: float(np.median([s for run in runs[side] for s in run["seconds"]])) for side in SIDES}
        memory = {side: float(np.median([run["memory"] for run in runs[side]])) for side in SIDES}
        for side in SIDES:
            rate, work = shape.batch * shape.length / median[side], known["flops"] / median[side]
            mfu = f"{work / known['peak']:.1%}" if known["peak"] else "-"
            print(
                f"{vocabulary:>10,}  {side:<12}  {median[side] * 1e3:>9.1f}  {rate:>9,.0f}  {work / 1e12:>9.3f}"
                f"  {mfu:>9}  {memory[side] / 1e9:>9.2f}"
            )
        ours_, theirs = SIDES
        where = f"{cores()} cores of {processor()}" if known["device"] == "cpu" else known["device"]
        print(
            f"{vocabulary:>10,}  {'ratio':<12}  speed {median[theirs] / median[ours_]:.2f}x, "
            f"memory {memory[ours_] / memory[theirs]:.2f}x, on {where}",
            flush=True,
        )


if __name__ == "__main__":
    main()
