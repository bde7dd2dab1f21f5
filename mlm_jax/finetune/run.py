# SPDX-License-Identifier: Apache-2.0
"""A fine-tuning experiment: the models of its transfer regime, their selection, and the table of results."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import jax
import numpy as np
from etils import epath

from mlm_jax import console, hosts
from mlm_jax.errors import UserError
from mlm_jax.files import listed, make_folder, write_json, write_whole
from mlm_jax.finetune.arrays import join
from mlm_jax.finetune.config import Finetune, selection
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.learner import Experiment, Finetuned, Scores, finetune_model, random_start
from mlm_jax.finetune.models import save_model
from mlm_jax.finetune.predict import Score, make_scorer
from mlm_jax.finetune.sets import Part, Parts, read_parts, same_predictions
from mlm_jax.finetune.tasks import task_kind
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.finetune.words import learn, write_splitter
from mlm_jax.mesh import make_mesh
from mlm_jax.pretrained import FinetunedHead, Params, Pretrained
from mlm_jax.results import ANEW, FINETUNED, FinetunedRow, finetuned_cautions, write_results
from mlm_jax.stored import read_json
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train.initial import read_initial


@dataclass(frozen=True)
class RegimeModel:
    """A model of the experiment: its name, what it is trained on, and what it is tested on."""

    name: str
    train: tuple[str, ...]
    tested: tuple[str, ...]


def regime_models(config: Finetune) -> list[RegimeModel]:
    """The models of the regime."""
    trained = tuple(part.language for part in config.data.train)
    tested = tuple(part.language for part in config.data.test)
    if config.regime in ("zero_shot", "translate_test"):
        return [RegimeModel(config.source, (config.source,), tested)]
    if config.regime in ("translate_train_all", "joint"):
        return [RegimeModel("all", trained, tested)]
    return [RegimeModel(language, (language,), (language,)) for language in tested]


def run_finetuning(config: Finetune) -> tuple[list[FinetunedRow], signal.Signals | None]:
    """Fine-tune and test every model of the experiment that is not finished.

    Of several processes that fine-tune together all compute, and the first one writes.

    Returns:
      The rows of results.json so far, and the signal that stopped the run, if one did.

    Raises:
      UserError: bad input; nothing is trained before all data is read.
    """
    workdir = epath.Path(config.workdir)
    mesh = make_mesh(config.mesh, devices=jax.devices()[: config.devices or None])
    start = read_start(config, mesh)
    tokenizer = load_tokenizer(workdir / "vocabulary")
    needed = {x for model in regime_models(config) for x in model.train}
    train, dev, test, labels = read_parts(config, needed, start, tokenizer)
    if task_kind(config.task).of_words and jax.process_index() == 0:
        write_splitter(workdir, learn(e.first for part in train.values() for e in part.examples))
    scoring = Scoring(config, make_scorer(config, start, labels, mesh), labels)
    console.say(describe(config, start, train, dev, test, labels))
    for model, seed in itertools.product(regime_models(config), config.seeds):
        name = f"{model.name}-seed{seed}"
        folder = workdir / "models" / name
        if (folder / "results.json").exists():
            if not is_outgrown(config, folder):
                continue
            hosts.barrier(f"{name} is trained anew")  # all have read its results
            if jax.process_index() == 0:
                console.say(f"{name}: was trained for less (train.epochs, train.max_updates); trained anew")
                folder.rmtree()
        chosen_by = dev_languages(config, model, dev)

        def on_dev(params: Params, languages: Sequence[str] = chosen_by) -> Scores:
            return {x: scoring.measure(dev[x], scoring.predict(params, dev[x])) for x in languages}

        items = join([train[x].encoded for x in model.train], start.languages)
        experiment = Experiment(name, seed, items, labels, scoring.metric, chosen_by, on_dev)
        begin = random_start(start, seed) if config.random_init else start
        finetuned = finetune_model(config, folder, begin, experiment, mesh)
        if finetuned.stopped_by is not None:
            return gather(workdir), finetuned.stopped_by
        rows, kept = measure_model(config, scoring, model, experiment, finetuned, dev, test, folder)
        params = finetuned.params(kept)
        head = FinetunedHead(dataclasses.asdict(config.task), labels, params["head"])
        source = f"{name} at update {kept:,}"
        save_model(folder, dataclasses.replace(start, params=params["encoder"], source=source, step=kept, head=head))
        if jax.process_index() == 0:
            write_json(folder / "results.json", rows, 1)
            (folder / "checkpoints").rmtree()  # what they hold is in the model or was tested
        hosts.barrier(f"{name} is finished")
    rows = gather(workdir)
    if jax.process_index() == 0:
        write_results(workdir, rows, FINETUNED, "test")
    return rows, None


@dataclass(frozen=True)
class Scoring:
    """How the experiment's models are run over labelled examples, and measured.

    Attributes:
      score: of `predict.make_scorer`.
      labels: in the order of their ids.
    """

    config: Finetune
    score: Score
    labels: Sequence[str]

    @property
    def metric(self) -> str:
        """The metric that chooses checkpoints and is averaged over languages."""
        task = self.config.task
        return task_kind(task).main_metric(task, self.labels)

    def predict(self, params: Params, part: Part) -> list[Prediction]:
        """A prediction for each example, by whole parameters on the mesh."""
        task, scores = self.config.task, self.score(params, part.encoded, None)
        return task_kind(task).decode(part.examples, part.encoded, scores, self.labels, params["head"], task)

    def measure(self, part: Part, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Every metric of the task, by name."""
        task = dataclasses.replace(self.config.task, labels=tuple(self.labels))
        return task_kind(task).measure(part.examples, predictions, task, part.labelled.language)


def measure_model(
    config: Finetune,
    scoring: Scoring,
    model: RegimeModel,
    experiment: Experiment,
    finetuned: Finetuned,
    dev: Parts,
    test: Parts,
    folder: epath.Path,
) -> tuple[list[FinetunedRow], int]:
    """Test a model in every language at the update that was chosen for it.

    Returns:
      A row per language, and the update that most languages chose.
    """
    rows: list[FinetunedRow] = []
    steps = {x: chosen_step(config, finetuned, x, experiment.metric) for x in model.tested}
    for step in sorted(set(steps.values())):
        params = finetuned.params(step)
        for language in (x for x in model.tested if steps[x] == step):
            part = test[language]
            found = scoring.predict(params, part)
            if jax.process_index() == 0:
                write_predictions(folder / "predictions" / f"{language}.jsonl", part.examples, found)
            rows.append(
                {
                    "regime": config.regime,
                    "model": model.name,
                    "seed": experiment.seed,
                    "trained_on": list(model.train),
                    "language": language,
                    "examples": len(found),
                    "truncated": part.encoded.truncated,
                    "outside": len(part.encoded.outside),
                    "in_train": part.in_train,
                    "dev_examples": len(dev[language].examples) if language in dev else 0,
                    "epochs": config.train.epochs,
                    "max_updates": config.train.max_updates,
                    "cautions": [
                        f"{language}, seed {experiment.seed}: {x}" for x in same_predictions(part.examples, found)
                    ],
                    "select": selection(config) if experiment.selected else "last",
                    "step": step,
                    "dev": finetuned.dev.get(step, {}).get(language),
                    "metric": experiment.metric,
                    "test": scoring.measure(part, found),
                }
            )
    return rows, most_chosen(steps)


class Epochs(TypedDict, total=False):
    """How long models are trained, in a stored config."""

    epochs: float
    max_updates: int


class Budget(TypedDict, total=False):
    """Of a stored config."""

    train: Epochs


def note_budget(workdir: epath.PathLike) -> None:
    """Write into the results of finished models how long they were trained, where an earlier version did not.

    Before a workdir's config is stored anew: it says so.
    """
    workdir = epath.Path(workdir)
    if not (workdir / "config.json").exists():
        return
    train = read_json(workdir / "config.json", Budget).get("train", {})
    for path in finished(workdir):
        rows = read_rows(path)
        if any("epochs" not in r for r in rows):
            known = {"epochs": train.get("epochs", 3.0), "max_updates": train.get("max_updates", 0)}
            write_json(path, [{**known, **r} for r in rows], 1)


def is_outgrown(config: Finetune, folder: epath.Path) -> bool:
    """Whether a finished model was trained for less than the config says.

    Raises:
      UserError: it was trained for more.
    """
    had = read_rows(folder / "results.json")[0]
    asked = config.train.epochs, config.train.max_updates or math.inf
    was = had.get("epochs", asked[0]), had.get("max_updates", 0) or math.inf
    if any(now < before for now, before in zip(asked, was, strict=True)):
        raise UserError(
            f"{folder}: was trained for train.epochs {was[0]:g}, train.max_updates {had.get('max_updates', 0)}, which is more than "
            "here; raise them, or use another --workdir"
        )
    return asked != was


def read_start(config: Finetune, mesh: jax.sharding.Mesh) -> Pretrained:
    """The encoder that the workdir starts from, on the mesh.

    Raises:
      UserError: it does not fit the config.
    """
    found = read_initial(config.workdir, mesh)
    if config.data.max_length > found.model.positions:
        raise UserError(
            f"data.max_length: {config.data.max_length} is beyond the encoder's {found.model.positions} positions; use --data.max_length {found.model.positions}"
        )
    if config.optimizer.freeze > found.model.layers:
        raise UserError(f"optimizer.freeze: {config.optimizer.freeze} layers, the encoder has {found.model.layers}")
    return found


def dev_languages(config: Finetune, model: RegimeModel, dev: Parts) -> tuple[str, ...]:
    """The languages whose dev sets choose a model's checkpoint."""
    if selection(config) == "last":
        return ()
    if selection(config) == "source":
        return (config.source,) if config.source in dev else ()
    return (
        tuple(x for x in dev if x in model.tested or x in model.train)
        if len(model.tested) > 1
        else tuple(x for x in dev if x in model.tested)
    )


def chosen_step(config: Finetune, finetuned: Finetuned, language: str, metric: str) -> int:
    """The update whose model is tested on a language: the earliest of the best."""
    if not finetuned.dev:
        return finetuned.last

    def value(found: dict[str, dict[str, float]]) -> float:
        if selection(config) == "per_language" and language in found:
            return found[language][metric]
        return float(np.mean([m[metric] for m in found.values()]))

    # Orbax keeps the newest of equals.
    return max(sorted(finetuned.dev, reverse=True), key=lambda step: value(finetuned.dev[step]))


def most_chosen(steps: dict[str, int]) -> int:
    """The update chosen by most languages, for the model that is kept."""
    chosen = list(steps.values())
    return max(sorted(set(chosen)), key=chosen.count)


def write_predictions(path: epath.Path, examples: Sequence[Example], found: Sequence[Prediction]) -> None:
    """JSON lines: what was predicted, with its probability, and what is right."""
    make_folder(path.parent)
    lines = [
        json.dumps(
            {"key": e.key, "gold": e.label, "predicted": p.value, "probability": p.probability}, ensure_ascii=False
        )
        for e, p in zip(examples, found, strict=True)
    ]
    write_whole(path, "\n".join(lines) + "\n")


def gather(workdir: epath.Path) -> list[FinetunedRow]:
    """The rows of all finished models."""
    return [row for path in finished(workdir) for row in read_rows(path)]


def read_rows(path: epath.Path) -> list[FinetunedRow]:
    """The rows of a finished model.

    Raises:
      UserError: they are damaged.
    """
    rows: list[FinetunedRow] = read_json(path, list[FinetunedRow], ANEW)
    if not rows:
        raise UserError(f"{path}: damaged (it has no rows); {ANEW}")
    return rows


def finished(workdir: epath.Path) -> list[epath.Path]:
    """The results of the models that are finished."""
    return sorted(path for model in listed(workdir / "models") if (path := model / "results.json").exists())


def table(rows: Sequence[FinetunedRow], source: str) -> str:
    """Results per language: mean, standard deviation and range over seeds, their mean, and the cross-lingual transfer gap; and
    below what to know of them.

    Raises:
      UserError: nothing is finished yet.
    """
    if not rows:
        raise UserError("no model is finished yet; run: mlm-jax finetune CONFIG")
    metric = rows[0]["metric"]
    languages = list(dict.fromkeys(r["language"] for r in rows))
    others = [name for name in rows[0]["test"] if name != metric and all(name in r["test"] for r in rows)]
    seeds = sorted({r["seed"] for r in rows})
    values = {x: {r["seed"]: 100 * r["test"][metric] for r in rows if r["language"] == x} for x in languages}
    cells = []
    several = ["range"] if len(seeds) > 1 else []

    def ranged(found: Iterable[float]) -> list[str]:
        every = list(found)
        return [f"{min(every):.1f} to {max(every):.1f}"] if several else []

    for x in languages:
        mine = [r for r in rows if r["language"] == x]
        spread = f"{np.std(list(values[x].values()), ddof=1):.1f}" if len(mine) > 1 else ""
        more = [f"{100 * float(np.mean([r['test'][name] for r in mine])):.1f}" for name in others]
        steps = ", ".join(f"{r['step']:,}" for r in mine)
        cells.append(
            [
                x,
                mine[0]["model"],
                f"{mine[0]['examples']:,}",
                f"{np.mean(list(values[x].values())):.1f}",
                spread,
                *ranged(values[x].values()),
                *more,
                steps,
            ]
        )
    means = [float(np.mean([values[x][s] for x in languages if s in values[x]])) for s in seeds]
    spread = f"{np.std(means, ddof=1):.1f}" if len(means) > 1 else ""
    blank = [""] * (len(others) + 1)
    cells.append(["mean", "", "", f"{np.mean(means):.1f}", spread, *ranged(means), *blank])
    if source in languages and len(languages) > 1 and rows[0]["regime"] in ("zero_shot", "translate_test"):
        gaps = [values[source][s] - float(np.mean([values[x][s] for x in languages if x != source])) for s in seeds]
        spread = f"{np.std(gaps, ddof=1):.1f}" if len(gaps) > 1 else ""
        cells.append([f"{source} - mean of others", "", "", f"{np.mean(gaps):.1f}", spread, *ranged(gaps), *blank])
    shown = console.format_table(
        ["language", "model", "examples", metric, "± seeds", *several, *others, "update"], cells
    )
    return "\n".join([shown, *finetuned_cautions(rows)])


def describe(config: Finetune, start: Pretrained, train: Parts, dev: Parts, test: Parts, labels: Sequence[str]) -> str:
    """What is about to be done, with the regime and the rule of selection."""
    made = regime_models(config)
    rule = {
        "joint": "best mean over the dev sets",
        "per_language": "best on each language's dev set",
        "source": f"best on dev {config.source}",
        "last": "the last update",
    }[selection(config) if dev else "last"]

    def sizes(parts: Parts) -> str:
        return ", ".join(f"{x} {len(part.examples):,}" for x, part in parts.items()) or "none"

    frozen = "" if config.optimizer.freeze < 0 else f"; frozen: embeddings and {config.optimizer.freeze} layers"
    return (
        f"{config.regime}: {len(made)} model{'s' * (len(made) > 1)} × {len(config.seeds)} seed{'s' * (len(config.seeds) > 1)} "
        f"of {config.task.kind}{f' with {len(labels)} labels' if labels else ''} from {start.source}; tested: {rule}{frozen}\n"
        f"train {sizes(train)}; dev {sizes(dev)}; test {sizes(test)}"
    )
