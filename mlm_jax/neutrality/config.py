# SPDX-License-Identifier: Apache-2.0
"""Every option of `analyze`: which text, which probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.fields import MAY_CHANGE, AtLeast, Within, check_bounds
from mlm_jax.files import in_bucket
from mlm_jax.names import check_names

# Those that every analysis has, and those that may be asked for; see `transformations.fit_maps`.
Transformation = Literal["plain", "centred", "normalised", "projected", "whitened", "lsar", "leace"]
TRANSFORMATIONS: tuple[Transformation, ...] = ("plain", "centred", "normalised", "projected")
MORE: tuple[Transformation, ...] = ("whitened", "lsar", "leace")
DECODERS = ("argmax", "itermax", "edge_cover", "matching")


@dataclass(frozen=True)
class Aligned:
    """Sentences in two languages or more, line n the same in all.

    Attributes:
      name: in the tables.
      files: (language, path) each.
      fit: lines that means, projections and classifiers are fitted on: the first.
      test: lines that are tested: those after.
      classes: a file with the class of each line, the same in all languages: a classifier of frozen vectors is fitted in the pivot and tested in the others.
    """

    name: str
    files: tuple[tuple[str, str], ...]
    fit: int = 500
    test: int = 500
    classes: str = ""


@dataclass(frozen=True)
class WordAlignment:
    """Sentence pairs whose words are aligned by hand.

    Attributes:
      name: in the tables.
      languages: of source and target.
      pairs: a file of lines `source words ||| target words`, words with spaces between, punctuation words of their own.
      gold: a file of lines of `i-j` (sure) and `ipj` (possible), source first; sure ones are possible too.
      decoder: of the layer curves: `argmax` of rows and of columns, `itermax`, minimum-weight `edge_cover`, maximum-weight `matching`.
      distortion: how much a pair of words far from the diagonal loses (SimAlign, section 3.2's kappa); 0: nothing.
      first: the number of a sentence's first word in `gold`.
    """

    name: str
    languages: tuple[str, str]
    pairs: str
    gold: str
    decoder: Literal["argmax", "itermax", "edge_cover", "matching"] = "edge_cover"
    distortion: float = 0.0
    first: Literal[0, 1] = 1


@dataclass(frozen=True)
class Quality:
    """Machine translations and how good people found them: .tsv or .csv files with a header, .jsonl or .parquet.

    Attributes:
      name: in the tables.
      languages: of source and translation.
      train, test: the regression is fitted on `train`; empty: only the cosine is measured.
      source, translation, score: names of the columns.
      most: lines read of each.
    """

    name: str
    languages: tuple[str, str]
    test: str
    train: str = ""
    source: str = "original"
    translation: str = "translation"
    score: str = "mean"
    most: int = 2_000


@dataclass(frozen=True)
class Analyze:
    """The probes of an encoder."""

    workdir: Annotated[str, MAY_CHANGE] = ""
    """Folder of the analysis; empty: runs/NAME-OF-CONFIG."""
    init: Annotated[str, MAY_CHANGE] = ""
    """A run or a Hugging Face folder whose encoder is analysed."""
    transformations: tuple[Transformation, ...] = TRANSFORMATIONS
    """What is done to sentences' vectors before languages are identified and sentences retrieved: by each language's own mean, deviation, covariance
    (whitened) or map into the pivot; lsar (Xie et al. 2022) and leace (Belrose et al. 2023) by one map for all languages. plain and centred are
    always done."""
    pivot: str = "eng"
    """Language that others are retrieved and projected into, as the files name it."""
    aligned: tyro.conf.Suppress[tuple[Aligned, ...]] = ()
    word_alignment: tyro.conf.Suppress[tuple[WordAlignment, ...]] = ()
    quality: tyro.conf.Suppress[tuple[Quality, ...]] = ()
    compare: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Fine-tuned workdirs or runs of the same vocabulary, whose aligned words are compared with this encoder's."""
    network: bool = False
    """Identify languages by a small network too (64 hidden units), which sees what linear classifiers do not."""
    checkpoints: bool = False
    """Identify languages and retrieve at each checkpoint that the run `init` has kept, too."""
    max_length: int = 128
    """Tokens of a sentence that are read."""
    neighbours: Annotated[int, AtLeast(1)] = 4
    """k of the margin."""
    overlap: Annotated[float, Within(0, 1), MAY_CHANGE] = 0.05
    """Largest share of a language's tested sentences (of scored translations: of pairs) that may be among those that means,
    projections and classifiers are fitted on; fewer are counted and said."""
    mesh: Annotated[cfg.Mesh, MAY_CHANGE] = cfg.ALL_DEVICES
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of vectors, as `model.dtype`; auto: bfloat16 on GPU and TPU, float32 on CPU."""


def validate_analysis(config: Analyze) -> None:
    """Refuse a config that cannot work, before anything is loaded.

    Raises:
      UserError: naming the option, its value and what would be right.
    """
    check_bounds(config)
    if in_bucket(config.workdir):
        raise UserError(f"workdir: {config.workdir}: evaluate and analyze work on a local disk; use a local --workdir")
    cfg.validate_mesh(config.mesh)
    if not (config.aligned or config.word_alignment or config.quality):
        raise UserError("aligned, word_alignment, quality: all empty; name at least one set to probe with")
    sets: list[Aligned | WordAlignment | Quality] = [*config.aligned, *config.word_alignment, *config.quality]
    names = [part.name for part in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{', '.join(twice)}: twice; each set needs a name of its own")
    check_names("sets", names, as_files=True)
    for pair in sets:
        if not isinstance(pair, Aligned):
            check_names(pair.name, pair.languages[:1])
            check_names(pair.name, pair.languages[1:])
    for part in config.aligned:
        check_names(part.name, [language for language, _ in part.files])
        languages = [language for language, _ in part.files]
        if len(set(languages)) < 2 or len(set(languages)) < len(languages):
            raise UserError(f"{part.name}: {', '.join(languages)}; name at least two languages, each once")
        if part.fit < 2 or part.test < 2:
            raise UserError(f"{part.name}: fit {part.fit}, test {part.test}; both need at least 2 lines")
    if config.compare and not config.word_alignment:
        raise UserError("compare: needs word_alignment, whose words are compared")
