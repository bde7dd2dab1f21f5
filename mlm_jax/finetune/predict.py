# SPDX-License-Identifier: Apache-2.0
"""A fine-tuned model at work: examples → predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax import mesh as meshes
from mlm_jax import vocabulary as vocabularies
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, read_json
from mlm_jax.finetune import config as options
from mlm_jax.finetune import packing
from mlm_jax.finetune.arrays import Encoded, join, to_arrays
from mlm_jax.finetune.config import Finetune
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.models import choose, nested
from mlm_jax.finetune.step import make_head, make_predict_step
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.input.arrays import local_rows, to_global
from mlm_jax.lines import read_lines, uncompressed
from mlm_jax.model.encoder import compute_dtype
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train import initial
from mlm_jax.vocabulary import Vocabulary

AT_ONCE = 2_048  # examples read into memory as scores

# [outputs] or [length, outputs] of each item
Scores = list[np.ndarray]


def prediction_shape(longest: int, devices: int) -> packing.Shape:
    """Blocks for predictions, whatever the examples: a function of the longest there may be alone."""
    length = max(-(-longest // 16) * 16, 256)
    tokens = 4_096 if jax.default_backend() == "cpu" else 32_768 * devices
    rows = max(1, tokens // length // devices) * devices
    return packing.Shape(rows, length, length // 8)


def make_scorer(
    config: Finetune,
    model: cfg.Model,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    labels: Sequence[str],
    devices: Sequence[jax.Device] | None = None,
) -> Callable[[Any, Encoded, Callable[[int], None] | None], Scores]:
    """Build the scorer of a model's items.

    Returns:
      score(whole parameters, encoded examples, called with the number of items done or None) → scores of each item. Parameters
      may lie on the host or, put there once by `jax.device_put`, on the devices.
    """
    kind = TASKS[config.task.kind]
    devices = jax.devices()[: config.devices or None] if devices is None else list(devices)
    shape = prediction_shape(config.data.max_length, len(devices))
    mesh = meshes.make_mesh(cfg.Mesh(), shape.rows, devices)
    dtype = compute_dtype(config.dtype)
    head = make_head(config, model, kind.outputs(labels), dtype)
    step = make_predict_step(config, model, head, vocabulary.size, len(languages) or 1, mesh)
    sharding = meshes.batch_sharding(mesh)
    rows = local_rows(sharding, shape.rows)

    def score(params: Any, encoded: Encoded, done: Callable[[int], None] | None = None) -> Scores:
        items = join([encoded], languages)
        found: list[np.ndarray] = [np.zeros(0)] * len(items.ids)
        with meshes.mesh_context(mesh):
            for batch in packing.in_order(items.lengths, shape):
                arrays = to_arrays(items, batch, shape, vocabulary.pad, model.token_types)
                arrays = {name: value[rows] for name, value in arrays.items()}
                scores = np.asarray(step(params, to_global(arrays, shape.rows, sharding)))
                for row, members in enumerate(batch):
                    at = 0
                    for slot, item in enumerate(members):
                        length = len(items.ids[item])
                        found[item] = scores[row, at : at + length] if kind.of_tokens else scores[row, slot]
                        at += length
                if done is not None:
                    done(sum(map(len, batch)))
        return found

    return score


@dataclass
class Predictor:
    """A fine-tuned model, loaded once: `Predictor.load(workdir)`, then `predict(examples)`.

    Attributes:
      config: of its fine-tuning.
      model, params: encoder's shape; whole parameters, `encoder` and `head`, on the devices.
      labels: in the order of their scores.
    """

    config: Finetune
    model: cfg.Model
    params: Any
    vocabulary: Vocabulary
    languages: tuple[str, ...]
    labels: tuple[str, ...]
    tokenizer: Any
    score: Any

    @classmethod
    def load(cls, workdir: epath.PathLike, name: str = "") -> Predictor:
        """Load a model of a workdir that `finetune` made.

        Args:
          name: of the model, as in its `models/` folder; may be left out where there is one.

        Raises:
          UserError: there is no such model.
        """
        folder = epath.Path(workdir)
        config = options.read(str(folder))
        chosen = choose(folder, name)
        described = read_json(chosen / "model.json")
        stored = initial.read(chosen)
        tree = nested(stored.params)
        words = vocabularies.read(folder / "vocabulary")
        labels = tuple(described["labels"])
        score = make_scorer(config, stored.model, words, stored.languages, labels)
        params = jax.device_put(tree)
        tokenizer = load_tokenizer(folder / "vocabulary")
        return cls(config, stored.model, params, words, stored.languages, labels, tokenizer, score)

    def predict(
        self, examples: Sequence[Example], language: str = "", done: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        """Predict.

        Args:
          examples: labels are not read.
          language: of their text, for encoders with language embeddings.
          done: called with the number of items after each batch.
        """
        config = self.config
        if not examples:
            return []
        unlabelled = [Example(e.where, e.first, e.second, None, e.key) for e in examples]
        kind = TASKS[config.task.kind]
        made = kind.encode(unlabelled, language, self.tokenizer, self.vocabulary, self.labels, config.data)
        if made.truncated:
            console.warn(
                f"{made.truncated:,} of {len(examples):,} examples, of {examples[0].where} and after, cut to "
                f"{config.data.max_length} tokens"
            )
        scores = self.score(self.params, made, done)
        return kind.decode(unlabelled, made, scores, self.labels, self.params["head"], config.task)

    def texts(self, first: Sequence[Any], second: Sequence[str] | None = None, language: str = "") -> list[Prediction]:
        """Predict from plain texts: sentences, pairs of them, lists of words, or questions and their paragraphs."""
        pairs = second if second is not None else [None] * len(first)
        examples = [Example(f"text {i}", a, b, None, str(i)) for i, (a, b) in enumerate(zip(first, pairs, strict=True))]
        return self.predict(examples, language)


def predict_file(workdir: str, path: str, out: str, name: str = "", language: str = "") -> int:
    """Label a file of text.

    Args:
      path: a file of the kinds that `finetune` reads, or a .txt with a text a line (tag: words with spaces between).
      out: JSON lines: key (line, or question id), text, predicted, probability; written whole or not at all.
      name: of the model, where the workdir has several.
      language: of the text.

    Returns:
      The number of predictions.

    Raises:
      UserError: no such file or model, or a line that cannot be read.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give a file to label")
    predictor = Predictor.load(workdir, name)
    config = predictor.config
    kind = TASKS[config.task.kind]
    if uncompressed(path).endswith(".txt"):
        texts = [(number, kind.from_line(line)) for number, line in read_lines(path) if line.strip()]
        if config.data.pair or any(text is None for _, text in texts):
            raise UserError(f"{path}: the model reads pairs of texts; give a .tsv, .jsonl or SQuAD .json file")
        examples = [Example(f"{path}:{number}", text, None, None, str(number)) for number, text in texts]
    else:
        examples = [e for group in kind.read_file(path, config.data, labels=False) for e in group]
    header = (
        "; its first line names the columns" if uncompressed(path).endswith(".tsv") and not config.data.columns else ""
    )
    if not examples:
        raise UserError(f"{path}: nothing there to label{header}")
    if in_bucket(out):
        raise UserError(f"{out}: predictions are written to a local file; name one, and copy it there")
    target = Path(out)
    if target.exists() and target.samefile(path):
        raise UserError(f"{out}: is the file to label; name another one for the predictions")
    if target.is_dir():
        raise UserError(f"{out}: is a folder; name a file for the predictions")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(target.name + ".partial")
    with aside.open("w") as file, console.progress("predicting", len(examples), unit="examples") as advance:
        for begin in range(0, len(examples), AT_ONCE):
            part = examples[begin : begin + AT_ONCE]
            found = predictor.predict(part, language)
            for example, prediction in zip(part, found, strict=True):
                record = {"key": example.key, "text": example.first, "predicted": prediction.value}
                if prediction.probability is not None:
                    record["probability"] = prediction.probability
                if prediction.every:
                    record["probabilities"] = prediction.every
                if prediction.place:
                    record["place"] = prediction.place
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            advance(len(part))
    aside.rename(target)
    return len(examples)
