# SPDX-License-Identifier: Apache-2.0
"""Scaling: a law of parameters and tokens, and the next size by it.

Hoffmann et al. (2022), equation 2: loss = E + A / N^a + B / D^b. Here widths 32 to 128 at three numbers of updates give the law, and width 192 at the
largest is then predicted by it, and trained; of each language too, by a law of its own. By causal LM, as in the paper: masked LMs of this size first stay at what words' frequencies
give, the narrow ones longer than these updates take, and a sum of two powers does not tell when they leave it (10.7 % away, with eight languages and 250 to 1,000 updates).

    mlm-jax study configs/studies/scaling.py --text FOLDER     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Four widths × three numbers of updates × three seeds, less those that are predicted at fewer updates; about 45 minutes on two cores. Full size: full_scaling.py.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mlm_jax.config import Config, with_sections
from mlm_jax.phases import tokens_of
from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding
from mlm_jax.study.laws import predicted
from mlm_jax.study.small import of_updates, of_width, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

WIDTHS, UPDATES = (32, 64, 128, 192), (500, 1_000, 2_000)
LANGUAGES, PIECES = ("de", "en", "fr"), 4_000


def study(
    base: Config,
    widths: tuple[int, ...],
    updates: tuple[int, ...],
    of_width: Callable[[int], dict[str, Any]],
    of_updates: Callable[[Config, int], Config],
) -> Study:
    """The last width is predicted, at the last number of updates, by the others."""
    following, longest = str(widths[-1]), str(updates[-1])

    def of_count(count: int) -> Value:
        return Value(str(count), change=lambda config: of_updates(config, count))

    def conclude(results: Results) -> list[Finding]:
        return [
            predicted(results, "width", "updates", following, longest, layers=base.model.layers, tokens=tokens_of(base))
        ]

    return Study(
        title="Scaling: parameters and tokens",
        question="Can the loss of a larger encoder be told from smaller ones?",
        paper="Hoffmann et al. (2022), equation 2 (Chinchilla).",
        base=base,
        factors=(
            Factor("width", tuple(Value(str(w), of_width(w)) for w in widths)),
            Factor("updates", tuple(map(of_count, updates))),
        ),
        choose=lambda labels: labels["width"] != following or labels["updates"] == longest,
        curves=(Curve("loss", "updates", "width"), Curve("loss", "width", "updates")),
        conclude=conclude,
    )


def get_config() -> Study:
    base = with_sections(small(text_of("train"), UPDATES[-1], pieces=PIECES), model={"causal": True})
    made = study(base, WIDTHS, UPDATES, of_width, of_updates)
    return replace(made, texts=Texts({"train": dict.fromkeys(LANGUAGES, 40_000)}))
