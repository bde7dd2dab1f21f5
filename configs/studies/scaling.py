# SPDX-License-Identifier: Apache-2.0
"""Scaling: a law of parameters and tokens, and the next size by it.

Hoffmann et al. (2022), equation 2: loss = E + A / N^a + B / D^b. Here widths 32 to 128 at three numbers of updates give the law, and width 192 at the
largest is then predicted by it, and trained.

    mlm-jax study configs/studies/scaling.py --text FOLDER     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Four widths × three numbers of updates × three seeds, less those that are predicted at fewer updates; about 50 minutes on two cores.
"""

from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding
from mlm_jax.study.laws import predicted
from mlm_jax.study.small import LAYERS, of_updates, of_width, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

WIDTHS, NEXT, UPDATES = (32, 64, 128), 192, (250, 500, 1_000)


def conclude(results: Results) -> list[Finding]:
    return [predicted(results, "width", "updates", str(NEXT), str(UPDATES[-1]), layers=LAYERS, tokens=1_024)]


def updates(count: int) -> Value:
    return Value(str(count), change=lambda config: of_updates(config, count))


def get_config() -> Study:
    widths = tuple(Value(str(w), of_width(w)) for w in (*WIDTHS, NEXT))
    return Study(
        title="Scaling: parameters and tokens",
        question="Can the loss of a larger encoder be told from smaller ones?",
        paper="Hoffmann et al. (2022), equation 2 (Chinchilla).",
        texts=Texts({"train": dict.fromkeys(("de", "es", "fr", "ru", "ja", "tr", "fi", "vi"), 9_000)}),
        base=small(text_of("train"), UPDATES[-1]),
        factors=(Factor("width", widths), Factor("updates", tuple(map(updates, UPDATES)))),
        choose=lambda labels: labels["width"] != str(NEXT) or labels["updates"] == str(UPDATES[-1]),
        curves=(Curve("loss", "updates", "width"), Curve("loss", "width", "updates")),
        conclude=conclude,
    )
