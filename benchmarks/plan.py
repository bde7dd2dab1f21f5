# SPDX-License-Identifier: Apache-2.0
"""`plan` for every full-size config on four kinds of pods and on hosts of GPUs: the tables of docs/plan.md.

    python benchmarks/plan.py --results plan.jsonl                     # all of it; goes on where it was stopped
    python benchmarks/plan.py --results plan.jsonl --topologies v5e-16 --configs xlmr_large
    python benchmarks/plan.py --results plan.jsonl --print             # the table of what is there
    python benchmarks/plan.py --results plan.jsonl --print --before old.jsonl       # with what an older checkout wrote beside
    python benchmarks/plan.py --results plan.jsonl --topologies h100:8 h100:8x8
    python benchmarks/plan.py --results remat.jsonl --configs xlmr_large --topologies v5e-16 --remat none dots full

Of a config with phases that one is planned in which it sees most tokens. Each config keeps its batch, mesh and rematerialisation; the batch is cut into as few microbatches as fit. Steps are compiled with
the compiler's least effort, which takes a third of the time. One step takes half a minute to two on one core.

Needs the extra `[plan]` (libtpu), and `[plan-gpu]` for GPUs.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from mlm_jax import config as cfg
from mlm_jax.phases import in_steps, parts_of
from mlm_jax.plan import topology
from mlm_jax.plan.planned import Planned
from mlm_jax.plan.search import first_that_fits
from mlm_jax.plan.topology import GIB

ROOT = Path(__file__).parent.parent
TOPOLOGIES = ("v5e-256", "v5e-16", "v6e-256", "v4-128")
GPUS = ("h100:8", "h100:8x8")
CONFIGS = (
    *("xlmr_base", "xlmr_large", "xlmr_xl", "xlmr_xxl", "mbert_cased", "mbert_uncased"),
    *("xlm_15_mlm", "xlm_15_mlm_tlm", "xlm_15_clm", "xlm_100"),
    *("modernbert_base", "modernbert_large", "mmbert_small", "mmbert_base"),
)


def row(name: str, where: str, remat: str, planned: Planned | None) -> dict[str, Any]:
    """What is kept of a planned step."""
    if planned is None or planned.predicted is None:
        return {"config": name, "topology": where, "remat": remat, "fits": False}
    mesh, collectives = planned.config.mesh, planned.collectives or {}
    return {
        "config": name,
        "topology": where,
        "remat": remat,
        "fits": True,
        "mesh": [mesh.data, mesh.fsdp, mesh.tensor],
        "microbatches": planned.config.train.accumulate,
        "rows": planned.rows,
        "batch": planned.config.train.batch_size,
        "parameters": planned.parameters,
        "state": planned.memory.parameters + planned.memory.optimizer,
        "activations": planned.memory.activations,
        "temporaries": planned.memory.temporaries,
        "total": planned.memory.total,
        "flops_a_token": planned.model_flops / planned.tokens,
        "executed": (planned.executed_flops or 0) * planned.topology.chips / planned.model_flops,
        "collectives": sum(size for _, size in collectives.values()),
        "seconds": planned.predicted.step,
        "links": planned.predicted.links,
        "tokens_a_second": planned.tokens / planned.predicted.step,
        "mfu": planned.mfu,
    }


def show(rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> str:
    """The table as Markdown; with columns of what was before, where there is any."""
    was = {(r["config"], r["topology"]): r for r in before if r["fits"]}
    headings = (
        *(
            "config",
            "slice",
            "data × fsdp × tensor",
            "microbatches",
            "blocks per chip",
            "remat",
            "state GiB",
            "activations GiB",
            "temporary GiB",
            "left GiB",
        ),
        *("GFLOP per token", "executed", "collectives GB", "s per update", "tokens/s", "MFU"),
        *(("tokens/s before", "MFU before") if before else ()),
    )
    lines = ["| " + " | ".join(headings) + " |", "| --- | --- | --- |" + " --- |" * (len(headings) - 3)]
    for r in sorted(rows, key=lambda r: (CONFIGS.index(r["config"]), (*TOPOLOGIES, *GPUS).index(r["topology"]))):
        if not r["fits"]:
            lines.append(f"| `{r['config']}` | {r['topology']} | does not fit |" + " |" * (len(headings) - 3))
            continue
        left = topology.parse(r["topology"]).chip.memory - r["total"]
        cells = (
            *(
                f"`{r['config']}`",
                r["topology"],
                " × ".join(map(str, r["mesh"])),
                f"{r['microbatches']}",
                f"{r['rows']}",
                r["remat"],
            ),
            *(
                f"{r['state'] / GIB:.2f}",
                f"{r['activations'] / GIB:.2f}",
                f"{r['temporaries'] / GIB:.2f}",
                f"{left / GIB:.2f}",
            ),
            *(
                f"{r['flops_a_token'] / 1e9:.2f}",
                f"{r['executed']:.2f} ×",
                f"{r['collectives'] / 1e9:.1f}",
                f"{r['seconds']:.2f}",
            ),
            *(f"{r['tokens_a_second']:,.0f}", f"{r['mfu']:.0%}"),
        )
        if before:
            old = was.get((r["config"], r["topology"]))
            cells += (f"{old['tokens_a_second']:,.0f}", f"{old['mfu']:.0%}") if old else ("", "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--results", type=Path, required=True, help="JSON lines, one per row; rows that it has are kept"
    )
    parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES, choices=(*TOPOLOGIES, *GPUS))
    parser.add_argument("--configs", nargs="+", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--remat", nargs="+", choices=("none", "dots", "full"), help="instead of the config's own")
    parser.add_argument("--compiles", type=int, default=3, help="steps compiled for a row at most")
    parser.add_argument("--before", type=Path, help="results of an older checkout, for columns beside")
    parser.add_argument("--print", action="store_true", help="print the table of what is there")
    options = parser.parse_args()

    rows = read(options.results)
    if options.print:
        print(show(rows, read(options.before) if options.before else []))
        return
    for where in options.topologies:
        topology.require_compiler(topology.parse(where))
    done = {(r["config"], r["topology"], r["remat"]) for r in rows}
    for where, name in itertools.product(options.topologies, options.configs):
        parts = parts_of(in_steps(cfg.load_config(str(ROOT / "configs" / f"{name}.py"))))
        config = max(parts, key=lambda part: (part.end - part.start) * part.tokens).config
        for remat in options.remat or [config.model.remat]:
            if (name, where, remat) in done:
                continue
            changed = cfg.with_sections(config, model={"remat": remat})
            made = row(name, where, remat, first_that_fits(changed, topology.parse(where), options.compiles))
            with options.results.open("a") as file:
                file.write(json.dumps(made) + "\n")
            print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
