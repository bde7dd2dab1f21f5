# SPDX-License-Identifier: Apache-2.0
"""Where a training step's time goes, by kind of operation and by part of the model, as JAX's profiler saw it.

    python benchmarks/profile_step.py                              # `step.py`'s small shape, 32,000 pieces
    python benchmarks/profile_step.py --vocabulary 250002
    python benchmarks/profile_step.py --shape xlmr_base            # on whatever device is there

An operation of the compiled program may be many of the source's, fused into one pass; it counts as the one it is named after. Its
part is where in the program that one stands. Times are sums over what ran at once, so shares are what counts.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import glob
import re
import tempfile

import jax
from step import SHAPES, batches, our_step

# The first that occurs in an operation's name says which part of the model it belongs to.
PARTS = {
    "attention": r"/attention/",
    "mlp": r"/mlp/",
    "norms, residual, dropout": r"/layers/",
    "embedding": r"/embedding/",
    "head and loss": r"jvp",  # all else that is differentiated
    "optimizer, masking": r"",
}
# What an operation is for, by XLA's name of it and the primitive it ends in.
KINDS = {
    "copies, transpositions": r"^(copy|transpose)",
    "matrix products": r"dot_general$",
    "sums and maxima": r"reduce_\w+$|cumsum$",
    "gathers and scatters": r"gather$|scatter\S*$|slice$|sort$",
    "element-wise": r"",
}


def instructions(text: str) -> dict[str, tuple[str, str]]:
    """Of a compiled program's text: instruction → (its operation, the name of what it was in the source)."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.-]+) = .*? ([a-z][\w-]*)\(", line)
        if match:
            name = re.search(r'op_name="([^"]*)"', line)
            found[match[1]] = (match[2], name[1] if name else "")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--vocabulary", type=int, help="pieces; by default the shape's first")
    parser.add_argument("--batch", type=int, help="blocks per step; by default the shape's")
    parser.add_argument("--dtype", help="`model.dtype`; by default auto")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=12, help="single operations to list")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    shape = dataclasses.replace(shape, batch=options.batch or shape.batch, dtype=options.dtype or shape.dtype)
    if shape.device:
        jax.config.update("jax_platforms", shape.device)
    vocabulary = options.vocabulary or shape.vocabularies[0]

    step, initialize, on_device = our_step(shape, vocabulary)
    known = instructions(step.as_text())
    ready = [on_device(tokens) for tokens in batches(shape, vocabulary, options.steps + 2)]
    state = initialize()
    for batch in ready[:2]:
        state, _ = step(state, {}, batch)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for batch in ready[2:]:
                state, _ = step(state, {}, batch)
            jax.block_until_ready(state)
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        trace = jax.profiler.ProfileData.from_file(path)

    kinds: collections.Counter[str] = collections.Counter()
    parts: collections.Counter[str] = collections.Counter()
    single: collections.Counter[str] = collections.Counter()
    for plane in trace.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name not in known:
                    continue
                operation, source = known[event.name]
                milliseconds = event.duration_ns / 1e6 / options.steps
                named = f"{event.name} {'dot_general' if operation == 'dot' else source}"
                kinds[next(kind for kind, sign in KINDS.items() if re.search(sign, named))] += milliseconds
                parts[next(part for part, sign in PARTS.items() if re.search(sign, source))] += milliseconds
                single[f"{event.name}  {source[-90:]}"] += milliseconds
    total = sum(kinds.values())
    for title, table, rows in (("kind", kinds, None), ("part", parts, None), ("operation", single, options.rows)):
        print(f"\n{title:<24} {'ms/step':>9} {'share':>7}")
        for name, milliseconds in table.most_common(rows):
            print(f"{name:<24} {milliseconds:>9.1f} {milliseconds / total:>7.1%}")


if __name__ == "__main__":
    main()
