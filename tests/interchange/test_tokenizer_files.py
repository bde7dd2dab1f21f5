# SPDX-License-Identifier: Apache-2.0
"""Tokenizers in Hugging Face folders give the ids that ours give."""

import io
import json
import random
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from etils import epath
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers, processors

from mlm_jax import config as cfg
from mlm_jax import vocabulary
from mlm_jax.errors import UserError
from mlm_jax.finetune.config import Data
from mlm_jax.finetune.examples import Example
from mlm_jax.finetune.tasks import TASKS
from mlm_jax.interchange import agreement
from mlm_jax.interchange.character_map import map_steps, read_map
from mlm_jax.interchange.sentencepiece_json import from_sentencepiece
from mlm_jax.interchange.tokenizer_files import export_tokenizer, import_tokenizer
from mlm_jax.prepare import sample
from mlm_jax.prepare.vocabulary import round_scores, train_vocabulary
from mlm_jax.tokenizers import from_library, in_run, load_tokenizer, word_piece
from tests.corpora import make_workdir

GNOME = Path(__file__).parents[3] / "shared" / "data" / "gnome_help"
ODD = [
    "  two  spaces ",
    "a\tb",
    "line\nbreak",
    "",
    "emoji 😀 ok",
    " ﬁ ligature １２",
    "zero\u200bwidth",
    "a" * 300,
    "▁ under",
    "한국어 ㄱ",
    "মোট",  # a vowel in two parts, which NFKC joins
    "عدِّل",  # marks in another order than NFC's
]


@pytest.fixture(scope="module")
def sentences():
    pytest.importorskip("django")
    return [text for language in sample.sample_languages() for text in sample.sample_documents(language)]


def gnome_help():
    if not GNOME.exists():
        pytest.skip("shared/data is not there")
    for path in sorted(GNOME.glob("*.tsv")):
        yield path.stem, [line.split("\t", 1)[1] for line in path.read_text().splitlines() if "\t" in line]


def trained(tmp_path, sentences, **options):
    """A `vocabulary/` folder."""
    name, content = train_vocabulary(
        cfg.Vocabulary(**{"size": 4_000, "character_coverage": 0.99} | options), sentences[::4]
    )
    folder = epath.Path(tmp_path / "vocabulary")
    folder.mkdir()
    (folder / name).write_bytes(content)
    words = vocabulary.vocabulary_of_file(folder / name)
    vocabulary.write_vocabulary(words, folder)
    return folder, words


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_sentencepiece_model_as_json_gives_the_same_ids(tmp_path, sentences, model, byte_fallback):
    folder, _ = trained(tmp_path, sentences, model=model, byte_fallback=byte_fallback)
    texts = sentences[:: 1 if byte_fallback else 7] + ODD
    if GNOME.exists():
        texts += [text for _, found in gnome_help() for text in found[::40]]
    ours = load_tokenizer(folder).encode(texts)
    made = from_sentencepiece(folder / "sentencepiece.model")
    theirs = [found.ids for found in made.encode_batch(texts, add_special_tokens=False)]
    assert [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b] == []


SYMBOLS = ["<sep>", "①", "New York", "[ENT]", "\n", "foo", "ab", "▁▁"]
KINDS = [  # options of SentencePiece's trainer
    {},
    {"byte_fallback": True},
    {"normalization_rule_name": "identity"},
    {"normalization_rule_name": "identity", "byte_fallback": True},
    {"normalization_rule_name": "nfkc"},
    {"normalization_rule_name": "nfkc_cf"},
    {"normalization_rule_name": "nmt_nfkc_cf", "user_defined_symbols": SYMBOLS},
    {"user_defined_symbols": SYMBOLS, "byte_fallback": True},
    {"user_defined_symbols": SYMBOLS[:4], "add_dummy_prefix": False},
    {"split_by_whitespace": False},
    {"split_by_whitespace": False, "user_defined_symbols": SYMBOLS},
    {"treat_whitespace_as_suffix": True},
    {"treat_whitespace_as_suffix": True, "split_by_whitespace": False, "remove_extra_whitespaces": False},
    {"treat_whitespace_as_suffix": True, "user_defined_symbols": SYMBOLS},
    {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    {"remove_extra_whitespaces": False, "add_dummy_prefix": False, "normalization_rule_name": "identity"},
    {"split_digits": True, "split_by_unicode_script": False, "split_by_number": False},
    {
        "unk_piece": "[UNK]",
        "bos_piece": "[CLS]",
        "eos_piece": "[SEP]",
        "pad_id": 3,
        "control_symbols": ["<mask>", "<x>"],
    },
    {"bos_id": -1, "eos_id": -1},
]


def sentencepiece_model(path, seed=0, **options):
    """A small model of some kind, trained on text of many scripts; unigram scores are rounded as ours are."""
    model = io.BytesIO()
    words = [word for line in agreement.ODD for word in line.split()]
    choice = random.Random(seed).choices
    text = [*agreement.ODD[3:], *(" ".join(choice(words, k=6)) for _ in range(600))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.replace("\n", " ") for line in text),
        model_writer=model,
        **{"vocab_size": 1_200, "character_coverage": 0.98, "hard_vocab_limit": False, "minloglevel": 2, **options},
    )
    found = model.getvalue()
    path.write_bytes(round_scores(found) if options.get("model_type", "unigram") == "unigram" else found)
    return epath.Path(path)


def nasty_lines(count, seed=0):
    """Characters of all scripts, marks, controls, symbols and specials, in no order."""
    rng = random.Random(seed)
    pool = [*"".join(agreement.ODD), *SYMBOLS, *ODD, *map(chr, range(0x300, 0x346)), *map(chr, range(0x900, 0x970))]
    pool += [
        "<0x41>",
        "<mask>",
        "</s>",
        "＜ｓｅｐ＞",
        "<SEP>",
        *map(chr, range(0x1100, 0x1200)),
        *"  \t\n▁\u200d\u0345",
    ]
    return ["".join(rng.choices(pool, k=rng.randint(1, 25))) for _ in range(count)]


@pytest.mark.parametrize("model", ["unigram", "bpe", "char"])
@pytest.mark.parametrize("options", KINDS, ids=lambda options: ",".join(options) or "plain")
def test_every_kind_of_sentencepiece_model_is_equalled(tmp_path, model, options):
    path = sentencepiece_model(tmp_path / "sentencepiece.model", model_type=model, **options)
    texts = [*agreement.ODD, *ODD, *nasty_lines(400)]
    texts += [unicodedata.normalize("NFD", text) for text in texts]
    expected = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode(texts)
    found = from_library(from_sentencepiece(path)).encode(texts)
    assert [text for text, a, b in zip(texts, expected, found, strict=True) if a != b] == []


def test_normalisation_rules_of_ones_own_are_equalled(tmp_path):
    rules = [("ß", "ss"), ("foo", "bar"), ("A", "a"), ("é", ""), ("e\u0301\u0323", "ệ"), ("①", "foo"), ("ab", "ba")]
    lines = [" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) for a, b in rules]
    (tmp_path / "rules.tsv").write_text("\n".join(lines) + "\n")
    path = sentencepiece_model(tmp_path / "m.model", normalization_rule_tsv=str(tmp_path / "rules.tsv"))
    texts = [*agreement.ODD, "Aß foo①ab éé e\u0301\u0323 e\u0301 fooab", *nasty_lines(400)]
    expected = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode(texts)
    found = from_library(from_sentencepiece(path)).encode(texts)
    assert [text for text, a, b in zip(texts, expected, found, strict=True) if a != b] == []


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf"])
def test_the_character_map_is_sentencepieces_on_its_own_rules(tmp_path, rule):
    path = sentencepiece_model(
        tmp_path / "m.model", normalization_rule_name=rule, remove_extra_whitespaces=False, add_dummy_prefix=False
    )
    spec = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes()).normalizer_spec
    steps = normalizers.Sequence(map_steps(spec.precompiled_charsmap))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    texts = sorted(read_map(spec.precompiled_charsmap))[::23] + nasty_lines(2_000)
    assert [t for t in texts if steps.normalize_str(t).replace(" ", "▁") != theirs.normalize(t)] == []


def test_models_that_no_json_equals_are_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match=r"a model of whole words.*train another vocabulary"):
        from_sentencepiece(sentencepiece_model(tmp_path / "word.model", model_type="word"))
    path = sentencepiece_model(tmp_path / "m.model")
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    proto.pieces[20].type = proto.SentencePiece.UNUSED
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match="UNUSED"):
        from_sentencepiece(path)
    for content in (b"", b"\x08garbage"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a SentencePiece model"):
            from_sentencepiece(path)


def test_an_export_that_cuts_otherwise_is_refused_with_the_line(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path / "vocabulary")
    folder.mkdir()
    sentencepiece_model(folder / "sentencepiece.model", user_defined_symbols=["qqq"])
    words = vocabulary.vocabulary_of_file(folder / "sentencepiece.model")
    (tmp_path / "out").mkdir()
    assert export_tokenizer(folder, words, "xlm-roberta", 64, tmp_path / "out", ["a line"]) > len(agreement.ODD)
    monkeypatch.setattr("mlm_jax.interchange.sentencepiece_json._normalizers", lambda *_: [normalizers.Lowercase()])
    (tmp_path / "other").mkdir()
    with pytest.raises(
        UserError, match=r"cuts the line .* otherwise than .* from its token 0 on.*nothing was exported"
    ):
        export_tokenizer(folder, words, "xlm-roberta", 64, tmp_path / "other")


def test_export_compares_on_the_runs_own_corpus(tmp_path):
    workdir = epath.Path(make_workdir(tmp_path / "run", {"en": 40, "de": 3}).workdir)
    words = vocabulary.read_vocabulary(workdir / "vocabulary")
    lines = agreement.corpus_lines(workdir, words)
    assert len(lines) >= 40 and set("".join(lines)) <= set("abcdefghijklmnopqrstuvwxyz \u2047")
    assert agreement.corpus_lines(epath.Path(tmp_path), words) == []
    for shard in (tmp_path / "run" / "corpus").rglob("*en*/*.tfrecord-*"):
        shard.unlink()
    assert 0 < len(agreement.corpus_lines(workdir, words)) < len(lines)


def test_a_mask_that_is_an_ordinary_piece_keeps_its_id_and_the_mask_gets_another_name(tmp_path):
    folder = epath.Path(tmp_path / "vocabulary")
    folder.mkdir()
    sentencepiece_model(folder / "sentencepiece.model", user_defined_symbols=["<mask>", "<pad>"])
    words = vocabulary.vocabulary_of_file(folder / "sentencepiece.model")
    (tmp_path / "out").mkdir()
    export_tokenizer(folder, words, "bert", 64, tmp_path / "out")
    made = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    named = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert made.token_to_id(named["mask_token"]) == words.mask and named["mask_token"] == "<<mask>>"


@pytest.mark.parametrize("suffix", [".model", ".json"])
@pytest.mark.parametrize("model", ["unigram", "bpe", "char"])
def test_no_text_becomes_a_special(tmp_path, suffix, model):
    path = sentencepiece_model(tmp_path / "m.model", model_type=model, user_defined_symbols=["<sep>"], pad_id=3)
    made = from_sentencepiece(path)
    specials = [token.content for token in made.get_added_tokens_decoder().values()]
    if suffix == ".json":
        made.save(str(tmp_path / "m.json"))
    loaded = load_tokenizer(tmp_path / f"m{suffix}")
    special_ids = {made.token_to_id(name) for name in specials} - {made.token_to_id("<unk>")}
    for name in specials:
        for text in (name, f"a{name}b", f"<sep>{name}<sep>", f" {name} "):
            assert not special_ids & set(loaded.encode([text])[0]), text
    assert made.token_to_id("<sep>") in loaded.encode(["a<sep>"])[0]


@pytest.mark.parity
@pytest.mark.parametrize("options", [KINDS[6], KINDS[7], KINDS[12], KINDS[17], KINDS[18]], ids=lambda o: ",".join(o))
@pytest.mark.parametrize("model", ["unigram", "bpe", "char"])
def test_transformers_loads_every_kind_as_sentencepiece_cuts(tmp_path, options, model):
    transformers = pytest.importorskip("transformers")
    folder = epath.Path(tmp_path / "vocabulary")
    folder.mkdir()
    sentencepiece_model(folder / "sentencepiece.model", model_type=model, **options)
    words = vocabulary.vocabulary_of_file(folder / "sentencepiece.model")
    (tmp_path / "out").mkdir()
    export_tokenizer(folder, words, "xlm-roberta", 64, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    specials = [*theirs.all_special_tokens, "<x>"]
    texts = [t for t in [*agreement.ODD, *nasty_lines(300)] if not any(s in t for s in specials)]
    assert theirs(texts, add_special_tokens=False)["input_ids"] == load_tokenizer(folder).encode(texts)
    assert theirs("a")["input_ids"][0] == words.bos and theirs.mask_token_id == words.mask


@pytest.mark.parity
@pytest.mark.parametrize("model", ["unigram", "bpe", "wordpiece"])
def test_auto_tokenizer_reads_what_we_export(tmp_path, sentences, model):
    transformers = pytest.importorskip("transformers")
    folder, words = trained(tmp_path, sentences, model=model)
    out = tmp_path / "out"
    out.mkdir()
    export_tokenizer(folder, words, "bert" if model == "wordpiece" else "xlm-roberta", 64, out)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert (out / "sentencepiece.bpe.model").exists() == (model != "wordpiece")
    assert theirs.model_max_length == 64 and len(theirs) == words.size
    for role in ("pad", "unk", "mask"):
        assert getattr(theirs, f"{role}_token_id") == getattr(words, role)
    assert (theirs.cls_token_id, theirs.sep_token_id) == (words.bos, words.eos)
    texts = sentences[::97] + ODD
    ours = load_tokenizer(folder).encode(texts)
    assert theirs(texts)["input_ids"] == [[words.bos, *ids, words.eos] for ids in ours]
    assert theirs(f"a {theirs.mask_token}")["input_ids"].count(words.mask) == 1
    # And back.
    words_again = import_tokenizer(out, epath.Path(tmp_path / "again"), words.size)
    unlike = {"sha256": "", "file": "", "separators": 0}
    assert {**vars(words_again), **unlike} == {**vars(words), **unlike}
    assert words_again.separators == (1 if model == "wordpiece" else 2)
    assert load_tokenizer(tmp_path / "again").encode(texts) == ours


@pytest.mark.parity
@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.slow
def test_wordpiece_is_transformers_bert_tokenizer_in_every_language(tmp_path, sentences, lowercase):
    transformers = pytest.importorskip("transformers")
    folder, words = trained(tmp_path, sentences, model="wordpiece", lowercase=lowercase, size=5_000)
    # Ours also cuts scripts without spaces, which BERT's does not; a vocab.txt that is imported is cut as BERT's.
    source = tmp_path / "theirs"
    source.mkdir()
    (source / "vocab.txt").write_text("\n".join(load_tokenizer(folder).pieces) + "\n")
    (source / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    import_tokenizer(source, epath.Path(tmp_path / "imported"), words.size)
    ours = load_tokenizer(tmp_path / "imported")
    theirs = transformers.BertTokenizer(str(source / "vocab.txt"), do_lower_case=lowercase)
    for language, texts in gnome_help():
        # Scripts without spaces are cut otherwise: BERT makes a line of them one word.
        runs = {character for character in set("".join(texts)) if in_run(character)}
        texts = [text for text in texts if not runs & set(text)]
        expected = theirs(texts, add_special_tokens=False)["input_ids"]
        wrong = [t for t, a, b in zip(texts, ours.encode(texts), expected, strict=True) if a != b]
        assert wrong == [], language
    assert words.mask == theirs.mask_token_id


def test_wordpiece_spaces_cjk_and_keeps_or_drops_accents(tmp_path, sentences):
    folder, _ = trained(tmp_path, sentences, model="wordpiece", lowercase=True, size=5_000)
    ours = load_tokenizer(folder)
    assert ours.encode(["日本"]) == ours.encode(["日 本"])
    assert ours.encode(["É"]) == ours.encode(["e"])
    assert ours.encode(["[MASK]"])[0] != [ours.pieces.index("[MASK]")]


def test_training_a_wordpiece_vocabulary_is_deterministic_and_refuses_impossible_sizes(sentences):
    options = cfg.Vocabulary(model="wordpiece", size=4_000, character_coverage=0.99)
    assert train_vocabulary(options, sentences[:20_000]) == train_vocabulary(options, sentences[:20_000])
    with pytest.raises(UserError, match=r"vocabulary.size: 50 is less than .* the smallest possible is [\d,]+"):
        train_vocabulary(cfg.Vocabulary(model="wordpiece", size=50), sentences)
    with pytest.raises(UserError, match=r"more than the text can give; the largest possible is [\d,]+"):
        train_vocabulary(cfg.Vocabulary(model="wordpiece", size=1_000_000), sentences[:2_000])


def test_xlmr_ids_from_its_sentencepiece_model(tmp_path, sentences):
    model = io.BytesIO()  # with SentencePiece's own specials: <unk> <s> </s>
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences[:5_000]), model_writer=model, vocab_size=1_000, minloglevel=2
    )
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    words = import_tokenizer(tmp_path / "theirs", epath.Path(tmp_path / "run"), 1_002)
    assert (words.bos, words.pad, words.eos, words.unk, words.mask) == (0, 1, 2, 3, 1_001)
    own = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    texts = sentences[:5_000:50]
    expected = [[i + 1 if i else 3 for i in ids] for ids in own.encode(texts)]
    assert load_tokenizer(tmp_path / "run").encode(texts) == expected


def test_folders_without_a_tokenizer_or_with_too_large_a_one_are_refused(tmp_path, sentences):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(UserError, match="no tokenizer; put"):
        import_tokenizer(tmp_path / "theirs", epath.Path(tmp_path / "run"), 100)
    (tmp_path / "theirs" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
    with pytest.raises(UserError, match="the tokenizer has 6 pieces, the checkpoint 5"):
        import_tokenizer(tmp_path / "theirs", epath.Path(tmp_path / "run"), 5)
    words = import_tokenizer(tmp_path / "theirs", epath.Path(tmp_path / "other"), 9)
    assert words.size == 9 and set(range(6, 9)) <= set(words.special_ids)  # rows without a piece
    assert json.loads((tmp_path / "other" / "vocabulary.json").read_text())["mask"] == 4


PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "b",
    "x",
    "é",
    "É",
    "e",
    "E",
    "ä",
    "##é",
    "##e",
    "##a",
    "##b",
    "港",
    "町",
    "港町",
    "c",
    "##c",
    ",",
    ".",
    "[",
    "]",
    "<",
    ">",
    "/",
    "s",
    "mask",
    "##s",
]
TEXTS = [
    "a É e é b",
    "港町 港",
    "ä é ab",
    "a covidx b xcovidx COVIDX covidxs",
    "[X] a [MASK] [CLS]",
    "abc 港a町",
    "a<mask>b </s>",
]


def bert_folder(folder, settings=None, added=None, special=None, pieces=PIECES):
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    for name, content in (
        ("tokenizer_config.json", settings),
        ("added_tokens.json", added),
        ("special_tokens_map.json", special),
    ):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


ROW = len(PIECES)
TOKEN = {"content": "covidx", "lstrip": True, "rstrip": False, "single_word": True, "normalized": False}


@pytest.mark.parity
@pytest.mark.parametrize(
    ("settings", "added", "special"),
    [
        ({"do_lower_case": True}, None, None),
        ({"do_lower_case": False}, None, None),
        ({"do_lower_case": True, "strip_accents": False}, None, None),
        ({"do_lower_case": False, "strip_accents": True}, None, None),
        ({"do_lower_case": True, "tokenize_chinese_chars": False}, None, None),
        ({"do_lower_case": False}, {"covidx": ROW}, None),
        ({"do_lower_case": True}, {"covidx": ROW, "[X]": ROW + 1}, {"additional_special_tokens": ["[X]"]}),
        ({"do_lower_case": True, "added_tokens_decoder": {str(ROW): TOKEN | {"special": False}}}, None, None),
        ({"do_lower_case": False, "added_tokens_decoder": {str(ROW): TOKEN | {"special": True}}}, None, None),
        ({"do_lower_case": False}, None, {"additional_special_tokens": ["[X]"]}),
        (None, None, None),
    ],
)
def test_settings_of_a_vocab_txt_are_honoured_as_transformers_does(tmp_path, settings, added, special):
    transformers = pytest.importorskip("transformers")
    source = bert_folder(tmp_path / "theirs", settings, added, special)
    (source / "config.json").write_text('{"model_type": "bert"}')
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    words = import_tokenizer(source, epath.Path(tmp_path / "run"), len(theirs))
    special_tokens = [t.content for t in theirs.added_tokens_decoder.values() if t.special]
    texts = [text for text in TEXTS if not any(name in text for name in special_tokens)]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    ours = load_tokenizer(tmp_path / "run")
    assert ours.encode(texts) == expected
    assert not set(words.special_ids) - {words.unk} & {i for ids in ours.encode(special_tokens) for i in ids}
    assert (words.second_type, words.separators) == (1, 1)
    (tmp_path / "out").mkdir()
    export_tokenizer(epath.Path(tmp_path / "run"), words, "bert", 64, tmp_path / "out")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again(texts, add_special_tokens=False)["input_ids"] == expected
    assert again("a", "b")["token_type_ids"] == theirs("a", "b")["token_type_ids"]


@pytest.mark.parametrize(
    ("settings", "added", "said"),
    [
        ({"do_basic_tokenize": False}, None, "do_basic_tokenize False, which is not honoured"),
        ({"never_split": ["a"]}, None, "never_split"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, None, "BertJapaneseTokenizer"),
        ({"do_lower_case": "no"}, None, "do_lower_case is 'no'; make it true or false"),
        ({"mask_token": "a"}, None, "mask_token is 'a', an ordinary piece that text gives"),
        ({"mask_token": "[PAD]", "pad_token": "[PAD]"}, None, r"mask_token is '\[PAD\]', as pad_token is"),
        ({}, {"covidx": ROW + 7}, f"gives 'covidx' id {ROW + 7}, the tokenizer's next is {ROW}"),
    ],
)
def test_settings_that_are_not_honoured_are_refused_by_name(tmp_path, settings, added, said):
    source = bert_folder(tmp_path / "theirs", settings, added)
    with pytest.raises(UserError, match=said):
        import_tokenizer(source, epath.Path(tmp_path / "run"), 200)


def test_what_is_assumed_of_a_bare_vocab_txt_is_said(tmp_path, capsys):
    import_tokenizer(bert_folder(tmp_path / "theirs"), epath.Path(tmp_path / "run"), ROW)
    said = capsys.readouterr()
    assert "tokenizer_config.json is missing: text is lower-cased" in said.out + said.err
    assert "2 pieces of vocab.txt have capital letters" in said.out + said.err
    # What it advises is taken.
    (tmp_path / "theirs" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    import_tokenizer(tmp_path / "theirs", epath.Path(tmp_path / "other"), ROW)
    assert capsys.readouterr() == ("", "")
    assert load_tokenizer(tmp_path / "other").encode(["É"]) == [[PIECES.index("É")]]


def test_a_json_and_its_settings_that_disagree_are_refused(tmp_path):
    source = bert_folder(tmp_path / "theirs", {"do_lower_case": False})
    made = word_piece({piece: i for i, piece in enumerate(PIECES)}, lowercase=True)
    made.save(str(source / "tokenizer.json"))
    with pytest.raises(UserError, match=r"has do_lower_case false, tokenizer.json lowercase true; make them agree"):
        import_tokenizer(source, epath.Path(tmp_path / "run"), ROW)
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    import_tokenizer(source, epath.Path(tmp_path / "run"), ROW)


def test_added_tokens_beside_a_sentencepiece_model(tmp_path):
    source = tmp_path / "theirs"
    source.mkdir()
    path = sentencepiece_model(source / "sentencepiece.bpe.model")
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size() + 2
    (source / "added_tokens.json").write_text(json.dumps({"covidx": size, "<ent>": size + 1}))
    (source / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<ent>"]}))
    words = import_tokenizer(source, epath.Path(tmp_path / "run"), size + 2)
    ours = load_tokenizer(tmp_path / "run")
    assert (words.mask, words.second_type, words.separators) == (size - 1, 0, 2)
    assert size in ours.encode(["a covidx"])[0]
    for text in ("a<mask>b", "</s>", "<s> a <pad>", "<ent>"):
        assert not set(words.special_ids) - {words.unk} & set(ours.encode([text])[0]), text


@pytest.mark.parametrize(
    ("begin", "end", "second", "separators"),
    [("[CLS]", "[SEP]", 0, 1), ("[CLS]", "[SEP]", 1, 1), ("[CLS]", "[SEP]", 0, 2)],
)
def test_the_second_text_has_the_type_and_separators_of_the_folders_tokenizer(tmp_path, begin, end, second, separators):
    source = bert_folder(tmp_path / "theirs", {})
    made = word_piece({piece: i for i, piece in enumerate(PIECES)}, lowercase=True)
    ids = [(name, PIECES.index(name)) for name in (begin, end)]
    pair = [begin, "$A", *[end] * separators, f"$B:{second}", f"{end}:{second}"]
    made.post_processor = processors.TemplateProcessing(single=[begin, "$A", end], pair=pair, special_tokens=ids)
    made.save(str(source / "tokenizer.json"))
    words = import_tokenizer(source, epath.Path(tmp_path / "run"), ROW)
    assert (words.second_type, words.separators) == (second, separators)
    assert vocabulary.read_vocabulary(tmp_path / "run") == words
    examples = [Example("here", "a b", "b", None, "1")]
    data = Data(max_length=16)
    found = TASKS["classify"].encode(examples, "en", load_tokenizer(tmp_path / "run"), words, (), data)
    expected = made.encode("a b", "b")
    assert found.ids[0].tolist() == expected.ids and found.types[0].tolist() == expected.type_ids


@pytest.mark.parametrize(("family", "types"), [("bert", 2), ("xlm-roberta", 1)])
def test_exported_pairs_have_no_type_that_the_encoder_lacks(tmp_path, family, types):
    folder = epath.Path(tmp_path / "vocabulary")
    folder.mkdir()
    sentencepiece_model(folder / "sentencepiece.model")
    words = vocabulary.vocabulary_of_file(folder / "sentencepiece.model")
    (tmp_path / "out").mkdir()
    export_tokenizer(folder, words, family, 64, tmp_path / "out", token_types=types)
    made = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert made.encode("a", "b").type_ids[-1] == types - 1


def test_tokens_that_the_settings_add_to_a_json_are_compared_as_they_are_read(tmp_path):
    source = bert_folder(tmp_path / "theirs", {"added_tokens_decoder": {str(ROW): TOKEN | {"special": False}}})
    word_piece({piece: i for i, piece in enumerate(PIECES)}, lowercase=True).save(str(source / "tokenizer.json"))
    words = import_tokenizer(source, epath.Path(tmp_path / "run"), ROW + 1)
    assert ROW in load_tokenizer(tmp_path / "run").encode(["a covidx b"])[0]
    (tmp_path / "out").mkdir()
    export_tokenizer(epath.Path(tmp_path / "run"), words, "bert", 64, tmp_path / "out", ["a covidx b", "[MASK]"])
    kept = [(tmp_path / side / "tokenizer.json").read_bytes() for side in ("theirs", "out")]
    assert kept[0] == kept[1]


def test_a_mask_that_no_file_names_is_no_text_either(tmp_path):
    """As in folders of encoders that came without a head (e5)."""
    source = bert_folder(tmp_path / "theirs", {})
    made = word_piece({piece: i for i, piece in enumerate(PIECES)}, lowercase=False)
    made.pre_tokenizer = None  # so that [MASK] is one word
    made.save(str(source / "tokenizer.json"))
    assert made.encode("[MASK]", add_special_tokens=False).tokens == ["[MASK]"]
    words = import_tokenizer(source, epath.Path(tmp_path / "run"), ROW)
    assert words.mask == PIECES.index("[MASK]")
    assert load_tokenizer(tmp_path / "run").encode(["[MASK]"]) == [[words.unk]]
