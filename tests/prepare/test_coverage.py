# SPDX-License-Identifier: Apache-2.0
"""Text that a vocabulary cannot write is counted, said and refused; what normalisation takes away is chosen."""

import dataclasses
import random
import unicodedata
from collections import Counter

import pytest
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import manifest
from mlm_jax.coverage import characters, lost_characters, unknown_share, warn_unknown
from mlm_jax.errors import UserError
from mlm_jax.prepare import check
from mlm_jax.prepare.run import prepare_corpus, token_counts
from mlm_jax.prepare.vocabulary import train_vocabulary
from mlm_jax.report.run import sampling_text
from mlm_jax.sampling import sampling_table
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.vocabulary import read_vocabulary, vocabulary_of_file

# Syllables of languages that are written without spaces, and words of others, with the marks that lower case may cost.
SYLLABLES = {
    "th": ["ใหม่", "น้ำ", "ผึ้ง", "เมือง", "ตลาด", "ทะเล", "เช้า", "บ้าน", "ปลา", "ฝน"],
    "km": ["ភាសា", "ខ្មែរ", "ទឹក", "ផ្ទះ", "ក្រុង", "ថ្ងៃ", "មេឃ", "ត្រី", "ដើម", "ឈើ"],
    "lo": ["ພາສາ", "ລາວ", "ນ້ຳ", "ເຮືອນ", "ເມືອງ", "ປາ", "ຝົນ", "ຕົ້ນ", "ໄມ້", "ຟ້າ"],
    "my": ["မြန်မာ", "စာ", "ရေ", "အိမ်", "မြို့", "ငါး", "မိုး", "သစ်ပင်", "ကောင်း", "နေ့"],
    "nüshu": ["𛅰", "𛅱", "𛅲", "𛅳"],
    "khb": ["ᦑᦟᦹᧉ", "ᦺᦑ", "ᦀᦱ"],
    "tangut": ["𗼇", "𗟲", "𗫡"],
    "cuneiform": ["𒀭", "𒈗", "𒆠"],
    "dna": ["acgt", "tgca", "gg"],
    "ja": ["がくせい", "ポケット", "ビル", "ぎんこう", "たべる", "デパート", "わたし", "です", "ひと", "ペン"],
}
WORDS = {
    "hi": ["हिन्दी", "किताब", "नदी", "पानी", "मौसम", "लड़का", "शहर", "घर", "आज", "कल"],
    "fa": ["می\u200cروم", "کتاب\u200cها", "خانه\u200cای", "آب", "شهر", "ماهی", "درخت", "باران", "روز", "شب"],
    "vi": ["tiếng", "Việt", "nước", "Nhà", "thành", "phố", "cá", "mưa", "cây", "trời"],
}


def sentences(language, count, seed=0):
    rng = random.Random(seed)
    spaceless = language in SYLLABLES
    parts = SYLLABLES.get(language) or WORDS[language]
    return [("" if spaceless else " ").join(rng.choices(parts, k=rng.randint(20, 60))) for _ in range(count)]


def trained(folder, texts, **options):
    options = cfg.Vocabulary(**{"size": 400, "character_coverage": 1.0, "byte_fallback": False} | options)
    for _ in range(2):  # again with the size that is possible
        try:
            name, content = train_vocabulary(options, texts)
            break
        except UserError as e:
            possible = int(str(e).split("possible is ")[1].split(";")[0].replace(",", ""))
            options = dataclasses.replace(options, size=possible)
    (folder / name).write_bytes(content)
    return load_tokenizer(folder / name), vocabulary_of_file(folder / name)


def lost(tokenizer, vocabulary, texts):
    found = [
        lost_characters(tokenizer, vocabulary, t, ids) for t, ids in zip(texts, tokenizer.encode(texts), strict=True)
    ]
    return sum(found, Counter()).total() / sum(characters(text).total() for text in texts)


@pytest.mark.parametrize("language", SYLLABLES)
def test_wordpiece_writes_scripts_without_spaces(tmp_path, language):
    tokenizer, vocabulary = trained(tmp_path, sentences(language, 300), model="wordpiece")
    unseen = sentences(language, 40, seed=1)
    tokens = tokenizer.encode(unseen)
    assert lost(tokenizer, vocabulary, unseen) == 0
    assert not any(vocabulary.unk in ids for ids in tokens)
    # And not a character at a time.
    assert sum(map(len, tokens)) < 0.7 * sum(map(len, unseen))


@pytest.mark.parametrize(
    ("model", "normalization", "kept"),
    [
        ("unigram", "nfkc_cf", True),
        ("bpe", "identity", True),
        ("unigram", "nfkc", True),
        ("wordpiece", "nfkc_cf", True),
        ("wordpiece", "identity", True),
        ("wordpiece", "lowercase", False),  # BERT's uncased
    ],
)
def test_normalisation_is_chosen_and_lower_case_may_keep_marks(tmp_path, model, normalization, kept):
    texts = {name: sentences(name, 100) for name in ("hi", "th", "ja", "fa", "vi")}
    everything = [text for found in texts.values() for text in found]
    options = {"lowercase": True} if normalization == "lowercase" else {"normalization": normalization}
    tokenizer, vocabulary = trained(tmp_path, everything, model=model, size=600, **options)
    for name, found in texts.items():
        assert (lost(tokenizer, vocabulary, found) == 0) == kept, name
    spelt = tokenizer.decode(tokenizer.encode(["Nhà Việt"])[0])
    assert (spelt.strip() == unicodedata.normalize("NFKC", "nhà việt")) == (kept and normalization.endswith("_cf"))


def test_what_is_normalised_away_counts(tmp_path):
    texts = [text.replace(" ", "\u00ad ") for text in sentences("vi", 100)]
    tokenizer, vocabulary = trained(tmp_path, texts, model="wordpiece")
    share = 1 - characters("".join(sentences("vi", 100))).total() / characters("".join(texts)).total()
    assert lost(tokenizer, vocabulary, texts) == pytest.approx(share)


@pytest.mark.parametrize("text", ["\u00ad", "\u200b\u200b", "\u200b \ufeff", "\u2060"])
def test_a_language_of_which_normalisation_leaves_nothing_is_refused(tmp_path, text):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "vi.txt").write_text("\n".join(sentences("vi", 200)) + "\n")
    (tmp_path / "text" / "xx.txt").write_text("".join(f"{text * (i % 90 + 1)}\n" for i in range(3_000)))
    trained(tmp_path, sentences("vi", 200), model="unigram", normalization="nmt_nfkc")
    with pytest.raises(
        UserError, match=r"cannot write the text of xx \(100.0 %.*drop the language|language xx: only white space"
    ):
        prepare_corpus(config_of(tmp_path, cfg.Vocabulary(path=str(tmp_path / "sentencepiece.model"))))


def test_the_share_is_of_tokens_or_of_characters():
    assert unknown_share(5, 10, 0, 100) == 0.5  # an <unk> for each character of a few
    assert unknown_share(1, 100, 90, 100) == 0.9  # one for a whole line


def config_of(folder, vocabulary, **data):
    return cfg.Config(
        workdir=str(folder / "run"),
        data=cfg.Data(
            **{
                "sources": (cfg.Source("*", f"{folder}/text/{{language}}.txt"),),
                "sequence_length": 32,
                "validation_fraction": 0.1,
                "workers": 1,
            }
            | data
        ),
        vocabulary=vocabulary,
    )


def test_a_script_that_the_vocabulary_does_not_know_is_refused_and_others_are_said(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "vi.txt").write_text("\n".join(sentences("vi", 200)) + "\n")
    _, _ = trained(tmp_path, sentences("vi", 200), model="unigram", normalization="identity")
    model = str(tmp_path / "sentencepiece.model")
    mixed = [text.replace("cây", "ខ្មែរ") for text in sentences("vi", 200, seed=2)]
    (tmp_path / "text" / "mix.txt").write_text("\n".join(mixed) + "\n")
    made = prepare_corpus(config_of(tmp_path, cfg.Vocabulary(path=model)))
    unknown = {s.name: s.train.unknown for s in made.streams}
    assert unknown["vi"] == 0 and 0.05 < unknown["mix"] < 0.5
    check.warn(made.streams)
    said = capsys.readouterr().err
    assert (
        "cannot write all text of mix (" in said and "U+17" in said and "vi (" not in said and "mlm-jax adapt" in said
    )
    rows = sampling_table(config_of(tmp_path, cfg.Vocabulary(path=model)), made.streams)
    words = read_vocabulary(tmp_path / "run" / "vocabulary")
    shown = {line.split()[0]: line.split() for line in sampling_text("tokens", rows).splitlines()[2:]}
    for stream in made.streams:
        split = stream.train
        counts = token_counts(epath.Path(tmp_path, "run", "corpus"), split.shards, words.size)
        unk, ordinary = int(counts[words.unk]), int(counts[words.ordinary_ids].sum())
        assert split.unk == unk / (unk + ordinary) and (split.unk > 0) == (stream.name == "mix")
        assert shown[stream.name][3:6] == [f"{split.bytes / split.tokens:.2f}", f"{100 * split.unk:.1f}", "%"]
    assert manifest.read_manifest(f"{tmp_path}/run/corpus") == made

    (tmp_path / "text" / "km.txt").write_text("\n".join(sentences("km", 200)) + "\n")
    config = dataclasses.replace(config_of(tmp_path, cfg.Vocabulary(path=model)), workdir=f"{tmp_path}/two")
    with pytest.raises(UserError, match=r"cannot write the text of km \(100.0 %: .*vocabulary.most_unknown"):
        prepare_corpus(config)
    assert not list(epath.Path(tmp_path, "two").glob("corpus/*/*.tfrecord*"))  # before anything is encoded
    # Both pieces of advice work.
    anyway = dataclasses.replace(config, vocabulary=cfg.Vocabulary(path=model, most_unknown=1.0))
    assert {s.name for s in prepare_corpus(anyway).streams} == {"km", "mix", "vi"}
    sources = tuple(cfg.Source(x, f"{tmp_path}/text/{x}.txt") for x in ("mix", "vi"))
    dropped = config_of(tmp_path, cfg.Vocabulary(path=model), sources=sources)
    assert len(prepare_corpus(dataclasses.replace(dropped, workdir=f"{tmp_path}/three")).streams) == 2


def test_other_commands_say_so_too(capsys):
    warn_unknown("xx", [[5, 2, 2], [7]], 2)
    assert "warning: xx: 50.0 % of the tokens are <unk>" in capsys.readouterr().err
    warn_unknown("xx", [[5] * 200, [2], []], 2)
    warn_unknown("xx", [], 2)
    assert not capsys.readouterr().err
