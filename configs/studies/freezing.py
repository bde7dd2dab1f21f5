# SPDX-License-Identifier: Apache-2.0
"""Freezing keeps alignment: aligned words before and after fine-tuning by frozen layers, with the transfer that it buys.

Moon et al. (2019): fine-tuning on one language pulls aligned words apart, and freezing lower layers keeps them together; Wu and Dredze (2019, section 4): with three of
mBERT's layers frozen zero-shot transfer gains or loses nothing, with nine it loses. Here encoders of four layers, of masked LM alone and with a quarter of the blocks of
pairs, are fine-tuned in English with nothing, the embeddings, and these with two and with four layers frozen, on three tasks: topics of paragraphs, named entities,
inference; tested in English and in the languages that the task has besides.

    MLM_JAX_DATA=DATA mlm-jax study configs/studies/freezing.py --text FOLDER --jobs 2     # FOLDER/{language}.tsv.gz: a key, a tab, a paragraph

DATA has ner/, xnli/ and word_alignment/, as configs/finetune/small_ner.py, small_xnli.py and configs/analyze/neutrality.py have them. Two values × two seeds, each
fine-tuned twelve times, about 45 minutes on two cores. Full size: full_freezing.py; docs/results-transfer.md has
multilingual-e5-small's.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlm_jax.config import Sampling
from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Task, Train
from mlm_jax.neutrality.config import Analyze
from mlm_jax.study.changes import Line, changes
from mlm_jax.study.config import Curve, Drawn, Measure, Study, vary
from mlm_jax.study.findings import Finding, lower
from mlm_jax.study.small import pairs_with, small, text_of, words_of
from mlm_jax.study.table import Results
from mlm_jax.study.texts import Texts

DATA = os.environ.get("MLM_JAX_DATA", "data")
SOURCE, OTHERS = "en", ("de", "es", "fr", "nl", "hi")
UPDATES, LAYERS, TRAINED, TESTED = 2_500, 4, 900, 300
FROZEN = {"nothing": -1, "embeddings": 0, "2 layers": 2, "4 layers": 4}
METRICS = {"topics": "accuracy", "names": "entity_f1", "inference": "accuracy"}
KEPT = "words aligned words, after margin"


def data_of(task: str) -> tuple[Data, Task, int]:
    """The data of a task, the task, and epochs."""
    others = {"topics": OTHERS, "names": ("de", "es", "nl"), "inference": ("de", "es", "hi")}[task]
    if task == "topics":
        path = "{text}/topics/{language}.tsv"
        train = (Labelled(SOURCE, path.replace("{language}", SOURCE), last=TRAINED),)
        test = tuple(Labelled(x, path.replace("{language}", x), first=TRAINED + 1) for x in (SOURCE, *others))
        made = Data(train=train, test=test, columns=("label", "text"), max_length=64, overlap=1.0)
        return made, Task(kind="classify", pooling="mean"), 5
    if task == "names":
        train = (Labelled(SOURCE, f"{DATA}/ner/{SOURCE}.train.conll", last=1_500),)
        test = tuple(Labelled(x, f"{DATA}/ner/{x}.test.conll", last=300) for x in (SOURCE, *others))
        return Data(train=train, test=test, max_length=64, overlap=1.0), Task(kind="tag"), 3
    train = (Labelled(SOURCE, f"{DATA}/xnli/{SOURCE}.dev.tsv"),)
    test = tuple(Labelled(x, f"{DATA}/xnli/{x}.test.tsv", last=500) for x in (SOURCE, *others))
    columns = ("label", "premise", "hypothesis")
    made = Data(train=train, test=test, columns=columns, text="premise", pair="hypothesis", max_length=64, overlap=1.0)
    return made, Task(kind="classify", pooling="mean"), 2


def small_task(task: str) -> Finetune:
    data, of, epochs = data_of(task)
    optimizer = replace(FINETUNE_OPTIMIZER, learning_rate=5e-4)
    return Finetune(source=SOURCE, data=data, task=of, optimizer=optimizer, train=Train(epochs=epochs, batch_size=16))


def tuned(task: str, frozen: str, layers: int, tune: Finetune) -> tuple[Measure, Measure]:
    """What fine-tunes with so many layers frozen, and what compares aligned words with those of before."""
    name, labels = f"{task}-{frozen.replace(' ', '-')}", {"task": task, "frozen": frozen}
    tune = replace(tune, optimizer=replace(tune.optimizer, freeze=layers))
    compared = Analyze(word_alignment=words_of(DATA), compare=(f"{{run}}/measured/{name}",), max_length=64)
    return Measure(name, tune, labels), Measure(f"{name}-words", compared, labels)


def conclude(
    results: Results,
    metrics: Mapping[str, str] = METRICS,
    chosen: Sequence[str] = ("embeddings", "2 layers"),
    layers: int = LAYERS,
) -> list[Finding]:
    found = []
    at = {"layer": str(layers), "pooling": "words"}
    for task, metric in metrics.items():
        for frozen in chosen:
            of, than = ({"task": task, "frozen": x} for x in (frozen, "nothing"))
            found.append(
                lower(
                    results,
                    f"{frozen.capitalize()} frozen, aligned words stay together (Moon et al. 2019), {task}",
                    KEPT,
                    of | at,
                    than | at,
                    higher=True,
                )
            )
            found.append(
                lower(
                    results,
                    f"{frozen.capitalize()} frozen, transfer loses nothing (Wu and Dredze 2019), {task}",
                    f"{task} {metric}",
                    of,
                    than,
                    "others",
                    higher=True,
                    alike=True,
                )
            )
    return found  # fmt: skip


def draw(results: Results, metrics: Mapping[str, str] = METRICS, layers: int = LAYERS) -> list[Drawn]:
    """Alignment that is kept above, transfer that it buys below, of all tasks."""
    at = {"layer": str(layers), "pooling": "words"}
    panels = {
        "margin of aligned words, × 100": {task: Line(KEPT, {"task": task} | at) for task in metrics},
        "transfer to the other languages, points": {
            task: Line(f"{task} {metric}", {"task": task}, "others") for task, metric in metrics.items()
        },
    }
    title = "What freezing changes, against freezing nothing"
    made = changes(results, title, panels, "frozen", "nothing", scale=100)
    if made is None:
        return []
    caption = (
        f"By how much nearer aligned words are after fine-tuning than words drawn at random (layer {layers}), and how well the "
        "task is done in other languages, against fine-tuning everything. Bars: two standard errors over seeds."
    )
    return [Drawn("changes", made[0], caption, made[1])]


def curves(metrics: Mapping[str, str], layers: int) -> tuple[Curve, ...]:
    made = [
        Curve(f"{task} {metric}", "frozen", "pairs", f"Transfer, {task}: {metric.replace('_', ' ')} in the other languages", {"task": task}, ("others",))
        for task, metric in metrics.items()
    ]  # fmt: skip
    for pairs_share in ("0", "0.25"):
        title = f"Aligned words after fine-tuning, {'masked LM alone' if pairs_share == '0' else 'with pairs'}"
        at = {"pairs": pairs_share, "layer": str(layers), "pooling": "words"}
        made.append(Curve(KEPT, "frozen", "task", title, at))
    return tuple(made)


def get_config() -> Study:
    base = small(text_of("train"), UPDATES, layers=LAYERS)
    pairs, parallel = pairs_with(SOURCE, OTHERS, 4_000)
    languages = (SOURCE, *OTHERS)
    return Study(
        title="Freezing keeps alignment",
        question="What does freezing lower layers keep of the alignment of languages, and what does it give?",
        paper="Moon et al. (2019); Wu and Dredze (2019), section 4.",
        texts=Texts({"train": dict.fromkeys(languages, 6_000)}, pairs, held_out=TRAINED + TESTED, topics=r"^(\w+)/"),
        base=replace(base, data=replace(base.data, parallel=parallel), sampling=Sampling(exponent=0.3)),
        seeds=(0, 1),
        factors=(vary("sampling.parallel_share", 0.0, 0.25, name="pairs"),),
        measures=tuple(
            m for task in METRICS for frozen, n in FROZEN.items() for m in tuned(task, frozen, n, small_task(task))
        ),
        groups={"others": OTHERS},
        curves=curves(METRICS, LAYERS),
        draw=draw,
        conclude=conclude,
    )
