# SPDX-License-Identifier: Apache-2.0
"""Labelled examples that a library has by name → a file that fine-tuning reads: python -m mlm_jax.prepare.labelled PATH LANGUAGE OUT"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from etils import epath

from mlm_jax.children import end_with_parent
from mlm_jax.errors import UserError
from mlm_jax.files import said, write_whole
from mlm_jax.prepare.named import builder_of

TYDI_QA = {
    "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip


def write_examples(path: str, language: str, out: str) -> None:
    """Write a split as a SQuAD file (OUT.json) where it holds questions on contexts, as JSON lines (OUT.jsonl) elsewhere.

    Args:
      path: `tfds:NAME[/CONFIG]:SPLIT`, the split as the library has it (`train`, `validation[:1000]`).

    Raises:
      UserError: no such data set, split or language, or it cannot be downloaded.
    """
    from mlm_jax.prepare.sources import KINDS, kind_of  # whose table has this module's function

    read = kind_of(path).examples
    if read is None:
        kinds = ", ".join(f"{name}:" for name, kind in KINDS.items() if kind.examples)
        raise UserError(f"{path}: no labelled examples are read from this kind of source; there are {kinds} and files")
    fields, rows = read(path, language)
    if {"context", "question", "answers"} <= fields:
        write_whole(epath.Path(f"{out}.json"), json.dumps({"data": [{"paragraphs": paragraphs(rows)}]}))
    else:
        # What JSON does not have, times and the bytes of pictures, is written as Python shows it.
        lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        write_whole(epath.Path(f"{out}.jsonl"), "".join(lines))


def tfds_examples(path: str, language: str) -> tuple[set[str], Iterator[dict[str, Any]]]:
    """Fields and rows of a TFDS split.

    Of fields that hold translations, the language's; of TyDi QA's training questions, those in the language. Class labels
    are written by their names.

    Raises:
      UserError: no such data set, split or language, or it cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    name, colon, split = path.removeprefix("tfds:").partition(":")
    if not colon or not split:
        raise UserError(f"{path}: no split; write tfds:NAME/CONFIG:SPLIT, e.g. tfds:wikiann/en:train")
    builder = builder_of(f"tfds:{name}")
    splits, features = builder.info.splits, builder.info.features
    if split.split("[")[0] not in splits:
        raise UserError(f"{path}: no such split; there are {', '.join(splits)}")
    data = builder.as_dataset(split=split, shuffle_files=False)
    # TyDi QA's training split holds all languages, which its ids begin with.
    begin = TYDI_QA.get(language, "") if path.startswith("tfds:tydi_qa/goldp:train") else ""
    rows = (
        {field: readable(value, features[field], language, f"{path}: {field}") for field, value in row.items()}
        for row in tfds.as_numpy(data)
        if not begin or row["id"].decode().startswith(begin)
    )
    return set(features), rows


def readable(value: Any, feature: Any, language: str, where: str) -> Any:
    """A field's value as JSON has it.

    Raises:
      UserError: it holds translations, none of them in the language.
    """
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.TranslationVariableLanguages):
        found = {x.decode(): text for x, text in zip(value["language"], value["translation"], strict=True)}
        return in_language(found, language, where).decode()
    if isinstance(feature, tfds.features.Translation):
        return in_language(value, language, where).decode()
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(int(value)) if value >= 0 else None  # -1: kept secret (GLUE's test sets)
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        if isinstance(inner, tfds.features.FeaturesDict):
            return {name: [readable(x, inner[name], language, where) for x in value[name]] for name in value}
        return [readable(x, inner, language, where) for x in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if hasattr(value, "item") else value


def in_language(found: dict[str, Any], language: str, where: str) -> Any:
    """The text in the language.

    Raises:
      UserError: there is none.
    """
    if language not in found:
        raise UserError(f"{where}: not in {language}; there are {', '.join(found)}")
    return found[language]


def paragraphs(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions as SQuAD files have them: under their contexts, in the order they come."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if not found or found[-1]["context"] != row["context"]:
            found.append({"context": row["context"], "qas": []})
        answers = [
            {"text": text, "answer_start": start}
            for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        ]
        found[-1]["qas"].append({"id": row["id"], "question": row["question"], "answers": answers})
    return found


if __name__ == "__main__":
    end_with_parent()
    try:
        # Standard output is for the reason of a failure; what TensorFlow Datasets prints goes to standard error.
        with contextlib.redirect_stdout(sys.stderr):
            write_examples(*sys.argv[1:])
    except (UserError, OSError) as error:
        print(said(error) if isinstance(error, OSError) else error)
        sys.exit(2)
