# SPDX-License-Identifier: Apache-2.0
"""Examples → token ids with their targets: what packing puts into blocks."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary


@dataclass
class Encoded:
    """Items, in columns: an item is an example, or one window of it (span).

    Attributes:
      ids: token ids with specials, int32 [length] each.
      types: 1 in the second sentence, else 0, int32 [length] each.
      targets: classify, regress: its label or number; tag: label of each token, -1 where it is not scored,
        int32 [length]; span: the answer's first and last place, 0 and 0 where it is not in the window. None without labels.
      owners: index of the item's example.
      language: of the text.
      starts: tag: places of the words' first pieces; span: (place of the paragraph's first token, its number among the
        paragraph's tokens), a pair an item.
      places: span: a paragraph's tokens' (begin, end) in characters, an array [tokens, 2] an example.
      truncated: examples that were cut to fit.
    """

    language: str
    ids: list[np.ndarray] = field(default_factory=list)
    types: list[np.ndarray] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    starts: list[Any] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    truncated: int = 0

    def add(self, owner: int, ids: Sequence[int], second_at: int, target: Any, starts: Any = None) -> None:
        """Add an item whose second sentence begins at a place."""
        self.ids.append(np.asarray(ids, np.int32))
        self.types.append((np.arange(len(ids)) >= second_at).astype(np.int32))
        self.targets.append(target)
        self.owners.append(owner)
        self.starts.append(starts)


def encode(
    examples: Sequence[Example],
    language: str,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    labels: Sequence[str],
    data: Data,
    task: Task,
) -> Encoded:
    """Tokenize examples of one language.

    Two sentences stand as begin A end B end, with the end twice between them where it is `</s>` (XLM-R), and are
    cut, the longer first, to `data.max_length`.

    Args:
      labels: in the order of their ids.
    """
    made = Encoded(language)
    number = {label: i for i, label in enumerate(labels)}
    between = [vocabulary.eos] * (2 if tokenizer.pieces[vocabulary.eos] == "</s>" else 1)
    if task.kind == "tag":
        _tag(made, examples, tokenizer, vocabulary, number, data.max_length)
    elif task.kind == "span":
        _span(made, examples, tokenizer, vocabulary, between, data)
    else:
        _classify(made, examples, tokenizer, vocabulary, between, number, data.max_length, task.kind == "regress")
    return made


def _classify(
    made: Encoded,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    between: list[int],
    number: dict[str, int],
    most: int,
    numeric: bool,
) -> None:
    first = tokenizer.encode([e.first for e in examples])
    paired = examples[0].second is not None
    second = tokenizer.encode([e.second or "" for e in examples]) if paired else None
    for i, example in enumerate(examples):
        a = first[i]
        b = second[i] if second is not None else None
        room = most - 2 - (len(between) if b is not None else 0)
        excess = len(a) + len(b or []) - room
        if excess > 0:
            made.truncated += 1
            a, b = cut_pair(a, b, room)
        ids = [vocabulary.bos, *a] + ([] if b is None else [*between, *b]) + [vocabulary.eos]
        target = example.label if numeric or example.label is None else number[example.label]
        made.add(i, ids, len(a) + 1 + len(between) if b is not None else len(ids), target)


def cut_pair(a: list[int], b: list[int] | None, room: int) -> tuple[list[int], list[int] | None]:
    """Cut the end of the longer sentence, then of both alike, until the two fit into `room` tokens."""
    if b is None:
        return a[:room], None
    half = room // 2
    if len(a) <= half:
        return a, b[: room - len(a)]
    if len(b) <= room - half:
        return a[: room - len(b)], b
    return a[:half], b[: room - half]


def _tag(
    made: Encoded,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    number: dict[str, int],
    most: int,
) -> None:
    words = {word for e in examples for word in e.first}
    listed = sorted(words)
    # A word that the tokenizer makes nothing of still needs a place to be tagged at.
    pieces = {word: ids or [vocabulary.unk] for word, ids in zip(listed, tokenizer.encode(listed), strict=True)}
    for i, example in enumerate(examples):
        ids, starts = [vocabulary.bos], []
        for word in example.first:
            if len(ids) + 1 + 1 > most:
                break
            starts.append(len(ids))
            ids += pieces[word]
        made.truncated += len(ids) + 1 > most
        ids = [*ids[: most - 1], vocabulary.eos]
        target = None
        if example.label is not None:
            target = np.full(len(ids), -1, np.int32)
            target[starts] = [number[label] for label in example.label[: len(starts)]]
        made.add(i, ids, len(ids), target, np.asarray(starts, np.int32))


def _span(
    made: Encoded,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    between: list[int],
    data: Data,
) -> None:
    # Paragraphs have many questions.
    contexts = list(dict.fromkeys(e.second or "" for e in examples))
    encoded = dict(zip(contexts, tokenizer.encode_places(contexts), strict=True))
    questions = tokenizer.encode([e.first for e in examples])
    for i, example in enumerate(examples):
        tokens, found = encoded[example.second or ""]
        places = without_spaces(example.second or "", np.asarray(found, np.int64).reshape(-1, 2))
        made.places.append(places)
        head = [vocabulary.bos, *questions[i][: data.max_question], *between]
        room = data.max_length - len(head) - 1
        answer = None
        if example.label:
            text, start = example.label[0]
            answer = token_span(places, start, start + len(text))
        for begin in range(0, max(len(tokens), 1), min(data.stride, room)):
            part = tokens[begin : begin + room]
            inside = answer is not None and begin <= answer[0] and answer[1] < begin + len(part)
            target = None
            if example.label is not None:
                target = (answer[0] - begin + len(head), answer[1] - begin + len(head)) if inside and answer else (0, 0)
            made.add(i, [*head, *part, vocabulary.eos], len(head), target, (len(head), begin))
            if begin + room >= len(tokens):
                break
        made.truncated += len(questions[i]) > data.max_question


def without_spaces(text: str, places: np.ndarray) -> np.ndarray:
    """Tokens' places in characters without the spaces at either end, nor what has no width before the first letter
    (SentencePiece takes a zero-width non-joiner for a space), int64 [tokens, 2]."""
    out = places.copy()
    for row in out:
        while row[0] < row[1] and (text[row[0]].isspace() or unicodedata.category(text[row[0]]) == "Cf"):
            row[0] += 1
        while row[1] > row[0] and text[row[1] - 1].isspace():
            row[1] -= 1
    return out


def token_span(places: np.ndarray, begin: int, end: int) -> tuple[int, int] | None:
    """First and last of the tokens that hold any of the characters from `begin` to before `end`; None: there is none.

    Args:
      places: of the tokens, int64 [tokens, 2].
    """
    held = np.flatnonzero((places[:, 1] > begin) & (places[:, 0] < end) & (places[:, 1] > places[:, 0]))
    return (int(held[0]), int(held[-1])) if held.size else None


def check_languages(parts: Sequence[str], languages: Sequence[str]) -> None:
    """Refuse languages that an encoder with language embeddings has none for.

    Raises:
      UserError: naming them.
    """
    unknown = sorted(set(parts) - set(languages))
    if unknown:
        raise UserError(
            f"the encoder has no language embedding for {', '.join(unknown)}; it has {', '.join(languages)}"
        )
