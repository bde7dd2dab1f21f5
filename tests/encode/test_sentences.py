# SPDX-License-Identifier: Apache-2.0
"""Sentences in batches of like lengths: every one once, and the vectors those of each sentence alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlm_jax import config as cfg
from mlm_jax.encode import rows
from mlm_jax.encode.read import read_pretrained
from mlm_jax.encode.run import frame
from mlm_jax.encode.sentences import make_embedder, prompt_of
from mlm_jax.errors import UserError
from mlm_jax.mesh import make_mesh
from mlm_jax.model.encoder import apply_encoder
from mlm_jax.model.task_head import pool
from mlm_jax.neutrality.vectors import make_vectors
from mlm_jax.pretrained import SentenceVectors
from mlm_jax.tokenizers import load_tokenizer
from mlm_jax.train.initial import read_initial, write_initial
from tests.finetune.toys import MODEL, make_start


@given(st.lists(st.integers(2, 70), max_size=80), st.integers(20, 300), st.integers(1, 4))
def test_every_sentence_is_in_one_row_that_holds_it(lengths, tokens, devices):
    batches = list(rows.by_length(lengths, tokens, devices))
    assert sorted(i for batch, _ in batches for [i] in batch) == list(range(len(lengths)))
    for batch, shape in batches:
        members = [i for [i] in batch]
        longest = max(lengths[i] for i in members)
        assert longest <= shape.length < longest + rows.MULTIPLE and shape.length % rows.MULTIPLE == 0
        assert 0 < len(members) <= shape.rows and shape.rows % devices == 0
        assert shape.rows * shape.length <= max(tokens, devices * shape.length)
    # The rows of a length are a function of it, so that there are no more programs than lengths.
    assert len({shape for _, shape in batches}) == len({shape.length for _, shape in batches})


def test_sentences_are_sorted_a_stretch_at_a_time(monkeypatch):
    monkeypatch.setattr(rows, "SORTED", 10)
    lengths = np.random.default_rng(0).integers(2, 60, 35).tolist()
    order = [i for batch, _ in rows.by_length(lengths, 128, 1) for [i] in batch]
    assert [i // 10 for i in order] == [i // 10 for i in range(35)]
    assert order[:10] == sorted(range(10), key=lambda i: -lengths[i])


def test_padding_is_little_where_there_are_many_sentences():
    lengths = np.random.default_rng(0).lognormal(np.log(34), 0.5, 2_000).astype(int).clip(4, 128).tolist()
    positions = sum(shape.rows * shape.length for _, shape in rows.by_length(lengths, 1_024, 1))
    assert sum(lengths) / positions > 0.88


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("pooling", ["first", "mean", "max"])
def test_vectors_are_those_of_each_sentence_alone(tmp_path, norm, pooling):
    model = dataclasses.replace(MODEL, norm=norm, embedding_norm=norm == "post")
    trained = read_pretrained(make_start(tmp_path / "run", model))
    tokenizer = load_tokenizer(tmp_path / "run/vocabulary")
    text = ["the film was great", "so", "Anna 1 2 3 4 5 6 7 8 9", "the film was great and so sad 1 2 3 4"]
    found = make_embedder(trained, tokenizer, make_mesh(cfg.Mesh()), SentenceVectors(pooling, 0, False), 24)(text, "en")
    encoder = trained.encoder("float32")
    for sentence, vector in zip(text, found, strict=True):
        ids = frame(tokenizer.encode([sentence])[0], trained.vocabulary, 24)[None]
        names = ("segment_ids", "positions", "language_ids", "token_types")
        ones, zeros = np.ones_like(ids), np.zeros_like(ids)
        batch = dict(zip(names, (ones, np.arange(ids.size, dtype=np.int32)[None], zeros, zeros), strict=True))
        hidden = np.asarray(apply_encoder(encoder, trained.params, batch | {"tokens": ids}))[0]
        wanted = {"first": hidden[0], "mean": hidden.mean(axis=0), "max": hidden.max(axis=0)}[pooling]
        np.testing.assert_allclose(vector, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("so", r"sentences: one str, not a list; put it into one: \['so'\]"),
        (b"so", "sentences: one bytes"),
        (None, "sentences: NoneType, not a list"),
        ({"so": 1}, "sentences: dict, not a list"),
        ({"so"}, "sentences: set, not a list"),
        (3, "sentences: int, not a list"),
        (["so", 3], r"sentences\[1\]: int, not a text"),
        (["so", None], r"sentences\[1\]: NoneType, not a text"),
        (["so", ["so"]], r"sentences\[1\]: list, not a text"),
        ([b"so"], r"sentences\[0\]: a text in bytes; decode it"),
        (["so", " \u3000"], r"sentences\[1\]: a text that is empty"),
        (["so\ud83d"], r"sentences\[0\]: half a surrogate pair"),
    ],
)
def test_what_is_no_list_of_sentences_is_refused(tmp_path, sentences, message):
    trained, tokenizer = read_pretrained(make_start(tmp_path / "run")), load_tokenizer(tmp_path / "run/vocabulary")
    embeds = [
        make_embedder(trained, tokenizer, make_mesh(cfg.Mesh()), SentenceVectors("mean", 0, False), 24),
        make_vectors(trained, tokenizer, make_mesh(cfg.Mesh()), 24, tmp_path).sentences,
    ]
    for embed in embeds:
        with pytest.raises(UserError, match=message):
            embed(sentences, "en")
    one, same = (embeds[0](given, "en") for given in (("so", "the"), np.array(["so", "the"])))
    np.testing.assert_array_equal(one, same)
    assert embeds[0]([], "en").shape == (0, 32)


def test_vectors_are_cut_then_normalised_and_a_prompt_stands_before_the_text(tmp_path):
    trained, tokenizer = read_pretrained(make_start(tmp_path / "run")), load_tokenizer(tmp_path / "run/vocabulary")

    def embedder(**how):
        return make_embedder(trained, tokenizer, make_mesh(cfg.Mesh()), SentenceVectors(**how), 24)

    plain = embedder(normalise=False)(["so sad", "the film"], "en")[:, :5]
    found = embedder(dimensions=5)(["so sad", "the film"], "en")
    np.testing.assert_allclose(found, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(embedder()(["film"], "en", "the "), embedder()(["the film"], "en"))
    with pytest.raises(UserError, match="dimensions: 33, the encoder's vectors have 32"):
        embedder(dimensions=33)


def test_pooling_takes_each_segment_of_a_row_by_itself():
    hidden = np.random.default_rng(0).normal(size=(1, 6, 4)).astype(np.float32)
    starts, segments = np.array([[0, 2, 0]]), np.array([[1, 1, 2, 2, 2, 0]])
    for how, reduce in (("mean", np.mean), ("max", np.max), ("first", lambda x, axis: x[0])):
        found = np.asarray(pool(hidden, starts, segments, how))
        assert found.shape == (1, 3, 4) and np.isfinite(found).all()
        for slot, part in enumerate((hidden[0, :2], hidden[0, 2:5])):
            np.testing.assert_allclose(found[0, slot], reduce(part, axis=0), atol=1e-6)


@pytest.mark.parametrize("vectors", [None, SentenceVectors("max", 1, False, {"query": "query: "}, 8)])
def test_how_an_encoder_makes_vectors_is_stored_with_it(tmp_path, vectors):
    made = dataclasses.replace(read_pretrained(make_start(tmp_path / "run")), vectors=vectors)
    write_initial(tmp_path / "other", made)
    assert read_initial(tmp_path / "other", words=made.vocabulary).vectors == vectors


def test_a_prompt_is_named_or_a_text():
    vectors = SentenceVectors(prompts={"query": "query: ", "none": ""})
    found = {given: prompt_of(vectors, given) for given in ("query", "none", "", "passage: ", "passage:")}
    assert found == {"query": "query: ", "none": "", "": "", "passage: ": "passage: ", "passage:": "passage:"}
    with pytest.raises(UserError, match=r"prompt: querry: no such prompt; did you mean query\?; there are query, none"):
        prompt_of(vectors, "querry")
