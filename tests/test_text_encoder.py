# SPDX-License-Identifier: Apache-2.0
"""`mlm_jax.load`: what an encoder says of texts, whatever it was loaded from, alone or beside others, and as transformers says it."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import linen as nn

import mlm_jax
from mlm_jax import config as cfg
from mlm_jax.model.encoder import example_batch, make_encoder
from mlm_jax.model.families import MBERT
from mlm_jax.prepare.vocabulary import train_vocabulary
from mlm_jax.pretrained import Pretrained
from mlm_jax.train.initial import write_initial
from mlm_jax.vocabulary import vocabulary_of_file, write_vocabulary
from tests.finetune.toys import MODEL, make_finetuned, make_start

MASKED = dataclasses.replace(MODEL, head="transform")
TEXTS = ["the film was so lovely", "Anna", "der Film war so übel und mies, so mies", "7 3 9 Otto"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_start(tmp_path_factory.mktemp("encoder") / "run", MASKED)


@pytest.fixture(scope="module")
def encoder(folder):
    return mlm_jax.load(folder)


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "hf"
    assert mlm_jax.export(folder, out) == str(out)
    return out


def test_it_says_what_it_is(encoder, folder):
    assert repr(encoder) == (
        f"TextEncoder('{folder}': 2 layers of width 32, {encoder.vocabulary.size} pieces, "
        f"{sum(leaf.size for leaf in jax.tree.leaves(encoder.params)):,} parameters, reads 64 tokens, with a head that fills masks)"
    )
    assert encoder.languages == ("de", "en") and encoder.mask == "<mask>"


def test_a_text_has_its_vector_whatever_stands_beside_it(encoder):
    together = encoder.embed(TEXTS)
    assert together.dtype == np.float32 and together.shape == (4, 32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(encoder.embed([text])[0], vector, atol=1e-6)
        [tokens] = encoder.hidden_states([text])
        mean = tokens.vectors.mean(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), vector, atol=1e-6)
    every = encoder.hidden_states(TEXTS, layer=1)
    for text, tokens in zip(TEXTS, every, strict=True):
        np.testing.assert_allclose(encoder.hidden_states([text], layer=1)[0].vectors, tokens.vectors, atol=1e-6)
        first = encoder.embed([text], layer=1, pooling="first", normalise=False)
        np.testing.assert_allclose(first[0], tokens.vectors[0], atol=1e-6)
    assert encoder.embed(["film"], dimensions=8).shape == (1, 8)
    assert not np.allclose(encoder.embed(["film"], prompt="query: "), encoder.embed(["film"]))
    assert encoder.embed([]).shape == (0, 32) and encoder.hidden_states([]) == []


def test_tokens_know_their_places(encoder):
    for text, tokens in zip(TEXTS, encoder.hidden_states(TEXTS), strict=True):
        assert len(tokens.pieces) == len(tokens.offsets) == len(tokens.vectors)
        assert (tokens.pieces[0], tokens.pieces[-1]) == ("<s>", "</s>")
        assert tokens.offsets[0].tolist() == [0, 0] and tokens.offsets[-1].tolist() == [len(text)] * 2
        for piece, (begin, end) in zip(tokens.pieces[1:-1], tokens.offsets[1:-1], strict=True):
            assert text[begin:end].strip() == piece.strip("▁") or piece == "<unk>"


def test_apply_is_a_pure_function_of_parameters(encoder):
    batch = encoder.batch(TEXTS)
    out = jax.jit(encoder.apply)(encoder.params, batch)
    for row, tokens in zip(out, encoder.hidden_states(TEXTS), strict=True):
        np.testing.assert_allclose(row[: len(tokens.pieces)], tokens.vectors, atol=2e-6)
    gradient = jax.grad(lambda params: encoder.apply(params, batch).std())(encoder.params)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    assert encoder.model.config.layers == 2


def test_masks_are_filled(encoder):
    rows = encoder.fill_mask("the <mask> was so [MASK]", best=3)
    assert [row["mask"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert all(a["probability"] >= b["probability"] for a, b in itertools.pairwise(rows[:3]))
    for row in rows:
        assert row["piece"] == encoder.piece(row["id"])
        rest = "the {} was so [MASK]" if row["mask"] == 0 else "the <mask> was so {}"
        begin, _, end = rest.partition("{}")
        assert row["text"].startswith(begin.rstrip()) and row["text"].endswith(end)
    whole = encoder.fill_mask("the <mask> was", best=encoder.vocabulary.size)
    assert sum(row["probability"] for row in whole) == pytest.approx(1, abs=1e-5)
    assert {row["id"] for row in whole} == set(range(encoder.vocabulary.size))
    assert next(row for row in whole if row["piece"] == "▁film")["text"] == "the film was"


def test_a_hugging_face_folder_is_the_same_encoder(encoder, exported):
    other = mlm_jax.load(exported)
    np.testing.assert_allclose(other.embed(TEXTS), encoder.embed(TEXTS), atol=1e-6)
    a, b = (e.fill_mask("the film was <mask>") for e in (encoder, other))
    assert [row["piece"] for row in a] == [row["piece"] for row in b] and other.path == str(exported)
    assert "with a head that fills masks" in repr(other)


def test_a_folder_of_sentence_transformers_says_how_vectors_are_made(encoder, folder, tmp_path):
    out = mlm_jax.export(
        folder, tmp_path / "out", {"as": "sentence-transformers", "pooling": "max", "normalise": "false"}
    )
    other = mlm_jax.load(out)
    wanted = encoder.embed(TEXTS, pooling="max", normalise=False)
    np.testing.assert_allclose(other.embed(TEXTS), wanted, atol=1e-6)
    np.testing.assert_allclose(other.embed(TEXTS, pooling="mean", normalise=True), encoder.embed(TEXTS), atol=1e-6)


def make_bert(folder):
    """A workdir that holds a random BERT and its WordPiece vocabulary."""
    name, content = train_vocabulary(cfg.Vocabulary(model="wordpiece", size=70), [*TEXTS, "7 3 9 Otto"] * 20)
    (folder / "vocabulary").mkdir(parents=True)
    (folder / "vocabulary" / name).write_bytes(content)
    words = vocabulary_of_file(folder / "vocabulary" / name)
    write_vocabulary(words, folder / "vocabulary")
    shape = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "positions": 64, "initializer_std": 0.1}
    model = dataclasses.replace(MBERT, next_sentence=False, pooler=False, **shape)
    params = make_encoder(model, words.size).init(
        jax.random.key(0), example_batch(8), np.zeros((1, 2), np.int32), method="features"
    )
    params = jax.tree.map(np.asarray, nn.meta.unbox(params)["params"])
    write_initial(folder, Pretrained(model, params, words, ("en",), str(folder)))
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["SentencePiece", "WordPiece"])
def test_masks_are_filled_as_transformers_does(folder, tmp_path, kind):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    here = folder if kind == "SentencePiece" else make_bert(tmp_path / "bert")
    encoder, exported = mlm_jax.load(here), mlm_jax.export(here, tmp_path / "hf")
    assert encoder.mask == ("<mask>" if kind == "SentencePiece" else "[MASK]")
    fill = transformers.pipeline("fill-mask", model=exported, top_k=10)
    for text in ("the <mask> was so lovely", "<mask> war so übel", "so <mask>", "Anna<mask> 7 <mask>, so", "f<mask>"):
        theirs = fill(text.replace("<mask>", encoder.mask))
        theirs = [theirs] if isinstance(theirs[0], dict) else theirs
        ours = encoder.fill_mask(text, best=10)
        for mask, rows in enumerate(theirs):
            mine = [row for row in ours if row["mask"] == mask]
            assert [row["id"] for row in mine] == [row["token"] for row in rows]
            np.testing.assert_allclose(
                [row["probability"] for row in mine], [row["score"] for row in rows], rtol=1e-4, atol=1e-6
            )


def test_a_fine_tuned_encoder_predicts(tmp_path):
    encoder = mlm_jax.load(
        make_finetuned(make_start(tmp_path / "start"), tmp_path / "run", "classify", labels=("good", "bad"))
    )
    assert "fine-tuned to classify" in repr(encoder)
    rows = encoder.predict(["the film was lovely", "awful"])
    assert [row["key"] for row in rows] == ["0", "1"] and all(row["predicted"] in ("good", "bad") for row in rows)
    with pytest.raises(mlm_jax.UserError, match=r"no output layer over the vocabulary \(it was fine-tuned\)"):
        encoder.fill_mask("the <mask>")


def test_languages_are_asked_for_where_the_encoder_embeds_them(tmp_path):
    model = dataclasses.replace(MASKED, language_embedding=True)
    encoder = mlm_jax.load(make_start(tmp_path / "run", model))
    de, en = (encoder.embed(["so"], language=x) for x in ("de", "en"))
    assert not np.allclose(de, en)
    with pytest.raises(mlm_jax.UserError, match="no language embedding for a text of no language; it has de, en"):
        encoder.embed(["so"])
    assert encoder.fill_mask("so <mask>", language="de") != encoder.fill_mask("so <mask>", language="en")


def test_texts_that_are_cut_are_counted(folder, capsys):
    encoder = mlm_jax.load(folder, max_length=6)
    [tokens] = encoder.hidden_states(["the film was so so so so so"])
    assert len(tokens.pieces) == 6
    assert "texts: 1 of 1 cut to 6 tokens" in capsys.readouterr().err
    encoder.embed(["the film", "was so"])
    assert capsys.readouterr().err == ""
    with pytest.raises(mlm_jax.UserError, match="text: 8 tokens, the encoder reads 6; shorten it"):
        encoder.fill_mask("the film was so so <mask>")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e: e.fill_mask("no hole"), "text: no <mask> in 'no hole'; put one where a piece is wanted"),
        (lambda e: e.fill_mask("a <mask>", best=0), "best: 0, the vocabulary has"),
        (lambda e: e.fill_mask(7), "text: int, not a text"),
        (lambda e: e.embed("one text"), r"texts: one str, not a list"),
        (lambda e: e.embed(["a", ""]), r"texts\[1\]: a text that is empty"),
        (lambda e: e.embed(["a"], layer=3), "layer: 3, the encoder has 2"),
        (lambda e: e.embed(["a"], pooling="min"), "pooling: min; use mean, first or max"),
        (lambda e: e.embed(["a"], prompt="query"), "prompt: query: no such prompt"),
        (lambda e: e.hidden_states(["a"], layer=9), "layer: 9, the encoder has 2"),
        (lambda e: e.predict(["a"]), "not fine-tuned; run: mlm-jax finetune CONFIG --init"),
        (lambda e: mlm_jax.load(f"{e.path}/no"), "no such folder; name a run's workdir"),
        (lambda e: mlm_jax.load(f"{e.path}/vocabulary"), "no checkpoints and no imported encoder there"),
        (lambda e: mlm_jax.load(e.path, max_length=65), "max_length: 65 is beyond the encoder's 64 positions"),
        (lambda e: mlm_jax.load(e.path, max_length=2), "max_length: 2 leaves no place between the specials"),
    ],
)
def test_bad_input_is_an_exception_of_one_line(encoder, ask, message):
    with pytest.raises(mlm_jax.UserError, match=message) as refused:
        ask(encoder)
    assert "\n" not in str(refused.value)


def test_encoders_that_fill_no_masks(tmp_path):
    for name, model, message in (
        ("bare", MODEL, "has no output layer over the vocabulary; load one that was pretrained"),
        ("causal", dataclasses.replace(MASKED, causal=True), "a causal model, which sees nothing behind a mask"),
    ):
        with pytest.raises(mlm_jax.UserError, match=message):
            mlm_jax.load(make_start(tmp_path / name, model)).fill_mask("so <mask>")
