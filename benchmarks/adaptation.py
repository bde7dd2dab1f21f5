# SPDX-License-Identifier: Apache-2.0
"""What the rows of new pieces begin with, and what becomes of the old languages: an encoder adapted to two languages, four ways.

    python benchmarks/adaptation.py base DATA NEW WORKDIR        # a small encoder of three languages
    python benchmarks/adaptation.py train WORKDIR ROWS           # random, script, mean or focus; replay: focus, with old text among the new
    python benchmarks/adaptation.py table WORKDIR [FIGURE.png]

DATA is ../shared/data, NEW a folder of {dz,om}.txt, made by help_text.py of Debian's
libreoffice-help-dz (Dzongkha, in Tibetan script, which the old vocabulary does not know) and libreoffice-help-om (Oromo, in Latin script).
The encoder is trained from nothing on German, English and Russian first; only the new rows differ between the arms.
"""

from __future__ import annotations

import argparse
import gzip
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mlm_jax.adapt.config import Adapt
from mlm_jax.adapt.run import adapt
from mlm_jax.config import Config, Data, Model, Optimizer, Sampling, Source, Train, Vocabulary
from mlm_jax.functions import pretrain
from mlm_jax.train.metrics import read_metrics

OLD, NEW = ("de", "en", "ru"), ("dz", "om")
LINES = 8_000  # of a language
PIECES = 4_000  # of the vocabulary trained on the new languages
STEPS, BASE_STEPS = 1_000, 3_000  # updates
POINTS = (0, 50, 200, 1_000)
ARMS = ("random", "script", "mean", "focus", "replay")


def data(workdir: Path, languages: tuple[str, ...]) -> Data:
    sources = tuple(Source(language, f"{workdir}/text/{language}.txt") for language in languages)
    return Data(sources=sources, sequence_length=64, workers=1)


def training(workdir: Path, languages: tuple[str, ...], steps: int) -> Config:
    """Blocks of 64 tokens, 16 an update; a constant rate, so that a run's 50th update is that of a run of 50."""
    return Config(
        data=data(workdir, languages),
        sampling=Sampling(exponent=0.0),
        model=Model(layers=2, width=128, heads=4, mlp_width=512, positions=64, dropout=0.0, attention_dropout=0.0),
        optimizer=Optimizer(learning_rate=1e-3, warmup_steps=20, schedule="constant"),
        train=Train(
            steps=steps,
            batch_size=16,
            validate_every=50,
            validation_blocks=32,
            save_every=steps,
            keep_last=1,
            log_every=50,
        ),
    )


def base(given: argparse.Namespace) -> None:
    """The encoder to adapt."""
    workdir: Path = given.workdir
    (workdir / "text").mkdir(parents=True)
    for language in OLD:
        with gzip.open(given.data / "libreoffice_help" / f"{language}.tsv.gz", "rt") as file:
            lines = dict.fromkeys(line.rstrip("\n").split("\t", 1)[1] for line in file)
        kept = islice((line for line in lines if len(line) > 40), LINES)
        (workdir / "text" / f"{language}.txt").write_text("\n".join(kept) + "\n")
    for language in NEW:
        kept = islice((given.new / f"{language}.txt").read_text().splitlines(), LINES)
        (workdir / "text" / f"{language}.txt").write_text("\n".join(kept) + "\n")
    words = Vocabulary(size=8_000, byte_fallback=False)
    pretrain(replace(training(workdir, OLD, given.steps), workdir=str(workdir / "base"), vocabulary=words))


def train(given: argparse.Namespace) -> None:
    workdir, arm = given.workdir, given.rows
    start, run = workdir / f"start_{arm}", workdir / arm
    began = time.process_time()
    adapt(
        Adapt(
            workdir=str(start),
            init=str(workdir / "base"),
            step="last",
            change="extend",
            rows="focus" if arm == "replay" else arm,
            data=data(workdir, NEW),
            vocabulary=Vocabulary(size=PIECES),
            sampling=Sampling(exponent=0.3),
        )
    )
    print(f"{arm}: adapted in {time.process_time() - began:.0f} s of processor time")
    drawn = OLD + NEW if arm == "replay" else NEW
    config = training(workdir, OLD + NEW, given.steps)
    config = replace(config, init=str(start), sampling=replace(config.sampling, languages=drawn))
    there = next((other for other in ARMS if (workdir / other / "corpus" / "manifest.json").exists()), "")
    config = replace(config, corpus=str(workdir / there) if there and there != arm else "")
    # A first update of warm-up is as good as none, and its validation is that of update 0.
    none = replace(config.train, steps=1)
    still = replace(config.optimizer, warmup_steps=10**9)
    pretrain(replace(config, workdir=f"{run}_0", train=none, optimizer=still))
    pretrain(replace(config, workdir=str(run), corpus=config.corpus or f"{run}_0"))


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Step → language → validation loss in nats per masked token."""
    found = {}
    for record in read_metrics(folder):
        if record["kind"] == "validation":
            found[record["step"]] = {name: of["loss"] for name, of in record["languages"].items()}
    return found


def table(given: argparse.Namespace) -> None:
    workdir: Path = given.workdir
    curves = {}
    for arm in ARMS:
        if (workdir / arm / "metrics.jsonl").exists():
            first = next(iter(losses(workdir / f"{arm}_0").values()))
            curves[arm] = {0: first} | losses(workdir / arm)
    print("arm language " + " ".join(map(str, POINTS)))
    for arm, curve in curves.items():
        for language in NEW + OLD:
            print(
                arm,
                language,
                " ".join(f"{curve[point][language]:.3f}" for point in sorted({*POINTS, max(curve)} & curve.keys())),
            )
    for arm in curves:
        for language in NEW:
            goal = curves["random"][max(curves["random"])][language]
            reached = [step for step, of in sorted(curves[arm].items()) if of[language] <= goal]
            print(f"{arm}: {language} reaches {goal:.3f}, random's last, at update {reached[0] if reached else '-'}")
    if given.figure:
        draw(curves, given.figure)


def draw(curves: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    panels = [*NEW, "old"]
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 3.4), layout="constrained")
    names = {"dz": "Dzongkha (new script)", "om": "Oromo (known script)", "old": "old languages (mean)"}
    for axis, panel in zip(axes, panels, strict=True):
        for arm, curve in curves.items():
            steps = sorted(curve)
            of = [sum(curve[s][x] for x in OLD) / len(OLD) if panel == "old" else curve[s][panel] for s in steps]
            axis.plot(steps, of, label=arm, linewidth=1.5)
        axis.set_title(names[panel], fontsize=10)
        axis.set_xlabel("updates")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation loss, nats per masked token")
    axes[-1].legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function, arguments in (
        (base, ("data", "new", "workdir")),
        (train, ("workdir", "rows")),
        (table, ("workdir",)),
    ):
        command = commands.add_parser(function.__name__)
        for name in arguments:
            command.add_argument(name, type=str if name == "rows" else Path)
        if function is table:
            command.add_argument("figure", type=Path, nargs="?")
        if function is not table:
            command.add_argument("--steps", type=int, default=STEPS if function is train else BASE_STEPS)
        command.set_defaults(function=function)
    given = parser.parse_args()
    given.function(given)


if __name__ == "__main__":
    main()
