# SPDX-License-Identifier: Apache-2.0
"""The curse of multilinguality: what more languages cost each of them, at three widths, with total updates or tokens per language held fixed.

XLM-R (Conneau et al. 2020, section 5.2 and figures 2 to 4): at equal updates low-resource languages gain from the first languages that join and all lose from
7 to 100, which a wider model makes up for. Chang et al. (2024) and ATLAS (2026) find capacity scarce; Foroutan et al. (2025) find that it is tokens per
language. Here 1 to 19 languages, nested, in one vocabulary: `total` gives every run as many updates, `each` as many per language, so
that only parameters are shared; with 8 both are the same run. English is in all, and is what is told of. By causal LM, as
in the later papers: masked LMs of this size first stay at what pieces' frequencies give, so that it would be told how many updates it takes to leave that.

    mlm-jax study configs/studies/curse.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Six and four numbers of languages by either way of counting × three widths × three seeds: 90 runs, about 55 minutes on two cores. Full size: full_curse.py, of
XLM-R's 100 languages.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mlm_jax.config import Config, Sampling, with_sections
from mlm_jax.phases import tokens_of
from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.languages import Point, makes_up, priced
from mlm_jax.study.small import of_updates, of_width, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LANGUAGES = (
    *("en", "de", "fr", "ru", "es", "ja", "tr", "fi", "vi", "hi", "pl", "id", "ko", "el", "it", "nl"),
    *("pt_BR", "km", "zh_CN"),
)
NUMBERS, OF_EACH, WIDTHS = (1, 2, 4, 8, 16, 19), (1, 2, 4, 19), (32, 64, 128)
TOTAL, EACH = 800, 100  # updates: of a run, and per language
PIECES = 4_000
FIRST = "English"  # the first language, which all runs have


@dataclass(frozen=True)
class Size:
    """What the study has of each, and what its full-size twin has."""

    languages: tuple[str, ...]
    numbers: tuple[int, ...]
    of_each: tuple[int, ...]  # of them, those that have as many updates per language too
    few: int  # of either, the one that the last is compared with
    widths: tuple[int, ...]
    total: int  # updates of a run
    each: int  # and per language
    of_width: Callable[[int], dict[str, Any]]
    of_updates: Callable[[Config, int], Config]

    def updates(self, fixed: str, languages: int) -> int:
        return self.total if fixed == "total" else self.each * languages


def points_of(results: Results, base: Config, size: Size) -> list[Point]:
    """A point per run: its loss in the first language, which all have."""
    found = []
    for row in results.rows:
        if row["metric"] == "bits_per_byte" and row["language"] == size.languages[0]:
            labels = row["labels"]
            width, languages = int(labels["width"]), int(labels["languages"])
            tokens = tokens_of(base) * size.updates(labels["fixed"], languages) / languages
            found.append(Point(12.0 * base.model.layers * width**2, tokens, languages, row["value"]))
    return found


def conclude(results: Results, base: Config, size: Size) -> list[Finding]:
    by, widest, few, many = "bits_per_byte", str(size.widths[-1]), str(size.few), str(size.numbers[-1])
    found = [
        lower(
            results,
            f"More languages cost each at equal updates (XLM-R, figure 2), width {widest}",
            by,
            {"languages": many, "width": widest, "fixed": "total"},
            {"languages": few, "width": widest, "fixed": "total"},
            FIRST,
            higher=True,
        )
    ]
    for width in map(str, size.widths):
        found.append(
            lower(
                results,
                f"At equal tokens per language they cost nothing (Foroutan et al. 2025), width {width}",
                by,
                {"languages": many, "width": width, "fixed": "each"},
                {"languages": few, "width": width, "fixed": "each"},
                FIRST,
                alike=True,
            )
        )
    found.append(makes_up(results, by, FIRST, "width", "languages", few, many, fixed="total"))
    found.append(priced(points_of(results, base, size), 10))
    return found


def study(base: Config, size: Size) -> Study:
    def drawn(count: int) -> Value:
        return Value(str(count), {"sampling.languages": size.languages[:count]})

    def held(fixed: str) -> Value:
        def change(config: Config) -> Config:
            return size.of_updates(config, size.updates(fixed, len(config.sampling.languages)))

        return Value(fixed, change=change)

    return Study(
        title="The curse of multilinguality",
        question="What do more languages cost each of them, and is it parameters or tokens that they lack?",
        paper="Conneau et al. (2020), figures 2 to 4; Chang et al. (2024); Foroutan et al. (2025); ATLAS (2026): twice the languages, 1.18 × the model and 1.66 × the data.",
        base=replace(base, sampling=Sampling(exponent=0.0)),
        factors=(
            Factor("languages", tuple(drawn(n) for n in size.numbers)),
            Factor("width", tuple(Value(str(w), size.of_width(w)) for w in size.widths)),
            Factor("fixed", (held("total"), held("each"))),
        ),
        choose=lambda labels: labels["fixed"] == "total" or int(labels["languages"]) in size.of_each,
        groups={FIRST: size.languages[:1]},
        curves=tuple(
            Curve(
                "bits_per_byte",
                "languages",
                "width",
                f"Bits per byte of English, {'updates' if count == 'total' else 'tokens per language'} held fixed",
                {"fixed": count},
                (FIRST,),
            )
            for count in ("total", "each")
        ),
        conclude=lambda results: conclude(results, base, size),
    )


def get_config() -> Study:
    size = Size(LANGUAGES, NUMBERS, OF_EACH, 2, WIDTHS, TOTAL, EACH, of_width, of_updates)
    base = with_sections(small(text_of("train"), TOTAL, pieces=PIECES), model={"causal": True})
    made = study(base, size)
    return replace(made, texts=Texts({"train": dict.fromkeys(LANGUAGES, 6_000)}))
