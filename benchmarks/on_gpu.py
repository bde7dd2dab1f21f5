# SPDX-License-Identifier: Apache-2.0
"""The first minutes with one NVIDIA GPU: what on_gpu.sh runs.

    bash benchmarks/on_gpu.sh --wheels WHEELS --out OUT           # XLM-R base at 512 tokens, under 8 minutes
    bash benchmarks/on_gpu.sh --tiny --out OUT                    # the same parts with a tiny shape, on the CPU
    python benchmarks/on_gpu.py --print --out OUT                 # the table of what is there

The training step with each of attention's kernels, at 32 blocks and at the largest batch that fits; transformers' on the same
card; the first step's loss and gradient norm against float32 on the CPU; what `mlm-jax plan` predicts; attention's kernels
against plain products; a checkpoint; fine-tuning and sentence vectors beside transformers. What they are is in on_gpu_parts.py.

Each part is a process of its own with a limit of its own, the most wanted first; those of the CPU run beside those of the GPU. A part that
fails, runs out of memory, crashes or takes too long leaves the others as they are. OUT/results.jsonl has one JSON object
per line, written as soon as it is known; gpu.log and cpu.log have what the parts' libraries say; table.txt is what is printed last.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tyro", "torch", "transformers")
TOPOLOGIES = ("h200", "h100", "b200", "a100")  # of `plan`, as they stand in a card's name
EVERY = 0.2  # seconds between two looks at the processes
LONGEST = 160  # characters of a reason


@dataclasses.dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
      function: of `on_gpu_parts.PARTS`; `arguments` are what it takes beside the shape.
      lane: "gpu" or "cpu"; parts of one lane run one after the other, the lanes beside each other.
      limit: seconds.
    """

    function: str
    arguments: dict[str, Any]
    lane: str
    limit: float

    @property
    def name(self) -> str:
        return " ".join([self.function.replace("_", " "), *(f"{value}" for value in self.arguments.values() if value)])


def parts(kernels: list[str], topology: str) -> list[Part]:
    """All parts, the most wanted first in each lane.

    Args:
      kernels: of attention, the most wanted first.
      topology: of `plan`; empty: the card is none that it knows.
    """
    wanted, others = kernels[:2], kernels[2:]  # flash and xla, which have dropout
    compared = [kernel for kernel in kernels if kernel != "xla"]

    def steps(names: list[str]) -> list[Part]:
        return [Part("our_steps", {"kernel": kernel}, "gpu", 150) for kernel in names]

    def both(function: str) -> list[Part]:
        return [Part(function, {"side": side}, "gpu", 90) for side in ("mlm_jax", "transformers")]

    gpu = [
        *steps(wanted),
        Part("their_steps", {"compiler": "inductor"}, "gpu", 150),
        *(Part("attention_kernel", {"kernel": kernel}, "gpu", 60) for kernel in compared[:1]),
        *steps(others[:1]),
        Part("reference_step", {"where": "gpu", "attention_dropout": 0.1}, "gpu", 90),
        Part("checkpoint", {}, "gpu", 90),
        *both("fine_tuning"),
        *both("vectors"),
        *(Part("attention_kernel", {"kernel": kernel}, "gpu", 60) for kernel in compared[1:]),
        *steps(others[1:]),
        Part("their_steps", {"compiler": ""}, "gpu", 90),
    ]
    cpu = [
        Part("reference_step", {"where": "cpu", "attention_dropout": 0.1}, "cpu", 240),
        *(Part("plan", {"kernel": kernel, "topology": topology}, "cpu", 240) for kernel in wanted if topology),
        Part("reference_step", {"where": "cpu", "attention_dropout": 0.0}, "cpu", 240),
        *(Part("plan", {"kernel": kernel, "topology": topology}, "cpu", 240) for kernel in others if topology),
    ]
    return gpu + cpu


# --- results


def append(path: Path, row: Row) -> None:
    """Add a line, whole and on disk; a line that a kill cut off is left as it is."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        start = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(start + json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """The rows there are, without a line that was cut off."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def run_part(job: dict[str, Any], out: Path) -> None:
    """What a part's process does: report rows, and say why it failed."""
    path = out / "results.jsonl"

    def report(row: Row) -> None:
        append(path, {"part": job["part"], **row})

    try:
        from mlm_jax.children import end_with_parent
        from mlm_jax.errors import UserError

        end_with_parent()
    except ImportError as e:
        report({"failed": f"{e}"})
        raise
    try:
        import on_gpu_parts

        on_gpu_parts.PARTS[job["function"]](report, job["tiny"], **job["arguments"])
    except (UserError, ModuleNotFoundError) as e:  # what this machine does not have
        report({"skipped": shortened(e)})
    except Exception as e:
        report({"failed": shortened(e)})
        raise


def shortened(error: Exception) -> str:
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0]}"[:LONGEST]


# --- processes


def part_command(job: str, out: Path) -> list[str]:
    """What runs a part."""
    return [sys.executable, str(HERE / "on_gpu.py"), "--out", str(out), "--job", job]


class Runner:
    """Runs parts, shows what they report, and gets rid of them.

    Args:
      out: folder of the results.
      until: the time, of `time.monotonic`, at which everything ends.
      command: (JSON of a job, `out`) → what runs it.
    """

    def __init__(self, out: Path, until: float, tiny: bool, command: Callable[[str, Path], list[str]] = part_command):
        self._out, self._until, self._tiny, self._command = out, until, tiny, command
        self._path = out / "results.jsonl"
        self._began = time.monotonic()
        self._shown = len(read(self._path))
        # Lane → its process, part, start and end.
        self._running: dict[str, tuple[subprocess.Popen[bytes], Part, float, float]] = {}

    def run(self, waiting: list[Part]) -> None:
        """Run all parts for which there is time."""
        waiting = list(waiting)
        try:
            while waiting or self._running:
                for lane in ("gpu", "cpu"):
                    self._look_at(lane)
                    mine = [part for part in waiting if part.lane == lane]
                    if mine and lane not in self._running:
                        waiting.remove(mine[0])
                        self._start(mine[0])
                self.show()
                time.sleep(EVERY)
        finally:
            for process, *_ in self._running.values():
                end(process)
            self.show()

    def show(self) -> None:
        """Print what was reported since the last time."""
        rows = read(self._path)
        for row in rows[self._shown :]:
            print(f"[{time.monotonic() - self._began:4.0f} s] {row['part']}: {describe(row)}", flush=True)
        self._shown = len(rows)

    def _start(self, part: Part) -> None:
        now = time.monotonic()
        # What has less than a third of its time left would hardly compile.
        if self._until - now < min(20, part.limit / 3):
            self._report(part, {"skipped": "no time was left"})
            return
        job = {"part": part.name, "function": part.function, "arguments": part.arguments, "tiny": self._tiny}
        command = self._command(json.dumps(job), self._out)
        with (self._out / f"{part.lane}.log").open("ab") as log:
            log.write(f"\n=== {part.name}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, env=environment(part, self._tiny), stdout=log, stderr=log, start_new_session=True
            )
        self._running[part.lane] = process, part, now, min(now + part.limit, self._until)

    def _look_at(self, lane: str) -> None:
        if lane not in self._running:
            return
        process, part, began, until = self._running[lane]
        if process.poll() is None and time.monotonic() < until:
            return
        late = process.poll() is None
        end(process)  # and what it started
        del self._running[lane]
        known = [row for row in read(self._path) if row["part"] == part.name]
        if late:
            self._report(part, {"failed": f"was ended after {time.monotonic() - began:.0f} s"})
        elif process.returncode and not any("failed" in row for row in known):
            how = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
            self._report(part, {"failed": f"its process ended with {how}; see {part.lane}.log"})
        elif not known:
            self._report(part, {"failed": "reported nothing"})

    def _report(self, part: Part, row: Row) -> None:
        append(self._path, {"part": part.name, **row})


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part's process, and those it started, which are of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment(part: Part, tiny: bool) -> dict[str, str]:
    """Of a part's process."""
    sys.path.insert(0, str(HERE.parent))
    from mlm_jax import children

    path = [str(HERE.parent), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    found = os.environ | children.environment()
    found |= {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if tiny or part.lane == "cpu":
        return found | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {
        # JAX fails where it cannot use the GPU, instead of going on with the CPU.
        "JAX_PLATFORMS": "cuda,cpu",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
    } | found


# --- what is printed


def describe(row: Row) -> str:
    """One row as a line."""
    if "failed" in row or "skipped" in row:
        return f"failed: {row['failed']}" if "failed" in row else f"skipped: {row['skipped']}"
    show = {
        "machine": lambda: ", ".join(f"{value}" for value in row["machine"].values() if value),
        "step": lambda: (
            f"{row['batch']} blocks: {1e3 * row['seconds']:.1f} ms, {row['tokens_per_second']:,.0f} tokens/s, "
            f"MFU {percent(mfu(row))}, {gigabytes(row.get('memory'))} GB, compiled in {row['compile_seconds']:.0f} s"
        ),
        "reference": lambda: f"loss {row['loss']:.6f}, gradient norm {row['gradient_norm']:.5f} on {row['device']}",
        "plan": lambda: (
            f"{row['batch']} blocks: {1e3 * row.get('seconds', 0):.1f} ms, MFU {percent(row.get('mfu'))}, "
            f"{gigabytes(row['memory'])} GB" + ("" if row["fits"] else ", does not fit")
        ),
        "attention": lambda: describe_attention(row),
        "checkpoint": lambda: (
            f"{gigabytes(row['bytes'])} GB saved in {row['save_seconds']:.1f} s, restored in {row['restore_seconds']:.1f} s; "
            f"{'the same state' if row['same_state'] else 'ANOTHER STATE'}, "
            f"{'the same next loss' if row['same_next_loss'] else 'ANOTHER NEXT LOSS'}"
        ),
        "fine-tuning": lambda: f"{row['examples_per_second']:,.0f} examples/s",
        "vectors": lambda: f"{row['sentences_per_second']:,.0f} sentences/s",
    }
    return show[row["kind"]]()


def describe_attention(row: Row) -> str:
    if "errors" in row:
        errors, plain = (", ".join(f"{x:.1e}" for x in row[name].values()) for name in ("errors", "plain_errors"))
        return f"bfloat16 from float32 (output, gradients of query, key, value): {errors}; plain products' own: {plain}"
    if "units" in row:
        return f"{row['dropped_otherwise']:,} of {row['units']:,} units dropped otherwise than by the plain products"
    return (
        f"forward and backward, {row['batch']} blocks: {1e3 * row['seconds']:.2f} ms, plain products "
        f"{1e3 * row['plain_seconds']:.2f} ms"
    )


def mfu(row: Row) -> float | None:
    """Of a step; None where the peak is not known."""
    return row["flops"] / row["seconds"] / row["peak"] if row.get("peak") and row.get("flops") else None


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def gigabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"


def table(rows: list[Row]) -> str:
    """All that was measured, as Markdown."""
    good = [row for row in rows if "kind" in row]

    def of(kind: str) -> list[Row]:
        return [row for row in good if row["kind"] == kind]

    lines = [describe(row) for row in of("machine")]
    with_flops(of("step"))
    lines += step_table(of("step"), of("plan")) + loss_table(of("step"), of("reference"))
    for title, kind in (("attention", "attention"), ("checkpoint", "checkpoint")):
        if found := of(kind):
            lines += ["", *(f"{title}, {row.get('kernel', '')}: {describe(row)}".replace(", :", ":") for row in found)]
    for kind, unit in (("fine-tuning", "examples_per_second"), ("vectors", "sentences_per_second")):
        speeds = {row["side"]: row[unit] for row in of(kind)}
        if speeds:
            shown = ", ".join(f"{side} {speed:,.0f}" for side, speed in speeds.items())
            ratio = f"; {speeds['mlm_jax'] / speeds['transformers']:.2f} ×" if len(speeds) == 2 else ""
            lines += ["", f"{kind}, {unit.replace('_per_', '/').replace('second', 's')}: {shown}{ratio}"]
    bad = [row for row in rows if "kind" not in row]
    return "\n".join(lines + [""] * bool(bad) + [f"{row['part']}: {describe(row)}" for row in bad])


def with_flops(found: list[Row]) -> None:
    """Give transformers' rows the model's FLOPs per token and the card's peak, which ours know."""
    ours = next((row for row in found if row.get("flops")), None)
    for row in found if ours else ():
        row.setdefault("flops", ours["flops"] / ours["batch"] * row["batch"])
        if ours.get("peak"):
            row.setdefault("peak", ours["peak"])


def step_table(found: list[Row], planned: list[Row]) -> list[str]:
    theirs = max((row["tokens_per_second"] for row in found if row["side"] == "transformers"), default=None)
    lines = [
        "",
        "| | attention | its dropout | blocks | ms | tokens/s | MFU | peak GB | compiler's GB | × transformers' best | planned ms | planned GB |",
        "| --- |" + " --- |" * 11,
    ]
    for row in sorted(found, key=lambda row: -row["tokens_per_second"]):
        plan = next(
            (
                p
                for p in planned
                if row["side"] == "mlm_jax" and (p["kernel"], p["batch"]) == (row["kernel"], row["batch"])
            ),
            {},
        )
        ratio = f"{row['tokens_per_second'] / theirs:.2f}" if theirs and row["side"] == "mlm_jax" else ""
        cells = [
            row["side"],
            row["kernel"],
            f"{row['attention_dropout']:g}",
            f"{row['batch']}",
            f"{1e3 * row['seconds']:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            percent(mfu(row)),
            gigabytes(row.get("memory")),
            gigabytes(row["compiler_memory"]) if "compiler_memory" in row else "",
            ratio,
            f"{1e3 * plan['seconds']:.1f} ({plan['seconds'] / row['seconds']:.2f} ×)" if "seconds" in plan else "",
            gigabytes(plan["memory"]) if plan else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines if found else []


def loss_table(found: list[Row], references: list[Row]) -> list[str]:
    """The first step of every run at the references' batch, against float32 on the CPU with the same dropout."""
    on_cpu = {row["attention_dropout"]: row for row in references if row["where"] == "cpu"}
    batches = {row["batch"] for row in references}
    compared = [(f"float32, {row['where']}", row) for row in references]
    compared += [(row["kernel"], row) for row in found if "loss" in row and row["batch"] in batches]
    lines = [
        "",
        "| the first step | attention's dropout | loss | gradient norm | loss − CPU's | norm / CPU's − 1 |",
        "| --- |" + " --- |" * 5,
    ]
    for name, row in compared:
        other = on_cpu.get(row["attention_dropout"])
        cells = [name, f"{row['attention_dropout']:g}", f"{row['loss']:.6f}", f"{row['gradient_norm']:.5f}"]
        if other is not None and other is not row:
            differ = row["loss"] - other["loss"], row["gradient_norm"] / other["gradient_norm"] - 1
            cells += [f"{differ[0]:+.2e}", f"{differ[1]:+.2e}"]
        lines.append("| " + " | ".join(cells + [""] * (6 - len(cells))) + " |")
    return lines if compared else []


def machine(tiny: bool) -> Row:
    """The card, its driver and the packages' versions."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    card = ""
    with contextlib.suppress(OSError):
        said = subprocess.run(query, capture_output=True, text=True)
        card = said.stdout.strip().splitlines()[0] if said.returncode == 0 and said.stdout.strip() else ""
    if not card and not tiny:
        raise SystemExit("error: nvidia-smi finds no GPU; without one: --tiny")
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            versions[name] = f"{name} missing"
    python = f"Python {sys.version.split()[0]}"
    return {"card": card, "cores": f"{os.cpu_count()} cores", "python": python, **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--budget", type=float, default=450, help="seconds for everything")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, on the CPU")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="parts whose names have one of these")
    parser.add_argument("--print", action="store_true", help="print the table of what is there")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out.resolve()
    path = out / "results.jsonl"
    if options.job:
        run_part(options.job, out)
        return
    if options.print:
        print(table(read(path)))
        return
    if path.exists():
        raise SystemExit(f"error: {path} is there already; name another folder by --out")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the table is printed then too
    until = time.monotonic() + options.budget
    found = machine(options.tiny)
    out.mkdir(parents=True, exist_ok=True)
    append(path, {"part": "machine", "kind": "machine", "machine": found})
    card = found["card"].lower() or TOPOLOGIES[1]
    topology = next((f"{name}:1" for name in TOPOLOGIES if name in card), "")
    try:
        print(", ".join(value for value in found.values() if value), flush=True)
        wanted = parts(known_kernels(), topology)
        with tempfile.TemporaryDirectory() as compiled:
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", compiled)  # what one part compiled, another loads
            chosen = [part for part in wanted if not options.only or any(word in part.name for word in options.only)]
            Runner(out, until, options.tiny).run(chosen)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    except Exception:
        traceback.print_exc()
    finally:
        shown = table(read(path))
        (out / "table.txt").write_text(shown + "\n")
        print(f"\n{shown}", flush=True)


def known_kernels() -> list[str]:
    """As `on_gpu_parts.kernels` says, asked of a process of its own: this one leaves JAX alone."""
    program = "import json, on_gpu_parts; print(json.dumps(on_gpu_parts.kernels()))"
    part = Part("", {}, "cpu", 0)
    said = subprocess.run([sys.executable, "-c", program], env=environment(part, True), capture_output=True, text=True)
    if said.returncode:
        last = (said.stderr.strip().splitlines() or ["no reason"])[-1]
        raise SystemExit(f"error: mlm_jax cannot be imported: {last}; wheels of what is missing: on_gpu.sh --help")
    return json.loads(said.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
