# SPDX-License-Identifier: Apache-2.0
"""Draw how transfer moves with the number of frozen layers: a panel per task, a line per language.

    python benchmarks/frozen_layers.py OUT.png runs/ner runs/ner_frozen_3 runs/xnli runs/xnli_frozen_3 ...

Each WORKDIR is a finished `finetune` run; runs of one kind of task make a panel, and `optimizer.freeze` is where they stand in it.
Prints the same as a table. The figures in docs/results-transfer.md are made so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mlm_jax import console
from mlm_jax.finetune.config import read_finetuning
from mlm_jax.results import read_results

TASKS = {"tag": "Named entities", "classify": "Inference", "span": "Answers", "regress": "Scores"}
METRICS = {"entity_f1": "entity F1", "accuracy": "accuracy", "f1": "F1"}
Panel = dict[int, dict[str, float]]  # frozen layers → language → percent


def read_panels(workdirs: list[str]) -> dict[str, tuple[str, Panel]]:
    """Kind of task → metric, and its runs by frozen layers (-1: nothing is frozen)."""
    panels: dict[str, tuple[str, Panel]] = {}
    for workdir in workdirs:
        config, rows = read_finetuning(workdir), read_results(workdir)
        metric = rows[0]["metric"]
        _, panel = panels.setdefault(config.task.kind, (metric, {}))
        languages = dict.fromkeys(row["language"] for row in rows)
        panel[config.optimizer.freeze] = {
            x: 100 * float(np.mean([row["test"][metric] for row in rows if row["language"] == x])) for x in languages
        }
    return panels


def place(freeze: int) -> str:
    """How a number of frozen layers is called."""
    return {-1: "nothing", 0: "embeddings"}.get(freeze, f"+ {freeze} layers")


def draw(panels: dict[str, tuple[str, Panel]]) -> Figure:
    """The figure."""
    languages = sorted({x for _, panel in panels.values() for level in panel.values() for x in level})
    colours = {x: f"C{number % 10}" for number, x in enumerate(languages)}
    figure = Figure(figsize=(5.4, 2.9 * len(panels)), layout="constrained")
    for axes, (kind, (metric, panel)) in zip(
        np.atleast_1d(figure.subplots(len(panels), 1)), panels.items(), strict=True
    ):
        levels = sorted(panel)
        means = [float(np.mean(list(panel[level].values()))) for level in levels]
        first = panel[levels[0]]
        values = [x for level in panel.values() for x in level.values()]
        apart, place_of_last = 0.055 * (max(values) - min(values)), -np.inf
        for language in sorted(first, key=lambda x: first[x]):
            line = [panel[level][language] for level in levels]
            axes.plot(line, marker="o", markersize=4, linewidth=1.2, color=colours[language])
            # Names that would lie on each other stand one above the other.
            place_of_last = max(first[language], place_of_last + apart)
            axes.annotate(language, (0, place_of_last), xytext=(-8, -3), textcoords="offset points",
                          ha="right", fontsize=8, color=colours[language])  # fmt: skip
        axes.plot(means, color="black", linestyle="--", linewidth=1.8, label="mean")
        best = levels[int(np.argmax(means))]
        axes.set_title(
            f"{TASKS[kind]}: best on average with {place(best)} frozen", loc="left", fontsize=10, fontweight="bold"
        )
        axes.set_xlim(left=-0.3)
        axes.set_xticks(range(len(levels)), [place(level) for level in levels], fontsize=8)
        axes.set_ylabel(f"{METRICS.get(metric, metric)}, %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def main() -> None:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("workdirs", nargs="+")
    options = parser.parse_args()
    panels = read_panels(options.workdirs)
    for kind, (metric, panel) in panels.items():
        languages = list(panel[min(panel)])
        cells = [
            [
                place(level),
                *(f"{panel[level][x]:.1f}" for x in languages),
                f"{np.mean(list(panel[level].values())):.1f}",
            ]
            for level in sorted(panel)
        ]
        print(
            f"\n{TASKS[kind]}, {METRICS.get(metric, metric)}\n{console.format_table(['frozen', *languages, 'mean'], cells)}"
        )
    draw(panels).savefig(options.out, dpi=130)


if __name__ == "__main__":
    main()
