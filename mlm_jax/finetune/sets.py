# SPDX-License-Identifier: Apache-2.0
"""The labelled sets of an experiment: read, checked, encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass

import jax

from mlm_jax import console, hosts
from mlm_jax.coverage import warn_unknown
from mlm_jax.encode.run import refuse_unknown
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded
from mlm_jax.finetune.config import Data, Finetune, Labelled, selection
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.gold import describe_labels, keep_labelled
from mlm_jax.finetune.named import local_file
from mlm_jax.finetune.tasks import task_kind
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.overlap import find_overlap, report_overlap, text_hash
from mlm_jax.pretrained import Pretrained
from mlm_jax.results import few_examples
from mlm_jax.tokenizers import Tokenizer


@dataclass(frozen=True)
class Part:
    """Labelled examples of a language, read and encoded.

    Attributes:
      in_train: of a test set, the examples that stand in the training data too.
    """

    labelled: Labelled
    examples: list[Example]
    encoded: Encoded
    in_train: int = 0


Parts = dict[str, Part]  # by language


def read_parts(
    config: Finetune, needed: Set[str], start: Pretrained, tokenizer: Tokenizer
) -> tuple[Parts, Parts, Parts, tuple[str, ...]]:
    """Train, dev and test sets by language, and the labels.

    Args:
      needed: languages that models are trained on.

    Raises:
      UserError: a file, an example or a set cannot be used; the message names it.
    """
    data, kind = config.data, task_kind(config.task)
    splits = {
        "train": [part for part in data.train if part.language in needed],
        "dev": [] if selection(config) == "last" else list(data.dev),
        "test": list(data.test),
    }
    if jax.process_index():
        hosts.barrier("labelled data is fetched")  # by the first process, for all
    splits = {name: [fetched(part, config.workdir) for part in parts] for name, parts in splits.items()}
    if not jax.process_index():
        hosts.barrier("labelled data is fetched")
    examples = {
        name: {part.language: kind.read_examples(part, data) for part in parts} for name, parts in splits.items()
    }
    examples = keep_labelled(kind, data, config.task, examples)
    in_train = check_overlap(examples, data.overlap)
    labels = kind.label_set(config.task, [e for found in examples["train"].values() for e in found])
    describe_labels(kind, config.task, examples, labels)
    made: dict[str, Parts] = {"train": {}, "dev": {}, "test": {}}
    for name, parts in splits.items():
        for part in parts:
            found = examples[name][part.language]
            kind.check_examples(found, labels, config.task)
            left_out = ""
            if name == "train":
                found, left_out = kind.trainable(found, data)
            # Translated text is in the language it was translated into.
            language = part.text_language or (config.source if config.regime == "translate_test" else part.language)
            if start.model.language_embedding:
                refuse_unknown(language, start.languages)
            encoded = kind.encode(found, language, tokenizer, start.vocabulary, labels, data)
            warn_unknown(f"{name} {part.language}", (ids[1:-1] for ids in encoded.ids), start.vocabulary.unk)
            if encoded.truncated or left_out:
                console.warn(
                    f"{name} {part.language}: {encoded.truncated:,} of {len(found):,} examples cut to "
                    f"{data.max_length} tokens{', ' if left_out else ''}{left_out}"
                )
            report_outside(f"{name} {part.language}", found, encoded, data)
            made[name][part.language] = Part(
                part, found, encoded, in_train.get(part.language, 0) if name == "test" else 0
            )
    for name in ("dev", "test"):
        for caution in few_examples(name, {x: len(part.examples) for x, part in made[name].items()}):
            console.warn(caution)
    return made["train"], made["dev"], made["test"], labels


def example_hash(example: Example) -> bytes:
    """The hash of all that is read of an example: its text, both of a pair, question and paragraph, or the words of a sentence."""
    first = example.first if isinstance(example.first, str) else " ".join(example.first)
    return text_hash(first) if example.second is None else text_hash(first, example.second)


def check_overlap(examples: dict[str, dict[str, list[Example]]], allowed: float) -> dict[str, int]:
    """Say which dev and test examples stand in the training data, and which test examples in the dev sets.

    Args:
      examples: of the sets train, dev and test, by language.
      allowed: the largest share of a language's.

    Returns:
      Language → test examples that stand in the training data, where there are some.

    Raises:
      UserError: they are more.
    """
    hashed = {
        name: {x: [(e.where, example_hash(e)) for e in part] for x, part in parts.items()}
        for name, parts in examples.items()
    }
    every = {name: [item for part in parts.values() for item in part] for name, parts in hashed.items()}
    of_test = find_overlap("test", hashed["test"], "train", every["train"])
    for found in (
        of_test,
        find_overlap("dev", hashed["dev"], "train", every["train"]),
        find_overlap("test", hashed["test"], "dev", every["dev"]),
    ):
        report_overlap(found, allowed, "data.overlap")
    return dict(of_test.counts) if of_test else {}


def report_outside(name: str, examples: Sequence[Example], encoded: Encoded, data: Data) -> None:
    """Say how many questions no window can answer.

    Raises:
      UserError: they are more than `data.misplaced` allows.
    """
    if not encoded.outside:
        return
    first, share = examples[encoded.outside[0]], len(encoded.outside) / len(examples)
    said = (
        f"{name}: {len(encoded.outside):,} of {len(examples):,} answers lie whole in no window of data.max_length "
        f"{data.max_length} tokens, e.g. of {first.where}"
    )
    if share > data.misplaced:
        raise UserError(
            f"{said}; more than data.misplaced {data.misplaced:g}: raise data.max_length, lower data.stride, or allow more"
        )
    console.warn(said)


def fetched(part: Labelled, workdir: str) -> Labelled:
    """The same, in a file of this machine."""
    path = local_file(part.path, part.text_language or part.language, workdir)
    return dataclasses.replace(part, path=path)


def same_predictions(examples: Sequence[Example], found: Sequence[Prediction]) -> list[str]:
    """The caution that a model says the same of everything, in a list; empty where it does not, or where that is right."""
    words = isinstance(examples[0].first, list)
    said, right = (
        [x for part in parts for x in part] if words else parts
        for parts in ([p.value for p in found], [e.label for e in examples])
    )
    if len({str(x) for x in right if x is not None}) < 2 or len({str(x) for x in said}) > 1:
        return []
    what = f"nothing but {said[0]!r} was predicted" if said[0] else "nothing was predicted"
    return [
        f"{what}, for all {len(said):,} {'words' if words else 'examples'}; train longer, or with another learning rate"
    ]
