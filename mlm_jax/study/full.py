# SPDX-License-Identifier: Apache-2.0
"""What the studies' full-size twins share: XLM-R base on CC-100, for fewer updates than XLM-R had, and text that is held out in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlm_jax.config import (
    Config,
    Data,
    Mesh,
    Objective,
    Optimizer,
    Parallel,
    Sampling,
    Source,
    Train,
    Vocabulary,
    with_sections,
)
from mlm_jax.model import families
from mlm_jax.neutrality.config import Aligned

UPDATES = 30_000
PIVOT = "en"
LARGE, SMALL = ("de", "en", "es", "fr", "ja", "ru"), ("ga", "km", "my", "sw", "ur", "uz")
OTHERS = ("ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh-Hans")  # of XNLI
HELD_OUT = "held_out/{language}.txt"  # the same sentences in every language, one a line, such as FLORES+ or NTREX


def text_of(languages: Sequence[str], held_out: bool = False) -> tuple[Source, ...]:
    """CC-100 as it is downloaded; validated on documents of its own, or on `HELD_OUT`, and then read by the line as that is."""

    def source(x: str) -> Source:
        path = f"cc100/{x}.txt.xz"
        if held_out:
            return Source(x, path, validation=HELD_OUT.format(language=x))
        return Source(x, path, documents="paragraph")

    return tuple(map(source, languages))


def held_out(fit: int, test: int, classes: str = "") -> Aligned:
    """`HELD_OUT` in XNLI's 15 languages: probes are fitted on the first sentences and tried on those after."""
    files = tuple((x, HELD_OUT.format(language=x)) for x in (PIVOT, *OTHERS))
    return Aligned("held-out", files, fit, test, classes)


def of_width(width: int) -> dict[str, Any]:
    """The options of an encoder of this width."""
    return {"model.width": width, "model.heads": width // 64, "model.mlp_width": 4 * width}


def of_updates(config: Config, steps: int) -> Config:
    """The config with so many updates, a tenth of them warm-up, and ten validations."""
    train = {"steps": steps, "validate_every": max(steps // 10, 1), "save_every": min(steps, 1_000)}
    return with_sections(config, train=train, optimizer={"warmup_steps": max(steps // 10, 1)})


def full(sources: tuple[Source, ...], steps: int = UPDATES) -> Config:
    """XLM-R base (Conneau et al. 2020, table 7) on batches of 2,048 blocks of 512 tokens, for which RoBERTa's peak rate is 7e-4 (Liu et al. 2019, table 3).

    30,000 updates are 31 billion tokens; the paper's 1.5 million updates of 8,192 blocks are two hundred times that.
    """
    made = Config(
        data=Data(sources=sources, sequence_length=512, validation_fraction=0.001),
        vocabulary=Vocabulary(size=families.XLMR_VOCABULARY, sample_bytes=500_000_000),
        sampling=Sampling(exponent=0.3),
        model=families.XLMR_BASE,
        objective=Objective(mask_specials="all"),
        optimizer=Optimizer(learning_rate=7e-4, schedule="linear", clip_norm=0.0),
        train=Train(batch_size=2_048),
        mesh=Mesh(data=-1),
    )
    return of_updates(made, steps)


def with_pairs() -> Config:
    """XLM-R base on XNLI's 15 languages, with sentence pairs of English and each other as configs/xlm_15_mlm_tlm.py has them."""
    pairs = tuple(Parallel((PIVOT, x), (f"parallel/{PIVOT}-{x}.tsv",)) for x in OTHERS)
    return with_sections(full(text_of((PIVOT, *OTHERS))), data={"parallel": pairs})
