# SPDX-License-Identifier: Apache-2.0
"""Rows of results: their types, their files results.json and results.csv, and what is done already."""

from __future__ import annotations

import csv
import io
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NotRequired, ParamSpec, TypedDict, TypeVar

from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.files import make_folder, write_json, write_whole
from mlm_jax.stored import checked, read_json

P = ParamSpec("P")
T = TypeVar("T")


class FinetunedRow(TypedDict):
    """What a fine-tuned model scores on a language's test set.

    Attributes:
      model, seed: "all", or the language it was trained for; its random seed.
      trained_on: languages.
      examples, truncated: of the test set; those that were cut to fit.
      outside, in_train: those whose answers lie whole in no window; those that stand in the training data too. Earlier versions did
        not count them.
      select: how the update was chosen (`finetune.config.selection`).
      step: the update.
      dev_examples: of the language's dev set; 0 where there is none.
      epochs, max_updates: how long it was trained.
      cautions: what to know of the value, a sentence each. Earlier versions had none of these four.
      dev: metric → value on the language's dev set at that update; None where there is none.
      metric: the main one.
      test: metric → value.
    """

    regime: str
    model: str
    seed: int
    trained_on: list[str]
    language: str
    examples: int
    truncated: int
    outside: NotRequired[int]
    in_train: NotRequired[int]
    dev_examples: NotRequired[int]
    epochs: NotRequired[float]
    max_updates: NotRequired[int]
    cautions: NotRequired[list[str]]
    select: str
    step: int
    dev: dict[str, float] | None
    metric: str
    test: dict[str, float]


class BenchmarkRow(TypedDict):
    """What an encoder scores on a benchmark in a language.

    Attributes:
      metric, value: the main one.
      every: metric → value, of all.
      protocol: the settings it was measured with.
      cautions: what to know of the value, a sentence each.
    """

    task: str
    language: str
    metric: str
    value: float
    every: dict[str, float]
    examples: int
    protocol: dict[str, Any]
    cautions: NotRequired[list[str]]


class ProbeRow(TypedDict):
    """What a probe finds in a layer.

    Attributes:
      set: the name of the data.
      layer: 0 is the embedding.
      pooling: "mean", "first" or "words"; "tokens": of no vectors.
      transformation: of the vectors (`neutrality.config.TRANSFORMATIONS`).
      languages: "de-en", or empty: all.
      step: of the checkpoint, in rows through pretraining.
    """

    probe: str
    set: str
    layer: int
    pooling: str
    transformation: str
    languages: str
    metric: str
    value: float
    step: NotRequired[int]


ANEW = "delete it, and the same command makes it anew"
FEW = 100  # examples, below which one is a whole point of accuracy
FAR = 6.0  # points that the seeds of a model may differ by

FINETUNED = ("regime", "model", "seed", "language", "select", "step", "examples", "metric", "value")
BENCHMARK = ("task", "language", "metric", "value", "examples")
PROBE = ("probe", "set", "step", "layer", "pooling", "transformation", "languages", "metric", "value")


def few_examples(name: str, counts: Mapping[str, int]) -> list[str]:
    """The caution about a set of fewer than `FEW` examples in some language, in a list; empty: there is none.

    Args:
      name: of the set.
      counts: language → examples.
    """
    few = ", ".join(f"{count:,} of {x}" for x, count in counts.items() if count < FEW)
    return (
        [f"{name}: few examples ({few}); with fewer than {FEW} figures are rough, each is a point of accuracy or more"]
        if few
        else []
    )


def standard_error(share: float, count: int) -> float:
    """The binomial standard error of a share of `count` examples, with one added to either side, so that 0 and 1 have one too."""
    p = (min(max(share, 0.0), 1.0) * count + 1) / (count + 2)
    return math.sqrt(p * (1 - p) / (count + 2))


def finetuned_cautions(rows: Sequence[FinetunedRow]) -> list[str]:
    """What to know of a table of fine-tuned models: few examples, seeds that are far apart, predictions that are all the same."""
    found = few_examples("test", {r["language"]: r["examples"] for r in rows})
    found += few_examples("dev", {r["language"]: r["dev_examples"] for r in rows if r.get("dev_examples")})
    for language in dict.fromkeys(r["language"] for r in rows):
        values = {r["seed"]: 100 * r["test"][r["metric"]] for r in rows if r["language"] == language}
        apart = max(values.values()) - min(values.values())
        if apart >= FAR:
            every = ", ".join(f"{value:.1f}" for value in values.values())
            found.append(
                f"{language}: seeds {', '.join(map(str, values))} differ by {apart:.1f} points ({every}); their mean says little, "
                "give the range with it or train more seeds"
            )
    return found + list(dict.fromkeys(said for r in rows for said in r.get("cautions", ())))


def benchmark_cautions(rows: Sequence[BenchmarkRow]) -> list[str]:
    """What to know of a table of benchmarks: few examples, and what the rows say themselves."""
    said = [f"{r['task']}: {caution}" for r in rows for caution in r.get("cautions", ())]
    for task in dict.fromkeys(r["task"] for r in rows if "cautions" not in r):
        said += few_examples(task, {r["language"]: r["examples"] for r in rows if r["task"] == task})
    return list(dict.fromkeys(said))


def benchmark_row(
    task: str, language: str, metric: str, every: dict[str, float], examples: int, protocol: dict[str, Any]
) -> BenchmarkRow:
    """A row of a benchmark whose main metric is `metric`."""
    return BenchmarkRow(
        task=task, language=language, metric=metric, value=every[metric], every=every, examples=examples, protocol=protocol
    )  # fmt: skip


def probe_rows(
    probe: str, name: str, layer: int, pooling: str, transformation: str, languages: str, scores: Mapping[str, float]
) -> list[ProbeRow]:
    """A row for each metric of `scores`; `name` is that of the data."""
    return [
        ProbeRow(
            probe=probe, set=name, layer=layer, pooling=pooling, transformation=transformation, languages=languages,
            metric=metric, value=value,
        )
        for metric, value in scores.items()
    ]  # fmt: skip


def write_results(
    folder: epath.PathLike, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], scores: str = "", indent: int = 1
) -> None:
    """Write rows as results.json and results.csv.

    Args:
      columns: of results.csv.
      scores: the field that has metric → value, each of which is a line of results.csv; empty: a row is one.
      indent: of results.json.
    """
    lines = [{**row, "metric": m, "value": v} for row in rows for m, v in row[scores].items()] if scores else rows
    write_json(epath.Path(folder) / "results.json", rows, indent)
    write_whole(epath.Path(folder) / "results.csv", as_csv(columns, lines))


def read_results(folder: epath.PathLike) -> Any:
    """The rows of results.json.

    Raises:
      UserError: there are none yet.
    """
    path = epath.Path(folder) / "results.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; run: mlm-jax finetune, evaluate or analyze CONFIG")
    rows = read_json(path, list[dict[str, Any]], ANEW)
    kind: Any = (
        FinetunedRow if rows and "regime" in rows[0] else ProbeRow if rows and "probe" in rows[0] else BenchmarkRow
    )
    return checked(list[kind], rows, str(path), ANEW)


def as_csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as comma-separated values, numbers of the column `value` with six decimals; what a line lacks is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        value = line["value"]
        writer.writerow({**line, "value": value if isinstance(value, str) else f"{value:.6f}"})
    return out.getvalue()


def compute_once(path: epath.PathLike, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `make` returns of the arguments, computed once: a JSON file at `path` keeps it for the next run.

    Raises:
      UserError: the file does not hold what `make` is annotated to return.
    """
    path = epath.Path(path)
    if path.exists():
        kind = typing.get_type_hints(make).get("return", Any)
        return typing.cast(T, read_json(path, kind, "delete it, and it is computed anew"))
    console.say(f"{path.name.removesuffix('.json')}:")
    made = make(*args, **kwargs)
    make_folder(path.parent)
    write_json(path, made, 1)
    return made
