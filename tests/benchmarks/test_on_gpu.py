# SPDX-License-Identifier: Apache-2.0
"""The script for the first minutes with a GPU: its parts on the CPU with a tiny shape, and what it does when they fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Any

import pytest

from mlm_jax import config as cfg
from mlm_jax.fields import types_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "on_gpu.py"

# Stands in for a part's process: does what the part's function is called.
STAND_IN = """
import json, os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from on_gpu import append
job, out = json.loads(sys.argv[1]), Path(sys.argv[2])
row = {"part": job["part"], "kind": "vectors", "side": job["part"], "sentences_per_second": 1.0}
append(out / "results.jsonl", row)
if job["function"] == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if job["function"] == "raise":
    raise ValueError("of the stand-in")
if job["function"] == "hang":
    child = subprocess.Popen(["sleep", "600"])
    (out / "child").write_text(str(child.pid))
    time.sleep(600)
"""


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import on_gpu

    return on_gpu


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`on_gpu_parts`, and what its parts report of the tiny shape."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import on_gpu_parts

    def run(part: str, **arguments: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        on_gpu_parts.PARTS[part](rows.append, True, **arguments)
        json.dumps(rows)  # they are written as JSON
        return rows

    return run


def stand_in(job: str, out: Path) -> list[str]:
    return [sys.executable, "-c", STAND_IN, job, str(out), str(BENCHMARKS)]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_part_that_fails_crashes_or_hangs_leaves_the_others(
    on_gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = [("crash", "gpu"), ("hang", "cpu"), ("raise", "gpu"), ("good", "gpu")]
    parts = [on_gpu.Part(kind, {}, lane, 3.0 if kind == "hang" else 60.0) for kind, lane in kinds]
    on_gpu.Runner(tmp_path, time.monotonic() + 120, True, stand_in).run(parts)
    rows = on_gpu.read(tmp_path / "results.jsonl")
    # What was reported before is kept.
    assert {row["part"] for row in rows if "kind" in row} == {"crash", "hang", "raise", "good"}
    failed = {row["part"]: row["failed"] for row in rows if "failed" in row}
    assert failed.keys() == {"crash", "hang", "raise"}
    assert failed["crash"] == f"its process ended with signal {signal.SIGSEGV.value}; see gpu.log"
    assert failed["raise"] == "its process ended with status 1; see gpu.log"
    assert failed["hang"].startswith("was ended after 3 s")
    assert "ValueError: of the stand-in" in (tmp_path / "gpu.log").read_text()
    assert gone(int((tmp_path / "child").read_text()))
    # As soon as it is known, and once.
    shown = capsys.readouterr().out.splitlines()
    assert sum("good: 1 sentences/s" in line for line in shown) == 1
    assert sum("hang: failed" in line for line in shown) == 1


def test_what_there_is_no_time_for_is_said(on_gpu: Any, tmp_path: Path) -> None:
    parts = [on_gpu.Part("good", {}, "gpu", 60.0), on_gpu.Part("good", {"n": 2}, "cpu", 60.0)]
    on_gpu.Runner(tmp_path, time.monotonic() + 1, True, stand_in).run(parts)
    rows = on_gpu.read(tmp_path / "results.jsonl")
    assert {row["part"]: row["skipped"] for row in rows} == dict.fromkeys(("good", "good 2"), "no time was left")


def test_results_outlive_a_kill_in_the_middle_of_a_line(on_gpu: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    on_gpu.append(path, {"part": "one"})
    with path.open("a") as file:
        file.write('{"part": "tw')
    assert on_gpu.read(path) == [{"part": "one"}]
    on_gpu.append(path, {"part": "three"})
    assert on_gpu.read(path) == [{"part": "one"}, {"part": "three"}]


def test_every_kernel_of_the_config_is_measured(on_gpu: Any, measured: Any) -> None:
    import on_gpu_parts

    known = set(typing.get_args(types_of(cfg.Model)["attention"][0]))
    kernels = on_gpu_parts.kernels()
    assert set(kernels) == known - {"auto", "splash", "triton"}
    parts = on_gpu.parts(kernels, "h100:1")
    assert {part.function for part in parts} == set(on_gpu_parts.PARTS)
    for kernel in kernels:
        assert [part for part in parts if part.function == "our_steps" and part.arguments["kernel"] == kernel]
    assert len({part.name for part in parts}) == len(parts)
    # The one with dropout first, where it is there.
    assert on_gpu.parts(["flash", "xla", "cudnn"], "")[0].arguments == {"kernel": "flash"}


def test_sizes_fall_through_where_memory_does_not_suffice(measured: Any) -> None:
    from on_gpu_parts import largest_that_fits, scaled

    tried = []

    def run(size: int) -> None:
        tried.append(size)
        if size > 32:
            raise MemoryError if size == 64 else RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    assert largest_that_fits([128, 64, 32, 16], run) == 32
    assert tried == [128, 64, 32]
    with pytest.raises(MemoryError, match="not even 64 blocks fit"):
        largest_that_fits([128, 64], run)
    with pytest.raises(ZeroDivisionError):
        largest_that_fits([128, 64], lambda size: size // 0)
    assert scaled(32, 4.0, 20.0, 76.0) == 144  # 72 of what 16 are for 32
    assert scaled(32, 4.0, 20.0, float("inf")) == float("inf")


STEP = {"part": "x", "kind": "step", "length": 512, "attention_dropout": 0.1, "compile_seconds": 9.0}
OURS = {**STEP, "side": "mlm_jax", "kernel": "flash", "batch": 32, "seconds": 0.05, "tokens_per_second": 327_680.0}
OURS |= {"loss": 12.5, "gradient_norm": 2.0, "flops": 12e12, "peak": 989e12, "memory": 2e10, "compiler_memory": 1.9e10}
THEIRS = {**STEP, "side": "transformers", "kernel": "sdpa", "batch": 16, "seconds": 0.1, "tokens_per_second": 81_920.0}


def test_the_table_compares(on_gpu: Any) -> None:
    rows = [
        dict(OURS),
        dict(THEIRS),
        {"part": "p", "kind": "plan", "kernel": "flash", "batch": 32, "memory": 1.8e10, "seconds": 0.04, "mfu": 0.3},
        {"part": "r", "kind": "reference", "where": "cpu", "batch": 32, "attention_dropout": 0.1}
        | {"loss": 12.25, "gradient_norm": 1.0, "device": "cpu"},
        {"part": "v", "kind": "vectors", "side": "mlm_jax", "sentences_per_second": 30.0},
        {"part": "w", "kind": "vectors", "side": "transformers", "sentences_per_second": 10.0},
        {"part": "our steps cudnn", "skipped": "UserError: no"},
    ]
    shown = on_gpu.table(rows)
    assert (
        "| mlm_jax | flash | 0.1 | 32 | 50.0 | 327,680 | 24.3 % | 20.00 | 19.00 | 4.00 | 40.0 (0.80 ×) | 18.00 |"
        in shown
    )
    assert "| transformers | sdpa | 0.1 | 16 | 100.0 | 81,920 | 6.1 % |" in shown
    assert "| flash | 0.1 | 12.500000 | 2.00000 | +2.50e-01 | +1.00e+00 |" in shown
    assert "vectors, sentences/s: mlm_jax 30, transformers 10; 3.00 ×" in shown
    assert "our steps cudnn: skipped: UserError: no" in shown
    # Whatever is missing, there is a table of the rest.
    for i in range(len(rows)):
        assert on_gpu.table(rows[:i] + rows[i + 1 :])
    assert on_gpu.table([]) == ""


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(BENCHMARKS / "on_gpu.sh"), *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_the_script_says_what_it_needs(tmp_path: Path) -> None:
    found = script("--help")
    assert found.returncode == 0
    assert "pip download" in found.stdout and "://" not in found.stdout
    assert not found.stdout.startswith("#") and "set -e" not in found.stdout
    found = script("--wheels", str(tmp_path))
    assert (found.returncode, found.stderr) == (2, f"error: {tmp_path}: no wheels there; see --help\n")
    no_card = tmp_path / "bin" / "nvidia-smi"
    no_card.parent.mkdir()
    no_card.write_text("#!/bin/sh\nexit 9\n")
    no_card.chmod(0o755)
    path = f"{no_card.parent}{os.pathsep}{os.environ['PATH']}"
    found = script("--out", str(tmp_path / "out"), PATH=path)
    assert (found.returncode, found.stderr) == (1, "error: nvidia-smi finds no GPU; without one: --tiny\n")
    (tmp_path / "results.jsonl").write_text("")
    found = script("--tiny", OUT=str(tmp_path))
    assert found.stderr.endswith("results.jsonl is there already; name another folder by --out\n")


def test_a_signal_ends_it_with_the_table(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--tiny", "--out", str(tmp_path / "out"), "--only", "reference"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert "interrupted" in rest and first in rest  # the table begins with the machine
    assert (tmp_path / "out" / "table.txt").read_text().strip() == first.strip()


# --- the parts themselves


@pytest.mark.slow
def test_the_flash_kernel_against_plain_products(measured: Any) -> None:
    rows = measured("attention_kernel", kernel="flash")
    for name, error in rows[0]["errors"].items():
        assert error < max(1e-2, 2 * rows[0]["plain_errors"][name])
    assert rows[1]["dropped_otherwise"] == 0 and rows[1]["units"] == 2 * 2 * 128 * 128
    assert rows[-1]["seconds"] > 0


@pytest.mark.slow
def test_a_checkpoint_comes_back(measured: Any) -> None:
    [row] = measured("checkpoint")
    assert row["same_state"] and row["same_next_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "speed"), [("fine_tuning", "examples_per_second"), ("vectors", "sentences_per_second")]
)
def test_our_side_of_what_is_compared(measured: Any, part: str, speed: str) -> None:
    [row] = measured(part, side="mlm_jax")
    assert row[speed] > 0


@pytest.mark.slow
@pytest.mark.parity
def test_the_side_of_transformers(measured: Any) -> None:
    pytest.importorskip("transformers")
    rows = measured("their_steps", compiler="")
    assert [row["batch"] for row in rows] == [2, 4]
    assert measured("vectors", side="transformers")[0]["sentences_per_second"] > 0


@pytest.mark.slow
def test_the_script_from_end_to_end(tmp_path: Path) -> None:
    """Two parts beside each other, in processes of their own, to the table."""
    only = ["--only", "reference step cpu 0.1", "our steps xla", "our steps cudnn"]
    found = script("--tiny", "--out", str(tmp_path / "out"), *only)
    assert found.returncode == 0, found.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    first, last = [row for row in rows if row.get("kind") == "step"]
    assert (first["batch"], last["batch"], first["attention_dropout"]) == (2, 4, 0.1)
    [reference] = [row for row in rows if row.get("kind") == "reference"]
    assert reference["loss"] == pytest.approx(first["loss"], abs=1e-5)
    assert reference["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=1e-4)
    assert [row["skipped"] for row in rows if row["part"] == "our steps cudnn"] == [
        "UserError: model.attention: cudnn runs on NVIDIA GPUs only; or set model.attention auto"
    ]
    shown = found.stdout.split("\n\n")
    assert "our steps xla: 2 blocks" in shown[0]
    assert (tmp_path / "out" / "table.txt").read_text().strip() == found.stdout[len(shown[0]) :].strip()
