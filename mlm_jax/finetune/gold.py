# SPDX-License-Identifier: Apache-2.0
"""The labels of labelled data, looked at before anything is trained: what is none, what is rare, what is spelt two ways."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from mlm_jax import console
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.tasks.base import TaskKind

RARE, OF_MEAN = 10, 0.1  # examples: fewer than both 10 and a tenth of what a label has on average
ALIKE = 0.8  # of `difflib`: from here on two spellings may be of one label
MUCH_RARER = 0.05  # of the other spelling's examples
SHOWN = 40  # labels

Examples = dict[str, dict[str, list[Example]]]  # split → language → examples
Counts = dict[str, Counter[str]]  # language → label → examples, or words


def keep_labelled(kind: TaskKind, data: Data, task: Task, examples: Examples) -> Examples:
    """The examples without those that say they have no gold label (SNLI's "-"), which are counted by name.

    Raises:
      UserError: none is left, or most words of a tagger are of such a label.
    """
    if not kind.has_labels:
        return examples
    labelled = (e for found in examples["train"].values() for e in found if e.label is not None)
    train = Counter(label.removesuffix(".0") for e in labelled for label in kind.labels_of(e))
    none = {value.lower() for value in data.no_label} - {label.lower() for label in task.labels}
    if "-1" in none and "-1" in train and _counts_below_zero(train):
        none.discard("-1")
        console.warn(
            "labels: -1 is taken for a class, as -2, or 1 and no 2, is one; where it means no gold label, write -"
        )
    none |= {f"{value}.0" for value in none if re.fullmatch(r"-?\d+", value)}
    kept: Examples = {}
    for split, parts in examples.items():
        kept[split] = {}
        for language, found in parts.items():
            left_out: Counter[str] = Counter()
            left = [kind.without_label(e, none, left_out) for e in found]
            kept[split][language] = [e for e in left if e is not None]
            if not left_out:
                continue
            names = ", ".join(f"{label!r} {count:,}" for label, count in left_out.most_common())
            what, whole = (
                ("words", sum(map(len, (e.first for e in found)))) if kind.of_tokens else ("examples", len(found))
            )
            said = f"{split} {language}: {sum(left_out.values()):,} of {whole:,} {what} have no gold label ({names})"
            if not kept[split][language]:
                raise UserError(f"{said}: none is left; label them, or change data.no_label")
            if kind.of_tokens and 2 * sum(left_out.values()) > whole:
                raise UserError(
                    f"{said}: is it the label of words outside entities? Write O, or take it out of data.no_label"
                )
            console.warn(f"{said}; left out (data.no_label)")
    return kept


def _counts_below_zero(train: Counter[str]) -> bool:
    """Whether -1 is a number among others, as of opinions: below it is -2, or 1 is the highest and -1 is not rare beside 0 and 1."""
    if "-2" in train or "1" not in train or "2" in train:
        return "-2" in train
    return "0" not in train or train["-1"] >= MUCH_RARER * train.total()


def describe_labels(kind: TaskKind, task: Task, examples: Examples, labels: Sequence[str]) -> None:
    """Print each language's labels with their counts, and warn of those that may be mistakes."""
    if not labels:
        return
    counts: dict[str, Counts] = {
        split: {x: Counter(label for e in found for label in kind.labels_of(e)) for x, found in parts.items()}
        for split, parts in examples.items()
    }
    for split, parts in counts.items():
        for language, of in parts.items():
            shown = ", ".join(f"{label} {count:,}" for label, count in of.most_common(SHOWN))
            more = f", and {len(of) - SHOWN} rarer ones" if len(of) > SHOWN else ""
            console.say(f"labels, {split} {language}: {shown}{more}")
    names = kind.label_names(task, labels)
    trained: Counter[str] = Counter()
    by_language: Counts = {}
    for split, parts in counts.items():
        for language, of in parts.items():
            for label, count in of.items():
                name = names.get(label, label)  # it may be one that training does not have, which is refused later
                by_language.setdefault(language, Counter())[name] += count
                trained[name] += count if split == "train" else 0
    for warning in (*_rare(trained), *_of_one_language(by_language), *_alike(by_language)):
        console.warn(f"labels: {warning}")


def _rare(trained: Counter[str]) -> list[str]:
    """Labels that can hardly be learned."""
    mean = trained.total() / len(trained)
    rare = [f"{name} {count}" for name, count in trained.items() if count < min(RARE, OF_MEAN * mean)]
    return [f"rare in the training data: {_listed(rare)}"] if rare else []


def _of_one_language(counts: Counts) -> list[str]:
    """Labels that the other languages do not have."""
    found = []
    names = {name for of in counts.values() for name in of}
    for language, of in counts.items():
        mine = [
            f"{name} {of[name]:,}" for name in sorted(names) if [x for x in counts if counts[x][name]] == [language]
        ]
        if mine and len(counts) > 1:
            found.append(f"only {language} has {_listed(mine)}")
    return found


def _alike(counts: Counts) -> list[str]:
    """Pairs that may be one label: the same but for case, spaces or marks; or near, and one of them much rarer or missing somewhere."""
    total: Counter[str] = Counter()
    for of in counts.values():
        total += of
    found, names = [], sorted(total)[: 10 * SHOWN]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            same = _plain(a) == _plain(b)
            if same or ((_one_is_rare(total[a], total[b]) or _disjoint(a, b, counts)) and _near(a, b)):
                found.append(f"{a!r} ({total[a]:,}) and {b!r} ({total[b]:,})")
    return [f"spelt two ways? {_listed(found, '; ')}; they are taken for different labels"] if found else []


def _plain(name: str) -> str:
    """A label without case, spaces and marks between its parts; a number as a number."""
    plain = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold().strip(" \t.:;,"))
    return f"{float(name):g}" if re.fullmatch(r"[+-]?\d+(\.\d*)?", name.strip()) else plain


def _near(a: str, b: str) -> bool:
    """Whether letters, not digits, differ a little."""
    one, other = (re.sub(r"\d+", "", _plain(x)) for x in (a, b))
    if one == other or min(len(one), len(other)) <= 3:
        return False
    matcher = difflib.SequenceMatcher(None, one, other)
    return matcher.quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE


def _disjoint(a: str, b: str, counts: Counts) -> bool:
    """Whether some language has only one of two labels, and some other only the other, or both."""
    has = [(bool(of[a]), bool(of[b])) for of in counts.values()]
    return len(counts) > 1 and ((True, False) in has or (False, True) in has)


def _one_is_rare(a: int, b: int) -> bool:
    return min(a, b) <= MUCH_RARER * max(a, b)


def _listed(items: Sequence[str], between: str = ", ") -> str:
    return between.join(items[:12]) + (f"{between}and {len(items) - 12} others" if len(items) > 12 else "")
