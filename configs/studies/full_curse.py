# SPDX-License-Identifier: Apache-2.0
"""The full-size twin of curse.py: XLM-R's 7, 15, 30, 60 and 100 languages of CC-100 (Conneau et al. 2020, figures 2 to 4), at widths 512 to 1,024.

    mlm-jax study configs/studies/full_curse.py --runner slurm --sbatch "--gpus-per-node=8 --time=24:00:00"

Text: cc100/{language}.txt.xz. Five and four numbers by either way of counting × three widths × three seeds: 30,000 updates of a run, or 2,000 per language, which with 15 is the same.
By masked LM, as XLM-R, which at this size has long left what pieces' frequencies give.
"""

from mlm_jax.shipped import run_config
from mlm_jax.study.config import Study
from mlm_jax.study.full import UPDATES, full, of_updates, of_width, text_of

# The paper's seven, XNLI's fifteen, and then those of most text.
LANGUAGES = (
    "en", "fr", "de", "ru", "zh-Hans", "sw", "ur",
    "ar", "bg", "el", "es", "hi", "th", "tr", "vi",
    "ja", "it", "pt", "pl", "nl", "id", "ro", "uk", "fa", "ko", "hu", "sv", "cs", "fi", "no",
    "da", "he", "ka", "sk", "hr", "lt", "ms", "sl", "et", "lv", "sr", "sq", "mk", "bn", "ta", "te", "kk", "az", "be", "ca", "gl", "is", "ml", "ne", "mn", "mr", "kn", "hy", "tl", "eu",
    "zh-Hant", "af", "am", "as", "br", "bs", "cy", "eo", "fy", "ga", "gd", "gu", "ha", "jv", "km", "ku", "ky", "la", "lo", "mg", "my", "my_zaw", "om", "or", "pa", "ps",
    "sa", "sd", "si", "so", "su", "ug", "uz", "xh", "yi", "bn_rom", "hi_rom", "ta_rom", "te_rom", "ur_rom",
)  # fmt: skip


def get_config() -> Study:
    curse = run_config("studies/curse")
    size = curse["Size"](
        languages=LANGUAGES,
        numbers=(7, 15, 30, 60, 100),
        of_each=(7, 30, 60, 100),
        few=7,
        widths=(512, 768, 1_024),
        total=UPDATES,
        each=2_000,
        of_width=of_width,
        of_updates=of_updates,
    )
    study: Study = curse["study"](full(text_of(LANGUAGES)), size)
    return study
