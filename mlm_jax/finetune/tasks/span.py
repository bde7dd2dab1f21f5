# SPDX-License-Identifier: Apache-2.0
"""`span`: the part of a paragraph that answers a question (SQuAD), or that none does."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from mlm_jax.encode.given import as_text
from mlm_jax.encode.rows import placed
from mlm_jax.errors import UserError
from mlm_jax.finetune.arrays import Encoded, Items
from mlm_jax.finetune.config import LARGEST, Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.packing import Batch, Shape
from mlm_jax.finetune.tasks.base import Losses, Prediction, TaskKind
from mlm_jax.finetune.tasks.texts import separators
from mlm_jax.formats import ending, read_rows
from mlm_jax.lines import at_line, parse_json, read_lines
from mlm_jax.metrics import answers
from mlm_jax.model.batch import PackedBatch
from mlm_jax.rows import Reading
from mlm_jax.tokenizers import Tokenizer
from mlm_jax.vocabulary import Vocabulary

QUESTIONS = (".json", ".jsonl", ".parquet", ".arrow")  # that may hold lists of answers


class Span(TaskKind):
    """Softmax over the tokens of a window for the answer's first, and for its last."""

    name = "span"
    of_tokens = True
    has_labels = False
    options = ("max_answer", "best_of", "answers", "unanswerable", "null_margin")
    metrics = ("f1", "exact")
    reads = f"SQuAD .json, and {', '.join(QUESTIONS[1:])} of its rows"
    architecture = "ForQuestionAnswering"
    output_layer = "qa_outputs"

    def check(self, data: Data, task: Task) -> None:
        super().check(data, task)
        if data.max_question + 8 > data.max_length:
            raise UserError(
                f"data.max_question: {data.max_question} leaves no room in data.max_length {data.max_length}"
            )
        room = data.max_length - data.max_question - 4  # with the longest question, and specials
        longest = min(task.max_answer, room // 2 + 1)
        if data.stride > room - longest + 1:
            raise UserError(
                f"data.stride: {data.stride} in windows of {room} tokens (data.max_length less data.max_question and specials) "
                f"loses answers that lie across two of them; use --data.stride {room - longest + 1} or less, or 0"
            )

    def read_file(self, path: str, data: Data, labels: bool = True) -> Iterator[list[Example]]:
        """The questions of a file, paragraph by paragraph."""
        if ending(path) not in QUESTIONS:
            raise UserError(f"{path}: task.kind span reads {self.reads} files")
        yield from squad(path, labels, data.largest_file)

    def check_given(self, example: Example, data: Data) -> Example:
        """A question and its paragraph."""
        if example.second is None:
            raise UserError(f"{example.where}: a question without its paragraph; give that as the second text")
        question = as_text(example.first, example.where, "a question")
        return replace(example, first=question, second=as_text(example.second, example.where, "a paragraph"))

    def check_examples(self, examples: Sequence[Example], labels: tuple[str, ...], task: Task) -> None:
        empty = [e for e in examples if not any(text for text, _ in e.label)]
        if empty and not task.unanswerable:
            raise UserError(
                f"{empty[0].where}: has no answer, nor have {len(empty):,} of {len(examples):,} questions there (SQuAD 2.0); "
                "set --task.unanswerable, or remove them"
            )

    def trainable(self, examples: list[Example], data: Data) -> tuple[list[Example], str]:
        kept, bad = without_misplaced(examples, data.misplaced)
        return kept, f"{bad} left out whose answers are not at their offsets" if bad else ""

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
        between = separators(tokenizer, vocabulary)
        # Paragraphs have many questions.
        contexts = list(dict.fromkeys(e.second or "" for e in examples))
        encoded = dict(zip(contexts, tokenizer.encode_offsets(contexts), strict=True))
        questions = tokenizer.encode([e.first for e in examples])
        for i, example in enumerate(examples):
            tokens, found = encoded[example.second or ""]
            places = without_spaces(example.second or "", np.asarray(found, np.int64).reshape(-1, 2))
            made.places.append(places)
            head = [vocabulary.bos, *questions[i][: data.max_question], *between]
            room = data.max_length - len(head) - 1
            stride = min(data.stride, room) if data.stride else max(1, min(data.max_length // 3, room // 2))
            spans = [token_span(places, start, start + len(text)) for text, start in example.label or () if text]
            answer = spans[0] if spans else None  # that is learned
            whole = False
            for begin in range(0, max(len(tokens), 1), stride):
                whole |= any(s is not None and begin <= s[0] and s[1] < begin + room for s in spans)
                part = tokens[begin : begin + room]
                target = None
                if example.label is not None:
                    target = (0, 0)  # the answer is not in this window
                    if answer is not None and begin <= answer[0] and answer[1] < begin + len(part):
                        target = (answer[0] - begin + len(head), answer[1] - begin + len(head))
                ids = [*head, *part, vocabulary.eos]
                made.add(i, ids, len(head) if vocabulary.second_type else len(ids), target, (len(head), begin))
                if begin + room >= len(tokens):
                    break
            made.truncated += len(questions[i]) > data.max_question
            if spans and not whole:
                made.outside.append(i)
        return made

    def targets(self, items: Items, batch: Batch, shape: Shape) -> dict[str, np.ndarray]:
        """targets, ends: places in the row of the answer's first and last token, int32 [rows, slots]."""
        out = np.zeros((2, shape.rows, shape.slots), np.int32)
        for row, slot, here, item in placed(items, batch):
            out[:, row, slot] = np.asarray(items.targets[item]) + here.start
        return {"targets": out[0], "ends": out[1]}

    def outputs(self, labels: Sequence[str]) -> int:
        return 2

    def loss(self, params: Mapping[str, Any], scores: jax.Array, batch: PackedBatch) -> Losses:
        slots = jnp.arange(1, batch["starts"].shape[1] + 1)
        member = batch["segment_ids"][:, None, :] == slots[None, :, None]  # [rows, slots, length]
        total, correct = jnp.zeros(()), batch["valid"]
        for i, target in enumerate((batch["targets"], batch["ends"])):  # int32 [rows, slots]: first and last token
            logits = jnp.where(member, scores[:, None, :, i], jnp.finfo(jnp.float32).min)  # [rows, slots, length]
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1)[..., 0]
            total = total - 0.5 * jnp.sum(jnp.where(batch["valid"], picked, 0))
            correct = correct & (jnp.argmax(logits, axis=-1) == target)
        count = jnp.sum(batch["valid"], dtype=jnp.float32)
        return {"loss": (total, count), "accuracy": (jnp.sum(correct, dtype=jnp.float32), count)}

    def decode(
        self,
        examples: Sequence[Example],
        encoded: Encoded,
        scores: Sequence[np.ndarray],
        labels: Sequence[str],
        params: Mapping[str, Any],
        task: Task,
    ) -> list[Prediction]:
        windows: list[list[int]] = [[] for _ in examples]
        for item, owner in enumerate(encoded.owners):
            windows[owner].append(item)
        return [
            best_answer(
                example,
                [(scores[i], *encoded.starts[i], len(encoded.ids[i])) for i in windows[n]],
                encoded.places[n],
                task,
            )
            for n, example in enumerate(examples)
        ]

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], task: Task, language: str
    ) -> dict[str, float]:
        gold = [[text for text, _ in e.label] for e in examples]
        found = [p.value for p in predictions]
        return answers.answer_scores(gold, found, language, task.answers, task.unanswerable)

    def class_ending(self, family: str) -> str:
        # XLM's class without "Simple" has a beam search and another head.
        return self.architecture + ("Simple" if family == "xlm" else "")


def squad(path: str, labels: bool, most: int) -> Iterator[list[Example]]:
    """Questions of a SQuAD file (1.1 or 2.0), of `most` bytes at most, paragraph by paragraph: its .json, or a row per question."""
    try:
        for paragraph in _paragraphs(path, most) if ending(path) == ".json" else _of_rows(path, most):
            found = []
            for question in paragraph["qas"]:
                where = f"{path}:{question['id']}"
                given = question.get("answers")
                if given is None and labels:
                    raise UserError(f"{where}: no answers; a question without one has an empty list")
                if question.get("is_impossible") and given:
                    raise UserError(f"{where}: is_impossible, and has answers; mend one of the two")
                marked = None if given is None else tuple((a["text"], int(a["answer_start"])) for a in given)
                texts = [paragraph["context"], question["question"], *(text for text, _ in marked or ())]
                if not all(isinstance(text, str) for text in texts):
                    raise TypeError(f"a text of {question['id']} is not text")
                if not paragraph["context"].strip() or not question["question"].strip():
                    raise UserError(f"{where}: the question or its context is empty; remove it")
                found.append(Example(where, question["question"], paragraph["context"], marked, str(question["id"])))
            yield found
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not a SQuAD file ({type(e).__name__}: {e})") from e


def _paragraphs(path: str, most: int) -> list[dict[str, Any]]:
    # Such a file is often one line.
    lines = read_lines(path, most, None, LARGEST)
    read = parse_json("\n".join(line for _, line in lines), partial(at_line, path))
    return [paragraph for article in read["data"] for paragraph in article["paragraphs"]]


def _of_rows(path: str, most: int) -> Iterator[dict[str, Any]]:
    """Paragraphs with their questions, of rows of id, context, question and answers ({text: [...], answer_start: [...]})."""
    rows = (row for _, row in read_rows(path, Reading(longest=None, most=most, option=LARGEST)))
    for context, group in itertools.groupby(rows, lambda row: row["context"]):
        questions = []
        for row in group:
            question = {"id": row["id"], "question": row["question"]}
            if (answers := row.get("answers")) is not None:
                marked = zip(answers["text"], answers["answer_start"], strict=True)
                question["answers"] = [{"text": text, "answer_start": start} for text, start in marked]
            questions.append(question)
        yield {"context": context, "qas": questions}


def without_misplaced(examples: list[Example], share: float) -> tuple[list[Example], int]:
    """SQuAD examples whose answers stand at their offsets, and how many do not.

    Raises:
      UserError: more than the share do not.
    """

    def is_placed(e: Example) -> bool:
        return all((e.second or "")[start : start + len(text)] == text for text, start in e.label)

    kept = [e for e in examples if is_placed(e)]
    bad = len(examples) - len(kept)
    if bad > share * len(examples):
        wrong = next(e for e in examples if not is_placed(e))
        raise UserError(
            f"{wrong.where}: answer {wrong.label[0][0]!r} is not at its offset {wrong.label[0][1]}, nor are those of "
            f"{bad} of {len(examples)} questions; more than data.misplaced {share:g} allows. Offsets count characters"
        )
    return kept, bad


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


def best_answer(
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
