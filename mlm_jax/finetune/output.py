# SPDX-License-Identifier: Apache-2.0
"""What `predict` writes of each prediction, and says of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.finetune.words import Place
from mlm_jax.metrics.entities import Scheme, entities

DIGITS = 4  # of a probability
SHOWN = 8  # labels in the summary
UNSURE = 0.6  # the probability below which a prediction is counted as unsure


def grouped(
    text: str, words: Sequence[Place], tags: Sequence[str], probabilities: Sequence[float], scheme: Scheme
) -> list[dict[str, Any]]:
    """The entities of a text, in its order: kind, text, begin and end in characters, and the mean probability of their words' tags.

    Args:
      words: (begin, end) of each word in characters.
    """
    found = []
    for kind, first, last in sorted(entities(tags, scheme), key=lambda entity: entity[1:]):
        begin, end = words[first][0], words[last][1]
        chance = float(np.mean(probabilities[first : last + 1]))
        found.append({"entity": kind, "text": text[begin:end], "begin": begin, "end": end, "probability": chance})
    return found


def record(example: Example, prediction: Prediction) -> dict[str, Any]:
    """A line of predictions, with few digits."""
    made = {"key": example.key, "text": text_of(example), "predicted": prediction.value}
    if prediction.probability is not None:
        made["probability"] = prediction.probability
    if prediction.every:
        made["probabilities"] = prediction.every
    if prediction.place:
        made["place"] = prediction.place
    if prediction.words is not None:
        made["words"] = [made["text"][begin:end] for begin, end in prediction.words]
        made["offsets"] = prediction.words
    if prediction.entities is not None:
        made["entities"] = prediction.entities
    return {name: value if name in ("key", "text") else _rounded(value) for name, value in made.items()}


def text_of(example: Example) -> str:
    """The text of an example; of words that were given as such, they with spaces between."""
    return example.first if isinstance(example.first, str) else " ".join(example.first)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


class Summary:
    """What is said of all predictions: how often what was predicted, and how sure of it the model is."""

    def __init__(self) -> None:
        self.examples = 0
        self.counts: Counter[str] = Counter()
        self.of = "examples"
        self.numbers: list[float] = []
        self.unsure = 0
        self.rated = 0
        self.words = 0

    def add(self, found: Sequence[Prediction]) -> None:
        """Count predictions."""
        self.examples += len(found)
        for prediction in found:
            value, chance = prediction.value, prediction.probability
            if isinstance(value, float | int):
                self.numbers.append(float(value))
            elif prediction.words is not None:
                self.words += len(prediction.words)
                self.of = "words" if prediction.entities is None else "entities"
                named = value if prediction.entities is None else [x["entity"] for x in prediction.entities]
                self.counts.update(named)
            elif isinstance(value, list):
                self.counts.update(value or ["no label"])
            elif prediction.every:
                self.counts[value] += 1
            else:
                self.counts["answered" if value else "without an answer"] += 1
            if isinstance(chance, float):
                self.rated += 1
                self.unsure += chance < UNSURE

    def __str__(self) -> str:
        said = f"{self.examples:,} examples" + (f" of {self.words:,} words" if self.words else "")
        if self.numbers:
            low, mean, high = (f(self.numbers) for f in (np.min, np.mean, np.max))
            return f"{said}: mean {mean:.3g}, from {low:.3g} to {high:.3g}"
        shown = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common(SHOWN))
        if len(self.counts) > SHOWN:
            shown += f", and {len(self.counts) - SHOWN} more"
        if self.of == "entities":
            said += f", {self.counts.total():,} entities" if self.counts else ": no entity was found"
        said += f": {shown}" if shown else ""
        return said + (f"; {self.unsure:,} with a probability below {UNSURE}" if self.unsure else "")
