# SPDX-License-Identifier: Apache-2.0
"""Schedules of masks and languages: what mmBERT's each give, and both.

mmBERT (Marone et al. 2025) masks 30, then 15, then 5 % of the tokens, and adds languages in three stages; its reviewers found the schedules "not adequately ablated".
Here {30 → 15 → 5 % | 15 % | 30 %} × {languages in three stages | all from the start}: three large languages, then five, then all ten, rates evening out, stages after
60 and 85 % of the updates, validated on 15 % masks whatever is trained on.

    mlm-jax study configs/studies/schedules.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

Three × two values × three seeds, about 20 minutes on two cores. Full size: full_schedules.py.
"""

from dataclasses import replace

from mlm_jax.config import Sampling, Stage
from mlm_jax.study.config import Curve, Factor, Study, Value
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import small, text_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

LARGE, SMALL = ("de", "es", "fr", "ru", "ja"), ("fi", "hi", "id", "km", "tr")
UPDATES = 1_200


def conclude(results: Results) -> list[Finding]:
    by = "bits_per_byte"
    return [
        lower(results, "Falling mask rates are better than 15 % (mmBERT, section 3)", by, {"masks": "30, 15, 5 %"}, {"masks": "15 %"}),
        lower(results, "Falling mask rates are better than 30 % (mmBERT, section 3)", by, {"masks": "30, 15, 5 %"}, {"masks": "30 %"}),
        lower(results, "Small languages need no more than the last updates (mmBERT, table 6)", by, {"languages": "in stages"}, {"languages": "from the start"}, "small", alike=True),
        lower(results, "Large languages gain from being alone first", by, {"languages": "in stages"}, {"languages": "from the start"}, "large"),
    ]  # fmt: skip


def factors(large: tuple[str, ...], updates: int) -> tuple[Factor, Factor]:
    """Masks and languages, in stages of so many updates in all: three of the large languages, all of them, and all there are."""
    second, third = updates * 60 // 100, updates * 85 // 100
    falling = {"objective.mask_rate": 0.3, "objective.mask_rate_schedule": ((second, 0.15), (third, 0.05))}
    masks = (
        Value("30, 15, 5 %", falling),
        Value("15 %", {"objective.mask_rate": 0.15}),
        Value("30 %", {"objective.mask_rate": 0.3}),
    )
    stages = (Stage(second, 0.5, large), Stage(third, 0.3))
    languages = (
        Value("in stages", {"sampling.languages": large[:3], "sampling.stages": stages, "sampling.exponent": 0.7}),
        Value("from the start", {"sampling.exponent": 0.3}),
    )
    return Factor("masks", masks), Factor("languages", languages)


def get_config() -> Study:
    return Study(
        title="Schedules of masks and languages",
        question="What do falling mask rates and languages in stages give, each by itself and together?",
        paper="Marone et al. (2025), mmBERT, sections 3 and 4: 30, 15, 5 % of masks, and 1,833 languages in three stages.",
        texts=Texts({"train": dict.fromkeys(LARGE, 20_000) | dict.fromkeys(SMALL, 600)}),
        base=replace(small(text_of("train"), UPDATES), sampling=Sampling(exponent=0.3)),
        factors=factors(LARGE, UPDATES),
        groups={"small": SMALL, "large": LARGE},
        curves=(
            Curve("bits_per_byte", "masks", "languages"),
            Curve("bits_per_byte", "masks", "languages", "Bits per byte of small languages", groups=("small",)),
            Curve("bits_per_byte", "languages"),
        ),
        conclude=conclude,
    )
