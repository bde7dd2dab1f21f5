# SPDX-License-Identifier: Apache-2.0
"""Rows of results: their types, their files results.json and results.csv, and what is done already."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NotRequired, ParamSpec, TypedDict, TypeVar

from etils import epath

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.files import read_json, write_json, write_whole

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
    """

    task: str
    language: str
    metric: str
    value: float
    every: dict[str, float]
    examples: int
    protocol: dict[str, Any]


class ProbeRow(TypedDict):
    """What a probe finds in a layer.

    Attributes:
      set: the name of the data.
      layer: 0 is the embedding.
      pooling: "mean", "first" or "words".
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


FINETUNED = ("regime", "model", "seed", "language", "select", "step", "examples", "metric", "value")
BENCHMARK = ("task", "language", "metric", "value", "examples")
PROBE = ("probe", "set", "step", "layer", "pooling", "transformation", "languages", "metric", "value")


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
    return read_json(path)


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
    """What `make` returns of the arguments, computed once: a JSON file at `path` keeps it for the next run."""
    path = epath.Path(path)
    if path.exists():
        return read_json(path)
    console.say(f"{path.name.removesuffix('.json')}:")
    made = make(*args, **kwargs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made, 1)
    return made
