# SPDX-License-Identifier: Apache-2.0
"""Parity-aware BPE against its definition, on text small enough to count by hand, and as a SentencePiece model."""

import dataclasses
import random
from collections import Counter

import pytest
import sentencepiece

from mlm_jax import config as cfg
from mlm_jax.errors import UserError
from mlm_jax.fairness import gini
from mlm_jax.prepare.parity_bpe import SPACE, joined, may_merge, merges, words_of
from mlm_jax.prepare.vocabulary import train_vocabulary
from tests.corpora import tiny_config


def by_definition(training, parallel, count):
    """The paper's algorithm, counting everything anew for every merge."""
    cut = {x: {word: list(word) for word in {**training[x], **parallel[x]}} for x in training}
    found = []
    while len(found) < count:
        pieces = {x: sum(n * len(cut[x][word]) for word, n in parallel[x].items()) for x in training}
        for language in sorted(training, key=lambda x: (-pieces[x], x)):
            pairs = Counter()
            for word, n in training[language].items():
                for a, b in zip(cut[language][word], cut[language][word][1:], strict=False):
                    if may_merge(a, b):
                        pairs[a + b] += n
            best = [made for made in pairs if made not in found and pairs[made] >= 2]
            if best:
                made = min(best, key=lambda x: (-pairs[x], x))
                break
        else:
            return found
        found.append(made)
        for words in cut.values():
            for word in words:
                words[word] = joined(words[word], made)
    return found


def made_up(seed):
    """Three languages, one of them with long words, and the same number of parallel lines."""
    draw = random.Random(seed)
    languages = {}
    for name, alphabet, low, high in (("aa", "abcde", 2, 5), ("bb", "abcfgh", 3, 9), ("cc", "вгдежз", 4, 12)):
        words = ["".join(draw.choices(alphabet, k=draw.randint(low, high))) for _ in range(40)]
        languages[name] = [" ".join(draw.choices(words, k=6)) for _ in range(200)]
    return languages


def marked(text):
    return SPACE + text.replace(" ", SPACE)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_merges_are_those_of_the_definition(seed):
    text = made_up(seed)
    training = {x: words_of(map(marked, lines[:150])) for x, lines in text.items()}
    parallel = {x: words_of(map(marked, lines[150:])) for x, lines in text.items()}
    alphabet = {c for words in training.values() for word in words for c in word}
    assert merges(training, parallel, alphabet, 120) == by_definition(training, parallel, 120)
    with pytest.raises(UserError, match="fewer than are wanted"):
        merges(training, parallel, alphabet, 1_000_000)


def test_a_vocabulary_of_it_is_a_sentencepiece_model_that_is_fairer(tmp_path):
    text = made_up(3)
    for language, lines in text.items():
        (tmp_path / f"{language}.txt").write_text("\n".join(lines[150:]) + "\n")
    # Much text of aa, little of the others.
    sample = {"aa": text["aa"][:150] * 20, "bb": text["bb"][:150], "cc": text["cc"][:150]}
    sentences = [line for lines in sample.values() for line in lines]
    counts = {language: len(lines) for language, lines in sample.items()}
    spread = {}
    for kind in ("bpe", "parity_bpe"):
        options = cfg.Vocabulary(model=kind, size=420, parallel=f"{tmp_path}/{{language}}.txt")
        name, content = train_vocabulary(options, sentences, counts)
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        assert name == "sentencepiece.model" and processor.vocab_size() == 420
        tokens = [sum(map(len, processor.encode(lines[150:]))) for lines in text.values()]
        spread[kind] = gini(tokens)
        assert all(processor.decode(processor.encode(line)) == line for lines in text.values() for line in lines[150:])
    assert spread["parity_bpe"] < 0.5 * spread["bpe"]
    assert train_vocabulary(options, sentences, counts)[1] == content
    (tmp_path / "bb.txt").write_text("one line\n")
    with pytest.raises(UserError, match="aa has 50 lines, bb 1; line n has to be the same"):
        train_vocabulary(options, sentences, counts)
    (tmp_path / "bb.txt").unlink()
    with pytest.raises(UserError, match=r"bb\.txt: no such file"):
        train_vocabulary(options, sentences, counts)


def test_it_is_refused_without_parallel_text():
    config = tiny_config("run", vocabulary={"model": "parity_bpe"})
    with pytest.raises(UserError, match=r"vocabulary\.parallel: empty"):
        cfg.validate_pretraining(config)
    cfg.validate_pretraining(
        dataclasses.replace(config, vocabulary=cfg.Vocabulary(model="parity_bpe", parallel="{language}.txt"))
    )
