# SPDX-License-Identifier: Apache-2.0
"""Where words begin, told from pieces, in scripts with and without spaces."""

import json
from dataclasses import replace

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mlm_jax import vocabulary, words
from mlm_jax.objectives import begins_word
from mlm_jax.tokenizers import load_tokenizer, word_piece


def divided(spelt, marks=("\u2581",), byte_level=False):
    """Pieces, joined by · within words."""
    pieces = spelt.split()
    first, last = np.array([words.classes_of_piece(p, p.startswith(marks), byte_level) for p in pieces]).T
    begins = begins_word(np.concatenate([[words.END], last[:-1]]), first)
    return "".join((" " if begin else "·") + piece for piece, begin in zip(pieces, begins, strict=True)).strip()


@pytest.mark.parametrize(
    ("spelt", "expected"),
    [
        # With spaces: the mark alone tells.
        ("▁Donau dampf schiff ▁fährt .", "▁Donau·dampf·schiff ▁fährt·."),
        ("▁https :// example .org / 12 3", "▁https·://·example·.org·/·12·3"),
        ("▁सू ची ▁खो ल ें", "▁सू·ची ▁खो·ल·ें"),
        ("▁한국 어 를", "▁한국·어·를"),
        # Han: each piece; the bare mark belongs to what follows.
        ("▁ 市场 鱼 海边 早晨", "▁·市场 鱼 海边 早晨"),
        ("▁打 开 2023 年 的 PDF 文件 。 再", "▁打 开 2023 年 的 PDF 文件 。 再"),
        # Kana: a run is a word, with its length mark and voicing marks.
        ("▁食 べ まし た が コン ピュ ー ター を", "▁食 べ·まし·た·が コン·ピュ·ー·ター を"),
        ("▁人 々 は", "▁人·々 は"),
        # Thai, Lao, Khmer, Burmese, Tibetan: each piece, and no syllable cut in two.
        ("▁ภาษา ไทย เ ป็น ภ า ษา", "▁ภาษา ไทย เ·ป็น ภ·า ษา"),
        ("▁ພາສາ ລາວ ໄ ດ້", "▁ພາສາ ລາວ ໄ·ດ້"),
        ("▁ភាសា ខ ្មែរ ក្ រ ុម", "▁ភាសា ខ·្មែរ ក្·រ·ុម"),
        ("▁မြန်မာ ဘာသာ စကား", "▁မြန်မာ ဘာသာ စကား"),
        ("▁བོད་ སྐད་ ཡིག", "▁བོད་ སྐད་ ཡིག"),
        # Byte pieces go on until the character is whole; 鱼 is E9 B1 BC, é is C3 A9.
        ("▁海 <0xE9> <0xB1> <0xBC> 边", "▁海 <0xE9>·<0xB1>·<0xBC> 边"),
        ("▁caf <0xC3> <0xA9> s", "▁caf·<0xC3>·<0xA9>·s"),
        # Models that mark the ends of words.
        ("wor d▁ an other▁", "wor·d▁ an·other▁"),
    ],
)
def test_words_of_pieces(spelt, expected):
    assert divided(spelt) == expected


def test_pieces_of_the_byte_level_alphabet():
    made = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = {"en": "word", "han": "鱼", "thai": "ไทย"}
    spelt = {name: made.pre_tokenize_str(content)[0][0] for name, content in text.items()}
    line = f"Ġa {spelt['en']} {spelt['han']} {spelt['thai']} {spelt['han'][:2]} {spelt['han'][2:]} Ċ {spelt['en']}"
    a, word, han, thai, part, rest = "Ġa", spelt["en"], spelt["han"], spelt["thai"], spelt["han"][:2], spelt["han"][2:]
    assert divided(line, ("Ġ",), True) == f"{a}·{word} {han} {thai} {part}·{rest} Ċ {word}"


def test_every_kind_of_tokenizer_gives_classes(tmp_path):
    with (tmp_path / "sentencepiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["市场鱼海边早晨市场孩子 a big word and words"] * 20),
            model_writer=file,
            vocab_size=300,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
            control_symbols=["<mask>"],
        )
    found = vocabulary.vocabulary_of_file(tmp_path / "sentencepiece.model")
    classes = vocabulary.word_classes(tmp_path, found)
    assert classes.shape == (2, found.size) and classes.dtype == np.uint8
    special = list(found.special_ids)
    assert (classes[0, special] == words.START).all() and (classes[1, special] == words.END).all()
    pieces = load_tokenizer(tmp_path).pieces
    assert classes[0, pieces.index("市")] == words.PIECE

    (tmp_path / "wordpiece").mkdir()
    ids = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "##ไทย"])}
    word_piece(ids, lowercase=False).save(str(tmp_path / "wordpiece" / "tokenizer.json"))
    found = vocabulary.vocabulary_of_file(tmp_path / "wordpiece" / "tokenizer.json")
    classes = vocabulary.word_classes(tmp_path / "wordpiece", replace(found, file="tokenizer.json"))
    assert classes[0, 5:].tolist() == [words.START, words.SPACED, words.PIECE]

    (tmp_path / "bytes").mkdir()
    alphabet = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(alphabet, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.save(str(tmp_path / "bytes" / "tokenizer.json"))
    assert json.loads((tmp_path / "bytes" / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    found = vocabulary.vocabulary_of_file(tmp_path / "bytes" / "tokenizer.json")
    classes = vocabulary.word_classes(tmp_path / "bytes", replace(found, file="tokenizer.json"))
    assert classes[0, alphabet["Ġ"]] == words.START and classes[0, alphabet["a"]] == words.SPACED
    lead, inner = (made.pre_tokenizer.pre_tokenize_str("鱼")[0][0][i] for i in (0, 1))
    assert classes[:, alphabet[lead]].tolist() == [words.PIECE, words.PIECE]
    assert classes[:, alphabet[inner]].tolist() == [words.JOIN, words.JOIN]
