# SPDX-License-Identifier: Apache-2.0
"""Tokenizers in Hugging Face folders give the ids that ours give."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece
from etils import epath

from mlm_jax import config as cfg
from mlm_jax import vocabulary
from mlm_jax.errors import UserError
from mlm_jax.interchange.tokenizer_files import export_tokenizer, from_sentencepiece, import_tokenizer
from mlm_jax.prepare import sample
from mlm_jax.prepare.vocabulary import train_vocabulary
from mlm_jax.tokenizers import load_tokenizer

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
    assert {**vars(words_again), "sha256": "", "file": ""} == {**vars(words), "sha256": "", "file": ""}
    assert load_tokenizer(tmp_path / "again").encode(texts) == ours


@pytest.mark.parity
@pytest.mark.parametrize("lowercase", [False, True])
def test_wordpiece_is_transformers_bert_tokenizer_in_every_language(tmp_path, sentences, lowercase):
    transformers = pytest.importorskip("transformers")
    folder, words = trained(tmp_path, sentences, model="wordpiece", lowercase=lowercase, size=5_000)
    ours = load_tokenizer(folder)
    (tmp_path / "vocab.txt").write_text("\n".join(ours.pieces) + "\n")
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    for language, texts in gnome_help():
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
