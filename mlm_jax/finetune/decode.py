# SPDX-License-Identifier: Apache-2.0
"""Scores → predictions, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from mlm_jax.finetune.config import Task
from mlm_jax.finetune.crf import best_sequence, marginals
from mlm_jax.finetune.encode import Encoded
from mlm_jax.finetune.examples import Example
from mlm_jax.metrics import answers
from mlm_jax.metrics import labels as measures


@dataclass(frozen=True)
class Prediction:
    """Attributes:
    value: label; number; a tag a word; or the answer's text.
    probability: of the value; a probability a word; None of numbers. Of an answer: among those considered.
    every: classify: probability of each label.
    place: span: the answer's (begin, end) in characters of the paragraph.
    """

    value: Any
    probability: Any = None
    every: dict[str, float] | None = None
    place: tuple[int, int] | None = None


def decode(
    examples: Sequence[Example],
    encoded: Encoded,
    scores: Sequence[np.ndarray],
    labels: Sequence[str],
    transitions: np.ndarray | None,
    task: Task,
) -> list[Prediction]:
    """A prediction for each example.

    Args:
      scores: of each item: [outputs] of texts, [length, outputs] of tokens.
      transitions: of the CRF, where there is one.
    """
    if task.kind == "regress":
        return [Prediction(float(score[0])) for score in scores]
    if task.kind == "classify":
        found = []
        for score in scores:
            chances = softmax(score.astype(np.float64))
            best = int(chances.argmax())
            every = {label: float(p) for label, p in zip(labels, chances, strict=True)}
            found.append(Prediction(labels[best], float(chances[best]), every))
        return found
    if task.kind == "tag":
        return [
            tagged(score[starts], len(example.first), labels, transitions)
            for example, starts, score in zip(examples, encoded.starts, scores, strict=True)
        ]
    windows: list[list[int]] = [[] for _ in examples]
    for item, owner in enumerate(encoded.owners):
        windows[owner].append(item)
    return [
        answer(
            example, [(scores[i], *encoded.starts[i], len(encoded.ids[i])) for i in windows[n]], encoded.places[n], task
        )
        for n, example in enumerate(examples)
    ]


def tagged(scores: np.ndarray, words: int, labels: Sequence[str], transitions: np.ndarray | None) -> Prediction:
    """Tags of a sentence's words from the scores of their first pieces; words that were cut off get the first label, O."""
    if not len(scores):
        return Prediction([labels[0]] * words, [0.0] * words)
    if transitions is None:
        chances = softmax(scores.astype(np.float64), axis=-1)
        best = chances.argmax(axis=-1).tolist()
    else:
        chances, best = marginals(scores, transitions), best_sequence(scores, transitions)
    rest = words - len(best)
    probabilities = [float(chances[i, tag]) for i, tag in enumerate(best)]
    return Prediction([labels[tag] for tag in best] + [labels[0]] * rest, probabilities + [0.0] * rest)


def answer(
    example: Example, windows: Sequence[tuple[np.ndarray, int, int, int]], places: np.ndarray, task: Task
) -> Prediction:
    """The best answer over a paragraph's windows (Devlin et al. 2019, sections 4.2 and 4.3).

    Args:
      windows: of each, scores [length, 2], the place of its first paragraph token, that token's number in the
        paragraph, and its length.
      places: of the paragraph's tokens, int64 [tokens, 2].
    """
    found: list[tuple[float, int, int]] = []
    none = np.inf
    for scores, head, offset, length in windows:
        none = min(none, float(scores[0].sum()))
        part = scores[head : length - 1]  # without the end token
        if not len(part):
            continue
        begins, ends = (np.argsort(-part[:, i], kind="stable")[: task.best_of] for i in (0, 1))
        for begin in begins.tolist():
            for end in ends.tolist():
                if begin <= end < begin + task.max_answer and places[offset + begin, 0] < places[offset + end, 1]:
                    found.append((float(part[begin, 0] + part[end, 1]), offset + begin, offset + end))
    found.sort(key=lambda f: -f[0])
    found = found[: task.best_of]
    if not found or (task.unanswerable and none - found[0][0] > task.null_margin):
        return Prediction("", None if not found else float(softmax([none] + [f[0] for f in found])[0]))
    every = [f[0] for f in found] + ([none] if task.unanswerable else [])
    begin, end = int(places[found[0][1], 0]), int(places[found[0][2], 1])
    return Prediction((example.second or "")[begin:end], float(softmax(every)[0]), place=(begin, end))


def measure(
    examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
) -> dict[str, float]:
    """Every metric of the task, by name."""
    found = [p.value for p in predictions]
    gold = [e.label for e in examples]
    if task.kind == "regress":
        return {"pearson": measures.pearson(gold, found), "spearman": measures.spearman(gold, found)}
    if task.kind == "classify":
        measured = {"accuracy": measures.accuracy(gold, found), "macro_f1": measures.macro_f1(gold, found)}
        if task.positive:
            measured["binary_f1"] = measures.binary_f1(gold, found, task.positive)
        return measured | {"mcc": measures.mcc(gold, found)}
    if task.kind == "tag":
        flat = [(a, b) for g, f in zip(gold, found, strict=True) for a, b in zip(g, f, strict=True)]
        measured = {"accuracy": measures.accuracy([a for a, _ in flat], [b for _, b in flat])}
        return measured | measures.entity_scores(gold, found)
    return answers.scores([[text for text, _ in label] for label in gold], found, language, task.answers)


def main_metric(task: Task, labels: Sequence[str]) -> str:
    """The metric that chooses checkpoints and is averaged over languages."""
    if task.metric != "auto":
        return task.metric
    if task.kind == "tag":
        return "entity_f1" if any(label.startswith(("B-", "I-")) for label in labels) else "accuracy"
    return {"classify": "accuracy", "regress": "pearson", "span": "f1"}[task.kind]
