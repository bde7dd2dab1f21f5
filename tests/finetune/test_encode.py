# SPDX-License-Identifier: Apache-2.0
"""Words, tags and characters survive tokenization, in every script."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from mlm_jax import vocabulary
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data, Task
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.sets import report_outside
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.finetune.tasks.span import token_span, without_spaces
from mlm_jax.finetune.tasks.texts import cut_pair, separators
from mlm_jax.tokenizers import load_tokenizer, word_piece

SHARED = Path(__file__).parents[3] / "shared" / "data"
# Latin, Devanagari, Han, Arabic, Thai, Cyrillic, Tamil, Hangul, kana and Han
FILES = {
    "de": "ntrex/deu.txt",
    "hi": "ntrex/hin.txt",
    "zh": "ntrex/zho-CN.txt",
    "fa": "ntrex/fas.txt",
    "th": "ntrex/tha.txt",
    "ru": "ntrex/rus.txt",
    "ta": "ntrex/tam.txt",
    "ko": "ntrex/kor.txt",
    "ja": "ntrex/jpn.txt",
}
SENTENCES = [
    "Die Katze saß auf der Matte, sagte Frau Müller-Lüdenscheidt.",
    "नई दिल्ली में आज ﬁ और ½ मिलीं।",
    "北京市位于中国北部，人口超过两千万。",
    "سلام دنیا، این یک آزمایش است.",
    "สวัสดีชาวโลก นี่คือการทดสอบ",
    "Ёлка стояла в углу; и́гры шли.",
    "東京タワーへ行きました。ガガーリン①",
]


def tokenizer_of(kind, texts, folder):
    if kind == "unigram":
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=written, vocab_size=2_000, hard_vocab_limit=False, byte_fallback=True,
            character_coverage=0.99, pad_id=0, eos_id=1, unk_id=2, bos_id=3, control_symbols=["<mask>"], minloglevel=2,
        )  # fmt: skip
        path = folder / "sentencepiece.model"
        path.write_bytes(written.getvalue())
    else:
        made = word_piece({"[UNK]": 0}, False)
        specials = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
        made.train_from_iterator(texts, trainer)
        path = folder / "tokenizer.json"
        path.write_text(made.to_str())
    return load_tokenizer(path), vocabulary.vocabulary_of_file(path)


def texts_of(language):
    path = SHARED / FILES[language]
    if not path.exists():
        pytest.skip("no ../shared/data")
    return path.read_text().splitlines()[:300]


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
@pytest.mark.parametrize("language", ["some", *FILES])
def test_tags_survive_in_every_script(tmp_path, kind, language):
    texts = SENTENCES if language == "some" else texts_of(language)
    tokenizer, words = tokenizer_of(kind, texts, tmp_path)
    # Where there are no spaces every character is a word; a word may also be nothing the tokenizer knows.
    split = [t.split() if t.count(" ") > 3 else [c for c in t if not c.isspace()] for t in texts]
    examples, labels = [], ("O", "B-X", "I-X", "B-Y")
    rng = np.random.default_rng(0)
    for i, sentence in enumerate(s for s in split if s):
        sentence = [*sentence, "\u200b", "\U000f0000"]
        tags = [labels[j] for j in rng.integers(0, 4, len(sentence))]
        examples.append(Example(f"x:{i}", sentence, None, tags, str(i)))
    made = TASKS["tag"].encode(examples, language, tokenizer, words, labels, Data(max_length=2_000))
    assert made.truncated == 0
    scores = [np.where(np.arange(4) == target[:, None], 9.0, 0.0) for target in made.targets]
    found = TASKS["tag"].decode(examples, made, scores, labels, {}, Task(kind="tag"))
    assert [p.value for p in found] == [e.label for e in examples]


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
@pytest.mark.parametrize("language", ["some", *FILES])
def test_characters_survive_in_every_script(tmp_path, kind, language):
    """A span of whole words, or of whole pieces where there are no spaces, is found again to the character."""
    texts = SENTENCES if language == "some" else texts_of(language)
    tokenizer, _ = tokenizer_of(kind, texts, tmp_path)
    rng = np.random.default_rng(0)
    tried = 0
    for text, (_, found) in zip(texts, tokenizer.encode_offsets(texts), strict=True):
        places = without_spaces(text, np.asarray(found, np.int64).reshape(-1, 2))
        # Pieces of more than one character's bytes or marks share their characters: borders are where none does.
        real = places[places[:, 0] < places[:, 1]]
        begins = [b for b in sorted(set(real[:, 0].tolist())) if not ((real[:, 0] < b) & (real[:, 1] > b)).any()]
        ends = [e for e in sorted(set(real[:, 1].tolist())) if not ((real[:, 0] < e) & (real[:, 1] > e)).any()]
        if text.count(" ") > 3 and kind == "unigram":
            spaces = [i for i, c in enumerate(text) if c.isspace()]
            whole = [i for i in range(len(text)) if not text[i].isspace() and (i == 0 or i - 1 in spaces)]
            # SentencePiece's pieces begin at spaces, so that every word does.
            assert set(whole) <= set(begins), text
        for _ in range(5):
            begin = int(rng.choice(begins))
            end = int(rng.choice([e for e in ends if e > begin]))
            span = token_span(places, begin, end)
            assert span is not None
            assert (places[span[0], 0], places[span[1], 1]) == (begin, end), (text, text[begin:end])
            tried += 1
    assert tried >= 5 * len(SENTENCES)


@given(st.lists(st.integers(), max_size=40), st.none() | st.lists(st.integers(), max_size=40), st.integers(2, 50))
@settings(deadline=None)
def test_pairs_are_cut_to_fit_the_longer_first(a, b, room):
    if len(a) + len(b or []) <= room:
        return
    x, y = cut_pair(a, b, room)
    assert len(x) + len(y or []) == room
    assert x == a[: len(x)] and (y is None) == (b is None) and (y is None or y == b[: len(y)])
    if b is not None and len(x) < len(a) and len(y) < len(b):
        assert abs(len(x) - len(y)) <= 1
    elif b is not None:
        cut, kept = (x, y) if len(x) < len(a) else (y, x)
        assert len(cut) >= len(kept) - 1  # the one that was cut is not shorter than the one that was not


def test_layout_and_truncation(tmp_path):
    tokenizer, words = tokenizer_of("unigram", SENTENCES, tmp_path)
    pair = Example("x:1", SENTENCES[0], SENTENCES[5], "yes", "1")
    made = TASKS["classify"].encode([pair], "de", tokenizer, words, ("no", "yes"), Data(max_length=20, pair="b"))
    ids = made.ids[0].tolist()
    assert len(ids) == 20 and made.truncated == 1 and made.targets == [1]
    assert ids[0] == words.bos and ids[-1] == words.eos
    first = ids.index(words.eos)
    assert ids[first : first + 2] == [words.eos] * 2  # </s></s>, as XLM-R
    assert made.types[0].tolist() == [0] * (first + 2) + [1] * (20 - first - 2)
    berts, cls = tokenizer_of("wordpiece", SENTENCES, tmp_path)
    ids = TASKS["classify"].encode([pair], "de", berts, cls, ("no", "yes"), Data(max_length=200)).ids[0].tolist()
    assert ids.count(cls.eos) == 2 and ids[0] == cls.bos


def test_windows_hold_every_token_and_answers_are_found_from_any(tmp_path):
    tokenizer, words = tokenizer_of("unigram", SENTENCES, tmp_path)
    context = " ".join(SENTENCES)
    answer = "Müller-Lüdenscheidt"
    question = Example("x:1", "Wer?", context, ((answer, context.index(answer)),), "1")
    data, task = Data(max_length=40, stride=16, max_question=8), Task(kind="span")
    span = TASKS["span"]
    made = span.encode([question], "de", tokenizer, words, (), data)
    assert len(made.ids) > 3 and max(map(len, made.ids)) <= 40
    tokens = tokenizer.encode([context])[0]
    seen = set()
    for ids, (head, begin) in zip(made.ids, made.starts, strict=True):
        assert ids[head:-1].tolist() == tokens[begin : begin + len(ids) - head - 1]
        seen |= set(range(begin, begin + len(ids) - head - 1))
    assert seen == set(range(len(tokens)))
    held = [i for i, target in enumerate(made.targets) if target != (0, 0)]
    assert held
    for i in held:
        scores = [np.zeros((len(ids), 2)) for ids in made.ids]
        begin, end = made.targets[i]
        scores[i][begin, 0] = scores[i][end, 1] = 5
        (found,) = span.decode([question], made, scores, (), {}, task)
        assert answer in found.value and found.value == context[slice(*found.place)]
        assert len(found.value) <= len(answer) + 2
    # Nothing scores above the begin of the text: SQuAD 2.0 has no answer then, SQuAD 1.1 has to give one.
    none = [np.zeros((len(ids), 2)) for ids in made.ids]
    for scores in none:
        scores[0] = 9
    unanswerable = dataclasses.replace(task, unanswerable=True)
    assert span.decode([question], made, none, (), {}, unanswerable)[0].value == ""
    assert span.decode([question], made, none, (), {}, task)[0].value != ""


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
@pytest.mark.parametrize("max_length", [40, 128, 384])
def test_by_default_every_answer_of_up_to_half_a_window_lies_whole_in_one(tmp_path, kind, max_length):
    tokenizer, words = tokenizer_of(kind, SENTENCES, tmp_path)
    context = " ".join(SENTENCES * 3)
    pieces = tokenizer.encode_offsets([context])[0]
    places = without_spaces(context, np.asarray(pieces[1], np.int64).reshape(-1, 2))
    question = "Wer? " * 30
    head = 8 + len([words.bos, words.eos]) + len(separators(tokenizer, words))
    longest = (max_length - head) // 2
    for first in range(0, len(places) - longest, 7):
        begin, end = int(places[first, 0]), int(places[first + longest - 1, 1])
        if begin >= end:
            continue
        example = Example("x:1", question, context, ((context[begin:end], begin),), "1")
        made = TASKS["span"].encode([example], "de", tokenizer, words, (), Data(max_length=max_length, max_question=8))
        assert not made.outside and any(target != (0, 0) for target in made.targets)


def test_what_loses_answers_is_refused_or_counted(tmp_path):
    span, task = TASKS["span"], Task(kind="span")
    with pytest.raises(
        UserError, match=r"data.stride: 128 in windows of 60 tokens .* use --data.stride 31 or less, or 0"
    ):
        span.check(Data(stride=128), task)
    for data in (Data(), Data(stride=31), Data(max_length=384, stride=128), Data(max_length=256, stride=128)):
        span.check(data, task)
    with pytest.raises(UserError, match=r"use --data.stride 287 or less"):
        span.check(Data(max_length=384, stride=300), task)
    span.check(Data(max_length=384, stride=287), task)
    tokenizer, words = tokenizer_of("unigram", SENTENCES, tmp_path)
    context = " ".join(SENTENCES)
    long, short, at = context[:400], SENTENCES[0][:3], len(SENTENCES[0])
    answers = [((long, 0),), ((long, 0), (short, 0)), (), ((context[at : at + 5], at),), (("", 0),)]
    examples = [Example(f"x:{i}", "Wer?", context, answer, str(i)) for i, answer in enumerate(answers)]
    made = span.encode(examples, "de", tokenizer, words, (), Data(max_length=40, max_question=8))
    assert made.outside == [0]  # the second has another answer that a window holds, the third has none
    report_outside("dev de", examples, made, Data(misplaced=0.2))
    with pytest.raises(
        UserError, match=r"dev de: 1 of 5 answers lie whole in no window of data.max_length 128 tokens, e.g. of x:0"
    ):
        report_outside("dev de", examples, made, Data())
    # The smallest stride that is refused does lose an answer of max_answer tokens, and the largest that is not loses none.
    most, room = 287, 384 - 64 - 4
    assert all(any(b <= first and first + 30 <= b + room for b in range(0, 1_000, most)) for first in range(900))
    assert not all(
        any(b <= first and first + 30 <= b + room for b in range(0, 1_000, most + 1)) for first in range(900)
    )
