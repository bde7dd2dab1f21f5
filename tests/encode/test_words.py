# SPDX-License-Identifier: Apache-2.0
"""Words are cut as they are in running text, and each has its pieces."""

import io
import random

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mlm_jax.encode.words import encode_words
from mlm_jax.prepare.vocabulary import round_scores
from mlm_jax.tokenizers import load_tokenizer, word_piece

# Latin, Devanagari, Han, Arabic with a joiner, Thai, Cyrillic with a combining accent, kana, Hangul
TEXTS = [
    "Die Katze saß auf der Matte , sagte Frau Müller-Lüdenscheidt .",
    "नई दिल्ली में आज ﬁ और ½ मिलीं ।",
    "北 京 市 位 于 中国 北部 ， 人口 超过 两千万 。",
    "سلام دنیا ، این می\u200cرود یک آزمایش است .",
    "สวัสดี ชาว โลก นี่ คือ การ ทดสอบ",
    "Ёлка стояла в углу ; и́гры шли .",
    "東京タワー へ 行き まし た 。 ガガーリン ①",
    "새해 복 많이 받으세요 !",
] * 8
ODD = ["\u3000", "\u200b", "10\u00a0000", "x\u200c", "\U000f0000", "New York", "#", "▁", "\u0301"]


def sentence_piece(folder, **options):
    written = io.BytesIO()
    options = {"vocab_size": 400, "hard_vocab_limit": False, "character_coverage": 1.0} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=3,
        **options,
    )
    path = folder / "sentencepiece.model"
    path.write_bytes(round_scores(written.getvalue()))  # so that ties are broken alike wherever a word stands
    return load_tokenizer(path)


def hugging_face(folder, made, trainer):
    made.train_from_iterator(TEXTS, trainer)
    (folder / "tokenizer.json").write_text(made.to_str())
    return load_tokenizer(folder / "tokenizer.json")


def byte_level(folder, **options):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, **options)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return hugging_face(
        folder, made, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )


def gemma(folder):
    """Spaces are ▁, none is put before a text, and pieces may cross them."""
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    return hugging_face(folder, made, trainer)


def wordpiece(folder):
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    return hugging_face(folder, word_piece({"[UNK]": 0}, False), trainer)


MARKED_BY_THE_SPACE = {
    "byte-level": byte_level,
    "no dummy prefix": lambda folder: sentence_piece(folder, add_dummy_prefix=False),
    "no dummy prefix, byte fallback": lambda folder: sentence_piece(
        folder, add_dummy_prefix=False, model_type="bpe", byte_fallback=True, character_coverage=0.98, vocab_size=500
    ),
}
ALONE_IS_THE_SAME = {
    "space as suffix": lambda folder: sentence_piece(folder, treat_whitespace_as_suffix=True),
    "unigram": sentence_piece,
    "bpe": lambda folder: sentence_piece(
        folder, model_type="bpe", byte_fallback=True, character_coverage=0.98, vocab_size=500
    ),
    "wordpiece": wordpiece,
}
CROSSES_SPACES = {
    "byte-level": lambda folder: byte_level(folder, use_regex=False),
    "gemma": gemma,
    "sentencepiece": lambda folder: sentence_piece(folder, split_by_whitespace=False, model_type="bpe"),
}
UNK = 2


@pytest.mark.parametrize("name", MARKED_BY_THE_SPACE)
def test_pieces_are_those_of_running_text(tmp_path, name):
    tokenizer = MARKED_BY_THE_SPACE[name](tmp_path)
    sentences = [text.split(" ") for text in TEXTS]
    found = encode_words(tokenizer, sentences, UNK)
    assert [[i for word in words for i in word] for words in found] == tokenizer.encode(TEXTS)
    # By themselves words are cut otherwise, which is what was wrong.
    alone = [tokenizer.encode(words) for words in sentences]
    assert alone != found


@pytest.mark.parametrize("name", ALONE_IS_THE_SAME)
def test_where_words_need_no_space_before_them_nothing_changes(tmp_path, name):
    tokenizer = ALONE_IS_THE_SAME[name](tmp_path)
    shuffled = random.Random(0)
    sentences = [text.split(" ") for text in TEXTS]
    sentences += [shuffled.sample([*ODD, *words], len(words)) for words in sentences]
    alone = [[ids or [UNK] for ids in tokenizer.encode(words)] for words in sentences]
    assert encode_words(tokenizer, sentences, UNK) == alone


@pytest.mark.parametrize("name", CROSSES_SPACES)
def test_words_that_share_a_piece_are_cut_one_by_one(tmp_path, name):
    tokenizer = CROSSES_SPACES[name](tmp_path)
    sentences = [text.split(" ") for text in TEXTS[:8]]
    crossing = tokenizer.encode([" ".join(words) for words in sentences])
    found = encode_words(tokenizer, sentences, UNK)
    assert [[i for word in words for i in word] for words in found] != crossing
    for words, pieces in zip(sentences, found, strict=True):
        assert len(pieces) == len(words) and all(pieces)


@pytest.mark.parametrize("name", [*MARKED_BY_THE_SPACE, *ALONE_IS_THE_SAME])
def test_every_word_has_a_place_and_its_own_pieces(tmp_path, name):
    tokenizer = (MARKED_BY_THE_SPACE | ALONE_IS_THE_SAME)[name](tmp_path)
    assert encode_words(tokenizer, [[], ["a"]], UNK)[0] == []
    for odd in ODD:
        before, (_, middle, after) = encode_words(tokenizer, [["Matte", "sagte"], ["Matte", odd, "sagte"]], UNK)
        assert middle and before[1] == after, odd


def test_a_sentence_has_the_spaces_that_it_was_written_with(tmp_path):
    tokenizer = byte_level(tmp_path)
    words = ["Die", "Katze", "saß", ".", "京", "都"]
    for text in ("Die Katze saß.京都", " Die  Katze saß. 京都 "):
        (found,) = encode_words(tokenizer, [words], UNK, [text])
        assert [i for word in found for i in word] == tokenizer.encode([text])[0]
        assert found[3] == tokenizer.encode(["."])[0]  # no space before it
    # Where the words are not those of the text, or share a piece in it, there is a space between any two.
    spaced = encode_words(tokenizer, [words], UNK)
    for text in ("Der Hund saß.京都", "Die Katze saß . 京", "Die Katze saß . 京都 ?"):
        assert encode_words(tokenizer, [words], UNK, [text]) == spaced
    words = ["Die", "Ma", "tte"]
    assert len(tokenizer.encode(["Die Matte"])[0]) == 2
    assert encode_words(tokenizer, [words, words], UNK, ["Die Matte", None]) == encode_words(
        tokenizer, [words] * 2, UNK
    )
