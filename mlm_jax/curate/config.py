# SPDX-License-Identifier: Apache-2.0
"""Every option of `curate`: what is read, how it is told apart, cleaned and filtered, and where the corpus goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mlm_jax.errors import UserError
from mlm_jax.fields import MAY_CHANGE, AtLeast, Within, check_bounds


@dataclass(frozen=True)
class Identify:
    """Which language a page and its paragraphs are of.

    Attributes:
      model: py3langid, or the path of a fastText model (lid.176.bin, GlotLID, OpenLID).
      least: confidence below which a document goes; 0: each language's own, max(0.3, min(0.9, median - standard deviation)) (FineWeb-2).
      languages: those wanted, by the codes that the corpus's folders have; none: all.
      mixed: what becomes of a page of two languages: a document of each, none, or the whole as one of its first language.
    """

    model: str = "py3langid"
    least: Annotated[float, Within(0, 1)] = 0.0
    languages: tuple[str, ...] = ()
    mixed: Literal["split", "drop", "keep"] = "split"


@dataclass(frozen=True)
class Clean:
    """What is mended before anything is counted.

    Attributes:
      lines: leave out lines of navigation, cookie notices, counters.
      mojibake: repair text that was decoded wrongly (ftfy).
      private: write placeholders for e-mail addresses, telephone and IP numbers.
    """

    lines: bool = True
    mojibake: bool = True
    private: bool = False


@dataclass(frozen=True)
class Filters:
    """Which published rules a document has to pass.

    Attributes:
      quality: Gopher's (Rae et al. 2021, table A1).
      repetition: Gopher's.
      fineweb: FineWeb's (Penedo et al. 2024).
      c4: C4's (Raffel et al. 2020), which FineWeb-2 dropped because they hurt.
      thresholds: derived per language from the text itself by FineWeb-2's formulas, or the English ones as published.
      perplexity: files of clean text per language, by path or glob with {language} in it (clean/{language}.txt), by the codes that the
        corpus's folders have. Documents are told by how well a model of it predicts them: the best 30 % of their language are its head, the
        worst 40 % its tail (CCNet: Wenzek et al. 2020). A language without clean text is not told so. Empty: none is.
      buckets: those that stay.
    """

    quality: bool = True
    repetition: bool = True
    fineweb: bool = True
    c4: bool = False
    thresholds: Literal["derived", "published"] = "derived"
    perplexity: str = ""
    buckets: tuple[Literal["head", "middle", "tail"], ...] = ("head", "middle", "tail")


@dataclass(frozen=True)
class Duplicates:
    """Which copies go.

    Attributes:
      paragraphs: those that stand elsewhere in the corpus (CCNet).
      near: documents whose sets of five words in a row are nearly the same, by MinHash of 14 bands of 8 (FineWeb-2).
    """

    paragraphs: bool = True
    near: bool = True


@dataclass(frozen=True)
class Curate:
    """A corpus from web archives or other text.

    Attributes:
      workdir: where `corpus/LANGUAGE/*.jsonl.zst`, curate.json, report/ and dropped/ go.
      inputs: files, by path or glob: .warc, .wet, .html, .txt, .jsonl and .json (lines), .parquet, .arrow, .csv, .tsv; packed (.gz, .zst) or
        not; local, in gs://, or wherever fsspec reads. A folder that Hugging Face's `datasets` saved, or `hf:NAME/CONFIG:SPLIT`. Of .paths and
        .paths.gz each line is a path (Common Crawl's lists), after `prefix`.
      prefix: what stands before the paths of such lists.
      field: of JSON lines and tables: where the text is; several, as ("title", "text"), are joined by line ends. Address and date are taken
        from `url` or `u`, and `date`, `timestamp` or `ts`, where they are there.
      contamination: files of evaluation sets; a document with 13 words in a row of one of them goes.
      dropped: documents that are kept in dropped/ for a person to look at, per language and reason.
      shard_bytes: of text, about, per file of the corpus.
      runner: where: a pool of processes here, or Apache Beam (launch/beam.sh).
      beam_options: Beam's pipeline options, as one string, e.g. "--runner=DataflowRunner --project=p".
      workers: processes; 0: one per core.
      memory: GiB that all of them take for what they sort and group; in Beam: one process.
      shared: several runs of the same command at once share the work, on machines that share the workdir.
      price: of a core for an hour, in any currency, by which `--dry-run` says what the whole costs.
    """

    workdir: Annotated[str, MAY_CHANGE] = ""
    inputs: tuple[str, ...] = ()
    prefix: str = ""
    field: str | tuple[str, ...] = "text"
    identify: Identify = Identify()
    clean: Clean = Clean()
    filters: Filters = Filters()
    duplicates: Duplicates = Duplicates()
    contamination: tuple[str, ...] = ()
    dropped: Annotated[int, AtLeast(0)] = 0
    shard_bytes: Annotated[int, AtLeast(1)] = 100_000_000
    runner: Annotated[Literal["pool", "beam"], MAY_CHANGE] = "pool"
    beam_options: Annotated[str, MAY_CHANGE] = ""
    workers: Annotated[int, AtLeast(0), MAY_CHANGE] = 0
    memory: Annotated[float, AtLeast(0.05), MAY_CHANGE] = 4.0
    shared: Annotated[bool, MAY_CHANGE] = False
    price: Annotated[float, AtLeast(0), MAY_CHANGE] = 0.04


def validate_curation(config: Curate) -> None:
    """Refuse what cannot work.

    Raises:
      UserError: an option out of its bounds, or nothing to read.
    """
    check_bounds(config)
    if not config.inputs:
        raise UserError("inputs: none given; name files or globs, such as crawl/*.warc.gz")
    if config.shared and config.runner == "beam":
        raise UserError("shared: a run in Beam is one, whose workers Beam starts; leave it out")
    if config.filters.perplexity and "{language}" not in config.filters.perplexity:
        raise UserError(
            f"filters.perplexity: {config.filters.perplexity} does not say which language a file is of; put {{language}} into the path, e.g. "
            "clean/{language}.txt"
        )
    if not config.filters.buckets:
        raise UserError("filters.buckets: none stays; name head, middle or tail")
