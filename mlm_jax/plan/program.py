# SPDX-License-Identifier: Apache-2.0
"""A compiled program's text (HLO) read for what it does: matrix products, memory traffic, collectives.

XLA's own `cost_analysis` counts the body of a loop once; here it counts as often as the loop turns.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16} | {
    f"{sign}{bits}": bits / 8 for sign in "su" for bits in (2, 4, 8, 16, 32, 64)
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# What attention kernels compute, by the names that they begin with: products of queries × keys × head size. Backwards each
# computes scores, and their gradient: where keys and values have a kernel of their own, twice.
KERNELS = {"flash_forward": 2, "flash_backward": 5, "flash_dkv": 4, "flash_dq": 3}  # ours
KERNELS |= {"mha_forward": 2, "mha_backward": 7}  # JAX's for GPUs, whose one kernel does both one after the other
KERNELS |= {"dot_product_attention_fwd": 2, "dot_product_attention_bwd": 5}  # cuDNN's
# What moves no bytes by itself: names for what is there, and the ends of what began before.
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call", "after-all"}
FREE |= {"partition-id", "replica-id", "opt-barrier", "async-update"}
FREE |= {"copy-done", "slice-done", "async-done", "fusion-done"}
FREE |= {"send", "send-done", "recv", "recv-done"} | {f"{kind}-done" for kind in COLLECTIVES}


@dataclass(frozen=True)
class Array:
    """Type, shape, and whether it lies in HBM (not in a chip's small fast memories)."""

    kind: str
    shape: tuple[int, ...]
    in_hbm: bool

    @property
    def bytes(self) -> float:
        return math.prod(self.shape) * BYTES.get(self.kind, 0)

    @property
    def traffic(self) -> float:
        """Bytes that go to or from HBM when it is read or written."""
        return self.bytes if self.in_hbm else 0


@dataclass
class Instruction:
    """A line of HLO. `attributes` is what follows the operands."""

    name: str
    operation: str
    outputs: list[Array]
    operands: list[str]
    attributes: str
    is_root: bool

    def called(self, attribute: str) -> str | None:
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return match[1] if match else None

    @property
    def target(self) -> str:
        """What a custom call calls."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match[1] if match and self.operation == "custom-call" else ""


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Collective:
    """A collective that a chip takes part in.

    Attributes:
      kind: one of `COLLECTIVES`.
      bytes: of the whole array: what an all-gather makes, a reduce-scatter takes, an all-to-all moves among the group.
      group: the devices of its first group (numbers in the mesh's order).
      times: how often a step does it.
      shapes: of its results.
      alone: nothing else runs meanwhile.
    """

    kind: str
    bytes: float
    group: tuple[int, ...]
    times: float
    shapes: tuple[tuple[int, ...], ...]
    alone: bool


@dataclass(frozen=True)
class Sight:
    """Who sees whom in a model's attention, which a program does not say where its kernel finds out while it runs.

    Attributes:
      whole: the share of layers that see all: of the times that a conditional is met, its condition is true.
      window: tokens that the others see to either side.
      causal: nobody sees a later token.
    """

    whole: float = 1.0
    window: int = 0
    causal: bool = False

    def visited(self, queries: int, keys: int, length: int) -> float:
        """The share of tiles that are visited, of `queries` × `keys` tiles, over all layers, where a block is one document."""
        q, k = np.arange(queries)[:, None] * (length // queries), np.arange(keys) * (length // keys)
        q_last, k_last = q + length // queries - 1, k + length // keys - 1
        seen = k <= q_last if self.causal else np.full((queries, keys), True)
        near = (k <= q_last + self.window) & (q <= k_last + self.window)
        return float(self.whole * seen.mean() + (1 - self.whole) * (seen & near).mean())


class Work(NamedTuple):
    """What an instruction does in a step, times what it is executed: FLOPs, bytes to and from HBM (prefetches: these alone), and
    cycles that the TPU compiler expects it to take, where it says so."""

    flops: float
    traffic: float
    cycles: float = 0.0


@dataclass
class Program:
    """What a step does on one chip.

    Attributes:
      flops: of matrix products, as executed: what is computed twice counts twice.
      traffic: bytes read from and written to HBM.
      work: of each instruction.
      collectives: all of them.
    """

    flops: float = 0
    traffic: float = 0
    work: list[Work] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a program by name, and the name of the one it begins with."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.endswith("{"):
            name = line.removeprefix("ENTRY").strip().split(" ")[0].lstrip("%")
            current = computations.setdefault(name, {})
            entry = name if line.startswith("ENTRY") else entry
        elif current is not None and line.startswith("  "):
            made = _instruction(line.strip())
            if made is not None:
                current[made.name] = made
    return computations, entry


def _instruction(line: str) -> Instruction | None:
    is_root = line.startswith("ROOT ")
    name, equals, rest = line.removeprefix("ROOT ").partition(" = ")
    if not equals:
        return None
    split = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    outputs, rest = _arrays(rest[:split]), rest[split:].strip()
    start = rest.index("(")
    end = _closing(rest, start)
    operands = [part.split(" ")[-1].lstrip("%") for part in _split(rest[start + 1 : end - 1])]
    operation = rest[:start]
    if operation == "fusion-start":
        # The GPU compiler of jax 0.11 begins some fusions early. It writes (operands, results, state of the wait), of which the
        # results alone are moved.
        operation, outputs = "fusion", outputs[len(operands) : -1]
    return Instruction(name.lstrip("%"), operation, outputs, operands, rest[end:], is_root)


def _closing(text: str, start: int) -> int:
    """The place after the bracket that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.end()
    return len(text)


def _split(text: str) -> list[str]:
    """Parts between the commas that are in no bracket."""
    text = re.sub(r"/\*.*?\*/", "", text)
    while re.search(r"[\[{(][^\[\]{}()]*[\]})]", text):
        text = re.sub(r"[\[{(][^\[\]{}()]*[\]})]", "", text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _arrays(text: str) -> list[Array]:
    return [
        Array(kind, tuple(int(n) for n in shape.split(",") if n), "S(" not in (layout or ""))
        for kind, shape, layout in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^{}]*\})?", text)
    ]


def read(text: str, sight: Sight = Sight()) -> Program:
    """What the program does, loops unrolled. The branches of a conditional are taken as `sight.whole` says."""
    computations, entry = parse(text)
    program, seen = Program(), set[str]()
    for instruction, computation, times in _executed(computations, entry, sight.whole):
        parts = list(_within(instruction, computation, computations))
        carried = [part for part, _ in parts if part.operation.removesuffix("-start") in COLLECTIVES]
        is_end = instruction.operation.endswith("-done") or instruction.operation == "async-update"
        for found in [] if is_end else carried:
            # A collective that is spread over the products beside it stands in the fusion of each, under one name of its chain.
            chain = re.search(r"channel_id=\d+.*chain_id=\S+", found.attributes)
            key = chain[0].split("metadata")[0] if chain else ""
            if not chain or key not in seen:
                program.collectives.append(_collective(found, instruction, times))
            seen.add(key)
        products = [part for part in parts if _is_product(part[0])]
        if _is_free(instruction) or (carried and not products):
            continue
        flops = times * sum(_flops(product, where, sight) for product, where in products)
        traffic = times * _traffic(instruction, computation, computations)
        program.flops += flops
        program.traffic += traffic
        expected = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
        program.work.append(Work(flops, traffic, times * int(expected[1]) if expected else 0.0))
    return program


def _executed(
    computations: dict[str, Computation], entry: str, true: float
) -> Iterator[tuple[Instruction, Computation, float]]:
    """Every instruction that is executed, with the computation it stands in, and how often."""
    stack: list[tuple[str, float]] = [(entry, 1)]
    while stack:
        name, times = stack.pop()
        computation = computations[name]
        for instruction in computation.values():
            yield instruction, computation, times
            if instruction.operation == "while":
                turns = _turns(instruction, computations)
                stack.append((instruction.called("body") or "", times * turns))
            elif instruction.operation == "call":
                stack.append((instruction.called("to_apply") or "", times))
            elif instruction.operation == "conditional":
                listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
                names = ("false_computation", "true_computation")
                branches = [n.strip(" %") for n in listed[1].split(",")] if listed else map(instruction.called, names)
                for branch, share in zip(branches, (1 - true, true), strict=True):
                    stack.append((branch or "", times * share))


def _turns(loop: Instruction, computations: dict[str, Computation]) -> int:
    """How often a loop turns: its counter begins at 0, stops at a constant, and goes up by 1, or by 2 where XLA doubled it.

    The GPU compiler writes the number down, and fuses the condition.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    condition = computations[loop.called("condition") or ""]
    body = computations[loop.called("body") or ""]
    limits = [int(i.operands[0]) for i in condition.values() if i.operation == "constant"]
    counter = next((i for i in condition.values() if i.operation == "get-tuple-element"), None)
    if counter is None or not limits:
        return 1
    place = int(counter.attributes.split("index=")[1].split(",")[0])
    root = next(i for i in body.values() if i.is_root)
    after = body[root.operands[place]]
    steps = [int(body[name].operands[0]) for name in after.operands if body[name].operation == "constant"]
    return max(limits) // (steps[0] if after.operation == "add" and steps else 1)


def _within(
    instruction: Instruction, computation: Computation, computations: dict[str, Computation]
) -> Iterator[tuple[Instruction, Computation]]:
    """The instruction and all that stand in what it calls as a part of itself, each with the computation it stands in."""
    yield instruction, computation
    if instruction.operation in ("fusion", "async-start") and (name := instruction.called("calls")):
        inner = computations.get(name, {})
        for part in inner.values():
            yield from _within(part, inner, computations)


def _is_product(instruction: Instruction) -> bool:
    """Whether it is a matrix product, or several: an attention kernel."""
    is_product = instruction.operation in ("convolution", "dot") or instruction.target.startswith("__cublas")
    return is_product or _kernel(instruction) > 0


def _kernel(instruction: Instruction) -> int:
    """How many products of queries × keys × head size an attention kernel computes; 0: it is none.

    A Pallas kernel has its name from the TPU compiler; what the GPU compiler calls "pallas_call" has it in its description.
    """
    if instruction.operation != "custom-call":
        return 0
    named = re.search(r'\bname = "([^"]*)"', instruction.attributes) if "triton" in instruction.target else None
    name = named[1] if named else instruction.name
    return next((count for start, count in KERNELS.items() if name.startswith(start)), 0)


def _attention_flops(kernel: Instruction, computation: Computation, sight: Sight) -> float:
    """FLOPs of an attention kernel: of the tiles that it visits.

    Ours begins with their bounds, int32 [batch, tiles, 2], set while it runs. The others visit all. Its vectors, [batch, heads, length, head]
    with axes in any order, are the first operand of four; segment ids, [.., length], the last of int32.
    """
    operands = [array for name in kernel.operands for array in computation[name].outputs]
    vectors = next(array.shape for array in operands if len(array.shape) == 4)
    count = 2.0 * _kernel(kernel) * math.prod(vectors)  # times the keys that a query sees
    if kernel.target.startswith("__cudnn"):
        scores = re.search(r'"intermediate_tensor_shape":.*?"dimensions":\s*\[([^\]]*)\]', kernel.attributes)
        assert scores is not None, kernel.name
        return count * int(scores[1].split(",")[-1].strip(' "'))
    keys = [array for array in operands if array.kind == "s32"][-1].shape[-1]
    bounds = operands[0].shape if operands[0].kind == "s32" else None
    return count * keys * (sight.visited(bounds[1], bounds[1], keys) if bounds else 1)


def _flops(product: Instruction, computation: Computation, sight: Sight) -> float:
    """FLOPs of a matrix product, which the TPU compiler writes as a convolution, or of an attention kernel.

    With b batches, left is b·m·k, right b·k·n, the result b·m·n; their product over b is (b·m·k·n)².
    """
    if _kernel(product):
        return _attention_flops(product, computation, sight)
    sizes = [computation[name].outputs[0].shape for name in product.operands[:2]] + [product.outputs[0].shape]
    if product.operation != "convolution":
        dimensions = re.search(r'lhs_batch_dim(?:s=|ensions":)[{[]([\d,"]*)[]}]', product.attributes)
        batch = math.prod(sizes[0][int(d)] for d in re.findall(r"\d+", dimensions[1])) if dimensions else 1
    else:
        labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", product.attributes)
        assert labels is not None, product.name
        spatial = [digit for digit in labels[1] if digit.isdigit()]
        across = [
            [size[label.index(digit)] for size, label in zip(sizes, labels.groups(), strict=True)] for digit in spatial
        ]
        # A dimension that all three have is a batch; one that two have is summed over or kept.
        batch = math.prod(a[0] for a in across if a[0] == a[1] == a[2])
    return 2 * math.sqrt(math.prod(math.prod(size) for size in sizes) / batch)


def _is_free(instruction: Instruction) -> bool:
    """Whether it moves no bytes: the TPU compiler reserves memory by a custom call."""
    return instruction.operation in FREE or instruction.target == "AllocateBuffer"


def _traffic(instruction: Instruction, computation: Computation, computations: dict[str, Computation]) -> float:
    """Bytes an instruction reads from and writes to HBM."""
    read = sum(
        _read(instruction, place, computation[name].outputs, computations)
        for place, name in enumerate(instruction.operands)
        if name in computation
    )
    return read + _written(instruction, computation, computations)


def _read(user: Instruction, place: int, arrays: list[Array], computations: dict[str, Computation]) -> float:
    """Bytes that an instruction reads of its operand at `place`: of a stack of layers, only what it cuts out."""
    whole = sum(array.traffic for array in arrays)
    if not whole:
        return 0
    if user.operation in ("dynamic-slice", "slice", "gather") and place == 0:
        return min(whole, sum(array.bytes for array in user.outputs))
    if user.operation in ("dynamic-update-slice", "scatter") and place == 0:
        return 0  # overwritten in place
    if user.operation != "fusion":
        return whole
    inner = computations.get(user.called("calls") or "", {})
    parameter = next((i for i in inner.values() if i.operation == "parameter" and i.operands == [str(place)]), None)
    if parameter is None:
        return whole
    return min(whole, sum(_read(i, n, arrays, computations) for i, n in _uses(parameter, inner)))


def _uses(array: Instruction, inner: Computation) -> list[tuple[Instruction, int]]:
    """Who reads an array within a fusion, and as which operand: through bitcasts, and fusions that lay it out anew in place."""
    found = []
    for user in inner.values():
        for place, operand in enumerate(user.operands):
            if operand != array.name:
                continue
            is_same = user.operation == "bitcast" or (user.operation == "fusion" and _alias(user) == place)
            # At the fusion's end it is read, whatever it is called.
            found += _uses(user, inner) if is_same and not user.is_root else [(user, place)]
    return found


def _alias(instruction: Instruction) -> int | None:
    """The operand whose bytes an instruction's one result takes over."""
    alias = re.search(r"output_to_operand_aliasing=\{\{\}: \((\d+), \{\}", instruction.attributes)
    return int(alias[1]) if alias else None


def _written(instruction: Instruction, computation: Computation, computations: dict[str, Computation]) -> float:
    """Bytes that an instruction writes: of an array that is updated in place, only the update."""
    outputs = instruction.outputs
    if instruction.target.startswith(("__cublas", "__cudnn")) and len(outputs) > 1:
        outputs = outputs[:-1]  # the last is memory to work in
    whole = sum(array.traffic for array in outputs)
    if not whole:
        return 0
    if instruction.operation in ("dynamic-update-slice", "scatter"):
        update = instruction.operands[1 if instruction.operation == "dynamic-update-slice" else 2]
        rows = sum(array.bytes for array in computation[update].outputs)
        return min(whole, rows * (1 if instruction.operation == "dynamic-update-slice" else 2))
    if instruction.operation == "fusion":
        inner = computations.get(instruction.called("calls") or "", {})
        root = next(i for i in inner.values() if i.is_root)
        ends = [inner[name] for name in root.operands] if root.operation == "tuple" else [root]
        while any(end.operation in ("bitcast", "reshape") and end.operands[0] in inner for end in ends):
            ends = [inner[e.operands[0]] if e.operation in ("bitcast", "reshape") else e for e in ends]
        if len(ends) == len(instruction.outputs):
            return sum(
                min(array.traffic, _written(end, inner, computations) or array.traffic)
                for array, end in zip(instruction.outputs, ends, strict=True)
            )
    return whole


def _collective(found: Instruction, instruction: Instruction, times: float) -> Collective:
    kind, outputs = found.operation.removesuffix("-start"), found.outputs
    if found.operation.endswith("-start") and kind in ("all-gather", "collective-permute"):
        outputs = outputs[len(found.operands) : 2 * len(found.operands)]  # the first are the operands
    size = sum(array.bytes for array in outputs)
    group = _group(found.attributes)
    if kind in ("reduce-scatter", "all-to-all"):
        size *= len(group)
    if kind == "all-reduce" and "all-reduce-scatter" in (instruction.called("calls") or ""):
        kind = "reduce-scatter"  # a fusion that keeps a slice of the sum
    alone = instruction.operation == kind or '"is_sync":true' in instruction.attributes
    return Collective(kind, size, group, times, tuple(array.shape for array in outputs), alone)


def _group(attributes: str) -> tuple[int, ...]:
    """The devices of the first group, written in one of XLA's ways: pairs, a list, a reshaped range, axes of a mesh."""
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes)
    if pairs:
        return int(pairs[1]), int(pairs[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return tuple(int(n) for n in listed[1].split(","))
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return _order(iota[2], iota[3])[: int(iota[1].split(",")[-1])]
    ids = r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
    named = re.search(rf"replica_groups=mesh\[([^\]]*)\]{ids}\s*\{{([^}}]*)\}}", attributes)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        over, names = re.findall(r"'(\w+)'", named[4]), list(sizes)
        order = [i for i, n in enumerate(names) if n not in over] + [names.index(n) for n in over]
        places = _order(",".join(sizes.values()), ",".join(map(str, order)))[: math.prod(int(sizes[n]) for n in over)]
        numbers = _order(named[2], named[3]) if named[2] else None
        return tuple(numbers[place] for place in places) if numbers else places
    return ()


def _order(axes: str, transposed: str | None) -> tuple[int, ...]:
    """Devices 0, 1, ... laid out as `axes` (sizes, by commas), in the order in which the transposed array is read."""
    numbers = np.arange(math.prod(map(int, axes.split(",")))).reshape([int(n) for n in axes.split(",")])
    turned = numbers.transpose([int(n) for n in transposed.split(",")]) if transposed else numbers
    return tuple(turned.ravel().tolist())


def totals(collectives: list[Collective]) -> dict[tuple[str, int], tuple[float, float]]:
    """(kind, devices per group) → (times per step, bytes per step)."""
    found: dict[tuple[str, int], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for c in collectives:
        times, size = found[c.kind, len(c.group)]
        found[c.kind, len(c.group)] = times + c.times, size + c.times * c.bytes
    return dict(found)
