# SPDX-License-Identifier: Apache-2.0
"""A fine-tuned model at work: examples → predictions."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import console
from mlm_jax import mesh as meshes
from mlm_jax.coverage import warn_unknown
from mlm_jax.encode.given import as_list, as_text
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.run import make_run, refuse_unknown
from mlm_jax.errors import UserError
from mlm_jax.files import in_bucket, make_folder, naming, writing
from mlm_jax.finetune import config as options
from mlm_jax.finetune.arrays import Encoded, join
from mlm_jax.finetune.config import LARGEST, Finetune
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.forward import make_head, scores
from mlm_jax.finetune.output import Summary, grouped, record
from mlm_jax.finetune.tasks import task_kind
from mlm_jax.finetune.tasks.base import Prediction
from mlm_jax.finetune.words import SPACES, Place, Splitter, read_splitter
from mlm_jax.formats import WITH_FIELDS, ending
from mlm_jax.lines import read_lines
from mlm_jax.metrics.entities import recognise
from mlm_jax.model.batch import PackedBatch
from mlm_jax.model.encoder import apply_encoder, compute_dtype
from mlm_jax.pretrained import Params, Pretrained, place
from mlm_jax.streams import silence
from mlm_jax.tokenizers import Tokenizer, load_tokenizer
from mlm_jax.vocabulary import Vocabulary

STDIN, STDOUT = "standard input", "standard output"
AT_ONCE = 2_048  # examples read into memory as scores

# [outputs] or [length, outputs] of each item
Scores = list[np.ndarray]
# whole parameters (encoder, head) on the mesh, encoded examples, called with the number of items done → scores
Score = Callable[[Params, Encoded, Callable[[int], None] | None], Scores]


def make_scorer(config: Finetune, pretrained: Pretrained, labels: Sequence[str], mesh: jax.sharding.Mesh) -> Score:
    """Build the scorer of a model's items.

    Args:
      pretrained: the encoder, of which the parameters are not read.
    """
    model, languages = pretrained.model, pretrained.languages
    kind = task_kind(config.task)
    head = make_head(config, model, kind.outputs(labels), compute_dtype(config.dtype))
    encoder = pretrained.encoder(config.dtype, model.layers)

    def score_batch(params: Params, batch: PackedBatch) -> jax.Array:
        hidden = apply_encoder(encoder, params["encoder"], batch)
        return scores(config, head, params["head"], hidden, batch, None)

    run = make_run(score_batch, mesh, pretrained.vocabulary.pad, model.token_types)

    def score(params: Params, encoded: Encoded, done: Callable[[int], None] | None = None) -> Scores:
        if model.language_embedding:
            refuse_unknown(encoded.language, languages)
        items = join([encoded], languages)
        found: Scores = [np.zeros(0)] * len(items.ids)
        for batch, out in run(items, params):
            for row, [item] in enumerate(batch):
                found[item] = out[row, : len(items.ids[item])] if kind.of_tokens else out[row, 0]
            if done is not None:
                done(len(batch))
        return found

    return score


def whole_params(tuned: Pretrained, mesh: jax.sharding.Mesh) -> Params:
    """What a scorer reads of a fine-tuned model: `encoder` and `head`, on the mesh."""
    placed = place(tuned, mesh)
    assert placed.head is not None
    return {"encoder": {name: placed.params[name] for name in ("embedding", "layers")}, "head": placed.head.params}


@dataclass
class Predictor:
    """A fine-tuned model, loaded once: `Predictor.load(workdir)`, then `predict(examples)`.

    Attributes:
      config: of its fine-tuning.
      params: whole, `encoder` and `head`, on the devices.
      labels: in the order of their scores.
      splitter: how a tagger's texts are cut into words.
    """

    config: Finetune
    params: Params
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    tokenizer: Tokenizer
    score: Score
    splitter: Splitter = SPACES

    @classmethod
    def load(cls, workdir: epath.PathLike, name: str = "", mesh: cfg.Mesh = cfg.ALL_DEVICES) -> Predictor:
        """Load a model of a workdir that `finetune` made.

        Args:
          name: of the model, as in its `models/` folder; may be left out where there is one.
          mesh: of the devices that are here, which may be others than it was trained on.

        Raises:
          UserError: there is no such model.
        """
        config = options.read_finetuning(str(workdir))
        devices = meshes.make_mesh(mesh, devices=jax.devices()[: config.devices or None])
        tuned = read_pretrained(workdir, mesh=devices, model=name)
        assert tuned.head is not None
        score = make_scorer(config, tuned, tuned.head.labels, devices)
        tokenizer = load_tokenizer(epath.Path(workdir) / "vocabulary")
        params, splitter = whole_params(tuned, devices), read_splitter(workdir)
        return cls(config, params, tuned.vocabulary, tuned.head.labels, tokenizer, score, splitter)

    def predict(
        self, examples: Sequence[Example], language: str = "", done: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        """Predict.

        Args:
          examples: labels are not read.
          language: of their text, for encoders with language embeddings.
          done: called with the number of items after each batch.

        Raises:
          UserError: an example is not what the model reads, or it has no embedding for the language.
        """
        config = self.config
        kind = task_kind(config.task)
        examples = as_list(examples, "examples")
        for example in examples:
            if not isinstance(example, Example):
                raise UserError(f"examples: {type(example).__name__}, not Example; `texts` takes plain texts")
        if not examples:
            return []
        if not isinstance(language, str):
            raise UserError(f"language: {language!r}, not a language's code")
        texts: list[str] = []
        places: list[list[Place]] = []
        if kind.of_words:
            examples, texts, places = self.split(examples)
        unlabelled = [replace(kind.check_given(e, config.data), label=None) for e in examples]
        made = kind.encode(unlabelled, language, self.tokenizer, self.vocabulary, self.labels, config.data)
        warn_unknown(f"{examples[0].where} and after", (ids[1:-1] for ids in made.ids), self.vocabulary.unk)
        if made.truncated:
            console.warn(
                f"{made.truncated:,} of {len(examples):,} examples, of {examples[0].where} and after, cut to "
                f"{config.data.max_length} tokens"
            )
        found = self.score(self.params, made, done)
        decoded = kind.decode(unlabelled, made, found, self.labels, self.params["head"], config.task)
        if not kind.of_words:
            return decoded
        try:
            scheme = recognise(self.labels, config.task.scheme)
        except UserError:  # of a model that was trained before schemes were told apart
            scheme = None
        return [
            replace(p, words=at, entities=grouped(text, at, p.value, p.probability, scheme) if scheme else None)
            for p, text, at in zip(decoded, texts, places, strict=True)
        ]

    def split(self, examples: Sequence[Example]) -> tuple[list[Example], list[str], list[list[Place]]]:
        """A tagger's examples as words, with their texts and the places of the words in these."""
        made, texts, places = [], [], []
        for example in examples:
            given: Any = example.first
            if isinstance(given, str | bytes):
                text = as_text(given, example.where)
                at = self.splitter.places(text)
                words = [text[begin:end] for begin, end in at]
            else:
                words = [
                    as_text(word, example.where, "a word", or_blank=True) for word in as_list(given, example.where)
                ]
                text = " ".join(words)
                ends = list(itertools.accumulate(len(word) + 1 for word in words))
                at = [(end - 1 - len(word), end - 1) for end, word in zip(ends, words, strict=True)]
            made.append(replace(example, first=words))
            texts.append(text)
            places.append(at)
        return made, texts, places

    def texts(self, first: Sequence[Any], second: Sequence[str] | None = None, language: str = "") -> list[Prediction]:
        """Predict from plain texts.

        Args:
          first: texts; of a tagger, texts that are split as its training data was, or lists of words; or questions.
          second: the other text of each pair, or each question's paragraph.
          language: see `predict`.

        Returns:
          A prediction for each, in order.

        Raises:
          UserError: they are no lists of such texts, are of different lengths, or one is empty.
        """
        ones = as_list(first)
        others = [None] * len(ones) if second is None else as_list(second, "second")
        if len(ones) != len(others):
            raise UserError(f"second: {len(others):,} texts for {len(ones):,}")
        if second is not None and None in others:
            raise UserError(f"second[{others.index(None)}]: NoneType, not a text; leave `second` out, or give all")
        examples = [
            Example(f"texts[{i}]", a, b, None, str(i)) for i, (a, b) in enumerate(zip(ones, others, strict=True))
        ]
        return self.predict(examples, language)


def predict_file(
    workdir: str,
    path: str,
    out: str,
    name: str = "",
    language: str = "",
    mesh: cfg.Mesh = cfg.ALL_DEVICES,
    words: str = "trained",
) -> Summary:
    """Label a file of text.

    Args:
      path: a file of the kinds that `finetune` reads, or a .txt with a text a line; "-": standard input.
      out: JSON lines: key (line, or question id), text, predicted, probability; of tagged words, words, offsets and entities. A file
        is written whole or not at all; a device or a pipe stays what it is; "-": standard output.
      name: of the model, where the workdir has several.
      language: of the text.
      mesh: as in `Predictor.load`.
      words: how a tagger's lines of text are split: trained: as its training data was; spaces: at spaces alone, for text whose words are
        apart.

    Returns:
      What to say of the predictions.

    Raises:
      UserError: no such file or model, or a line that cannot be read.
    """
    if words not in ("trained", "spaces"):
        raise UserError(f"--words {words}: use trained or spaces")
    if path != "-" and not Path(path).is_file():
        raise UserError(f"{path}: no such file; give a file to label, or - for standard input")
    refuse_target(out, path)
    summary = Summary()
    with open_target(out) as (file, shown):  # before the work, which may be long
        predictor = Predictor.load(workdir, name, mesh)
        if words == "spaces":
            predictor = replace(predictor, splitter=SPACES)
        examples = read_input(path, predictor.config)
        quiet = contextlib.nullcontext(lambda amount=1, note="": None)
        with console.progress("predicting", len(examples), unit="examples") if shown else quiet as advance:
            for begin in range(0, len(examples), AT_ONCE):
                part = examples[begin : begin + AT_ONCE]
                found = predictor.predict(part, language)
                summary.add(found)
                lines = [json.dumps(record(e, p), ensure_ascii=False) + "\n" for e, p in zip(part, found, strict=True)]
                with naming(STDOUT if not shown else out):
                    file.writelines(lines)
                advance(len(part))
    return summary


def is_standard_output(out: str) -> bool:
    """Whether predictions are to go where this program prints: "-", or a name of that (/dev/stdout)."""
    if out == "-":
        return True
    try:
        return os.path.samestat(os.stat(out), os.fstat(1))
    except OSError:
        return False


@contextlib.contextmanager
def open_target(out: str) -> Iterator[tuple[IO[str], bool]]:
    """Open what predictions are written to, and say whether progress may be printed beside."""
    if not is_standard_output(out):
        make_folder(Path(out).parent)
        with writing(out) as file:
            yield file, True
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the terminal's encoding
    try:
        yield sys.stdout, False
        with naming(STDOUT):
            sys.stdout.flush()
    except BrokenPipeError as e:
        e.filename = None
        raise
    except OSError:
        silence(sys.stdout)
        raise


def refuse_target(out: str, path: str) -> None:
    """Refuse a place that predictions cannot be written to.

    Raises:
      UserError: it is in a bucket, is a folder, or is the file to label.
    """
    if in_bucket(out):
        raise UserError(f"{out}: predictions are written to a local file; name one, and copy it there")
    target = Path(out)
    if path != "-" and target.exists() and target.samefile(path):
        raise UserError(f"{out}: is the file to label; name another one for the predictions")
    if target.is_dir():
        raise UserError(f"{out}: is a folder; name a file for the predictions")
    if target.exists() and not os.access(target, os.W_OK):
        raise UserError(f"{out}: may not be written to; mend its permissions, or name another file for the predictions")


def read_input(path: str, config: Finetune) -> list[Example]:
    """The examples of a file to label, or of standard input: JSON lines where it begins with a brace, SQuAD's JSON for `span`, columns
    with a header for pairs, else a text a line.

    Raises:
      UserError: there are none, or they are not what the model reads.
    """
    if path != "-":
        return read_unlabelled(path, config)
    content = sys.stdin.buffer.read(config.data.largest_file + 1)
    kind = task_kind(config.task)
    lines = ".tsv" if config.data.pair else ".txt"
    suffix = ".json" if kind.from_line("text") is None else ".jsonl" if content.lstrip()[:1] == b"{" else lines
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"input{suffix}"
        file.write_bytes(content)
        try:
            examples = read_unlabelled(str(file), config)
        except UserError as e:
            raise UserError(str(e).replace(str(file), STDIN)) from e
        return [replace(e, where=e.where.replace(str(file), STDIN)) for e in examples]


def read_unlabelled(path: str, config: Finetune) -> list[Example]:
    """The examples of a file to label.

    Raises:
      UserError: there are none, or they are not what the model reads.
    """
    kind = task_kind(config.task)
    if ending(path) == ".txt":
        if config.data.pair or kind.from_line("text") is None:
            raise UserError(f"{path}: the model reads pairs of texts; give a file of {', '.join(WITH_FIELDS)}")
        examples = [
            Example(f"{path}:{number}", line, None, None, str(number))
            for number, line in read_lines(path, config.data.largest_file, option=LARGEST)
            if line.strip()
        ]
    else:
        examples = [e for group in kind.read_file(path, config.data, labels=False) for e in group]
    table = ending(path) in (".csv", ".tsv") and not config.data.columns
    header = "; its first line names the columns" if table else ""
    if not examples:
        raise UserError(f"{path}: nothing there to label{header}")
    return examples
