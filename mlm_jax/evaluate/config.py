# SPDX-License-Identifier: Apache-2.0
"""Every option of `evaluate`: which benchmarks, on which languages, by which protocol."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.fields import MAY_CHANGE, AtLeast, Within, check_bounds
from mlm_jax.files import in_bucket
from mlm_jax.finetune import config as finetune_config
from mlm_jax.finetune.config import Finetune
from mlm_jax.names import check_names

# How vectors are made of texts: as the encoder was trained to make them, or of a layer by this pooling.
Made = Literal["first", "mean", "max", "own"]


@dataclass(frozen=True)
class Tuned:
    """A benchmark that fine-tunes: XNLI, PAWS-X, NER, POS, XQuAD, MLQA, TyDi QA, GLUE.

    Attributes:
      name: in the table.
      config: the experiment; its workdir and init are set by `evaluate`.
    """

    name: str
    config: Finetune


@dataclass(frozen=True)
class Pairs:
    """Aligned sentences of two languages: two files, line n with line n.

    Attributes:
      languages: of the first and the second file.
      paths: of the files; or a field of one (`FILE.jsonl#FIELD`; .json, .csv, .tsv, .parquet, .arrow), or of a data set
        (`tfds:NAME/CONFIG:SPLIT#FIELD`).
    """

    languages: tuple[str, str]
    paths: tuple[str, str]


@dataclass(frozen=True)
class Retrieval:
    """For each sentence of the first language, which of the second is nearest (Tatoeba; Artetxe and Schwenk 2019).

    Attributes:
      name: in the table.
      pairs: one per language, the language of the table first (XTREME: the foreign sentence looks for the English one).
      layer: whose vectors are compared, counted from 1; 0: the last.
      pooling: mean of the tokens, the first, or the greatest value of each unit; own: the vectors that the encoder was trained to make (layer,
        pooling and dimensions), else the mean of the last layer.
      prompt: put before each sentence: a text, or the name of one of the encoder's own prompts.
      score: cosine; or margin, the cosine over the mean of those with the nearest `neighbours` on either side (Artetxe and Schwenk 2019a).
      neighbours: k of the margin.
      both_ways: average with the other direction.
    """

    name: str
    pairs: tuple[Pairs, ...]
    layer: int = 0
    pooling: Made = "mean"
    prompt: str = ""
    score: Literal["cosine", "margin"] = "cosine"
    neighbours: Annotated[int, AtLeast(1)] = 4
    both_ways: bool = False


@dataclass(frozen=True)
class Corpora:
    """Two corpora that hold some translations of each other, and which (BUCC).

    Attributes:
      languages: of the two.
      dev, test: (first, second, gold) files each; the first two have lines of an id, a tab and a sentence, gold those of a
        pair's two ids with a tab between.
    """

    languages: tuple[str, str]
    dev: tuple[str, str, str]
    test: tuple[str, str, str]


@dataclass(frozen=True)
class Mining:
    """Find the translations in two corpora: F1 with the threshold that is best on dev (BUCC; Zweigenbaum et al. 2017).

    Attributes:
      corpora: one per language, the language of the table first.
      others: see `Retrieval`.
    """

    name: str
    corpora: tuple[Corpora, ...]
    layer: int = 0
    pooling: Made = "mean"
    prompt: str = ""
    neighbours: Annotated[int, AtLeast(1)] = 4


@dataclass(frozen=True)
class Collection:
    """Queries, the documents to search, and which of them answer which.

    Attributes:
      languages: of the queries, which is that of the table, and of the documents.
      queries, documents: files of lines of an id, a tab and a text; or .jsonl as BEIR has them (`_id`, `text`, and `title` before it).
      relevant: lines of a query's id, a document's and how relevant it is (0, 1, 2 ...), with white space between; TREC's four columns, and a
        first line of names, are read too.
    """

    languages: tuple[str, str]
    queries: str
    documents: str
    relevant: str


@dataclass(frozen=True)
class Search:
    """Documents by nearness to a query: nDCG@10, MRR@10 and recall (BEIR; Thakur et al. 2021).

    Attributes:
      collections: one per language.
      layer, pooling: see `Retrieval`.
      prompts: put before queries and before documents.
      recall: of the nearest so many.
    """

    name: str
    collections: tuple[Collection, ...]
    layer: int = 0
    pooling: Made = "own"
    prompts: tuple[str, str] = ("", "")
    recall: Annotated[int, AtLeast(1)] = 100


@dataclass(frozen=True)
class Scored:
    """Pairs of texts that people have scored: a file with fields.

    Attributes:
      languages: of the first text, which is that of the table, and of the second.
      path: of a file with fields.
      fields: of the two texts, and of the score.
    """

    languages: tuple[str, str]
    path: str
    fields: tuple[str, str, str] = ("sentence1", "sentence2", "score")


@dataclass(frozen=True)
class Similarity:
    """How the cosine of two texts follows what people say of them: Spearman's correlation, and Pearson's (STS; Cer et al. 2017).

    Attributes:
      pairs: one per language.
      others: see `Retrieval`.
    """

    name: str
    pairs: tuple[Scored, ...]
    layer: int = 0
    pooling: Made = "own"
    prompt: str = ""


@dataclass(frozen=True)
class Classed:
    """Texts of a language and their classes: a file with fields."""

    language: str
    path: str
    fields: tuple[str, str] = ("text", "label")


@dataclass(frozen=True)
class Clustering:
    """Whether texts of a class lie together: k-means into as many clusters as there are classes, V-measure (Rosenberg and Hirschberg 2007).

    Attributes:
      texts: one per language.
      seeds: of the k-means that are averaged, counted from 0.
      others: see `Retrieval`.
    """

    name: str
    texts: tuple[Classed, ...]
    layer: int = 0
    pooling: Made = "own"
    prompt: str = ""
    seeds: Annotated[int, AtLeast(1)] = 3


@dataclass(frozen=True)
class Classification:
    """What class a text is of, by logistic regression on frozen vectors, fitted on one language: accuracy and macro F1 in each.

    Attributes:
      train: texts that it is fitted on.
      test: one per language.
      strength: of the penalty, scikit-learn's 1 / C.
      others: see `Retrieval`.
    """

    name: str
    train: Classed
    test: tuple[Classed, ...]
    layer: int = 0
    pooling: Made = "own"
    prompt: str = ""
    strength: Annotated[float, Within(0, 1e6)] = 1.0


@dataclass(frozen=True)
class Text:
    """Text of a language to measure the language model on.

    Attributes:
      language: its code.
      path: a glob of .txt files, a text a line, or of files with a field: .jsonl, .json, .csv, .tsv, .parquet, .arrow.
      field: that holds the text.
    """

    language: str
    path: str
    field: str = "text"


@dataclass(frozen=True)
class LanguageModel:
    """Masked-LM loss, perplexity and bits a byte of held-out text, 15 % of it hidden, always the same.

    Attributes:
      name: in the table.
      texts: one per language.
      lines: read of each, at most.
    """

    name: str
    texts: tuple[Text, ...]
    lines: Annotated[int, AtLeast(1)] = 1_000


@dataclass(frozen=True)
class Evaluate:
    """A suite of benchmarks on one encoder."""

    workdir: Annotated[str, MAY_CHANGE] = ""
    """Folder of the evaluation; empty: runs/NAME-OF-CONFIG."""
    init: Annotated[str, MAY_CHANGE] = ""
    """A run or a Hugging Face folder whose encoder is evaluated."""
    source: Annotated[str, MAY_CHANGE] = "en"
    """Language that the transfer gap is measured from, as the benchmarks name it."""
    mesh: Annotated[cfg.Mesh, MAY_CHANGE] = cfg.ALL_DEVICES
    """Devices of every benchmark, what is fine-tuned included."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of vectors and language models, as `model.dtype`; auto: bfloat16 on GPU and TPU, float32 on CPU. What is fine-tuned has its own."""
    max_length: int = 128
    """Tokens of a sentence that retrieval and mining read."""
    overlap: Annotated[float, Within(0, 1), MAY_CHANGE] = 0.05
    """Largest share of the sentences that are mined that may stand in the dev corpora, which the threshold is fitted on; fewer are
    counted and said. What is fine-tuned has its own `data.overlap`."""
    tuned: tyro.conf.Suppress[tuple[Tuned, ...]] = ()
    retrieval: tyro.conf.Suppress[tuple[Retrieval, ...]] = ()
    mining: tyro.conf.Suppress[tuple[Mining, ...]] = ()
    language_model: tyro.conf.Suppress[tuple[LanguageModel, ...]] = ()
    search: tyro.conf.Suppress[tuple[Search, ...]] = ()
    similarity: tyro.conf.Suppress[tuple[Similarity, ...]] = ()
    clustering: tyro.conf.Suppress[tuple[Clustering, ...]] = ()
    classification: tyro.conf.Suppress[tuple[Classification, ...]] = ()

    @property
    def of_vectors(self) -> tuple[Search | Similarity | Clustering | Classification, ...]:
        """What is measured on vectors of texts besides retrieval and mining."""
        return (*self.search, *self.similarity, *self.clustering, *self.classification)


def validate_evaluation(config: Evaluate) -> None:
    """Refuse a config that cannot work, before anything is loaded.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    check_bounds(config)
    if in_bucket(config.workdir):
        raise UserError(f"workdir: {config.workdir}: evaluate and analyze work on a local disk; use a local --workdir")
    cfg.validate_mesh(config.mesh)
    names = [
        part.name
        for parts in (config.tuned, config.retrieval, config.mining, config.language_model, config.of_vectors)
        for part in typing.cast(tuple[Retrieval, ...], parts)
    ]
    if not names:
        raise UserError(
            "tuned, retrieval, mining, language_model, search, similarity, clustering, classification: all empty; name at least one "
            "benchmark"
        )
    twice = {name for name in names if names.count(name) > 1}
    check_names("benchmarks", names, as_files=True)
    languages = [x for part in config.retrieval for pair in part.pairs for x in pair.languages]
    languages += [x for part in config.mining for corpora in part.corpora for x in corpora.languages]
    languages += [text.language for part in config.language_model for text in part.texts]
    languages += [x for part in config.search for collection in part.collections for x in collection.languages]
    languages += [x for part in config.similarity for pairs in part.pairs for x in pairs.languages]
    languages += [texts.language for part in config.clustering for texts in part.texts]
    languages += [texts.language for part in config.classification for texts in (part.train, *part.test)]
    for benchmark in (*config.retrieval, *config.mining, *config.of_vectors):
        if benchmark.pooling == "own" and benchmark.layer:
            raise UserError(
                f"{benchmark.name}: layer {benchmark.layer} with pooling own, which has the encoder's own layer; name a pooling, or no layer"
            )
    for language in languages:  # of which different benchmarks may spell one in different ways
        check_names("benchmarks", [language])
    if twice:
        raise UserError(f"benchmarks: {', '.join(sorted(twice))} twice; each needs a name of its own")
    for tuned in config.tuned:
        finetune_config.validate_finetuning(tuned.config)


def experiment(config: Evaluate, part: Tuned) -> Finetune:
    """The fine-tuning experiment of a benchmark, in the evaluation's workdir."""
    workdir = f"{config.workdir}/{part.name}"
    return dataclasses.replace(part.config, workdir=workdir, init=config.init, mesh=config.mesh)
