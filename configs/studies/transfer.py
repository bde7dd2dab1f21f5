# SPDX-License-Identifier: Apache-2.0
"""Transfer between eight languages: what each gains from each other, beside their families.

Chang et al. (2024) and ATLAS (2026): a language gains from others by how near they are, in grammar and words more than in script. Here each of eight languages is
trained alone and with each other one, drawn evenly, with as many updates on each language in every run: 8 + 28 runs, each of two languages standing for
both places of the matrix. Low-resource: 1,500 paragraphs of each, and encoders of width 64; causal LM, as in both papers.

    mlm-jax study configs/studies/transfer.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

36 runs × three seeds, about 45 minutes on two cores. Full size: full_transfer.py.
"""

import itertools
from collections.abc import Callable

from mlm_jax.config import Config, with_sections
from mlm_jax.study.config import Drawn, Factor, Study, Value
from mlm_jax.study.findings import Finding
from mlm_jax.study.languages import families_help, gains, heat_map
from mlm_jax.study.small import of_updates, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LANGUAGES = ("de", "nl", "es", "it", "pl", "ru", "fi", "tr")
EACH, PIECES = 300, 4_000  # updates on each language
METRIC, FACTOR = "bits_per_byte", "languages"


def conclude(results: Results) -> list[Finding]:
    return [families_help(gains(results, METRIC, FACTOR), METRIC)]


def draw(results: Results) -> list[Drawn]:
    matrix = gains(results, METRIC, FACTOR)
    if not matrix:
        return []
    figure, table = heat_map(matrix, "What a language gains from another", "bits per byte less than alone, on average")
    caption = "How many bits per byte less a language (row) takes with another (column) than alone, mean over seeds; languages of a family stand together."
    return [Drawn("matrix", figure, caption, table)]


def pairs_of(languages: tuple[str, ...], updates: Callable[[Config, int], Config], each: int) -> Factor:
    """Each language alone and with each other one, with so many updates on each."""

    def of(*drawn: str) -> Value:
        return Value("+".join(drawn), {"sampling.languages": drawn}, lambda config: updates(config, each * len(drawn)))

    alone = [of(x) for x in languages]
    return Factor(FACTOR, (*alone, *(of(*pair) for pair in itertools.combinations(languages, 2))))


def get_config() -> Study:
    return Study(
        title="Transfer between eight languages",
        question="Which language does another one help?",
        paper="Chang et al. (2024); Lample and Conneau (2019), table 4: near languages help most.",
        texts=Texts({"train": dict.fromkeys(LANGUAGES, 1_500)}),
        base=with_sections(
            small(text_of("train"), EACH, width=64, pieces=PIECES), sampling={"exponent": 0.0}, model={"causal": True}
        ),
        factors=(pairs_of(LANGUAGES, of_updates, EACH),),
        draw=draw,
        conclude=conclude,
    )
