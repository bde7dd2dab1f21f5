# SPDX-License-Identifier: Apache-2.0
"""Every option of `finetune`: typed, with its unit, default and source."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from etils import epath

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.fields import BELOW_ONE, MAY_CHANGE, Above, AtLeast, Formerly, Within, check_bounds
from mlm_jax.lines import LARGEST_FILE
from mlm_jax.names import check_names
from mlm_jax.stored import read_json
from mlm_jax.typed import as_type

LARGEST = "data.largest_file"  # the option's name, for messages


@dataclass(frozen=True)
class Labelled:
    """Labelled examples of one language.

    Attributes:
      language: its code.
      path: a glob of .tsv, .csv, .jsonl, .json, CoNLL (.conll, .conllu, .iob2, .txt, …) or SQuAD .json files, which may be compressed (.gz,
        .bz2, .xz, .zst), or .parquet or .arrow; a folder that Hugging Face's `datasets` saved; or `tfds:NAME/CONFIG:SPLIT` or
        `hf:NAME/CONFIG:SPLIT`.
      first, last: the examples taken, counted from 1 over all files (paragraphs, of SQuAD files); 0: to the end.
      text_language: of the text, where it was translated (translate-test); empty: `language`.
    """

    language: str
    path: str
    first: int = 1
    last: int = 0
    text_language: str = ""


@dataclass(frozen=True)
class Data:
    """The labelled data."""

    train: tyro.conf.Suppress[tuple[Labelled, ...]] = ()
    dev: tyro.conf.Suppress[tuple[Labelled, ...]] = ()
    """Chooses among a model's checkpoints; none: the last is taken."""
    test: tyro.conf.Suppress[tuple[Labelled, ...]] = ()
    columns: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the columns of .tsv and .csv files that have no header."""
    text: str = "text"
    """Column or field of the text, or of the first sentence; of the words, in files of tagged words but CoNLL."""
    pair: str = ""
    """Column or field of the second sentence; empty: there is none."""
    label: str = "label"
    """Column or field of the label, of the labels, or of the words' tags."""
    no_label: tuple[str, ...] = ("-", "", "-1", "null", "nan", "n/a")
    """classify, multilabel, tag: labels, in either case, that say there is no gold label (SNLI's "-"): such examples, or such
    words of a tagger, are left out and counted. -1 is a class beside -2, and beside 1 without 2 (but for less than 5 % beside 0 and 1)."""
    word_column: int = 0
    """tag: column of the word in CoNLL files, from 1; -1 is the last; 0: recognised, and said."""
    tag_column: int = 0
    """tag: column of the tag in CoNLL files, from 1; -1 is the last; 0: recognised, and said."""
    largest_file: Annotated[int, AtLeast(1), MAY_CHANGE] = LARGEST_FILE
    """Bytes of a file, unpacked, that is read; a larger one is refused. Bounds the memory, as examples are kept there."""
    max_length: Annotated[int, AtLeast(8)] = 128
    """Tokens of an example, specials included. Longer pairs lose tokens at the end of the longer sentence; tagged
    words beyond are tagged O; paragraphs are read in windows of this length."""
    stride: Annotated[int, AtLeast(0), Formerly(128)] = 0
    """span: tokens from a window's begin to the next one's, `doc_stride` of BERT's script (128 of 384; what Hugging Face calls stride
    is the overlap, the rest of the window). 0: a third of `max_length`, half a window at most. More than what keeps every
    answer of `task.max_answer` tokens whole in some window is refused."""
    max_question: int = 64
    """span: tokens of the question, at most (SQuAD's script: 64)."""
    padding: Annotated[float, Within(0, 1, excluded=(0, 1))] = 0.1
    """Largest share of the positions of training batches that may be padding; examples are packed into blocks as long as
    that takes."""
    overlap: Annotated[float, Within(0, 1), MAY_CHANGE] = 0.05
    """Largest share of a language's dev or test examples that may stand in the training data, in any language, and of test
    examples in the dev sets: texts (both of a pair, question and paragraph, the words of a sentence) that are the same. Fewer
    are counted and said."""
    misplaced: float = 0.01
    """span: largest share of training answers that may not stand at their offset; they are left out. Also the largest share of a
    data set's answers that may lie whole in no window; they are counted."""


@dataclass(frozen=True)
class Task:
    """What is learned."""

    kind: str = "classify"
    """classify, regress: a label or a number per text or pair of texts; tag: a label per word; span: the part of a paragraph
    that answers a question (SQuAD); multilabel: any number of labels per text or pair of texts, or none."""
    labels: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Labels there may be, in the order of their scores; empty: those of the training data, sorted."""
    positive: str = ""
    """classify: the label whose F1 is measured too, as binary_f1 (GLUE's MRPC and QQP); empty: none."""
    pooling: Literal["first", "mean"] = "first"
    """classify, regress, multilabel: read from the first token or from the mean of all."""
    crf: bool = False
    """tag: score whole sequences (Lample et al. 2016) instead of words."""
    scheme: Literal["auto", "none", "io", "iob1", "iob2", "ioe1", "ioe2", "iobes", "bilou", "bmes", "bmewo"] = "auto"
    """tag: how tags mark entities. auto: recognised from all labels, and said. io: a label is a kind; none: a label is a class,
    measured by accuracy alone. A tag is a letter and a kind, in either order, with any of -_:/.| between."""
    metric: str = "auto"
    """Chooses checkpoints and is averaged. classify: accuracy, macro_f1, mcc, binary_f1; regress: pearson, spearman; tag:
    entity_f1, strict_f1, accuracy; span: f1, exact; multilabel: micro_f1, macro_f1. auto: the first of them (accuracy of tags
    that mark no entities)."""
    dropout: Annotated[float, BELOW_ONE] = 0.1
    """Before the output layer."""
    max_answer: int = 30
    """span: tokens of an answer, at most (SQuAD's script: 30)."""
    best_of: int = 20
    """span: begins and ends considered a window (SQuAD's script: 20)."""
    answers: Literal["squad", "mlqa"] = "squad"
    """span: how answers are compared: English articles and punctuation left out (SQuAD, XQuAD, TyDi QA), or the language's own
    (MLQA)."""
    unanswerable: bool = False
    """span: there are questions without an answer (SQuAD 2.0)."""
    null_margin: float = 0.0
    """span: how much the score of no answer must exceed the best answer's."""
    threshold: Annotated[float, Within(0, 1, excluded=(0, 1))] = 0.5
    """multilabel: the probability from which a text has a label."""


# Fine-tuning's defaults of the one `Optimizer`: BERT's, warming up over a tenth of the updates.
FINETUNE_OPTIMIZER = cfg.Optimizer(learning_rate=2e-5, warmup_steps=1, warmup_share=0.1, b2=0.999, epsilon=1e-8)


@dataclass(frozen=True)
class Train:
    """The loop."""

    epochs: Annotated[float, Above(0), MAY_CHANGE] = 3.0
    """Passes over the training data. More than a workdir had: its finished models are trained anew, one that was stopped goes on."""
    max_updates: Annotated[int, AtLeast(0), MAY_CHANGE] = 0
    """Updates at most, whatever `epochs` says; 0: no limit. The learning rate's schedule ends with them. May be raised as `epochs`."""
    batch_size: Annotated[int, AtLeast(1)] = 32
    """Examples per update, on average: as many as fit into its blocks."""
    evaluate_every: Annotated[int, AtLeast(0)] = 0
    """Updates between evaluations on the dev sets; 0: once per epoch. There is always one at the end."""
    log_every: Annotated[int, AtLeast(1), MAY_CHANGE] = 20
    """Updates between lines of metrics."""
    save_every: Annotated[int, AtLeast(1), MAY_CHANGE] = 200
    """Updates between checkpoints to continue from; evaluations save as well."""
    accumulate: Annotated[int, AtLeast(1), MAY_CHANGE] = 1
    """Microbatches that the rows of an update are cut into, one after the other; the gradient is the same."""
    max_seconds: Annotated[float, AtLeast(0), MAY_CHANGE] = 0.0
    """After these the run saves and stops, and the same command continues it; 0: no limit."""


Regime = Literal["zero_shot", "translate_train", "translate_test", "translate_train_all", "joint", "in_language"]


@dataclass(frozen=True)
class Finetune:
    """One fine-tuning experiment: a model or several, as the regime has it, and its table of results."""

    workdir: Annotated[str, MAY_CHANGE] = ""
    """Folder of the experiment, local or gs://; empty: runs/NAME-OF-CONFIG."""
    init: Annotated[str, MAY_CHANGE] = ""
    """A run or a Hugging Face folder whose encoder and vocabulary to start from."""
    random_init: bool = False
    """Start from random weights in its shape: what is left without pretraining."""
    regime: Regime = "zero_shot"
    """zero_shot: one model, trained on `source`, tested on all; translate_test: the same, on test text translated into
    `source`; translate_train, in_language: a model a language, on its own training data (translated, or not);
    translate_train_all, joint: one model on all training data."""
    source: str = "en"
    """Language that zero_shot and translate_test train on."""
    select: Literal["auto", "joint", "per_language", "source", "last"] = "auto"
    """Which evaluation's model is tested: the best by the mean over the dev sets (joint: one model), on each language's own
    (per_language: a model a language), on the source's, or the last; auto: source where the regime trains on nothing else,
    else joint (XLM-R's table 1 has both)."""
    seeds: Annotated[tuple[int, ...], AtLeast(0)] = (0,)
    """One model each: head, order of the data, dropout."""
    data: Data = Data()
    task: Task = Task()
    optimizer: cfg.Optimizer = FINETUNE_OPTIMIZER
    train: Train = Train()
    devices: Annotated[int, AtLeast(0), MAY_CHANGE] = 0
    """The first so many devices make up the mesh; 0: all."""
    mesh: Annotated[cfg.Mesh, MAY_CHANGE] = cfg.ALL_DEVICES
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type, as `model.dtype`; auto: bfloat16 on GPU and TPU, float32 on CPU."""
    hosts: cfg.Hosts = cfg.ALONE


def selection(config: Finetune) -> str:
    """`select`, with auto resolved."""
    if config.select != "auto":
        return config.select
    return "source" if config.regime in ("zero_shot", "translate_test") else "joint"


def validate_finetuning(config: Finetune) -> None:
    """Refuse a config that cannot work, before anything is loaded.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    check_bounds(config)
    cfg.validate_mesh(config.mesh)

    def require(ok: bool, message: str) -> None:
        if not ok:
            raise UserError(message)

    data, task = config.data, config.task
    require(bool(data.train), "data.train: empty; name at least one Labelled(language, path)")
    require(bool(data.test), "data.test: empty; name at least one Labelled(language, path)")
    parts = (*data.train, *data.dev, *data.test)
    check_names(
        "data",
        [*(part.language for part in parts), *(part.text_language or part.language for part in parts)],
        as_files=True,
    )
    for name in ("train", "dev", "test"):
        languages = [part.language for part in getattr(data, name)]
        twice = {x for x in languages if languages.count(x) > 1}
        require(
            not twice, f"data.{name}: {', '.join(sorted(twice))} twice; one Labelled a language, its path may be a glob"
        )
    trained = [part.language for part in data.train]
    if config.regime in ("zero_shot", "translate_test"):
        require(
            config.source in trained,
            f"source: {config.source} has no training data; data.train has {', '.join(trained)}",
        )
    if config.regime in ("translate_train", "in_language"):
        missing = [part.language for part in data.test if part.language not in trained]
        require(not missing, f"data.train: no {', '.join(missing)}, which {config.regime} needs a model for")
    if selection(config) == "source" and data.dev:
        has = [part.language for part in data.dev]
        require(
            config.source in has,
            f"data.dev: no {config.source}, which select source chooses by (there is {', '.join(has)}); add it, or set select",
        )
    require(bool(config.seeds), "seeds: empty; name at least one")
    require(
        config.optimizer.schedule != "wsd" or config.optimizer.decay_steps >= 1,
        f"optimizer.decay_steps: {config.optimizer.decay_steps}; wsd needs 1 or more",
    )
    from mlm_jax.finetune.tasks import TASKS  # here, because tasks are written in terms of these options

    require(task.kind in TASKS, f"task.kind: there is no {task.kind}; use {', '.join(TASKS)}")
    for option in dataclasses.fields(Task):
        kinds = [name for name, kind in TASKS.items() if option.name in kind.options]
        require(
            not kinds or task.kind in kinds or getattr(task, option.name) == option.default,
            f"task.{option.name}: only of task.kind {' or '.join(kinds)}, not of {task.kind}",
        )
    TASKS[task.kind].check(data, task)


def read_finetuning(workdir: str) -> Finetune:
    """The config stored in a workdir of `finetune`.

    Raises:
      UserError: there is none, or it is of another command or version.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; give a workdir that finetune made")
    stored = read_json(path, dict[str, Any])
    if "model_type" in stored:
        raise UserError(f"{workdir}: a Hugging Face folder; run: mlm-jax import {workdir} RUN, and give RUN")
    if "task" not in stored:
        raise UserError(f"{workdir}: not a workdir of finetune; run: mlm-jax finetune CONFIG --init {workdir}")
    try:
        return dataclasses.replace(as_type(Finetune, stored), workdir=workdir)
    except ValueError as e:
        raise UserError(f"{path}: not a config of finetune ({e}); give the workdir of one") from e
