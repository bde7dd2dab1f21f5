# SPDX-License-Identifier: Apache-2.0
"""`tag`: a label per word, read from the word's first piece."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from mlm_jax import console
from mlm_jax.encode.given import as_list, as_text
from mlm_jax.encode.rows import placed
from mlm_jax.encode.words import encode_words
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.conll import looks_like_conll, read_conll
from mlm_jax.finetune.examples import Example, line_number
from mlm_jax.finetune.packing import Batch, Shape
from mlm_jax.finetune.tasks.base import Losses, Prediction, TaskKind
from mlm_jax.finetune.tasks.classify import cross_entropy
from mlm_jax.finetune.tasks.crf import best_sequence, marginals, sequence_loss
from mlm_jax.formats import WITH_FIELDS, ending
from mlm_jax.lines import split_words
from mlm_jax.metrics.entities import entity_scores, outside_label, recognise, refined
from mlm_jax.metrics.labels import accuracy
from mlm_jax.model.batch import PackedBatch
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary

# How the names of CoNLL files end; .tsv may be one too.
CONLL = (
    ".conll", ".conllu", ".conllup", ".iob", ".iob1", ".iob2", ".bio", ".bioes", ".bilou", ".bmes", ".ner", ".txt",
    ".train", ".dev", ".valid", ".test", ".testa", ".testb", "",
)  # fmt: skip


class Tag(TaskKind):
    """Softmax over labels at every word, or a CRF over the words of a sentence."""

    name = "tag"
    of_tokens = True
    of_words = True
    options = ("crf", "scheme")
    metrics = ("entity_f1", "strict_f1", "accuracy")
    reads = f"{', '.join(WITH_FIELDS)} or CoNLL (.conll, .conllu, .iob2, .bio, .txt, …)"
    architecture = "ForTokenClassification"

    def read_file(self, path: str, data: Data, labels: bool = True) -> Iterator[list[Example]]:
        found = ending(path)
        if found in CONLL or (
            found == ".tsv" and not data.columns and looks_like_conll(path, data.text, data.largest_file)
        ):
            examples = read_conll(path, data, labels)
        else:
            examples = (tagged_words(*row, data) for row in self.read_rows(path, data, labels))
        for example in examples:
            yield [example]

    def from_line(self, line: str) -> Any:
        return split_words(line)

    def check_given(self, example: Example, data: Data) -> Example:
        """A text is split as a line of a file is."""
        if example.second is not None:
            raise UserError(f"{example.where}: a pair; a tagger reads one list of words, or one text")
        if isinstance(example.first, str | bytes):
            words = self.from_line(as_text(example.first, example.where))
        else:
            words = as_list(example.first, example.where)
        if not words:
            raise UserError(f"{example.where}: no words; leave it out")
        return dataclasses.replace(
            example, first=[as_text(word, example.where, "a word", or_blank=True) for word in words]
        )

    def labels_of(self, example: Example) -> Sequence[str]:
        return [label for label in example.label if label is not None]

    def without_label(self, example: Example, none: Collection[str], left_out: Counter[str]) -> Example | None:
        """Words whose tag says that they have none get None: they are neither trained on nor measured."""
        given: Sequence[str | None] = [None] * len(example.first) if example.label is None else example.label
        kept = [None if tag is None or tag.strip().lower() in none else tag for tag in given]
        left_out.update("null" if tag is None else tag for tag, left in zip(given, kept, strict=True) if left is None)
        return dataclasses.replace(example, label=kept) if any(tag is not None for tag in kept) else None

    def label_names(self, task: Task, labels: Sequence[str]) -> dict[str, str]:
        scheme = recognise(labels, task.scheme)
        if scheme is None:
            return super().label_names(task, labels)
        return {label: label if role == "O" else kind for label, (role, kind) in scheme.parts.items()}

    def label_set(self, task: Task, train: Sequence[Example]) -> tuple[str, ...]:
        """The labels, O first, and said: what they mark.

        Raises:
          UserError: they are of no scheme of entities, and no classes either.
        """
        labels = super().label_set(task, train)
        outside = outside_label(labels)
        if not task.labels:
            labels = tuple(sorted(labels, key=lambda label: (label != outside, label)))
        scheme = recognise(labels, task.scheme)
        if scheme is None:
            if task.metric in ("entity_f1", "strict_f1"):
                raise UserError(
                    f"task.metric: {task.metric}, but the tags mark no entities ({', '.join(labels[:6])}); use accuracy, or "
                    "name their scheme in task.scheme"
                )
            console.say("tags: a class per word, none of them entities (task.scheme); measured by accuracy")
            return labels
        name = refined(scheme, labelled_parts([e.label for e in train], [e.label for e in train])[0])
        console.say(f"tags: {dataclasses.replace(scheme, name=name)}; task.scheme sets another")
        if all(label == scheme.outside for e in train for label in self.labels_of(e)):
            console.warn(f"tags: the training data has no entity, only {scheme.outside}")
        return labels

    def encode(
        self,
        examples: Sequence[Example],
        language: str,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        labels: Sequence[str],
        data: Data,
    ) -> Encoded:
        made = Encoded(language)
        number = {label: i for i, label in enumerate(labels)}
        most = data.max_length
        # A word that the tokenizer makes nothing of still needs a place to be tagged at.
        encoded = encode_words(tokenizer, [e.first for e in examples], vocabulary.unk, [e.text for e in examples])
        for i, (example, pieces) in enumerate(zip(examples, encoded, strict=True)):
            ids, starts = [vocabulary.bos], []
            for of_word in pieces:
                if len(ids) + 1 + 1 > most:
                    break
                starts.append(len(ids))
                ids += of_word
            made.truncated += len(ids) + 1 > most
            ids = [*ids[: most - 1], vocabulary.eos]
            target = None
            if example.label is not None:
                target = np.full(len(ids), -1, np.int32)
                target[starts] = [-1 if x is None else number[x] for x in example.label[: len(starts)]]
            made.add(i, ids, len(ids), target, np.asarray(starts, np.int32))
        return made

    def targets(self, items: Items, batch: Batch, shape: Shape) -> dict[str, np.ndarray]:
        """targets: ids of labels, int32 [rows, length], -1 where no word has its first piece."""
        out = np.full((shape.rows, shape.length), -1, np.int32)
        for row, _, here, item in placed(items, batch):
            out[row, here] = items.targets[item]
        return {"targets": out}

    def extra_params(self, task: Task, outputs: int) -> dict[str, np.ndarray]:
        """transitions: of the CRF, float32 [labels + 1, labels + 1]."""
        return {"transitions": np.zeros((outputs + 1, outputs + 1), np.float32)} if task.crf else {}

    def loss(self, params: Mapping[str, Any], scores: jax.Array, batch: PackedBatch) -> Losses:
        targets = batch["targets"]
        found = cross_entropy(scores, targets)
        if "transitions" in params:
            total = sequence_loss(scores, params["transitions"], targets, batch["segment_ids"])
            found["loss"] = (total, found["loss"][1])
        return found

    def decode(
        self,
        examples: Sequence[Example],
        encoded: Encoded,
        scores: Sequence[np.ndarray],
        labels: Sequence[str],
        params: Mapping[str, Any],
        task: Task,
    ) -> list[Prediction]:
        transitions = np.asarray(params["transitions"]) if "transitions" in params else None
        return [
            tagged(score[starts], len(example.first), labels, transitions)
            for example, starts, score in zip(examples, encoded.starts, scores, strict=True)
        ]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
    ) -> dict[str, float]:
        gold, found = labelled_parts([e.label for e in examples], [p.value for p in predictions])
        flat = [(a, b) for g, f in zip(gold, found, strict=True) for a, b in zip(g, f, strict=True)]
        measured = {"accuracy": accuracy([a for a, _ in flat], [b for _, b in flat])}
        scheme = recognise(task.labels, task.scheme)
        return measured | (entity_scores(gold, found, scheme) if scheme else {})

    def main_metric(self, task: Task, labels: Sequence[str]) -> str:
        if task.metric == "auto" and recognise(labels, task.scheme) is None:
            return "accuracy"  # of parts of speech and the like, which mark no entities
        return super().main_metric(task, labels)

    def to_settings(self, task: Task) -> dict[str, Any]:
        if task.crf:
            raise UserError("export: no Hugging Face class has a CRF; fine-tune with task.crf False")
        return super().to_settings(task) | {"classifier_dropout": task.dropout}


def tagged_words(where: str, words: Any, _: Any, tags: Any, data: Data) -> Example:
    """An example from its fields.

    Raises:
      UserError: they are not lists of words and tags, or text with spaces between, of one length.
    """
    words = words.split(" ") if isinstance(words, str) else words
    tags = tags.split(" ") if isinstance(tags, str) else tags
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"{where}: {data.text} is not a list of words, nor words with spaces between")
    if "" in words:
        raise UserError(f"{where}: word {words.index('') + 1} in {data.text} is empty; remove it and its tag")
    if tags is not None and (
        not isinstance(tags, list) or not all(tag is None or isinstance(tag, str) for tag in tags)
    ):
        raise UserError(f"{where}: {data.label} is not a list of tags")
    if tags is not None and len(tags) != len(words):
        raise UserError(f"{where}: {len(tags)} tags in {data.label} for {len(words)} words in {data.text}")
    return Example(where, words, None, tags, line_number(where))


def labelled_parts(
    gold: Sequence[Sequence[str | None]], found: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Sentences cut up where words have no gold tag, and the tags that were found for what is left."""
    parts: tuple[list[list[str]], list[list[str]]] = ([], [])
    for ours, theirs in zip(gold, found, strict=True):
        cuts = [-1, *(i for i, tag in enumerate(ours) if tag is None), len(ours)]
        for begin, end in itertools.pairwise(cuts):
            if end > begin + 1:
                parts[0].append([tag for tag in ours[begin + 1 : end] if tag is not None])
                parts[1].append(list(theirs[begin + 1 : end]))
    return parts


def tagged(scores: np.ndarray, words: int, labels: Sequence[str], transitions: np.ndarray | None) -> Prediction:
    """Tags of a sentence's words; words that were cut off get the label of words outside entities.

    Args:
      scores: of the words' first pieces, float32 [words that were not cut off, labels].
      transitions: of the CRF, where there is one, float32 [labels + 1, labels + 1].
    """
    outside = outside_label(labels) or labels[0]
    if not len(scores):
        return Prediction([outside] * words, [0.0] * words)
    if transitions is None:
        chances = softmax(scores.astype(np.float64), axis=-1)
        best = chances.argmax(axis=-1).tolist()
    else:
        chances, best = marginals(scores, transitions), best_sequence(scores, transitions)
    rest = words - len(best)
    probabilities = [float(chances[i, tag]) for i, tag in enumerate(best)]
    return Prediction([labels[tag] for tag in best] + [outside] * rest, probabilities + [0.0] * rest)
