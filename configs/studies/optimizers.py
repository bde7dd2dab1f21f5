# SPDX-License-Identifier: Apache-2.0
"""Optimizers, and causal LM first: what they make of the same tokens.

AdamW, StableAdamW (ModernBERT, mmBERT) and Muon (Jordan et al. 2024) at the same tokens and at three quarters of them, each at the best of three peak rates (by
benchmarks/muon.py: 2e-3, 2e-3 and 8e-3); and by AdamW causal LM for two fifths of the updates and masked LM then (Gisserot-Boukhlef et al. 2025: better than masked LM alone
at equal compute). How long an update takes is in the table of runs.

    mlm-jax study configs/studies/optimizers.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Four ways × two numbers of updates × three seeds, about 25 minutes on two cores. Full size: full_optimizers.py.
"""

from collections.abc import Callable
from dataclasses import replace

from mlm_jax.config import Config, Phase, Sampling, with_sections
from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import of_updates, small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LANGUAGES = ("de", "es", "fr", "ru", "ja", "fi", "hi", "tr")
UPDATES = (750, 1_000)  # three quarters, and all
CAUSAL_FIRST = "causal first"


def conclude(results: Results, updates: tuple[int, int] = UPDATES) -> list[Finding]:
    by, few, all_of_it = "bits_per_byte", *(str(n) for n in updates)

    def of(way: str, updates: str = all_of_it) -> dict[str, str]:
        return {"by": way, "updates": updates}

    return [
        lower(results, "Muon is better than AdamW at equal tokens (Jordan et al. 2024)", by, of("Muon"), of("AdamW")),
        lower(results, "Muon reaches AdamW in three quarters of the tokens", by, of("Muon", few), of("AdamW"), alike=True),
        lower(results, "StableAdamW is better than AdamW with clipping (Wortsman et al. 2023)", by, of("StableAdamW"), of("AdamW")),
        lower(results, "Causal LM first is better than masked LM alone (Gisserot-Boukhlef et al. 2025)", by, of(CAUSAL_FIRST), of("AdamW")),
    ]  # fmt: skip


def factors(updates: tuple[int, int], change: Callable[[Config, int], Config], muon: float) -> tuple[Factor, Factor]:
    """Numbers of updates, and ways of training: Muon at a peak rate of its own."""

    def of_count(count: int) -> Value:
        return Value(str(count), change=lambda config: change(config, count))

    def causal_first(config: Config) -> Config:
        # Of as many updates as the other factor, which comes first, has given it.
        phases = (Phase(config.train.steps * 2 // 5, causal=False),)
        return with_sections(config, model={"causal": True}, train={"phases": phases})

    ways = (
        Value("AdamW"),
        Value("StableAdamW", {"optimizer.name": "stable_adamw", "optimizer.clip_norm": 0.0}),
        Value("Muon", {"optimizer.name": "muon", "optimizer.learning_rate": muon}),
        Value(CAUSAL_FIRST, change=causal_first),
    )
    return Factor("updates", tuple(map(of_count, updates))), Factor("by", ways)


def get_config() -> Study:
    return Study(
        title="Optimizers, and causal LM first",
        question="Which way of training makes the most of the same tokens?",
        paper="Jordan et al. (2024), Muon; Wortsman et al. (2023), StableAdamW; Gisserot-Boukhlef et al. (2025), causal before masked LM.",
        texts=Texts({"train": dict.fromkeys(LANGUAGES, 8_000)}),
        base=replace(small(text_of("train"), UPDATES[-1]), sampling=Sampling(exponent=0.3)),
        factors=factors(UPDATES, of_updates, muon=8e-3),
        curves=(Curve("bits_per_byte", "updates", "by"), Curve("bits_per_byte", "by")),
        conclude=conclude,
    )
