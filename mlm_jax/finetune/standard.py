# SPDX-License-Identifier: Apache-2.0
"""The standard sets, by their names in TensorFlow Datasets, with the hyper-parameters of XTREME (Hu et al. 2020, appendix B, table 10
and its scripts) and BERT (GLUE; Devlin et al. 2019, appendix A.3)."""

from __future__ import annotations

from dataclasses import replace

from mlm_jax.finetune.config import FINETUNE_OPTIMIZER, Data, Finetune, Labelled, Regime, Task, Train

# Sentences of two words stand in train and test sets of published tags alike; they are counted and said, and not refused.
SHORT = 1.0
XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
PAWS_X = ("de", "en", "es", "fr", "ja", "ko", "zh")
WIKIANN = (
    "af", "ar", "bg", "bn", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja",
    "jv", "ka", "kk", "ko", "ml", "mr", "ms", "my", "nl", "pt", "ru", "sw", "ta", "te", "th", "tl", "tr", "ur", "vi",
    "yo", "zh",
)  # fmt: skip
POS = (
    "af", "ar", "bg", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "kk",
    "ko", "mr", "nl", "pt", "ru", "ta", "te", "th", "tl", "tr", "ur", "vi", "yo", "zh",
)  # fmt: skip
XQUAD = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
MLQA = ("ar", "de", "en", "es", "hi", "vi", "zh")
TYDI_QA = ("ar", "bn", "en", "fi", "id", "ko", "ru", "sw", "te")


def xnli(regime: Regime = "zero_shot") -> Finetune:
    """XNLI (Conneau et al. 2018): trained on MultiNLI, or on its translations (XTREME's).

    translate_test reads the test sets' translations into English from data/xnli_translate_test/{language}.tsv, of columns premise,
    hypothesis and label.
    """

    def train(x: str) -> str:
        return "tfds:multi_nli:train" if x == "en" else "tfds:xtreme_xnli:train"

    tests = tuple(Labelled(x, "tfds:xnli:test") for x in XNLI)
    if regime == "translate_test":
        tests = tuple(
            Labelled(x, f"data/xnli_translate_test/{x}.tsv", text_language="en")
            if x != "en"
            else Labelled(x, "tfds:xnli:test")
            for x in XNLI
        )
    return Finetune(
        regime=regime,
        data=Data(
            train=tuple(Labelled(x, train(x)) for x in XNLI),
            dev=tuple(Labelled(x, "tfds:xnli:validation") for x in XNLI),
            test=tests,
            text="premise",
            pair="hypothesis",
            max_length=128,
        ),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=5, batch_size=32, evaluate_every=5_000),
    )


def paws_x(regime: Regime = "zero_shot") -> Finetune:
    """PAWS-X (Yang et al. 2019): paraphrase or not; its training data are translations of the English."""

    def files(split: str) -> tuple[Labelled, ...]:
        return tuple(Labelled(x, f"tfds:paws_x_wiki/{x}:{split}") for x in PAWS_X)

    return Finetune(
        regime=regime,
        data=Data(
            train=files("train"),
            dev=files("validation"),
            test=files("test"),
            text="sentence1",
            pair="sentence2",
            max_length=128,
        ),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=5, batch_size=32),
    )


def wikiann(regime: Regime = "zero_shot") -> Finetune:
    """Named entities of Wikipedia (Pan et al. 2017, in the balanced splits of Rahimi et al. 2019), XTREME's 40 languages."""

    def files(split: str) -> tuple[Labelled, ...]:
        return tuple(Labelled(x, f"tfds:wikiann/{x}:{split}") for x in WIKIANN)

    return Finetune(
        regime=regime,
        data=Data(
            train=files("train"),
            dev=files("validation"),
            test=files("test"),
            text="tokens",
            label="tags",
            max_length=128,
            overlap=SHORT,
        ),
        task=Task(kind="tag"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=10, batch_size=32),
    )


def conll(regime: Regime = "zero_shot") -> Finetune:
    """Named entities of CoNLL-2002 (Dutch, Spanish) and CoNLL-2003 (English), as Wu and Dredze (2019) and XLM-R (table 4) have them; add
    German by a path to its licensed files."""
    names = {"en": "conll2003", "es": "conll2002/es", "nl": "conll2002/nl"}

    def files(split: str) -> tuple[Labelled, ...]:
        return tuple(Labelled(x, f"tfds:{name}:{split}") for x, name in names.items())

    return Finetune(
        regime=regime,
        data=Data(
            train=files("train"),
            dev=files("dev"),
            test=files("test"),
            text="tokens",
            label="ner",
            max_length=128,
            overlap=SHORT,
        ),
        task=Task(kind="tag"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=5e-5),
        train=Train(epochs=3, batch_size=32),
    )


def pos(regime: Regime = "zero_shot") -> Finetune:
    """Universal part-of-speech tags (Nivre et al. 2018), XTREME's 33 languages."""

    def source(x: str, split: str) -> Labelled:
        return Labelled(x, f"tfds:xtreme_pos/xtreme_pos_{x}:{split}")

    without_train = {"th", "tl", "yo", "kk"}  # test sets only (Kazakh has no dev set)
    trained = tuple(x for x in POS if x not in without_train)
    return Finetune(
        regime=regime,
        data=Data(
            train=tuple(source(x, "train") for x in trained),
            dev=(source("en", "dev"),),
            test=tuple(source(x, "test") for x in POS),
            text="tokens",
            label="upos",
            max_length=128,
            overlap=SHORT,
        ),
        task=Task(kind="tag"),
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=10, batch_size=32),
    )


def _questions(
    train: Labelled, dev: tuple[Labelled, ...], test: tuple[Labelled, ...], task: Task, epochs: float
) -> Finetune:
    return Finetune(
        regime="zero_shot",
        data=Data(train=(train,), dev=dev, test=test, max_length=384, stride=128),
        task=task,
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=3e-5),
        train=Train(epochs=epochs, batch_size=32),
    )


SQUAD = Labelled("en", "tfds:squad/v1.1:train"), (Labelled("en", "tfds:squad/v1.1:validation"),)


def xquad() -> Finetune:
    """XQuAD (Artetxe et al. 2020): trained on SQuAD 1.1."""
    tests = tuple(Labelled(x, f"tfds:xquad/{x}:test") for x in XQUAD)
    return _questions(*SQUAD, tests, Task(kind="span"), epochs=3)


def mlqa() -> Finetune:
    """MLQA (Lewis et al. 2020): trained on SQuAD 1.1; answers compared by each language's own rules."""
    tests = tuple(Labelled(x, f"tfds:mlqa/{x}:test") for x in MLQA)
    return _questions(*SQUAD, tests, Task(kind="span", answers="mlqa"), epochs=3)


def tydi_qa() -> Finetune:
    """TyDi QA's gold passages (Clark et al. 2020): trained on its English questions, tested on its dev sets, as XTREME has it."""
    tests = tuple(Labelled(x, f"tfds:tydi_qa/goldp:validation-{x}") for x in TYDI_QA)
    return _questions(Labelled("en", "tfds:tydi_qa/goldp:train"), (), tests, Task(kind="span"), epochs=3)


GLUE = {
    "cola": ("sentence", "", Task(metric="mcc")),
    "sst2": ("sentence", "", Task()),
    "mrpc": ("sentence1", "sentence2", Task(positive="equivalent", metric="binary_f1")),
    "qqp": ("question1", "question2", Task(positive="duplicate", metric="binary_f1")),
    "stsb": ("sentence1", "sentence2", Task(kind="regress", metric="spearman")),
    "mnli": ("premise", "hypothesis", Task()),
    "qnli": ("question", "sentence", Task()),
    "rte": ("sentence1", "sentence2", Task()),
    "wnli": ("sentence1", "sentence2", Task()),
}


def glue(task: str) -> Finetune:
    """One of GLUE's nine (Wang et al. 2019), tested on its validation set: the test sets' labels are secret.

    So no checkpoint is chosen: the last is tested. MNLI is tested on the matched validation set.
    """
    text, pair, kind = GLUE[task]
    held_out = "validation_matched" if task == "mnli" else "validation"
    return Finetune(
        regime="zero_shot",
        data=Data(
            train=(Labelled("en", f"tfds:glue/{task}:train"),),
            test=(Labelled("en", f"tfds:glue/{task}:{held_out}"),),
            text=text,
            pair=pair,
            max_length=128,
        ),
        task=kind,
        optimizer=replace(FINETUNE_OPTIMIZER, learning_rate=2e-5),
        train=Train(epochs=3, batch_size=32),
    )
