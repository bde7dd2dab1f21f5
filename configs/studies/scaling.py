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
from mlm_jax.study.small import small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

WIDTHS, NEXT, UPDATES = (32, 64, 128), 192, (250, 500, 1_000)


def conclude(results: Results) -> list[Finding]:
    return [predicted(results, "width", "updates", str(NEXT), str(UPDATES[-1]), layers=2, tokens=1_024)]


def get_config() -> Study:
    widths = tuple(
        Value(str(w), {"model.width": w, "model.heads": max(w // 32, 1), "model.mlp_width": 4 * w})
        for w in (*WIDTHS, NEXT)
    )
    updates = tuple(
        Value(
            str(n),
            {"train.steps": n, "train.validate_every": n, "train.save_every": n, "optimizer.warmup_steps": n // 10},
        )
        for n in UPDATES
    )
    return Study(
        title="Scaling: parameters and tokens",
        question="Can the loss of a larger encoder be told from smaller ones?",
        paper="Hoffmann et al. (2022), equation 2 (Chinchilla).",
        texts=Texts({"train": dict.fromkeys(("de", "es", "fr", "ru", "ja", "tr", "fi", "vi"), 9_000)}),
        base=small(text_of("train"), UPDATES[-1]),
        factors=(Factor("width", widths), Factor("updates", updates)),
        choose=lambda labels: labels["width"] != str(NEXT) or labels["updates"] == str(UPDATES[-1]),
        curves=(Curve("loss", "updates", "width"), Curve("loss", "width", "updates")),
        conclude=conclude,
    )
